/* SPDX-License-Identifier: MIT
 *
 * witness: how many blocks of the writes to a DRBD device changed while they were in flight, between the moment DRBD
 * took a write and the moment it completed it to whoever wrote. Changes nothing of what is written.
 *
 *   witness --minor N [--writes N] [--hooks drbd|block]
 *
 * A write begins and ends where it can be seen, nearest to DRBD's own reading of it first:
 *
 *   drbd     in drbd_send_and_submit and complete_master_bio, which DRBD 8.4 and 9 have; DRBD's module needs BTF
 *   block    at the block layer's tracepoints, under any DRBD: a change while the write waits for its turn in front of
 *            DRBD or for room in its activity log counts too
 *
 * Attaches witness.bpf.o, which is embedded, and prints one line:
 *
 *   ready BEGIN END SECONDS      the functions or tracepoints it is attached to, and how long that took
 *   unwatched SENTENCE           why it cannot watch here; it then ends with 1
 *
 * It watches until SIGTERM, SIGINT or the end of its standard input, then prints one line of JSON and ends. Blocks are
 * the 4 KiB blocks of the DRBD device:
 *
 *   begin, end                   as above
 *   writes, bytes, block_writes  watched from their beginning to their end; a write counts in each block that it touches
 *   changed_writes, changed_block_writes     those of them whose data was another at the end
 *   changed_blocks               how many blocks of the device those were
 *   changed                      which: [first, count] pairs, in order; at most EXTENTS_MAX
 *   not_watched                  writes by the reason: "too_long" (of more than BYTES_MAX bytes), "unreadable" (memory
 *                                that the kernel does not map), "no_room" (more in flight than --writes, counted as of
 *                                256 KiB), "begin_unseen", "end_unseen", "in_flight" (not completed yet)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "witness.h"
#include "witness_said.h"

enum { SECTORS_PER_BLOCK = 8, EXTENTS_MAX = 65536, WRITES_DEFAULT = 32768, DRBD_MAJOR = 147 };

__asm__(".section .rodata\n"
        ".global witness_object, witness_object_end\n"
        ".balign 8\n"
        "witness_object: .incbin \"" BPF_OBJECT "\"\n"
        "witness_object_end:\n"
        ".previous\n");
extern const char witness_object[], witness_object_end[];

/* Where a write can be seen to begin and to end: programs of witness.bpf.c, and the functions or tracepoints that they
 * are attached to. */
static const struct hooks {
    const char *name;
    const char *programs[2];
    const char *places[2];
} all_hooks[] = {
    {"drbd", {"begins_in_drbd", "ends_in_drbd"}, {"drbd_send_and_submit", "complete_master_bio"}},
    {"block", {"begins_in_block_layer", "ends_in_block_layer"}, {"block_bio_queue", "block_bio_complete"}},
};
enum { BEGIN, END, DRBD = 0, BLOCK, HOOKS };

/* ---------------------------------------------------------------------------------------------- what the kernel has */

static uint64_t device_blocks(unsigned minor)
{
    char path[64];
    uint64_t sectors = 0;

    snprintf(path, sizeof path, "/sys/class/block/drbd%u/size", minor);
    FILE *file = fopen(path, "re");
    if (!file)
        unwatched("there is no device drbd%u here: the module drbd is not loaded or the resource is down", minor);
    if (fscanf(file, "%" SCNu64, &sectors) != 1 || !sectors)
        unwatched("the size of drbd%u cannot be read, or it has none yet", minor);
    fclose(file);
    return (sectors + SECTORS_PER_BLOCK - 1) / SECTORS_PER_BLOCK;
}

/* Where the kernel has the variables that the BPF program reads. By hand: there are a quarter of a million lines
 * "ADDRESS TYPE NAME", and emulated nodes. */
static void find_memory(struct settings *settings)
{
    const char *const names[] = {"vmemmap_base", "page_offset_base"};
    __u64 *addresses[] = {&settings->vmemmap_base, &settings->page_offset_base};
    FILE *file = fopen("/proc/kallsyms", "re");
    char *line = NULL;
    size_t size = 0;

    if (!file)
        unwatched("/proc/kallsyms cannot be read: %s", strerror(errno));
    while ((!*addresses[0] || !*addresses[1]) && getline(&line, &size, file) > 0) {
        char *type = strchr(line, ' '), *name = type ? strchr(type + 1, ' ') : NULL;
        size_t length = name ? strcspn(++name, "\t\n") : 0;
        for (int i = 0; i < 2; i++)
            if (length == strlen(names[i]) && !strncmp(name, names[i], length))
                *addresses[i] = strtoull(line, NULL, 16);
    }
    free(line);
    fclose(file);
    if (!*addresses[0] || !*addresses[1])
        unwatched("this kernel does not tell where its memory is mapped (vmemmap_base, page_offset_base)");
}

static int member_offset(const struct btf *btf, int structure, const char *name)
{
    const struct btf_type *type = structure > 0 ? btf__type_by_id(btf, structure) : NULL;

    for (int i = 0; type && i < btf_vlen(type); i++)
        if (!strcmp(btf__name_by_offset(btf, btf_members(type)[i].name_off), name))
            return btf_member_bit_offset(type, i) / 8;
    return -1;
}

/* Which argument of FUNCTION is a pointer to STRUCTURE. */
static int pointer_argument(const struct btf *btf, int function, int structure)
{
    const struct btf_type *type = function > 0 ? btf__type_by_id(btf, btf__type_by_id(btf, function)->type) : NULL;

    for (int i = 0; type && i < btf_vlen(type); i++) {
        const struct btf_type *argument = btf__type_by_id(btf, btf_params(type)[i].type);
        if (btf_is_ptr(argument) && (int)argument->type == structure)
            return i;
    }
    return -1;
}

/* From the BTF of DRBD's module: where drbd_send_and_submit gets its request, and where that has the bio. */
static bool find_request(struct settings *settings)
{
    struct btf *kernel = btf__load_vmlinux_btf(), *drbd = kernel ? btf__load_module_btf("drbd", kernel) : NULL;
    int request = drbd ? btf__find_by_name_kind(drbd, "drbd_request", BTF_KIND_STRUCT) : -1;
    int submit = drbd ? btf__find_by_name_kind(drbd, all_hooks[DRBD].places[BEGIN], BTF_KIND_FUNC) : -1;
    int argument = pointer_argument(drbd, submit, request), bio = member_offset(drbd, request, "master_bio");

    btf__free(drbd);
    btf__free(kernel);
    settings->request_argument = argument;
    settings->master_bio = bio;
    return (argument == 0 || argument == 1) && bio >= 0;
}

/* ------------------------------------------------------------------------------------------------- load and attach */

static struct bpf_link *links[2];

static void detach(void)
{
    for (int i = BEGIN; i <= END; i++) {
        bpf_link__destroy(links[i]);
        links[i] = NULL;
    }
}

static struct bpf_map *map(struct bpf_object *object, const char *name)
{
    struct bpf_map *found = bpf_object__find_map_by_name(object, name);
    if (!found)
        unwatched("the BPF program has no map '%s'", name);
    return found;
}

/* The object with the programs of HOOKS loaded and attached, or NULL; libbpf has said why. */
static struct bpf_object *load(const struct hooks *hooks, const struct settings *settings, uint64_t blocks,
                               unsigned writes)
{
    struct bpf_object *object = bpf_object__open_mem(witness_object, witness_object_end - witness_object, NULL);
    struct bpf_program *program;

    if (!object)
        unwatched("libbpf does not understand the BPF program: %s", said);
    bpf_object__for_each_program(program, object)
    {
        const char *name = bpf_program__name(program);
        int end = !strcmp(name, hooks->programs[END]);
        bool wanted = end || !strcmp(name, hooks->programs[BEGIN]);
        bpf_program__set_autoload(program, wanted);
        if (wanted && bpf_program__type(program) == BPF_PROG_TYPE_TRACING &&
            bpf_program__set_attach_target(program, 0, hooks->places[end]))
            goto failed;
    }
    if (bpf_map__set_initial_value(map(object, ".rodata.settings"), settings, sizeof *settings) ||
        bpf_map__set_max_entries(map(object, "in_flight"), writes) ||
        bpf_map__set_max_entries(map(object, "chunks"), writes) ||
        bpf_map__set_max_entries(map(object, "changed"), (blocks + 63) / 64))
        unwatched("the maps of the BPF program cannot be sized: %s", said);
    if (bpf_object__load(object))
        goto failed;
    /* The end first: a write that begins in between is seen whole. */
    for (int i = END; i >= BEGIN; i--) {
        links[i] = bpf_program__attach(bpf_object__find_program_by_name(object, hooks->programs[i]));
        if (!links[i])
            goto failed;
    }
    return object;
failed:
    detach();
    bpf_object__close(object);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ watch and report */

static void wait_for_the_end(void)
{
    sigset_t ends;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    struct pollfd sources[2] = {{.fd = signalfd(-1, &ends, SFD_CLOEXEC), .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    char ignored[256];
    for (;;) {
        if (poll(sources, 2, -1) < 0 && errno != EINTR)
            return;
        if (sources[0].revents)
            return;
        if (sources[1].revents && read(0, ignored, sizeof ignored) <= 0)
            return;
    }
}

static uint64_t entries(int fd)
{
    uint64_t key, next, found = 0;

    for (void *at = NULL; !bpf_map_get_next_key(fd, at, &next); at = &key) {
        key = next;
        found++;
    }
    return found;
}

/* Prints "changed" and returns how many blocks there are; WORDS of 64 blocks. */
static uint64_t print_changed(int fd, uint32_t words)
{
    uint64_t blocks = 0, first = 0, run = 0;
    unsigned extents = 0;

    printf("\"changed\": [");
    for (uint32_t word = 0; word <= words; word++) {
        uint64_t bits = 0;
        if (word < words)
            bpf_map_lookup_elem(fd, &word, &bits);
        for (unsigned bit = 0; bit < 64; bit++) {
            if (bits >> bit & 1) {
                if (!run++)
                    first = 64 * (uint64_t)word + bit;
                continue;
            }
            if (run && extents++ < EXTENTS_MAX)
                printf("%s[%" PRIu64 ", %" PRIu64 "]", extents > 1 ? ", " : "", first, run);
            blocks += run;
            run = 0;
            if (!bits)
                break;
        }
    }
    printf("], ");
    return blocks;
}

static void print_report(struct bpf_object *object, const struct hooks *hooks, uint64_t blocks)
{
    static const char *const names[COUNTERS] = {
        [WRITES] = "writes", [BYTES] = "bytes", [BLOCK_WRITES] = "block_writes", [CHANGED_WRITES] = "changed_writes",
        [CHANGED_BLOCK_WRITES] = "changed_block_writes", [TOO_LONG] = "too_long", [UNREADABLE] = "unreadable",
        [NO_ROOM] = "no_room", [BEGIN_UNSEEN] = "begin_unseen", [END_UNSEEN] = "end_unseen",
    };
    uint64_t values[COUNTERS] = {0};
    int counters = bpf_map__fd(map(object, "counters"));

    for (uint32_t counter = 0; counter < COUNTERS; counter++)
        bpf_map_lookup_elem(counters, &counter, &values[counter]);
    printf("{\"begin\": \"%s\", \"end\": \"%s\", ", hooks->places[BEGIN], hooks->places[END]);
    for (int counter = WRITES; counter < TOO_LONG; counter++)
        printf("\"%s\": %" PRIu64 ", ", names[counter], values[counter]);
    printf("\"changed_blocks\": %" PRIu64 ", ", print_changed(bpf_map__fd(map(object, "changed")), (blocks + 63) / 64));
    printf("\"not_watched\": {");
    for (int counter = TOO_LONG; counter < COUNTERS; counter++)
        printf("\"%s\": %" PRIu64 ", ", names[counter], values[counter]);
    printf("\"in_flight\": %" PRIu64 "}}\n", entries(bpf_map__fd(map(object, "in_flight"))));
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static bool number(const char *text, unsigned long least, unsigned long most, unsigned *value)
{
    char *end;
    errno = 0;
    unsigned long read = strtoul(text, &end, 10);
    *value = read;
    return !errno && *text >= '0' && *text <= '9' && !*end && read >= least && read <= most;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"minor", required_argument, NULL, 'm'},
                                            {"writes", required_argument, NULL, 'w'},
                                            {"hooks", required_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    unsigned minor = 0, writes = WRITES_DEFAULT, first = DRBD, last = BLOCK;
    bool minor_given = false, usable = true;
    double began = now();

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'm':
            usable &= minor_given = number(optarg, 0, (1ul << 20) - 1, &minor);
            break;
        case 'w':
            usable &= number(optarg, 1, 1ul << 22, &writes);
            break;
        case 'h':
            for (first = 0; first < HOOKS && strcmp(optarg, all_hooks[first].name); first++)
                ;
            last = first;
            usable &= first < HOOKS;
            break;
        default:
            usable = false;
        }
    if (!usable || !minor_given || optind < argc) {
        fprintf(stderr, "usage: witness --minor N [--writes N] [--hooks drbd|block]\n");
        return 2;
    }
    libbpf_set_print(keep_message);
    uint64_t blocks = device_blocks(minor);
    if (access("/sys/kernel/btf/vmlinux", R_OK))
        unwatched("this kernel has no BTF (/sys/kernel/btf/vmlinux): it was built without CONFIG_DEBUG_INFO_BTF");
    if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_FUNC_loop, NULL) != 1)
        unwatched("this kernel has no bpf_loop, which came with Linux 5.17");
    struct settings settings = {.major = DRBD_MAJOR, .minor = minor};
    find_memory(&settings);
    struct bpf_object *object = NULL;
    const struct hooks *hooks = NULL;
    for (unsigned i = first; i <= last && !object; i++) {
        hooks = &all_hooks[i];
        if (i == DRBD && !find_request(&settings))
            snprintf(said, sizeof said, "DRBD's module has no BTF, or not these functions");
        else
            object = load(hooks, &settings, blocks, writes);
    }
    if (!object)
        unwatched("the BPF program cannot be attached to %s and %s: %s", hooks->places[BEGIN], hooks->places[END], said);
    printf("ready %s %s %.2f\n", hooks->places[BEGIN], hooks->places[END], now() - began);
    fflush(stdout);
    wait_for_the_end();
    detach();
    print_report(object, hooks, blocks);
    bpf_object__close(object);
    return 0;
}

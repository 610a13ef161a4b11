/* SPDX-License-Identifier: MIT
 *
 * witness: how many blocks of the writes to a DRBD device changed while they were in flight, between the moment DRBD
 * took a write and the moment it completed it to whoever wrote. Changes nothing of what is written.
 *
 *   witness --minor N [--writes N] [--hook submit|prepare|queue]
 *
 * A write begins where the running DRBD and kernel let it be seen, nearest to DRBD's own reading first:
 *
 *   submit     drbd_send_and_submit, whose struct drbd_request is known where DRBD's module has BTF
 *   prepare    drbd_request_prepare of DRBD 8.4: a change while DRBD makes room in its activity log counts too
 *   queue      the block layer's tracepoint, any DRBD: so does one while the write waits for its turn in front of DRBD
 *
 * and ends in complete_master_bio, or with "queue" at the block layer's tracepoint.
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
#include <stdarg.h>
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

enum { SECTORS_PER_BLOCK = 8, EXTENTS_MAX = 65536, WRITES_DEFAULT = 32768, DRBD_MAJOR = 147 };

__asm__(".section .rodata\n"
        ".global witness_object, witness_object_end\n"
        ".balign 8\n"
        "witness_object: .incbin \"" BPF_OBJECT "\"\n"
        "witness_object_end:\n"
        ".previous\n");
extern const char witness_object[], witness_object_end[];

/* Where a write can be seen to begin and to end. */
struct hook {
    const char *program;
    const char *function; /* or tracepoint */
    bool tracepoint;
};

struct hooks {
    struct hook begin, end;
};

enum { SUBMIT, PREPARE, QUEUE, ANY };
static const char *const hook_names[] = {"submit", "prepare", "queue"};

/* What libbpf said last; the end of it is the reason why something failed. */
static char said[256];

static int keep_message(enum libbpf_print_level level, const char *format, va_list arguments)
{
    if (level == LIBBPF_WARN) {
        vsnprintf(said, sizeof said, format, arguments);
        said[strcspn(said, "\n")] = 0;
    }
    return 0;
}

__attribute__((format(printf, 1, 2), noreturn)) static void unwatched(const char *format, ...)
{
    va_list arguments;

    printf("unwatched ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    exit(1);
}

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

enum symbol { REQUEST_PREPARE, SEND_AND_SUBMIT, COMPLETE_MASTER_BIO, VMEMMAP_BASE, PAGE_OFFSET_BASE, SYMBOLS };
static const char *const symbols[SYMBOLS] = {"drbd_request_prepare", "drbd_send_and_submit", "complete_master_bio",
                                             "vmemmap_base", "page_offset_base"};

/* Where the kernel and its modules have what is in "symbols"; 0 for what they have not. By hand and in one go: there
 * are a quarter of a million lines "ADDRESS TYPE NAME[\tMODULE]", and emulated nodes. */
static void look_up(uint64_t addresses[SYMBOLS])
{
    FILE *file = fopen("/proc/kallsyms", "re");
    char *line = NULL;
    size_t size = 0;

    if (!file)
        unwatched("/proc/kallsyms cannot be read: %s", strerror(errno));
    memset(addresses, 0, SYMBOLS * sizeof *addresses);
    while (getline(&line, &size, file) > 0) {
        char *type = strchr(line, ' '), *name = type ? strchr(type + 1, ' ') : NULL;
        if (!name)
            continue;
        size_t length = strcspn(++name, "\t\n");
        for (int i = 0; i < SYMBOLS; i++)
            if (!strncmp(name, symbols[i], length) && !symbols[i][length])
                addresses[i] = strtoull(line, NULL, 16);
    }
    free(line);
    fclose(file);
}

/* Find in the BTF of DRBD's module where drbd_send_and_submit gets its request and where that has the bio. */
static bool find_request(struct settings *settings)
{
    struct btf *kernel = btf__load_vmlinux_btf(), *module = kernel ? btf__load_module_btf("drbd", kernel) : NULL;
    bool argument = false, member = false;

    int request = module ? btf__find_by_name_kind(module, "drbd_request", BTF_KIND_STRUCT) : -1;
    int function = module ? btf__find_by_name_kind(module, "drbd_send_and_submit", BTF_KIND_FUNC) : -1;
    if (request > 0) {
        const struct btf_type *type = btf__type_by_id(module, request);
        const struct btf_member *members = btf_members(type);
        for (int i = 0; i < btf_vlen(type); i++)
            if (!strcmp(btf__name_by_offset(module, members[i].name_off), "master_bio")) {
                settings->master_bio = btf_member_bit_offset(type, i) / 8;
                member = true;
            }
    }
    if (function > 0) {
        const struct btf_type *prototype = btf__type_by_id(module, btf__type_by_id(module, function)->type);
        const struct btf_param *parameters = btf_params(prototype);
        for (int i = 0; i < btf_vlen(prototype) && i < 2; i++) {
            const struct btf_type *type = btf__type_by_id(module, parameters[i].type);
            if (btf_is_ptr(type) && (int)type->type == request) {
                settings->request_argument = i + 1;
                argument = true;
            }
        }
    }
    btf__free(module);
    btf__free(kernel);
    return argument && member;
}

/* Nearest to DRBD's own reading of the data first; only WANTED unless that is ANY. */
static struct hooks choose_hooks(int wanted, struct settings *settings)
{
    const struct hook completion = {"ends_at_completion", symbols[COMPLETE_MASTER_BIO], false};
    uint64_t addresses[SYMBOLS];

    look_up(addresses);
    settings->vmemmap_base = addresses[VMEMMAP_BASE];
    settings->page_offset_base = addresses[PAGE_OFFSET_BASE];
    if (!settings->vmemmap_base || !settings->page_offset_base)
        unwatched("this kernel does not say where its memory is mapped (vmemmap_base, page_offset_base)");
    if (addresses[COMPLETE_MASTER_BIO]) {
        if ((wanted == ANY || wanted == SUBMIT) && addresses[SEND_AND_SUBMIT] && find_request(settings))
            return (struct hooks){{"begins_at_submit", symbols[SEND_AND_SUBMIT], false}, completion};
        if ((wanted == ANY || wanted == PREPARE) && addresses[REQUEST_PREPARE])
            return (struct hooks){{"begins_at_prepare", symbols[REQUEST_PREPARE], false}, completion};
    }
    if (wanted != ANY && wanted != QUEUE)
        unwatched("this DRBD or this kernel does not have what '--hook %s' needs", hook_names[wanted]);
    return (struct hooks){{"begins_at_queue", "block_bio_queue", true}, {"ends_at_endio", "block_bio_complete", true}};
}

/* ------------------------------------------------------------------------------------------------- load and attach */

static struct bpf_map *map(struct bpf_object *object, const char *name)
{
    struct bpf_map *found = bpf_object__find_map_by_name(object, name);
    if (!found)
        unwatched("the BPF program has no map '%s'", name);
    return found;
}

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
        bpf_program__set_autoload(program, !strcmp(name, hooks->begin.program) || !strcmp(name, hooks->end.program));
    }
    if (bpf_map__set_initial_value(map(object, ".rodata.settings"), settings, sizeof *settings) ||
        bpf_map__set_max_entries(map(object, "in_flight"), writes) ||
        bpf_map__set_max_entries(map(object, "chunks"), writes) ||
        bpf_map__set_max_entries(map(object, "changed"), (blocks + 63) / 64))
        unwatched("the maps of the BPF program cannot be sized: %s", said);
    int error = bpf_object__load(object);
    if (error)
        unwatched("the kernel does not take the BPF program (%s): %s", strerror(-error), said);
    return object;
}

static struct bpf_link *attach(struct bpf_object *object, const struct hook *hook)
{
    struct bpf_program *program = bpf_object__find_program_by_name(object, hook->program);
    struct bpf_link *link = hook->tracepoint ? bpf_program__attach_raw_tracepoint(program, hook->function)
                                             : bpf_program__attach_kprobe(program, false, hook->function);
    if (!link)
        unwatched("the BPF program cannot be attached to %s: %s", hook->function, strerror(errno));
    return link;
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
    printf("{\"begin\": \"%s\", \"end\": \"%s\", ", hooks->begin.function, hooks->end.function);
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
                                            {"hook", required_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    unsigned minor = 0, writes = WRITES_DEFAULT;
    bool minor_given = false, usable = true;
    int wanted = ANY;
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
            for (wanted = 0; wanted < ANY && strcmp(optarg, hook_names[wanted]); wanted++)
                ;
            usable &= wanted < ANY;
            break;
        default:
            usable = false;
        }
    if (!usable || !minor_given || optind < argc) {
        fprintf(stderr, "usage: witness --minor N [--writes N] [--hook submit|prepare|queue]\n");
        return 2;
    }
    libbpf_set_print(keep_message);
    uint64_t blocks = device_blocks(minor);
    if (access("/sys/kernel/btf/vmlinux", R_OK))
        unwatched("this kernel has no BTF (/sys/kernel/btf/vmlinux): it was built without CONFIG_DEBUG_INFO_BTF");
    if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_KPROBE, BPF_FUNC_loop, NULL) != 1)
        unwatched("this kernel has no bpf_loop, which came with Linux 5.17");
    struct settings settings = {.major = DRBD_MAJOR, .minor = minor};
    struct hooks hooks = choose_hooks(wanted, &settings);
    struct bpf_object *object = load(&hooks, &settings, blocks, writes);
    /* The end first: a write that begins in between is seen whole. */
    struct bpf_link *end = attach(object, &hooks.end), *begin = attach(object, &hooks.begin);
    printf("ready %s %s %.2f\n", hooks.begin.function, hooks.end.function, now() - began);
    fflush(stdout);
    wait_for_the_end();
    bpf_link__destroy(begin);
    bpf_link__destroy(end);
    print_report(object, &hooks, blocks);
    bpf_object__close(object);
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * canary: keeps checksummed records in memory and on a disk, and says of each record on the disk when it was told that
 * it is safe. It lives through migrations; after a crash its records say what was lost of what it was promised.
 *
 *   canary run --device PATH --first-block N --blocks N --port PATH --run ID [--mebibytes M] [--pid-file PATH]
 *   canary check --device PATH --first-block N --blocks N --run ID
 *
 * The region (blocks of 4 KiB) has three equal parts, one for each way of writing: "fsync" (buffered, then fdatasync),
 * "dsync" (O_DSYNC) and "direct" (O_DIRECT and O_DSYNC). Each is a ring: record S, counted from 1, is in slot
 * (S - 1) % slots. A way writes its next record only after the one before is safe.
 *
 * "run" zeroes the region, goes to the background once a record of each way is safe, and works until SIGTERM. It
 * writes lines to the port; MS is CLOCK_MONOTONIC in milliseconds:
 *
 *   ack WAY S MS                                     the record is safe, the kernel says
 *   error WAY S ERRNO TEXT                           it could not be written; this way writes no more
 *   tick MS CHECKED WRONG                            every 200 ms: looks at records in memory, and wrong ones
 *   memory INDEX EXPECTED FOUND checksum-ok|checksum-wrong     a wrong one, by generation; at most 20 lines
 *   done CHECKED WRONG                               after SIGTERM, when everything in memory was looked at once more
 *
 * Each line ends with the CRC-32 of "RUN LINE" (RUN as 16 hexadecimal digits): a line that was torn, or is another
 * run's, is known as such.
 *
 * "check" prints "WAY SLOT ok S", "WAY SLOT wrong S" (this run's record, damaged or not where it belongs) or
 * "WAY SLOT foreign" for each slot that is not all zero.
 *
 * Ends with 1 and a sentence when something fails, with 2 when it was called wrongly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "canary_memory.h"
#include "canary_port.h"
#include "canary_record.h"

/* ------------------------------------------------------------------------------------------------------ the disk */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int safe;
    char trouble[128];
} first_records = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void first_record(const char *name, int error)
{
    pthread_mutex_lock(&first_records.lock);
    first_records.safe += !error;
    if (error)
        snprintf(first_records.trouble, sizeof first_records.trouble, "the first %s record: %s", name,
                 strerror(error));
    pthread_cond_signal(&first_records.changed);
    pthread_mutex_unlock(&first_records.lock);
}

/* 0 once the record is safe, else the errno. A short write is none. */
static int put(const struct way *way, uint64_t slot)
{
    off_t at = (off_t)((asked.first + way->index * asked.slots + slot) * BLOCK);
    ssize_t wrote;
    do
        wrote = pwrite(way->file, way->buffer, BLOCK, at);
    while (wrote < 0 && errno == EINTR);
    if (wrote != BLOCK)
        return wrote < 0 ? errno : EIO;
    while (way->flush && fdatasync(way->file))
        if (errno != EINTR)
            return errno;
    return 0;
}

static void *write_records(void *argument)
{
    const struct way *way = argument;
    for (uint64_t number = 1; !stopping; number++) {
        uint64_t slot = (number - 1) % asked.slots;
        compose(way->buffer, DISK_MAGIC, way->index, slot, number);
        int error = put(way, slot);
        if (error) {
            /* Not tried again: after an error a flush that succeeds says nothing about what failed before. */
            say(1, "error %s %" PRIu64 " %d %s", way->name, number, error, strerror(error));
        } else {
            say(1, "ack %s %" PRIu64 " %" PRIu64, way->name, number, now_ms());
        }
        if (number == 1)
            first_record(way->name, error);
        if (error)
            break;
        pause_for(RECORD_PAUSE_MS);
    }
    return NULL;
}

/* ----------------------------------------------------------------------------------------------------------- run */

static void start(pthread_t *thread, void *(*work)(void *), void *argument)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    int error = pthread_create(thread, &small, work, argument);
    if (error)
        fail("start a thread: %s", strerror(error));
}

/* The background: works until SIGTERM. `parent` waits for "ready", or for what went wrong instead. */
__attribute__((noreturn)) static void live(int port, int pid_file, int parent)
{
    const struct timespec tick = { TICK_MS / 1000, TICK_MS % 1000 * 1000000L };
    struct timespec last_words;
    pthread_t writer, changer;
    sigset_t ending, all;

    complaints = parent;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    all = ending;
    sigaddset(&all, SIGHUP);
    sigprocmask(SIG_BLOCK, &all, NULL);

    /* The guest agent waits until nobody holds the standard files any more. A group of its own, so that it does not end
     * with "timeout", but no session of its own: the scheduler's autogroup goes by sessions, and a sleeper alone in one
     * was seen to get nothing for as long as other sessions kept the machine busy. */
    int null = open("/dev/null", O_RDWR);
    if (setpgid(0, 0) || null < 0)
        fail("go to the background: %s", strerror(errno));
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    if (null > 2)
        close(null);
    if (ftruncate(pid_file, 0) || dprintf(pid_file, "%d\n", (int)getpid()) < 0)
        fail("write %s: %s", asked.pid_file, strerror(errno));

    make_memory();
    for (int i = 0; i < WAYS; i++)
        ways[i].buffer = pages(BLOCK);
    start(&writer, write_port, &port);
    start(&changer, change_memory, NULL);
    for (int i = 0; i < WAYS; i++)
        start(&ways[i].thread, write_records, &ways[i]);

    pthread_mutex_lock(&first_records.lock);
    while (first_records.safe < WAYS && !first_records.trouble[0])
        pthread_cond_wait(&first_records.changed, &first_records.lock);
    if (first_records.trouble[0])
        fail("%s", first_records.trouble);
    pthread_mutex_unlock(&first_records.lock);
    if (write(parent, "ready\n", 6) != 6)
        fail("nobody waits for the canary");
    close(parent);

    while (sigtimedwait(&ending, NULL, &tick) < 0)
        say(0, "tick %" PRIu64 " %" PRIuFAST64 " %" PRIuFAST64, now_ms(), atomic_load(&memory_checked),
            atomic_load(&memory_wrong));

    stopping = 1;
    pthread_mutex_lock(&queue.lock);
    pthread_cond_broadcast(&queue.emptied);
    pthread_mutex_unlock(&queue.lock);
    for (int i = 0; i < WAYS; i++)
        pthread_join(ways[i].thread, NULL);
    pthread_join(changer, NULL);
    for (uint64_t index = 0; index < memory_records; index++)
        look_at(index);
    say(0, "done %" PRIuFAST64 " %" PRIuFAST64, atomic_load(&memory_checked), atomic_load(&memory_wrong));
    pthread_mutex_lock(&queue.lock);
    queue.closed = 1;
    pthread_cond_signal(&queue.filled);
    pthread_mutex_unlock(&queue.lock);
    clock_gettime(CLOCK_REALTIME, &last_words);
    last_words.tv_sec += LAST_WORDS_SECONDS;
    pthread_timedjoin_np(writer, NULL, &last_words);
    unlink(asked.pid_file);
    _exit(0);
}

static void open_device(struct way *way)
{
    way->file = open(asked.device, O_RDWR | O_CLOEXEC | way->flags);
    if (way->file < 0)
        fail("open %s for %s: %s", asked.device, way->name, strerror(errno));
}

static void check_size(int file)
{
    off_t size = lseek(file, 0, SEEK_END);
    if (size < 0 || (uint64_t)size / BLOCK < asked.first + asked.blocks)
        fail("%s has no block %" PRIu64 ": it is too small", asked.device, asked.first + asked.blocks - 1);
}

static void clear_region(int file)
{
    static char zeros[CHUNK_BLOCKS * BLOCK];
    off_t at = (off_t)(asked.first * BLOCK), end = at + (off_t)(asked.blocks * BLOCK);
    while (at < end) {
        size_t left = (size_t)(end - at);
        ssize_t wrote = pwrite(file, zeros, left < sizeof zeros ? left : sizeof zeros, at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            fail("clear %s: %s", asked.device, wrote ? strerror(errno) : "nothing was written");
        at += wrote;
    }
    if (fdatasync(file))
        fail("clear %s: %s", asked.device, strerror(errno));
}

static int run(void)
{
    int ends[2], port, pid_file;
    char answer[640] = "";
    size_t have = 0;
    ssize_t got;

    for (int i = 0; i < WAYS; i++)
        open_device(&ways[i]);
    check_size(ways[0].file);
    port = open(asked.port, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (port < 0)
        fail("open %s: %s", asked.port, strerror(errno));
    pid_file = open(asked.pid_file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (pid_file < 0)
        fail("open %s: %s", asked.pid_file, strerror(errno));
    if (flock(pid_file, LOCK_EX | LOCK_NB))
        fail("lock %s: %s", asked.pid_file, errno == EWOULDBLOCK ? "there is a canary already" : strerror(errno));
    clear_region(ways[0].file);

    if (pipe2(ends, O_CLOEXEC))
        fail("make a pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        fail("fork: %s", strerror(errno));
    if (child == 0) {
        close(ends[0]);
        live(port, pid_file, ends[1]);
    }
    close(ends[1]);
    while (have < sizeof answer - 1 && (got = read(ends[0], answer + have, sizeof answer - 1 - have)) != 0) {
        if (got < 0 && errno != EINTR)
            break;
        have += got > 0 ? (size_t)got : 0;
    }
    if (!strcmp(answer, "ready\n"))
        return 0;
    fputs(*answer ? answer : "canary: it ended before its first records were safe\n", stderr);
    return 1;
}

/* --------------------------------------------------------------------------------------------------------- check */

static int all_zero(const struct record *record)
{
    const uint64_t *words = (const uint64_t *)record;
    for (size_t i = 0; i < WORDS; i++)
        if (words[i])
            return 0;
    return 1;
}

static void judge(const struct record *record, const struct way *way, uint64_t slot)
{
    if (all_zero(record))
        return;
    if (record->magic != DISK_MAGIC || record->run != asked.run) {
        printf("%s %" PRIu64 " foreign\n", way->name, slot);
        return;
    }
    int good = record->checksum == checksum_of(record) && record->way == way->index && record->place == slot &&
               record->number && (record->number - 1) % asked.slots == slot;
    printf("%s %" PRIu64 " %s %" PRIu64 "\n", way->name, slot, good ? "ok" : "wrong", record->number);
}

static int check(void)
{
    struct record *buffer;
    int file = open(asked.device, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (file < 0)
        fail("open %s: %s", asked.device, strerror(errno));
    if (posix_memalign((void **)&buffer, BLOCK, (size_t)CHUNK_BLOCKS * BLOCK))
        fail("no memory");
    uint64_t total = asked.slots * WAYS;
    for (uint64_t done = 0; done < total;) {
        uint64_t blocks = total - done < CHUNK_BLOCKS ? total - done : CHUNK_BLOCKS;
        size_t wanted = (size_t)blocks * BLOCK, have = 0;
        while (have < wanted) {
            off_t at = (off_t)((asked.first + done) * BLOCK + have);
            ssize_t got = pread(file, (char *)buffer + have, wanted - have, at);
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)
                fail("read %s at block %" PRIu64 ": %s", asked.device, asked.first + done + have / BLOCK,
                     got ? strerror(errno) : "it ends there");
            have += (size_t)got;
        }
        for (uint64_t i = 0; i < blocks; i++)
            judge(&buffer[i], &ways[(done + i) / asked.slots], (done + i) % asked.slots);
        done += blocks;
    }
    if (fflush(stdout))
        fail("write: %s", strerror(errno));
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------- main */

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || value < least || value > most)
        usage();
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "device", required_argument, NULL, 'd' },    { "first-block", required_argument, NULL, 'f' },
        { "blocks", required_argument, NULL, 'b' },    { "mebibytes", required_argument, NULL, 'm' },
        { "port", required_argument, NULL, 'p' },      { "run", required_argument, NULL, 'r' },
        { "pid-file", required_argument, NULL, 'i' },  { NULL, 0, NULL, 0 },
    };
    const uint64_t most = UINT64_C(1) << 50;
    opterr = 0;
    int option, runs = argc > 1 && !strcmp(argv[1], "run"), first = 0, run_id = 0;

    if (!runs && (argc < 2 || strcmp(argv[1], "check")))
        usage();
    /* The word before the options is passed over by making it the program's name. */
    while ((option = getopt_long(argc - 1, argv + 1, "", options, NULL)) != -1) {
        if (option == 'd')
            asked.device = optarg;
        else if (option == 'f')
            asked.first = number(optarg, 0, most), first = 1;
        else if (option == 'b')
            asked.blocks = number(optarg, WAYS, most);
        else if (option == 'r')
            asked.run = number(optarg, 0, UINT64_MAX), run_id = 1;
        else if (option == 'm' && runs)
            asked.mebibytes = number(optarg, 1, 1 << 20);
        else if (option == 'p' && runs)
            asked.port = optarg;
        else if (option == 'i' && runs)
            asked.pid_file = optarg;
        else
            usage();
    }
    if (optind != argc - 1 || !asked.device || !first || !asked.blocks || !run_id || (runs && !asked.port))
        usage();
    asked.slots = asked.blocks / WAYS;
    return runs ? run() : check();
}

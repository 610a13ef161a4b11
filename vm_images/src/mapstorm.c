/* SPDX-License-Identifier: MIT
 *
 * mapstorm: dirty the pages of a mapped file while they are being written back.
 *
 *   mapstorm --file PATH --mebibytes N --threads T --seconds S [--cut-every MS] [--seed N]
 *
 * A file of N MiB is written once, safely, and mapped. T threads each pick random pages of it
 * and change one byte in every sector of them, while the main thread starts writing back whatever
 * is dirty (sync_file_range, which waits for nothing), again and again, for S seconds.
 * With MS, every MS milliseconds the threads stop and the file is cut to nothing at once, so that
 * its changed pages are never written a second time; then the same with a new file of that name.
 * At the end one JSON object is printed; its pages_truncated are the distinct pages that had been
 * changed in each file that was cut, added up. Nothing is verified here: what was written is judged
 * elsewhere.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, SECTOR = 512, MAX_THREADS = 64 };

static unsigned char *memory;
static uint64_t page_count;
/* One byte for each page: whether a thread has changed it since the file was laid out. */
static atomic_uchar *changed;
static atomic_bool stop;
static atomic_uint_fast64_t pages_dirtied;

static double now(void)
{
    struct timespec value;
    clock_gettime(CLOCK_MONOTONIC, &value);
    return (double)value.tv_sec + (double)value.tv_nsec / 1e9;
}

static void die(const char *what, const char *path)
{
    fprintf(stderr, "mapstorm: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

/* Which pages each thread picks in which order; the same for the same seed. */
static uint64_t seed;

/* xorshift64*: cheap, and good enough to spread the accesses over the mapping. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static void *dirty(void *argument)
{
    uint64_t own = (uint64_t)(uintptr_t)argument, dirtied = 0;
    uint64_t state = (own * UINT64_C(0xD1342543DE82EF95) + seed * UINT64_C(0x9E3779B97F4A7C15)) | 1;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t number = next_random(&state) % page_count;
        volatile unsigned char *page = memory + number * PAGE;
        for (size_t offset = 0; offset < PAGE; offset += SECTOR)
            page[offset]++;
        atomic_store_explicit(&changed[number], 1, memory_order_relaxed);
        dirtied++;
    }
    atomic_fetch_add(&pages_dirtied, dirtied);
    return NULL;
}

/* The file's blocks are allocated and written before anybody changes them: what follows only overwrites. */
static int lay_out(const char *path, size_t bytes)
{
    static unsigned char page[PAGE];
    memset(page, 0xa5, sizeof page);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        die("cannot open", path);
    /* Without it the blocks are allocated as they are written; glibc would write a byte into each of them before. */
    if (fallocate(file, 0, 0, (off_t)bytes) && errno != EOPNOTSUPP && errno != ENOSYS)
        die("no space for", path);
    for (size_t offset = 0; offset < bytes; offset += PAGE)
        if (pwrite(file, page, PAGE, (off_t)offset) != PAGE)
            die("cannot write", path);
    if (fsync(file))
        die("cannot write", path);
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        die("cannot map", path);
    return file;
}

/* Returns how often writing back was started. */
static uint64_t storm(int file, const char *path, unsigned long threads, double end)
{
    pthread_t handles[MAX_THREADS];
    uint64_t rounds = 0;
    atomic_store(&stop, false);
    for (unsigned long i = 0; i < threads; i++)
        if ((errno = pthread_create(&handles[i], NULL, dirty, (void *)(uintptr_t)(i + 1))))
            die("no thread for", path);
    while (now() < end) {
        if (sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE))
            die("cannot write back", path);
        rounds++;
        usleep(1000);
    }
    atomic_store(&stop, true);
    for (unsigned long i = 0; i < threads; i++)
        pthread_join(handles[i], NULL);
    return rounds;
}

/* Returns how many pages of the file had been changed, and forgets it. */
static uint64_t take_changed(void)
{
    uint64_t found = 0;
    for (uint64_t number = 0; number < page_count; number++)
        found += atomic_exchange_explicit(&changed[number], 0, memory_order_relaxed);
    return found;
}

static unsigned long number(const char *name, const char *text, unsigned long most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value < 1 || value > most) {
        fprintf(stderr, "mapstorm: --%s must be a whole number from 1 to %lu, not '%s'\n", name, most, text);
        exit(4);
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "file", required_argument, NULL, 'f' },
        { "mebibytes", required_argument, NULL, 'm' },
        { "threads", required_argument, NULL, 't' },
        { "seconds", required_argument, NULL, 's' },
        { "cut-every", required_argument, NULL, 'c' },
        { "seed", required_argument, NULL, 'S' },
        { NULL, 0, NULL, 0 },
    };
    unsigned long mebibytes = 0, threads = 4, seconds = 10, cut_every = 0;
    const char *path = NULL;
    uint64_t rounds = 0, cuts = 0, pages_truncated = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'f')
            path = optarg;
        else if (option == 'm')
            mebibytes = number("mebibytes", optarg, 1UL << 20);
        else if (option == 't')
            threads = number("threads", optarg, MAX_THREADS);
        else if (option == 's')
            seconds = number("seconds", optarg, 86400);
        else if (option == 'c')
            cut_every = number("cut-every", optarg, 86400000);
        else if (option == 'S')
            seed = number("seed", optarg, 0x7FFFFFFF);
        else
            return 4;
    }
    if (!path || !mebibytes || optind != argc) {
        fputs("usage: mapstorm --file PATH --mebibytes N [--threads T] [--seconds S] [--cut-every MS] "
              "[--seed N]\n", stderr);
        return 4;
    }

    size_t bytes = (size_t)mebibytes << 20;
    page_count = bytes / PAGE;
    if (!(changed = calloc(page_count, sizeof *changed)))
        die("no memory for", path);
    int file = lay_out(path, bytes);
    double start = now(), end = start + (double)seconds;
    for (;;) {
        double part = cut_every ? now() + (double)cut_every / 1000 : end;
        rounds += storm(file, path, threads, part);
        if (!cut_every)
            break;
        /* Cut before anything else: it throws the dirty pages away before they can be written. */
        if (ftruncate(file, 0) || munmap(memory, bytes) || close(file) || unlink(path))
            die("cannot cut", path);
        cuts++;
        pages_truncated += take_changed();
        if (now() >= end)
            break;
        file = lay_out(path, bytes);
    }
    printf("{\"mebibytes\": %lu, \"threads\": %lu, \"seconds\": %.3f, \"pages_dirtied\": %llu, \"rounds\": %llu, "
           "\"cuts\": %llu, \"pages_truncated\": %llu}\n", mebibytes, threads, now() - start,
           (unsigned long long)atomic_load(&pages_dirtied), (unsigned long long)rounds, (unsigned long long)cuts,
           (unsigned long long)pages_truncated);
    return fflush(stdout) == 0 ? 0 : 1;
}

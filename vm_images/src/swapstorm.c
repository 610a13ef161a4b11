/* SPDX-License-Identifier: MIT
 *
 * swapstorm: dirty more anonymous memory than the machine has, so that pages are written to
 * swap while threads go on changing them.
 *
 *   swapstorm --mebibytes N --threads T --seconds S [--reclaim-every K]
 *
 * First every page is filled with non-zero data (at most S seconds), then T threads each pick
 * random pages and change one byte in every cache line of them for S seconds. With K, each
 * thread gives up every Kth page that it picked with MADV_PAGEOUT, which starts writing it to
 * swap, and goes on changing it for a while: what happens in a guest that reclaims memory ahead
 * of need (memory.reclaim, DAMON) and takes a busy page for an idle one. At the end one JSON
 * object is printed. Nothing is verified here: what was written is judged elsewhere.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, LINE = 64, MAX_THREADS = 1024 };
/* A change that comes at once may come before anybody read the page: a busy page is changed again and again. */
enum { BUSY_CHANGES = 16, BUSY_PAUSE_US = 2000 };

static unsigned char *memory;
static uint64_t page_count;
static double storm_end;
static unsigned long reclaim_every;
static atomic_uint_fast64_t pages_dirtied, pages_reclaimed;

static double now(void)
{
    struct timespec value;
    clock_gettime(CLOCK_MONOTONIC, &value);
    return (double)value.tv_sec + (double)value.tv_nsec / 1e9;
}

/* xorshift64*: cheap, and good enough to spread the accesses over the mapping. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static void die_with_memory_pressure_first(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, "1000", 4) != 4)
        fprintf(stderr, "swapstorm: oom_score_adj: %s\n", strerror(errno));
    if (file >= 0)
        close(file);
}

/* Returns how many pages were filled before the deadline. */
static uint64_t fill(double deadline)
{
    uint64_t state = UINT64_C(0x9E3779B97F4A7C15), page;
    for (page = 0; page < page_count && now() < deadline; page++) {
        uint64_t *words = (uint64_t *)(memory + page * PAGE);
        uint64_t value = next_random(&state);
        for (size_t i = 0; i < PAGE / sizeof *words; i++, value += UINT64_C(0x9E3779B97F4A7C15))
            words[i] = value | UINT64_C(0x0101010101010101);
    }
    return page;
}

static void dirty(volatile unsigned char *page, uint64_t count)
{
    /* Filled bytes are odd and the step is even and not 0: every byte changes and none becomes 0. */
    unsigned char step = (unsigned char)((count & 0xfe) | 2);
    for (size_t offset = 0; offset < PAGE; offset += LINE)
        page[offset] = (unsigned char)((page[offset] + step) | 1);
}

static void *storm(void *argument)
{
    uint64_t state = (uint64_t)(uintptr_t)argument * UINT64_C(0xD1342543DE82EF95) + 1;
    uint64_t picked = 0, dirtied = 0, reclaimed = 0;
    while (now() < storm_end) {
        unsigned char *page = memory + (next_random(&state) % page_count) * PAGE;
        dirty(page, dirtied++);
        if (reclaim_every && ++picked % reclaim_every == 0 && madvise(page, PAGE, MADV_PAGEOUT) == 0) {
            reclaimed++;
            for (int change = 0; change < BUSY_CHANGES; change++, usleep(BUSY_PAUSE_US))
                dirty(page, dirtied++);
        }
    }
    atomic_fetch_add(&pages_dirtied, dirtied);
    atomic_fetch_add(&pages_reclaimed, reclaimed);
    return NULL;
}

static unsigned long number(const char *name, const char *text, unsigned long most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || value < 1 || value > most) {
        fprintf(stderr, "swapstorm: --%s must be a whole number from 1 to %lu, not '%s'\n", name, most, text);
        exit(4);
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "mebibytes", required_argument, NULL, 'm' },
        { "threads", required_argument, NULL, 't' },
        { "seconds", required_argument, NULL, 's' },
        { "reclaim-every", required_argument, NULL, 'r' },
        { NULL, 0, NULL, 0 },
    };
    unsigned long mebibytes = 0, threads = 4, seconds = 10, started = 0;
    pthread_t handles[MAX_THREADS];
    pthread_attr_t small;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'm')
            mebibytes = number("mebibytes", optarg, 1UL << 24);
        else if (option == 't')
            threads = number("threads", optarg, MAX_THREADS);
        else if (option == 's')
            seconds = number("seconds", optarg, 86400);
        else if (option == 'r')
            reclaim_every = number("reclaim-every", optarg, 1UL << 24);
        else
            return 4;
    }
    if (!mebibytes || optind != argc) {
        fputs("usage: swapstorm --mebibytes N [--threads T] [--seconds S] [--reclaim-every K]\n", stderr);
        return 4;
    }

    die_with_memory_pressure_first();
    memory = mmap(NULL, mebibytes << 20, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "swapstorm: mmap of %lu MiB: %s\n", mebibytes, strerror(errno));
        return 1;
    }
    madvise(memory, mebibytes << 20, MADV_NOHUGEPAGE);
    page_count = (mebibytes << 20) / PAGE;

    double fill_start = now();
    uint64_t filled = fill(fill_start + (double)seconds);
    double fill_seconds = now() - fill_start;

    double storm_start = now();
    storm_end = storm_start + (double)seconds;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    for (; started < threads; started++) {
        int error = pthread_create(&handles[started], &small, storm, (void *)(uintptr_t)(started + 1));
        if (error) {
            fprintf(stderr, "swapstorm: thread %lu of %lu: %s\n", started + 1, threads, strerror(error));
            storm_end = 0;
            break;
        }
    }
    for (unsigned long i = 0; i < started; i++)
        pthread_join(handles[i], NULL);
    if (started < threads)
        return 1;
    if (reclaim_every && !atomic_load(&pages_reclaimed)) {
        fputs("swapstorm: no page was given up: MADV_PAGEOUT needs Linux 5.4, and more than a moment\n", stderr);
        return 1;
    }
    printf("{\"mebibytes\": %lu, \"threads\": %lu, \"seconds\": %.3f, \"fill_seconds\": %.3f, "
           "\"filled_mebibytes\": %.1f, \"pages_dirtied\": %llu, \"pages_reclaimed\": %llu}\n",
           mebibytes, threads, now() - storm_start, fill_seconds, (double)filled / 256.0,
           (unsigned long long)atomic_load(&pages_dirtied), (unsigned long long)atomic_load(&pages_reclaimed));
    return fflush(stdout) == 0 ? 0 : 1;
}

/* SPDX-License-Identifier: MIT
 *
 * swapstorm: dirty more anonymous memory than the machine has, so that pages are written to
 * swap while threads go on changing them; and check each page that is met again.
 *
 *   swapstorm --mebibytes N --threads T --seconds S [--reclaim-every K] [--sweep-seconds W] [--moves FILE]
 *            [--seed N]
 *
 * First every page is filled with non-zero data (at most S seconds), then T threads each pick
 * random pages of their own share and change one byte in every cache line of them for S seconds.
 * With K, each thread reclaims every Kth page that it picked (MADV_PAGEOUT), which starts
 * writing it to swap, and goes on changing it for a while: what happens in a guest that reclaims
 * memory ahead of need (memory.reclaim, DAMON) and takes a busy page for an idle one.
 *
 * Each page carries whose it is, how often it was changed and a checksum of all of it; how often
 * each was changed is also kept in locked memory, so that an older state of a page is known for
 * what it is. A page that is met again is checked. With W, every page is checked once more after
 * the storm, at most for W seconds. A page that is wrong is reported on standard error, counted,
 * and filled anew. At the end one JSON object is printed; its pages_swapped_in_checked are those
 * that were on the swap device and nowhere in memory the moment before they were checked.
 *
 * FILE is there, and empty, once every page is filled, until the program ends. It tells of moves of
 * the machine to another host: whoever moves it appends a 'b' before the move, and afterwards an
 * 'e' where it moved, or an 'x' where it did not. Which pages are on the swap device only is noted
 * at the 'b'. Those of them that are still there only at the 'e', and that nobody touched, are
 * pages_moved_checked when they are checked: written on one host and read on the other.
 * pages_out_before_moves counts those that were noted, and moves the moves that were seen from
 * before their start to their end. A move that is under way when the storm's time is over is
 * waited for, at most MOVE_SECONDS. Where memory is not short enough, no page would be on the swap
 * device only: the first of SET_ASIDE parts of the memory is filled, left alone by the storm, and
 * put there at the 'b'; pages_put_out counts those pages.
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "swapstorm_pages.h"

/* The page is met again: change it at once, for a page on its way to the disk must not be read first (Linux before
 * 5.19 would copy it then instead of changing it, and "++" reads), then check it, then change all lines of it. */
static void meet(uint64_t number, struct tally *tally)
{
    if (!sequences[number]) {
        fill(number);
    } else {
        int swapped = only_in_swap(number);
        ((volatile uint64_t *)memory)[number * WORDS + TOUCHED] = tally->dirtied;
        check(number, swapped, tally);
        dirty(number);
    }
    tally->dirtied++;
}

static void add(const struct tally *tally)
{
    atomic_fetch_add(&pages_dirtied, tally->dirtied);
    atomic_fetch_add(&pages_reclaimed, tally->reclaimed);
    atomic_fetch_add(&pages_checked, tally->checked);
    atomic_fetch_add(&pages_swapped_in, tally->swapped_in);
    atomic_fetch_add(&pages_moved, tally->moved);
    atomic_fetch_add(&pages_moved_wrong, tally->moved_wrong);
}

/* A thread's pages are those whose number leaves its own as the remainder: no page has two threads. */
static void *storm(void *argument)
{
    uint64_t own = (uint64_t)(uintptr_t)argument, share = (page_count - own + thread_count - 1) / thread_count;
    uint64_t state = ((own + 1) * UINT64_C(0xD1342543DE82EF95) + seed * UINT64_C(0x9E3779B97F4A7C15)) | 1, picked = 0;
    struct tally tally = { 0 };
    while (now() < storm_end) {
        uint64_t number = next_random(&state) % share * thread_count + own;
        if (number < pages_aside)
            continue;
        meet(number, &tally);
        if (reclaim_every && ++picked % reclaim_every == 0 &&
            madvise(memory + number * WORDS, PAGE, MADV_PAGEOUT) == 0) {
            tally.reclaimed++;
            for (int change = 0; change < BUSY_CHANGES; change++, usleep(BUSY_PAUSE_US))
                meet(number, &tally);
        }
    }
    add(&tally);
    return NULL;
}

static void *sweep(void *argument)
{
    struct tally tally = { 0 };
    /* Those that moved first: there may be no time for all. */
    for (int first = 1; first >= 0; first--)
        for (uint64_t number = (uintptr_t)argument; number < page_count && now() < sweep_end; number += thread_count)
            if (sequences[number] && untouched_since_move(number) == first)
                check(number, only_in_swap(number), &tally);
    add(&tally);
    return NULL;
}

/* Whether more was told of moves than was read. */
static int more_told(void)
{
    struct stat status;
    return fstat(moves_file, &status) == 0 && status.st_size > lseek(moves_file, 0, SEEK_CUR);
}

/* How many pages that are set aside are in memory, if only in the swap cache. They are read: the kernel lets go only of
 * what is mapped, and they are clean once they were written. */
static uint64_t aside_in_memory(void)
{
    uint64_t count = 0;
    for (uint64_t number = 0; number < pages_aside; number++)
        if (sequences[number] && !only_in_swap(number)) {
            (void)((volatile uint64_t *)memory)[number * WORDS];
            count++;
        }
    return count;
}

/* Bring what is set aside to the swap device: it is written there at first, and leaves memory a round later. In one
 * call, for the storm leaves little time for many. */
static void put_out(void)
{
    uint64_t before = aside_in_memory(), left = before;
    for (int round = 0; left && round < PUT_OUT_ROUNDS && !more_told(); round++) {
        madvise(memory, pages_aside * PAGE, MADV_PAGEOUT);
        usleep(PUT_OUT_PAUSE_US);
        left = aside_in_memory();
    }
    pages_put_out += before - left;
}

/* Of what was noted only what is on the swap device and nowhere in memory stays; returns how many pages that are. */
static uint64_t forget_what_is_in(void)
{
    static unsigned char resident[NOTED_AT_ONCE];
    uint64_t stay = 0;
    for (uint64_t first = 0; first < page_count; first += NOTED_AT_ONCE) {
        uint64_t count = page_count - first < NOTED_AT_ONCE ? page_count - first : NOTED_AT_ONCE;
        if (mincore(memory + first * WORDS, count * PAGE, resident))
            memset(resident, 1, count);
        for (uint64_t i = 0; i < count; i++) {
            if (resident[i] & 1)
                out_sequences[first + i] = 0;
            stay += out_sequences[first + i] ? 1 : 0;
        }
    }
    return stay;
}

/* A move begins. What is expected of a page is copied before it is looked at: a page that is touched in between is
 * then in memory, or no longer as it was. */
static void note_what_is_out(void)
{
    memcpy(out_sequences, sequences, page_count * sizeof *sequences);
    pages_out += forget_what_is_in();
}

/* Whether a move has begun and not ended, by what was read of the file and what is there. */
static int move_pending(void)
{
    struct stat status;
    return under_way || (fstat(moves_file, &status) == 0 && status.st_size > marks_read);
}

/* What is told of moves until the storm is over. A move whose end was there before its beginning was noted does not
 * count: what was noted may be of after it. */
static void *watch_moves(void *argument)
{
    char told;
    int noted = 0;
    uint64_t begun = 0;
    (void)argument;
    /* Before the threads of the storm, if that may be: what is to be noted must be before the move is over. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -20);
    for (; watching; usleep(MOVES_PAUSE_US)) {
        for (; read(moves_file, &told, 1) == 1; marks_read++) {
            if (told == 'b') {
                under_way = 1;
                atomic_store(&moved, 0);
                begun++;
                put_out();
                note_what_is_out();
                noted = !more_told();
            } else {
                if (told == 'e' && noted) {
                    /* What the kernel read ahead since then was read before the move, or may have been. */
                    forget_what_is_in();
                    moves++;
                    atomic_store(&moved, begun);
                }
                noted = 0;
                /* Last of all, for the program goes on at once to where it checks them. */
                under_way = 0;
            }
        }
    }
    return NULL;
}

static pthread_t start_thread(void *(*work)(void *), unsigned long number)
{
    pthread_t handle;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    int error = pthread_create(&handle, &small, work, (void *)(uintptr_t)number);
    if (error) {
        fprintf(stderr, "swapstorm: thread %lu of %lu: %s\n", number + 1, thread_count, strerror(error));
        exit(1);
    }
    return handle;
}

/* Let every thread do `work` to its end. */
static void in_threads(void *(*work)(void *))
{
    static pthread_t handles[MAX_THREADS];
    for (unsigned long i = 0; i < thread_count; i++)
        handles[i] = start_thread(work, i);
    for (unsigned long i = 0; i < thread_count; i++)
        pthread_join(handles[i], NULL);
}

/* Anonymous memory; a sentence and the end of the program where there is none. */
static void *mapped(size_t bytes)
{
    void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) {
        fprintf(stderr, "swapstorm: mmap of %lu MiB: %s\n", (unsigned long)(bytes >> 20), strerror(errno));
        exit(1);
    }
    return found;
}

static void set_up(size_t bytes, int watches_moves)
{
    page_count = bytes / PAGE;
    if (thread_count > page_count) {
        fprintf(stderr, "swapstorm: --threads must be at most %lu, the pages of the memory\n",
                (unsigned long)page_count);
        exit(4);
    }
    memory = mapped(bytes);
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    sequences = mapped(page_count * sizeof *sequences);
    if (mlock(sequences, page_count * sizeof *sequences)) {
        fprintf(stderr, "swapstorm: what is expected of each page cannot be locked in memory: %s\n", strerror(errno));
        exit(1);
    }
    if (watches_moves) {
        pages_aside = page_count / SET_ASIDE;
        out_sequences = mapped(page_count * sizeof *sequences);
        if (mlock(out_sequences, page_count * sizeof *sequences)) {
            fprintf(stderr, "swapstorm: what was swapped out cannot be locked in memory: %s\n", strerror(errno));
            exit(1);
        }
    }
    struct timespec started;
    clock_gettime(CLOCK_REALTIME, &started);
    storm_id = ((uint64_t)started.tv_sec << 30 ^ (uint64_t)started.tv_nsec) << 16 ^ (uint64_t)getpid();
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
        { "sweep-seconds", required_argument, NULL, 'w' },
        { "moves", required_argument, NULL, 'f' },
        { "seed", required_argument, NULL, 'S' },
        { NULL, 0, NULL, 0 },
    };
    unsigned long mebibytes = 0, seconds = 10, sweep_seconds = 0;
    const char *moves_name = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'm')
            mebibytes = number("mebibytes", optarg, 1UL << 24);
        else if (option == 't')
            thread_count = number("threads", optarg, MAX_THREADS);
        else if (option == 's')
            seconds = number("seconds", optarg, 86400);
        else if (option == 'r')
            reclaim_every = number("reclaim-every", optarg, 1UL << 24);
        else if (option == 'w')
            sweep_seconds = number("sweep-seconds", optarg, 86400);
        else if (option == 'f')
            moves_name = optarg;
        else if (option == 'S')
            seed = number("seed", optarg, 0x7FFFFFFF);
        else
            return 4;
    }
    if (!mebibytes || optind != argc) {
        fputs("usage: swapstorm --mebibytes N [--threads T] [--seconds S] [--reclaim-every K] [--sweep-seconds W] "
              "[--moves FILE] [--seed N]\n", stderr);
        return 4;
    }
    if (moves_name && unlink(moves_name) && errno != ENOENT) {
        fprintf(stderr, "swapstorm: cannot remove %s: %s\n", moves_name, strerror(errno));
        return 1;
    }

    die_with_memory_pressure_first();
    set_up((size_t)mebibytes << 20, moves_name != NULL);

    double fill_start = now();
    uint64_t filled = fill_all(fill_start + (double)seconds);
    if (moves_name) {
        moves_file = open(moves_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (moves_file < 0) {
            fprintf(stderr, "swapstorm: cannot make %s: %s\n", moves_name, strerror(errno));
            return 1;
        }
        start_thread(watch_moves, 0);
    }
    double storm_start = now();
    storm_end = storm_start + (double)seconds;
    in_threads(storm);
    double storm_stop = now();
    while (moves_name && move_pending() && now() < storm_stop + MOVE_SECONDS)
        usleep(MOVES_PAUSE_US);
    double sweep_start = now();
    if (sweep_seconds) {
        sweep_end = sweep_start + (double)sweep_seconds;
        in_threads(sweep);
    }
    watching = 0;
    if (moves_name)
        unlink(moves_name);
    if (reclaim_every && !atomic_load(&pages_reclaimed)) {
        fputs("swapstorm: no page was reclaimed: MADV_PAGEOUT needs Linux 5.4, and more than a moment\n", stderr);
        return 1;
    }
    printf("{\"mebibytes\": %lu, \"threads\": %lu, \"seconds\": %.3f, \"fill_seconds\": %.3f, "
           "\"filled_mebibytes\": %.1f, \"sweep_seconds\": %.3f, \"pages_dirtied\": %llu, \"pages_reclaimed\": %llu, "
           "\"pages_checked\": %llu, \"pages_swapped_in_checked\": %llu, \"pages_wrong\": %llu",
           mebibytes, thread_count, storm_stop - storm_start, storm_start - fill_start, (double)filled / 256.0,
           now() - sweep_start, (unsigned long long)pages_dirtied, (unsigned long long)pages_reclaimed,
           (unsigned long long)pages_checked, (unsigned long long)pages_swapped_in, (unsigned long long)pages_wrong);
    if (moves_name)
        printf(", \"moves\": %llu, \"pages_put_out\": %llu, \"pages_out_before_moves\": %llu, "
               "\"pages_moved_checked\": %llu, \"pages_moved_wrong\": %llu", (unsigned long long)moves,
               (unsigned long long)pages_put_out, (unsigned long long)pages_out,
               (unsigned long long)pages_moved, (unsigned long long)pages_moved_wrong);
    puts("}");
    return fflush(stdout) == 0 ? 0 : 1;
}

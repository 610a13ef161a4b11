/* SPDX-License-Identifier: MIT
 *
 * swapstorm: its pages, how they are filled, dirtied and checked, and what is counted of them.
 */
#ifndef SWAPSTORM_PAGES_H
#define SWAPSTORM_PAGES_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, LINE = 64, MAX_THREADS = 1024 };
/* A change that comes at once may come before anybody read the page: a busy page is changed again and again. */
enum { BUSY_CHANGES = 16, BUSY_PAUSE_US = 2000 };
enum { SET_ASIDE = 32, PUT_OUT_ROUNDS = 40, PUT_OUT_PAUSE_US = 50000 };
enum { MOVE_SECONDS = 120, MOVES_PAUSE_US = 20000, NOTED_AT_ONCE = 16384 };
enum { WORDS = PAGE / 8, WORDS_IN_LINE = LINE / 8, MAX_REPORTS = 16 };

/* A page begins with these words. TOUCHED may be anything and CHECKSUM is that of all words but these two. */
enum { STORM, NUMBER, SEQUENCE, CHECKSUM, TOUCHED, HEADER_WORDS };

struct tally {
    uint64_t dirtied, reclaimed, checked, swapped_in, moved, moved_wrong;
};

static uint64_t *memory;
/* How often each page was changed, 0 where it was never filled: locked, else it might be swapped itself. */
static uint32_t *sequences;
/* The same of each page that was on the swap device only when the last move began; 0 of the others. Locked too. */
static uint32_t *out_sequences;
/* The number of the last move where it ended well and no other has begun: only then out_sequences may be compared. */
static atomic_uint_fast64_t moved;
static atomic_int under_way, watching = 1;
static atomic_llong marks_read;
static int moves_file;
/* How many pages, the first ones, are left alone. */
static uint64_t pages_aside;
static uint64_t page_count, storm_id, moves, pages_out, pages_put_out;
static double storm_end, sweep_end;
static unsigned long reclaim_every, thread_count = 4;
static atomic_uint_fast64_t pages_dirtied, pages_reclaimed, pages_checked, pages_swapped_in, pages_wrong;
static atomic_uint_fast64_t pages_moved, pages_moved_wrong;

static double now(void)
{
    struct timespec value;
    clock_gettime(CLOCK_MONOTONIC, &value);
    return (double)value.tv_sec + (double)value.tv_nsec / 1e9;
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

static void die_with_memory_pressure_first(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, "1000", 4) != 4)
        fprintf(stderr, "swapstorm: oom_score_adj: %s\n", strerror(errno));
    if (file >= 0)
        close(file);
}

/* Each word counts by its place, so that words that changed places are noticed too. */
static uint64_t weighted(size_t word, uint64_t value)
{
    return value * (2 * (uint64_t)word + 1);
}

static uint64_t checksum(const uint64_t *page)
{
    uint64_t sum = 0;
    for (size_t word = 0; word < WORDS; word++)
        if (word != CHECKSUM && word != TOUCHED)
            sum += weighted(word, page[word]);
    return sum;
}

static void fill(uint64_t number)
{
    uint64_t *page = memory + number * WORDS, state = storm_id ^ (number + 1) * UINT64_C(0x9E3779B97F4A7C15);
    uint64_t value = next_random(&state);
    sequences[number]++;
    page[STORM] = storm_id;
    page[NUMBER] = number;
    page[SEQUENCE] = sequences[number];
    page[TOUCHED] = 0;
    for (size_t word = HEADER_WORDS; word < WORDS; word++, value += UINT64_C(0x9E3779B97F4A7C15))
        page[word] = value | UINT64_C(0x0101010101010101);
    page[CHECKSUM] = checksum(page);
}

/* Returns how many pages were filled before the deadline. */
static uint64_t fill_all(double deadline)
{
    uint64_t number = 0;
    for (; number < page_count && now() < deadline; number++)
        fill(number);
    return number;
}

static void dirty(uint64_t number)
{
    volatile uint64_t *page = memory + number * WORDS;
    uint32_t sequence = ++sequences[number];
    uint64_t sum = page[CHECKSUM] + weighted(SEQUENCE, sequence - page[SEQUENCE]);
    /* Filled bytes are odd and the step is even and not 0: every byte changes and none becomes 0. */
    unsigned char step = (unsigned char)((sequence & 0xfe) | 2);
    page[SEQUENCE] = sequence;
    for (size_t word = WORDS_IN_LINE - 1; word < WORDS; word += WORDS_IN_LINE) {
        uint64_t before = page[word], after = (before & ~UINT64_C(0xff)) | (unsigned char)(before + step);
        page[word] = after;
        sum += weighted(word, after - before);
    }
    page[CHECKSUM] = sum;
}

/* Whether the page is on the swap device and nowhere in memory, not even in the swap cache. */
static int only_in_swap(uint64_t number)
{
    unsigned char resident = 1;
    return mincore(memory + number * WORDS, PAGE, &resident) == 0 && !(resident & 1);
}

static void report(uint64_t number, int swapped, uint64_t found)
{
    const uint64_t *page = memory + number * WORDS;
    fprintf(stderr, "swapstorm: page %llu%s is wrong: its checksum %s, and it says page %llu, change %llu of %s storm; "
            "expected was change %lu\n",
            (unsigned long long)number, swapped ? ", read from swap," : "",
            page[CHECKSUM] == found ? "fits" : "does not fit", (unsigned long long)page[NUMBER],
            (unsigned long long)page[SEQUENCE], page[STORM] == storm_id ? "this" : "another",
            (unsigned long)sequences[number]);
}

/* Whether the page is as it was when the last move began, and was on the swap device only, from then until its end. */
static int untouched_since_move(uint64_t number)
{
    uint64_t move = atomic_load(&moved);
    return move && out_sequences[number] == sequences[number] && atomic_load(&moved) == move;
}

/* Check a page that its thread left filled or dirtied; a wrong one is filled anew. */
static void check(uint64_t number, int swapped, struct tally *tally)
{
    const uint64_t *page = memory + number * WORDS;
    int across_move = untouched_since_move(number);
    uint64_t found = checksum(page);
    tally->checked++;
    tally->swapped_in += swapped ? 1 : 0;
    tally->moved += across_move ? 1 : 0;
    if (page[STORM] == storm_id && page[NUMBER] == number && page[SEQUENCE] == sequences[number] &&
        page[CHECKSUM] == found)
        return;
    tally->moved_wrong += across_move ? 1 : 0;
    if (atomic_fetch_add(&pages_wrong, 1) < MAX_REPORTS)
        report(number, swapped, found);
    fill(number);
}

#endif

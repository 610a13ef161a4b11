/* SPDX-License-Identifier: MIT
 *
 * canary: its records and their checksums, what it was asked, and how it ends with a sentence.
 */
#ifndef CANARY_RECORD_H
#define CANARY_RECORD_H

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK = 4096,
    WORDS = BLOCK / 8,
    WAYS = 3,
    CHUNK_BLOCKS = 256,
    /* The lab is emulated: these are the most it is asked for, not what it will do. */
    RECORD_PAUSE_MS = 20,
    MEMORY_PAUSE_MS = 20,
    MEMORY_BATCH = 10,
    TICK_MS = 200,
    BATCH_MS = 50,
    RETRY_MS = 100,
    LAST_WORDS_SECONDS = 20,
    MEMORY_LINES = 20,
    QUEUE_LINES = 4096,
    LINE_BYTES = 112,
    BATCH_LINES = 40,
};

#define DISK_MAGIC UINT64_C(0x6B73694479726E43)
#define MEMORY_MAGIC UINT64_C(0x6D654D79726E6143)
#define PID_FILE "/run/drbd-harness-canary.pid"

/* On the disk and in memory; `place` is the slot or the index, `number` the sequence or the generation. */
struct record {
    uint64_t magic, run, way, place, number, checksum;
    uint64_t body[WORDS - 6];
};
_Static_assert(sizeof(struct record) == BLOCK, "a record is a block");

struct way {
    const char *name;
    int flags, flush, file;
    uint64_t index;
    struct record *buffer;
    pthread_t thread;
};

static struct way ways[WAYS] = {
    { .name = "fsync", .flags = 0, .flush = 1, .index = 0 },
    { .name = "dsync", .flags = O_DSYNC, .flush = 0, .index = 1 },
    { .name = "direct", .flags = O_DSYNC | O_DIRECT, .flush = 0, .index = 2 },
};

static struct {
    const char *device, *port, *pid_file;
    uint64_t first, blocks, slots, run, mebibytes;
} asked = { .pid_file = PID_FILE, .mebibytes = 16 };

static atomic_int stopping;

static uint64_t now_ms(void)
{
    struct timespec value;
    clock_gettime(CLOCK_MONOTONIC, &value);
    return (uint64_t)value.tv_sec * 1000 + (uint64_t)value.tv_nsec / 1000000;
}

static void pause_for(long milliseconds)
{
    const struct timespec length = { milliseconds / 1000, milliseconds % 1000 * 1000000L };
    nanosleep(&length, NULL);
}

/* ------------------------------------------------------------------------------------------------- complaints */

/* Where complaints go: standard error, or in the background the pipe to the waiting parent. */
static int complaints = STDERR_FILENO;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    dprintf(complaints, "canary: %s\n", text);
    if (complaints != STDERR_FILENO)
        unlink(asked.pid_file);
    _exit(1);
}

__attribute__((noreturn)) static void usage(void)
{
    fputs("usage: canary run --device PATH --first-block N --blocks N --port PATH --run ID [--mebibytes M]"
          " [--pid-file PATH], or canary check --device PATH --first-block N --blocks N --run ID"
          " (blocks of 4 KiB, at least 3)\n", stderr);
    exit(2);
}

/* ---------------------------------------------------------------------------------------------------- records */

/* By words, since the lab is emulated. Each step is a bijection of the state: no change of one word goes unseen. */
static uint64_t checksum_of(const struct record *record)
{
    const uint64_t *words = (const uint64_t *)record;
    uint64_t state = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < WORDS; i++) {
        if (&words[i] == &record->checksum)
            continue;
        state = (state ^ words[i]) * UINT64_C(0x9E3779B97F4A7C15);
        state ^= state >> 32;
    }
    return state;
}

static void compose(struct record *record, uint64_t magic, uint64_t way, uint64_t place, uint64_t number)
{
    uint64_t value = (way << 56) ^ (place << 28) ^ number ^ asked.run;
    record->magic = magic;
    record->run = asked.run;
    record->way = way;
    record->place = place;
    record->number = number;
    for (size_t i = 0; i < sizeof record->body / sizeof *record->body; i++) {
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        record->body[i] = value;
    }
    record->checksum = checksum_of(record);
}

#endif

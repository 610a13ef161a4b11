/* SPDX-License-Identifier: MIT
 *
 * canary: the records in memory.
 */
#ifndef CANARY_MEMORY_H
#define CANARY_MEMORY_H

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "canary_port.h"
#include "canary_record.h"

/* Everything of this program stays in memory, so that no writer waits for swap; only these records may be swapped out.
 * The table says what they should be. */
static struct record *memory;
static uint64_t *generations, memory_records;
static atomic_uint_fast64_t memory_checked, memory_wrong;

static void look_at(uint64_t index)
{
    const struct record *record = &memory[index];
    int sum = record->checksum == checksum_of(record);
    int good = sum && record->magic == MEMORY_MAGIC && record->run == asked.run && record->place == index &&
               record->number == generations[index];
    memory_checked++;
    if (good)
        return;
    if (++memory_wrong <= MEMORY_LINES)
        say(0, "memory %" PRIu64 " %" PRIu64 " %" PRIu64 " %s", index, generations[index], record->number,
            sum ? "checksum-ok" : "checksum-wrong");
}

static void *change_memory(void *unused)
{
    uint64_t state = asked.run | 1;
    while (!stopping) {
        for (int i = 0; i < MEMORY_BATCH; i++) {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            uint64_t index = state * UINT64_C(2685821657736338717) % memory_records;
            look_at(index);
            compose(&memory[index], MEMORY_MAGIC, WAYS, index, ++generations[index]);
        }
        pause_for(MEMORY_PAUSE_MS);
    }
    return unused;
}

static void *pages(size_t bytes)
{
    void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED)
        fail("%zu bytes of memory: %s", bytes, strerror(errno));
    return found;
}

static void make_memory(void)
{
    memory_records = (asked.mebibytes << 20) / BLOCK;
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        fail("lock the memory: %s", strerror(errno));
    generations = pages(memory_records * sizeof *generations);
    memory = pages(memory_records * BLOCK);
    if (munlock(memory, memory_records * BLOCK))
        fail("unlock the records in memory: %s", strerror(errno));
    for (uint64_t index = 0; index < memory_records; index++)
        compose(&memory[index], MEMORY_MAGIC, WAYS, index, generations[index] = 1);
}

#endif

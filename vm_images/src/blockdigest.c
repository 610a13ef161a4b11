/* SPDX-License-Identifier: MIT
 *
 * blockdigest: one 64-bit digest for each 4 KiB block of a device or a file, read around the page cache.
 *
 *   blockdigest PATH FIRST COUNT
 *
 * Prints COUNT lines of 16 hexadecimal digits, the first for block FIRST. Ends with 1 and a sentence when something
 * could not be read, with 2 when it was called wrongly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 4096, READ_BLOCKS = 256 };

/* By words and not by bytes: emulated, that is the difference between seconds and a minute. Each step is a bijection
 * of the state, so two blocks that differ in one word never share a digest; the shift lets high bits reach low ones. */
static uint64_t digest(const uint64_t *words)
{
    uint64_t state = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < BLOCK / sizeof *words; i++) {
        state = (state ^ words[i]) * UINT64_C(0x9E3779B97F4A7C15);
        state ^= state >> 32;
    }
    return state;
}

static int number(const char *text, uint64_t least, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && !*end && end != text && *text >= '0' && *text <= '9' && *value >= least &&
           *value <= UINT64_MAX / 2 / BLOCK;
}

/* Without O_DIRECT (some file systems have none) what is in the page cache is dropped first, as far as it is clean. */
static int open_around_cache(const char *path)
{
    int file = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (file >= 0 || errno != EINVAL)
        return file;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0)
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    return file;
}

int main(int argc, char **argv)
{
    uint64_t first, count;
    void *buffer;

    if (argc != 4 || !number(argv[2], 0, &first) || !number(argv[3], 1, &count)) {
        fputs("usage: blockdigest PATH FIRST COUNT (in blocks of 4 KiB, COUNT at least 1)\n", stderr);
        return 2;
    }
    int file = open_around_cache(argv[1]);
    if (file < 0) {
        fprintf(stderr, "blockdigest: open %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (posix_memalign(&buffer, BLOCK, (size_t)READ_BLOCKS * BLOCK)) {
        fputs("blockdigest: no memory\n", stderr);
        return 1;
    }
    for (uint64_t done = 0; done < count;) {
        uint64_t blocks = count - done < READ_BLOCKS ? count - done : READ_BLOCKS;
        size_t wanted = (size_t)blocks * BLOCK, have = 0;
        while (have < wanted) {
            ssize_t got = pread(file, (char *)buffer + have, wanted - have, (off_t)((first + done) * BLOCK + have));
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0) {
                fprintf(stderr, "blockdigest: read %s at block %" PRIu64 ": %s\n", argv[1], first + done + have / BLOCK,
                        got ? strerror(errno) : "it ends there");
                return 1;
            }
            have += (size_t)got;
        }
        for (uint64_t i = 0; i < blocks; i++)
            printf("%016" PRIx64 "\n", digest((const uint64_t *)((const char *)buffer + i * BLOCK)));
        done += blocks;
    }
    if (fflush(stdout)) {
        fprintf(stderr, "blockdigest: write: %s\n", strerror(errno));
        return 1;
    }
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * replicadigest: what a block device holds, read around the page cache on the machine that has it. It writes to nothing.
 *
 *   replicadigest digests PATH FIRST COUNT   XXH3-128 of each of COUNT 4 KiB blocks from block FIRST on
 *   replicadigest blocks PATH BLOCK...       these blocks themselves
 *
 * Digests are printed in the order of the blocks: a line of Base64 has those of up to 192 blocks, 16 bytes each, and
 * "*N" stands for N more blocks with the digest that came last. Blocks are printed as one line of Base64 each.
 * Ends with 1 and a sentence that names the block when something could not be read, with 2 when it was called wrongly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* As many reads are under way at a time as there are readers: a disk that is asked for one thing at a time is slow. */
enum { BLOCK = 4096, PIECE_BLOCKS = 256, READERS = 4, LINE_DIGESTS = 192, SHORTEST_RUN = 3 };

typedef XXH128_canonical_t digest_t;

struct piece {
    char *data;
    digest_t digests[PIECE_BLOCKS];
    uint64_t failed_at; /* the block that could not be read, where failed is set */
    const char *failed;
    int ready;
};

static const char *path;
static int device;
static uint64_t first, count;
static struct piece pieces[READERS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void fail(const char *what)
{
    fprintf(stderr, "replicadigest: %s\n", what);
    exit(1);
}

/* Reads whole blocks into data; what went wrong, and with which block, or NULL. */
static const char *read_blocks(char *data, uint64_t block, uint64_t blocks, uint64_t *failed_at)
{
    size_t have = 0, wanted = (size_t)blocks * BLOCK, most = wanted;

    while (have < wanted) {
        size_t size = wanted - have < most ? wanted - have : most;
        ssize_t got = pread(device, data + have, size, (off_t)(block * BLOCK + have));
        if (got > 0) {
            have += (size_t)got;
        } else if (got == 0) {
            *failed_at = block + have / BLOCK;
            return "it ends there";
        } else if (errno != EINTR) {
            if (most <= BLOCK) {
                *failed_at = block + have / BLOCK;
                return strerror(errno);
            }
            /* Which of them it is shows where they are read one by one. */
            have -= have % BLOCK;
            most = BLOCK;
        }
    }
    return NULL;
}

static void *reader(void *argument)
{
    struct piece *piece = argument;
    uint64_t number = (uint64_t)(piece - pieces);

    for (uint64_t at = number * PIECE_BLOCKS; at < count; at += READERS * PIECE_BLOCKS) {
        uint64_t blocks = count - at < PIECE_BLOCKS ? count - at : PIECE_BLOCKS;
        pthread_mutex_lock(&lock);
        while (piece->ready)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
        piece->failed = read_blocks(piece->data, first + at, blocks, &piece->failed_at);
        for (uint64_t i = 0; i < blocks && !piece->failed; i++)
            XXH128_canonicalFromHash(&piece->digests[i], XXH3_128bits(piece->data + i * BLOCK, BLOCK));
        pthread_mutex_lock(&lock);
        piece->ready = 1;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        if (piece->failed)
            break;
    }
    return NULL;
}

static void put_base64(const unsigned char *bytes, size_t size)
{
    static const char signs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16 | (i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (i + 2 < size ? bytes[i + 2] : 0);
        putchar_unlocked(signs[three >> 18]);
        putchar_unlocked(signs[three >> 12 & 63]);
        putchar_unlocked(i + 1 < size ? signs[three >> 6 & 63] : '=');
        putchar_unlocked(i + 2 < size ? signs[three & 63] : '=');
    }
    putchar_unlocked('\n');
}

static digest_t line[LINE_DIGESTS], last;
static size_t in_line;
static uint64_t run;

static void end_line(void)
{
    if (in_line)
        put_base64((const unsigned char *)line, in_line * sizeof *line);
    in_line = 0;
}

static void add(const digest_t *one)
{
    line[in_line++] = *one;
    if (in_line == LINE_DIGESTS)
        end_line();
}

static void end_run(void)
{
    if (run < SHORTEST_RUN) {
        for (; run; run--)
            add(&last);
        return;
    }
    end_line();
    printf("*%" PRIu64 "\n", run);
    run = 0;
}

static void put(const digest_t *one, int is_first)
{
    if (!is_first && !memcmp(one, &last, sizeof last)) {
        run++;
        return;
    }
    end_run();
    add(one);
    last = *one;
}

static int print_digests(void)
{
    pthread_t threads[READERS];

    for (int i = 0; i < READERS; i++)
        if (pthread_create(&threads[i], NULL, reader, &pieces[i]))
            fail("no thread can be started");
    for (uint64_t at = 0; at < count; at += PIECE_BLOCKS) {
        struct piece *piece = &pieces[at / PIECE_BLOCKS % READERS];
        uint64_t blocks = count - at < PIECE_BLOCKS ? count - at : PIECE_BLOCKS;
        pthread_mutex_lock(&lock);
        while (!piece->ready)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
        if (piece->failed) {
            fprintf(stderr, "replicadigest: %s cannot be read at block %" PRIu64 ": %s\n", path, piece->failed_at,
                    piece->failed);
            /* The other readers may be in the middle of something. */
            fflush(stdout);
            _exit(1);
        }
        for (uint64_t i = 0; i < blocks; i++)
            put(&piece->digests[i], at + i == 0);
        pthread_mutex_lock(&lock);
        piece->ready = 0;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    end_run();
    end_line();
    return 0;
}

static int number(const char *text, uint64_t least, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && !*end && end != text && *text >= '0' && *text <= '9' && *value >= least &&
           *value <= INT64_MAX / 2 / BLOCK;
}

static int print_blocks(char **numbers)
{
    for (; *numbers; numbers++) {
        uint64_t block, failed_at;
        const char *failed;
        if (!number(*numbers, 0, &block)) {
            fprintf(stderr, "replicadigest: '%s' is no number of a block\n", *numbers);
            return 2;
        }
        if ((failed = read_blocks(pieces[0].data, block, 1, &failed_at))) {
            fprintf(stderr, "replicadigest: %s cannot be read at block %" PRIu64 ": %s\n", path, failed_at, failed);
            return 1;
        }
        put_base64((const unsigned char *)pieces[0].data, BLOCK);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int digests = argc == 5 && !strcmp(argv[1], "digests");

    if (digests ? !number(argv[3], 0, &first) || !number(argv[4], 1, &count)
                : argc < 4 || strcmp(argv[1], "blocks")) {
        fputs("usage: replicadigest digests PATH FIRST COUNT | replicadigest blocks PATH BLOCK...\n", stderr);
        return 2;
    }
    path = argv[2];
    /* Never through the page cache: DRBD writes below it, so what is in there may be older than the device. */
    device = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (device < 0) {
        fprintf(stderr, "replicadigest: %s cannot be opened with O_DIRECT: %s\n", path, strerror(errno));
        return 1;
    }
    for (int i = 0; i < READERS; i++)
        if (posix_memalign((void **)&pieces[i].data, BLOCK, (size_t)PIECE_BLOCKS * BLOCK))
            fail("no memory");
    int status = digests ? print_digests() : print_blocks(argv + 3);
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "replicadigest: write: %s\n", strerror(errno));
        return 1;
    }
    return status;
}

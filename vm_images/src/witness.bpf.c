/* SPDX-License-Identifier: MIT
 *
 * The kernel's half of witness.c: a digest of each 4 KiB block of a write when it is taken, and again when it is
 * completed to whoever wrote. A block whose digests differ was changed while it was in flight.
 *
 * Only the types and fields that are used are declared; libbpf finds them in the running kernel by its BTF.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "witness.h"
#include "witness_kernel.h"

/* Helpers that read the kernel's memory are for programs under a licence that the GPL is compatible with. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define LINE_WORDS 8
#define LINE_BYTES (LINE_WORDS * 8)
/* More parts than a write may have: its memory in pages, cut where a block of the device ends. */
#define PARTS_MAX (2 * BLOCKS_MAX + 2)

const volatile struct settings settings SEC(".rodata.settings");

/* Where a write's data is. Kept from its beginning: at its end the iterator may have moved. */
struct write {
    __u64 vectors;
    __u64 sector;
    __u32 index, done, bytes;
};

/* The digests of a write, CHUNK_BLOCKS at a time, so that a short write takes little room and a long one has enough. */
struct chunk_key {
    __u64 bio;
    __u64 number;
};

struct chunk {
    __u64 digests[CHUNK_BLOCKS];
};

/* A walk over the data of one write. In a map and not on the stack, or the verifier follows each of its values. */
struct walk {
    struct write write;
    __u64 bio;
    __u64 pages, memory; /* where the kernel's array of struct page is, and where all memory is mapped */
    __u64 at; /* the byte of the device that comes next */
    __u64 state;
    __u32 index, done, left; /* where in the vectors, and the bytes that are left */
    __u32 blocks, changed;
    __u32 ending;
    __u32 reason; /* why it ended early: a counter; 0 where it did not */
    struct chunk chunk;
    __u64 words[PAGE_BYTES / 8 + LINE_WORDS];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, __u64);
    __type(value, struct write);
} in_flight SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct chunk_key);
    __type(value, struct chunk);
} chunks SEC(".maps");

/* One bit for each block of the device. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} changed SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

/* The end of one write may interrupt the beginning of another on the same CPU. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, struct walk);
} walks SEC(".maps");

static __always_inline void count(__u32 counter, __u64 more)
{
    __u64 *value = bpf_map_lookup_elem(&counters, &counter);
    if (value)
        __sync_fetch_and_add(value, more);
}

/* -------------------------------------------------------------------------------------------- digests of the data */

/* Hide from the compiler what it knows of a value, so that the check behind it stays where the verifier sees it. */
#define UNKNOWN(value) asm volatile("" : "+r"(value))

/* Each step is a bijection of the state, so data that differs in one word never has the same digest. */
static long digest_line(__u32 line, void *context)
{
    struct walk *walk = *(struct walk **)context;
    __u64 first = line;

    UNKNOWN(first);
    first &= PAGE_BYTES / LINE_BYTES - 1;
    __u64 state = walk->state, *words = &walk->words[first * LINE_WORDS];
#pragma unroll
    for (int i = 0; i < LINE_WORDS; i++) {
        state = (state ^ words[i]) * 0x9E3779B97F4A7C15ULL;
        state ^= state >> 29;
    }
    walk->state = state;
    return 0;
}

static long compare_digest(__u32 slot, void *context)
{
    struct {
        struct walk *walk;
        struct chunk *before;
        __u64 first;
    } *compared = context;
    __u64 at = slot;

    UNKNOWN(at);
    at &= CHUNK_BLOCKS - 1;
    if (compared->before->digests[at] == compared->walk->chunk.digests[at])
        return 0;
    compared->walk->changed++;
    __u64 block = compared->first + at;
    __u32 word = block / 64;
    __u64 *bits = bpf_map_lookup_elem(&changed, &word);
    if (bits)
        __sync_fetch_and_or(bits, 1ULL << (block & 63));
    return 0;
}

/* The digests of up to CHUNK_BLOCKS blocks are there: keep them, or compare them with those that were kept. */
static __always_inline void chunk_is_full(struct walk *walk)
{
    struct chunk_key key = {walk->bio, (walk->blocks - 1) / CHUNK_BLOCKS};
    __u32 blocks = (walk->blocks - 1) % CHUNK_BLOCKS + 1;

    if (!walk->ending) {
        if (bpf_map_update_elem(&chunks, &key, &walk->chunk, BPF_ANY))
            walk->reason = NO_ROOM;
        return;
    }
    struct {
        struct walk *walk;
        struct chunk *before;
        __u64 first;
    } compared = {walk, bpf_map_lookup_elem(&chunks, &key),
                  (walk->write.sector >> (PAGE_SHIFT - SECTOR_SHIFT)) + key.number * CHUNK_BLOCKS};
    if (!compared.before) {
        walk->reason = END_UNSEEN;
        return;
    }
    bpf_loop(blocks, compare_digest, &compared, 0);
    bpf_map_delete_elem(&chunks, &key);
}

/* Take the next part of the data into the digest: what lies in one page of memory and in one block of the device. */
static long digest_part(__u32 part, void *context)
{
    struct walk *walk = *(struct walk **)context;
    struct bio_vec *vector = (void *)(walk->write.vectors + (__u64)walk->index * bpf_core_type_size(struct bio_vec));
    static const char zeros[LINE_BYTES];
    struct page *page;
    __u32 length, offset;

    (void)part;
    if (!walk->left || walk->reason)
        return 1;
    if (bpf_core_read(&page, sizeof page, &vector->bv_page) || bpf_core_read(&length, sizeof length, &vector->bv_len) ||
        bpf_core_read(&offset, sizeof offset, &vector->bv_offset)) {
        walk->reason = UNREADABLE;
        return 1;
    }
    __u64 from = (__u64)offset + walk->done, in_page = from % PAGE_BYTES, in_block = walk->at % PAGE_BYTES;
    __u64 bytes = PAGE_BYTES - (in_page > in_block ? in_page : in_block);
    if (bytes > length - walk->done)
        bytes = length - walk->done;
    if (bytes > walk->left)
        bytes = walk->left;
    __u64 page_number = ((__u64)page - walk->pages) / bpf_core_type_size(struct page) + (from >> PAGE_SHIFT);
    __u64 address = walk->memory + (page_number << PAGE_SHIFT) + in_page;

    UNKNOWN(bytes);
    if (bytes == 0 || bytes > PAGE_BYTES) {
        walk->reason = UNREADABLE;
        return 1;
    }
    /* The last line is filled up with zeros, so that nothing of an earlier write is in the digest. */
    if (bpf_probe_read_kernel(walk->words, bytes, (void *)address) ||
        bpf_probe_read_kernel((char *)walk->words + bytes, LINE_BYTES, zeros)) {
        walk->reason = UNREADABLE;
        return 1;
    }
    bpf_loop((bytes + LINE_BYTES - 1) / LINE_BYTES, digest_line, context, 0);

    walk->at += bytes;
    walk->left -= bytes;
    walk->done += bytes;
    if (walk->done >= length) {
        walk->done = 0;
        walk->index++;
    }
    if (walk->at % PAGE_BYTES && walk->left)
        return 0;
    __u64 slot = walk->blocks;
    UNKNOWN(slot);
    walk->chunk.digests[slot & (CHUNK_BLOCKS - 1)] = walk->state;
    walk->state = 0;
    walk->blocks++;
    if (walk->blocks % CHUNK_BLOCKS == 0 || !walk->left)
        chunk_is_full(walk);
    return 0;
}

/* Digest what walk->write describes; walk->reason says why it could not be done to the end. */
static __always_inline void digest(struct walk *walk)
{
    walk->pages = walk->memory = 0;
    bpf_probe_read_kernel(&walk->pages, sizeof walk->pages, (void *)settings.vmemmap_base);
    bpf_probe_read_kernel(&walk->memory, sizeof walk->memory, (void *)settings.page_offset_base);
    walk->at = walk->write.sector << SECTOR_SHIFT;
    walk->index = walk->write.index;
    walk->done = walk->write.done;
    walk->left = walk->write.bytes;
    walk->state = walk->blocks = walk->changed = walk->reason = 0;
    if (walk->left > BYTES_MAX) {
        walk->reason = TOO_LONG;
        return;
    }
    bpf_loop(PARTS_MAX, digest_part, &walk, 0);
    if (walk->left && !walk->reason)
        walk->reason = TOO_LONG;
}

/* ------------------------------------------------------------------------------------- the life of a write in DRBD */

static long forget_chunk(__u32 number, void *context)
{
    struct chunk_key key = {*(__u64 *)context, number};

    bpf_map_delete_elem(&chunks, &key);
    return 0;
}

static __always_inline void forget_digests(__u64 bio)
{
    bpf_loop(CHUNKS_MAX, forget_chunk, &bio, 0);
}

/* Whether it writes data to the device that is watched: no read, no discard, no bare flush. */
static __always_inline bool is_watched(struct bio *bio)
{
    if ((BPF_CORE_READ(bio, bi_opf) & OPERATION_MASK) != OPERATION_WRITE || !BPF_CORE_READ(bio, bi_iter.bi_size))
        return false;
    struct gendisk *disk = BPF_CORE_READ(bio, bi_bdev, bd_disk);
    return BPF_CORE_READ(disk, major) == settings.major && BPF_CORE_READ(disk, first_minor) == settings.minor;
}

static __always_inline int begins(struct bio *bio)
{
    __u64 key = (__u64)bio;
    __u32 mine = 0;
    struct walk *walk;

    /* The kernel uses a bio again once its write is completed: what is still known of this one missed its end. */
    if (!bpf_map_delete_elem(&in_flight, &key)) {
        forget_digests(key);
        count(END_UNSEEN, 1);
    }
    if (!is_watched(bio))
        return 0;
    walk = bpf_map_lookup_elem(&walks, &mine);
    if (!walk)
        return 0;
    walk->ending = 0;
    walk->bio = key;
    walk->write.vectors = (__u64)BPF_CORE_READ(bio, bi_io_vec);
    walk->write.sector = BPF_CORE_READ(bio, bi_iter.bi_sector);
    walk->write.index = BPF_CORE_READ(bio, bi_iter.bi_idx);
    walk->write.done = done_of_the_first_vector(bio);
    walk->write.bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
    digest(walk);
    if (!walk->reason && bpf_map_update_elem(&in_flight, &key, &walk->write, BPF_ANY))
        walk->reason = NO_ROOM;
    if (walk->reason) {
        forget_digests(key);
        count(walk->reason, 1);
    }
    return 0;
}

/* A bio that is used again while its last end was missed is no longer what it was. The block layer's end comes after
 * parts were split off, which moves where the write begins. */
static __always_inline bool is_the_same(struct bio *bio, struct write *write, bool split)
{
    return write->vectors == (__u64)BPF_CORE_READ(bio, bi_io_vec) &&
           (split || (write->sector == BPF_CORE_READ(bio, bi_iter.bi_sector) &&
                      write->bytes == BPF_CORE_READ(bio, bi_iter.bi_size)));
}

static __always_inline int ends(struct bio *bio, bool split)
{
    __u64 key = (__u64)bio;
    __u32 mine = 1;
    struct write *write = bpf_map_lookup_elem(&in_flight, &key);
    struct walk *walk = bpf_map_lookup_elem(&walks, &mine);

    if (!walk)
        return 0;
    if (!write || !is_the_same(bio, write, split)) {
        /* A part that the block layer split off ends by itself; it belongs to a write that is watched as a whole. */
        __u64 whole = (__u64)BPF_CORE_READ(bio, bi_private);
        if (is_watched(bio) && !bpf_map_lookup_elem(&in_flight, &whole))
            count(BEGIN_UNSEEN, 1);
        return 0;
    }
    walk->ending = 1;
    walk->bio = key;
    walk->write = *write;
    bpf_map_delete_elem(&in_flight, &key);
    digest(walk);
    if (walk->reason) {
        forget_digests(key);
        count(walk->reason, 1);
        return 0;
    }
    count(WRITES, 1);
    count(BYTES, walk->write.bytes);
    count(BLOCK_WRITES, walk->blocks);
    if (walk->changed) {
        count(CHANGED_WRITES, 1);
        count(CHANGED_BLOCK_WRITES, walk->changed);
    }
    return 0;
}

/* -------------------------------------------------------------------------- where a write can be seen to begin and end
 *
 * Tracing programs and tracepoints, no kprobes: one of those does not run inside of another on the same CPU, and many a
 * write ends in an interrupt while another begins.
 */

/* drbd_send_and_submit, which has the request as its first or, in DRBD 8.4, as its second argument. */
SEC("fentry")
int begins_in_drbd(__u64 *arguments)
{
    __u64 request;
    struct bio *bio = NULL;

    /* Each branch with its own load: the verifier does not follow a chosen address, nor the branch that is not taken. */
    if (settings.request_argument == 0) {
        request = arguments[0];
        UNKNOWN(request);
    } else {
        request = arguments[1];
        UNKNOWN(request);
    }
    bpf_probe_read_kernel(&bio, sizeof bio, (void *)(request + settings.master_bio));
    return bio ? begins(bio) : 0;
}

/* complete_master_bio(device, m), where m begins with the bio. */
SEC("fentry")
int ends_in_drbd(__u64 *arguments)
{
    struct bio *bio = NULL;

    bpf_probe_read_kernel(&bio, sizeof bio, (void *)arguments[1]);
    return bio ? ends(bio, false) : 0;
}

/* block_bio_queue(bio) and block_bio_complete(queue, bio). */
SEC("raw_tp/block_bio_queue")
int begins_in_block_layer(struct bpf_raw_tracepoint_args *arguments)
{
    return begins((struct bio *)arguments->args[0]);
}

SEC("raw_tp/block_bio_complete")
int ends_in_block_layer(struct bpf_raw_tracepoint_args *arguments)
{
    return ends((struct bio *)arguments->args[1], true);
}

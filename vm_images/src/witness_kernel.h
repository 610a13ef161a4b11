/* SPDX-License-Identifier: MIT
 *
 * What witness.bpf.c knows of the kernel: of each type the members that it reads, wherever this kernel has them, and
 * under which name.
 */
#ifndef WITNESS_KERNEL_H
#define WITNESS_KERNEL_H

#include <linux/types.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define KERNEL_TYPE __attribute__((preserve_access_index))

#define PAGE_BYTES 4096
#define PAGE_SHIFT 12
#define SECTOR_SHIFT 9
/* REQ_OP_MASK and REQ_OP_WRITE of the kernel's blk_types.h. */
#define OPERATION_MASK 255
#define OPERATION_WRITE 1

struct page {
} KERNEL_TYPE;

struct bio_vec {
    struct page *bv_page;
    unsigned int bv_len, bv_offset;
} KERNEL_TYPE;

struct bvec_iter {
    __u64 bi_sector;
    unsigned int bi_size, bi_idx, bi_bvec_done;
} KERNEL_TYPE;

struct gendisk {
    int major, first_minor;
} KERNEL_TYPE;

struct block_device {
    struct gendisk *bd_disk;
} KERNEL_TYPE;

struct bio {
    struct block_device *bi_bdev;
    unsigned int bi_opf;
    struct bvec_iter bi_iter;
    struct bio_vec *bi_io_vec;
    void *bi_private;
} KERNEL_TYPE;

/* Linux 7.3 has bi_offset for bi_bvec_done, which means the same. What follows three underscores is no part of a name. */
struct bvec_iter___since_7_3 {
    unsigned int bi_offset;
} KERNEL_TYPE;

struct bio___since_7_3 {
    struct bvec_iter___since_7_3 bi_iter;
} KERNEL_TYPE;

/* How many bytes of the first vector that is left are no part of it. */
static __always_inline __u32 done_of_the_first_vector(struct bio *bio)
{
    struct bio___since_7_3 *newer = (void *)bio;

    if (bpf_core_field_exists(newer->bi_iter.bi_offset))
        return BPF_CORE_READ(newer, bi_iter.bi_offset);
    return BPF_CORE_READ(bio, bi_iter.bi_bvec_done);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * What witness.bpf.c and its loader witness.c agree on.
 */
#ifndef WITNESS_H
#define WITNESS_H

#include <linux/types.h>

/* Digests are kept in chunks of so many blocks; the longest write that is watched has so many chunks: 16 MiB. */
#define CHUNK_BLOCKS 64
#define CHUNKS_MAX 64
#define BLOCKS_MAX (CHUNK_BLOCKS * CHUNKS_MAX)
/* A write that begins in the middle of a block touches one block more than its length says. */
#define BYTES_MAX ((BLOCKS_MAX - 1) * 4096u)

/* The map "counters"; the first are of what was watched, the others of writes that were not. */
enum counter {
    WRITES,
    BYTES,
    BLOCK_WRITES,
    CHANGED_WRITES,
    CHANGED_BLOCK_WRITES,
    TOO_LONG,
    UNREADABLE,
    NO_ROOM,
    BEGIN_UNSEEN,
    END_UNSEEN,
    COUNTERS,
};

struct settings {
    __u64 vmemmap_base, page_offset_base; /* where the kernel has these variables of x86-64 */
    __s32 major, minor;
    __u32 request_argument; /* which argument of drbd_send_and_submit is the request, from 0 */
    __u32 master_bio;       /* where in struct drbd_request the bio is, in bytes */
};

#endif

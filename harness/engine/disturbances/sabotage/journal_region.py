"""Where a filesystem's journal lies, as its own superblock says; without the tools that the owners are found by.

ext3, ext4: fs/ext4/ext4.h (``s_jnl_blocks`` is a copy of the journal inode's block map), include/linux/jbd2.h; XFS:
fs/xfs/libxfs/xfs_format.h; NTFS: fs/ntfs3/ntfs.h, by the runs of $LogFile's record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, FilesystemKind

_EXT_SUPERBLOCK, _EXT_MAGIC, _EXT_JOURNAL_MAP = 1024, 0xEF53, 0x10C
_EXTENT_MAGIC = 0xF30A
_LOG_FILE, _NTFS_DATA, _NTFS_END = 2, 0x80, 0xFFFFFFFF
_JBD2_MAGIC, _JBD2_SUPERBLOCKS = 0xC03B3998, (3, 4)


#: Where it may be looked for: what another filesystem left on the device may look like a journal too.
_EXT = (FilesystemKind.EXT3, FilesystemKind.EXT4, FilesystemKind.EXT4_JOURNAL, FilesystemKind.EXT4_NOBARRIER,
        FilesystemKind.SWAPFILE)  # fmt: skip
_NTFS = (FilesystemKind.NTFS3, FilesystemKind.NTFS_3G)
#: Which have one whose place is known here.
HAVE_JOURNAL = (*_EXT, *_NTFS, FilesystemKind.XFS)


def journal_blocks(view: ReplicaView, filesystem: FilesystemKind) -> tuple[int, ...]:
    """The 4 KiB blocks of the journal, in its own order, of the filesystem that begins where ``view`` does.

    Empty where none is found.
    """
    if filesystem in _EXT:
        return _of_ext(view)
    if filesystem in _NTFS:
        return _of_ntfs(view)
    return _of_xfs(view) if filesystem is FilesystemKind.XFS else ()


def _of_ext(view: ReplicaView) -> tuple[int, ...]:
    superblock = view.read(_EXT_SUPERBLOCK, 1024)
    if len(superblock) < 1024 or struct.unpack_from("<H", superblock, 56)[0] != _EXT_MAGIC:
        return ()
    (log_block_size,) = struct.unpack_from("<I", superblock, 24)
    if 1024 << log_block_size != BLOCK_BYTES:
        return ()
    words = struct.unpack_from("<15I", superblock, _EXT_JOURNAL_MAP)
    if words[0] & 0xFFFF == _EXTENT_MAGIC:
        blocks = tuple(_of_extents(view, words))
    else:
        pointed = (*words[:12], *(one for depth in (1, 2, 3) for one in _pointed(view, words[11 + depth], depth)))
        blocks = tuple(block for block in pointed if block)
    magic, kind = struct.unpack(">II", view.read(blocks[0] * BLOCK_BYTES, 8).ljust(8, b"\0")) if blocks else (0, 0)
    return blocks if magic == _JBD2_MAGIC and kind in _JBD2_SUPERBLOCKS else ()


def _of_extents(view: ReplicaView, words: tuple[int, ...]) -> Iterator[int]:
    """A node of an extent tree: its header, then entries of three words each."""
    for at in range(3, 3 + 3 * (words[0] >> 16), 3):
        if words[1] >> 16:
            yield from _of_extents(view, _words(view, words[at + 1]))
        else:
            yield from range(words[at + 2], words[at + 2] + (words[at + 1] & 0xFFFF))


def _pointed(view: ReplicaView, block: int, depth: int) -> Iterator[int]:
    """What an indirect block leads to, ``depth`` of them deep."""
    for one in _words(view, block) if block else ():
        yield from _pointed(view, one, depth - 1) if depth > 1 else (one,)


def _words(view: ReplicaView, block: int) -> tuple[int, ...]:
    return struct.unpack(f"<{BLOCK_BYTES // 4}I", view.read(block * BLOCK_BYTES, BLOCK_BYTES).ljust(BLOCK_BYTES, b"\0"))


def _of_xfs(view: ReplicaView) -> tuple[int, ...]:
    superblock = view.read(0, 512)
    if superblock[:4] != b"XFSB":
        return ()
    (block_bytes,) = struct.unpack_from(">I", superblock, 4)
    (log_start,) = struct.unpack_from(">Q", superblock, 48)
    (group_blocks,) = struct.unpack_from(">I", superblock, 84)
    (log_blocks,) = struct.unpack_from(">I", superblock, 96)
    group_bits = superblock[124]
    if block_bytes != BLOCK_BYTES or not log_start:
        return ()
    first = (log_start >> group_bits) * group_blocks + (log_start & (1 << group_bits) - 1)
    return tuple(range(first, first + log_blocks))


def _of_ntfs(view: ReplicaView) -> tuple[int, ...]:
    boot = view.read(0, 512)
    if boot[3:11] != b"NTFS    ":
        return ()
    sector, per_cluster = struct.unpack_from("<HB", boot, 11)
    table, size = struct.unpack_from("<Q", boot, 0x30)[0], struct.unpack_from("<b", boot, 0x40)[0]
    record_bytes = 1 << -size if size < 0 else size * sector * per_cluster
    if sector * per_cluster != BLOCK_BYTES or not 512 <= record_bytes <= BLOCK_BYTES:
        return ()
    record = view.read(table * BLOCK_BYTES + _LOG_FILE * record_bytes, record_bytes)
    (at,) = struct.unpack_from("<H", record, 0x14)
    while at + 0x40 <= len(record):
        kind, length, outside = struct.unpack_from("<IIB", record, at)
        if kind == _NTFS_END or length < 0x18:
            break
        if kind == _NTFS_DATA and outside:
            return tuple(_of_runs(record[at + struct.unpack_from("<H", record, at + 0x20)[0] : at + length]))
        at += length
    return ()


def _of_runs(runs: bytes) -> Iterator[int]:
    """The clusters of a list of runs: each a byte with two widths, a length, and how far it is from the one before."""
    at = first = 0
    while at < len(runs) and runs[at]:
        widths = (runs[at] & 15, runs[at] >> 4)
        length = int.from_bytes(runs[at + 1 : at + 1 + widths[0]], "little")
        first += int.from_bytes(runs[at + 1 + widths[0] : at + 1 + sum(widths)], "little", signed=True)
        yield from range(first, first + length)
        at += 1 + sum(widths)

"""What begins at a place of a disk, by its signature; and the partitions that a table in it names."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.model import SECTOR_BYTES

#: So many bytes from the beginning tell: btrfs keeps its superblock at 64 KiB.
HEAD_BYTES = 72 * 1024
_SIGNATURES = (
    ("luks", 0, b"LUKS\xba\xbe"),
    ("xfs", 0, b"XFSB"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("ext", 0x438, b"\x53\xef"),
    ("f2fs", 0x400, b"\x10\x20\xf5\xf2"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("suspended swap", 4086, b"S1SUSPEND"),
    ("lvm", 512, b"LABELONE"),
    ("lvm", 0, b"LABELONE"),
    ("vfat", 54, b"FAT16"),
    ("vfat", 54, b"FAT12"),
    ("vfat", 82, b"FAT32"),
)
_GPT = b"EFI PART"
#: Kinds of partitions of a DOS table that hold others.
_EXTENDED = (0x05, 0x0F, 0x85)
_MOST_LOGICAL = 128


@dataclass(frozen=True)
class DiskPartition:
    """One partition: its number, and where it is in bytes."""

    number: int
    start: int
    size: int


def kind_of(head: bytes) -> str:
    """What begins here: a filesystem, ``swap``, ``lvm``, ``luks``, ``partitions``, ``zeros``; empty where unknown."""
    if head[SECTOR_BYTES : SECTOR_BYTES + len(_GPT)] == _GPT:
        return "partitions"
    for kind, at, magic in _SIGNATURES:
        if head[at : at + len(magic)] == magic:
            return kind
    if head[510:512] == b"\x55\xaa" and any(head[at + 4] for at in range(446, 510, 16)):
        return "partitions"
    return "" if head.strip(b"\0") or not head else "zeros"


def partitions_of(read: Callable[[int, int], bytes]) -> tuple[DiskPartition, ...]:
    """The partitions of a GPT or a DOS table, by place; ``read`` has the bytes of the disk (offset, size).

    Sectors have 512 bytes, as those of DRBD's devices.  :class:`ValueError` where there is no such table.
    """
    first = read(0, 2 * SECTOR_BYTES)
    is_gpt = first[SECTOR_BYTES : SECTOR_BYTES + len(_GPT)] == _GPT
    try:
        found = list(_gpt(read, first[SECTOR_BYTES:]) if is_gpt else _dos(read, first))
    except struct.error:
        raise ValueError("the partition table ends in the middle") from None
    return tuple(sorted(found, key=lambda one: one.start))


def _gpt(read: Callable[[int, int], bytes], header: bytes) -> Iterator[DiskPartition]:
    entries, count, size = struct.unpack_from("<QII", header, 72)
    if not 128 <= size <= 4096 or count > 1024:
        raise ValueError(f"a GPT with {count} entries of {size} bytes")
    table = read(entries * SECTOR_BYTES, count * size)
    for number in range(len(table) // size):
        entry = table[number * size : (number + 1) * size]
        start, last = struct.unpack_from("<QQ", entry, 32)
        if entry[:16].strip(b"\0") and last >= start:
            yield DiskPartition(number + 1, start * SECTOR_BYTES, (last + 1 - start) * SECTOR_BYTES)


def _dos(read: Callable[[int, int], bytes], sector: bytes) -> Iterator[DiskPartition]:
    for number, (kind, start, size) in enumerate(_entries(sector), 1):
        if kind in _EXTENDED:
            yield from _logical(read, start)
        elif kind and size:
            yield DiskPartition(number, start * SECTOR_BYTES, size * SECTOR_BYTES)


def _logical(read: Callable[[int, int], bytes], extended: int) -> Iterator[DiskPartition]:
    """The chain of those in an extended partition that begins at the sector ``extended``."""
    at = extended
    for number in range(5, 5 + _MOST_LOGICAL):
        (kind, start, size), (then, following, _) = _entries(read(at * SECTOR_BYTES, SECTOR_BYTES))[:2]
        if kind and size:
            yield DiskPartition(number, (at + start) * SECTOR_BYTES, size * SECTOR_BYTES)
        if then not in _EXTENDED or not following:
            return
        at = extended + following


def _entries(sector: bytes) -> list[tuple[int, int, int]]:
    """Kind, first sector and size of each of the four entries of a DOS table."""
    if sector[510:512] != b"\x55\xaa":
        raise ValueError("there is no partition table")
    return [(sector[at + 4], *struct.unpack_from("<II", sector, at + 8)) for at in range(446, 510, 16)]

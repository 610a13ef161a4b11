"""FAT16, FAT32 and exFAT: where what lies, and which clusters are free.

By Microsoft's "FAT: General Overview of On-Disk Format" and "exFAT file system specification".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.parse.bitmap import runs

EXFAT_BITMAP = "the allocation bitmap"
# The first cluster has this number.
FIRST_CLUSTER = 2
_FAT12_CLUSTERS, _FAT16_CLUSTERS = 4085, 65525
_ENTRY = 32
# Kinds of entries of an exFAT directory; without the highest bit an entry is not in use.
_FILE, _STREAM, _BITMAP, _UPCASE = 0x85, 0xC0, 0x81, 0x82


@dataclass(frozen=True)
class FatLayout:
    """Where the parts are, in bytes of the device.

    ``bits``: the width of an entry of the table, 64 for exFAT, whose table says nothing about what is free.  ``root``
    is the root directory of FAT16, empty where it is a chain of clusters as any other.
    """

    bits: int
    tables: tuple[range, ...]
    root: range
    data: int
    cluster: int
    clusters: int
    end: int

    def place(self, cluster: int) -> int:
        """The first byte of ``cluster``."""
        return self.data + (cluster - FIRST_CLUSTER) * self.cluster


def fat_layout(boot: bytes) -> FatLayout:
    """The layout that the boot sector of a FAT16 or FAT32 filesystem says; :class:`ValueError` for any other."""
    sector, per_cluster, reserved, tables, roots, small, _, table16 = struct.unpack_from("<HBHBHHBH", boot, 11)
    (large,) = struct.unpack_from("<I", boot, 32)
    (table32,) = struct.unpack_from("<I", boot, 36)
    if boot[510:512] != b"\x55\xaa" or sector not in (512, 1024, 2048, 4096) or not (per_cluster and tables):
        raise ValueError("its first sector is not that of a FAT filesystem")
    table, total = (table16 or table32) * sector, (small or large) * sector
    root_at = reserved * sector + tables * table
    data = root_at + -(-roots * _ENTRY // sector) * sector
    cluster = per_cluster * sector
    clusters = (total - data) // cluster
    bits = 32 if not table16 else 16
    # By their number of clusters, as everybody but Linux tells them apart: where the two disagree a tool may be misled.
    if bits != (32 if clusters >= _FAT16_CLUSTERS else 16 if clusters >= _FAT12_CLUSTERS else 12):
        raise ValueError(f"it has {clusters} clusters, which is not what a FAT{bits} has")
    return FatLayout(
        bits, tuple(range(start, start + table) for start in range(reserved * sector, root_at, table)),
        range(root_at, data), data, cluster, clusters, total,
    )  # fmt: skip


def free_clusters(table: bytes, layout: FatLayout) -> Sequence[range]:
    """The runs of clusters that the ``table`` of a FAT16 or FAT32 holds free."""
    width = layout.bits // 8
    end = FIRST_CLUSTER + layout.clusters
    if len(table) < end * width:
        raise ValueError(f"a table of {len(table)} bytes is too short for {layout.clusters} clusters")
    entries = struct.unpack_from(f"<{end}{'H' if width == 2 else 'I'}", table)
    mask = 0xFFFF if width == 2 else 0x0FFFFFFF
    return runs(number for number in range(FIRST_CLUSTER, end) if not entries[number] & mask)


def exfat_layout(boot: bytes) -> FatLayout:
    """The layout that the boot sector of an exFAT filesystem says; :class:`ValueError` for any other."""
    if boot[3:11] != b"EXFAT   " or boot[510:512] != b"\x55\xaa":
        raise ValueError("its first sector is not that of an exFAT filesystem")
    total, table_at, table, data, clusters = struct.unpack_from("<QIIII", boot, 72)
    shift, cluster_shift, tables = boot[108], boot[109], boot[110]
    starts = [(table_at + number * table) << shift for number in range(tables)]
    return FatLayout(
        64, tuple(range(start, start + (table << shift)) for start in starts), range(0),
        data << shift, 1 << (shift + cluster_shift), clusters, total << shift,
    )  # fmt: skip


@dataclass(frozen=True)
class ExfatStream:
    """Where a file's or directory's data begin, and how many bytes of them were ever written."""

    cluster: int
    written: int


def exfat_streams(directory: bytes) -> Iterator[ExfatStream]:
    """Of each file in use in the content of a ``directory``."""
    in_file = False
    for entry in _entries(directory):
        if entry[0] == _STREAM and in_file:
            written, cluster = struct.unpack_from("<Q4xI", entry, 8)
            yield ExfatStream(cluster, written)
        in_file = entry[0] == _FILE


def exfat_system(root: bytes) -> Mapping[str, tuple[int, int]]:
    """What the ``root`` directory names as the filesystem's own: its name, first cluster and size in bytes.

    :class:`ValueError` where it names no allocation bitmap.
    """
    names = {_BITMAP: EXFAT_BITMAP, _UPCASE: "the up-case table"}
    found = {
        names[entry[0]]: struct.unpack_from("<IQ", entry, 20) for entry in _entries(root) if entry[0] in names
    }  # fmt: skip
    if EXFAT_BITMAP not in found:
        raise ValueError("its root directory names no allocation bitmap")
    return found


def _entries(directory: bytes) -> Iterator[bytes]:
    for at in range(0, len(directory) - _ENTRY + 1, _ENTRY):
        if not directory[at]:
            return
        yield directory[at : at + _ENTRY]

"""Whose marked blocks are, on a disk that nobody uses or on a snapshot of it: read where it lies, nothing is mounted.

Nothing is made for it either, no copy and no loop device: a rule of udev would look at it, and LVM bring up what is on
it.  So a filesystem in a partition is looked into only where its tools take a place on a device (ext), or where the
harness reads it itself (NTFS, FAT, exFAT).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.filesystems.btrfs_owners import btrfs_owners
from harness.filesystems.ext_owners import ext_owners
from harness.filesystems.fat_owners import exfat_owners, fat_owners
from harness.filesystems.ntfs_owners import ntfs_owners
from harness.filesystems.owned import ByteMap, OwnedBlock, unknown
from harness.filesystems.swap import Swap
from harness.filesystems.view import CHUNK_BYTES, ReplicaView
from harness.filesystems.xfs_owners import xfs_owners
from harness.inspection.machine import InspectedNode
from harness.model import BLOCK_BYTES, BlockOwner
from harness.parse.content_kind import HEAD_BYTES, DiskPartition, kind_of, partitions_of

#: Says whose blocks are; the view begins where the filesystem does.
Owners = Callable[[ReplicaView, Iterable[int]], Mapping[int, OwnedBlock]]

_TOOL_SECONDS = 60.0
# Past the page cache: what DRBD wrote below it is on the disk alone.
_READ = 'dd if="$1" bs="$2" skip="$3" count=1 iflag=direct,fullblock,skip_bytes status=none | base64 -w 0'
# The tools read through the page cache of the lower device, which DRBD writes past; what they leave in it would be
# old some day, and somebody else's trap.
_FLUSH = ["blockdev", "--flushbufs"]

_ANYWHERE: Mapping[str, tuple[Owners, str]] = {
    "ext": (ext_owners, "the filesystem's own maps, by dumpe2fs and debugfs"),
    "ntfs": (ntfs_owners, "its bitmap, master file table and directories, by The Sleuth Kit"),
    "vfat": (fat_owners, "its file allocation table and directories, by The Sleuth Kit"),
    "exfat": (exfat_owners, "its allocation bitmap and directories, by The Sleuth Kit"),
}
_WHOLE_DISK: Mapping[str, tuple[Owners, str]] = {
    "xfs": (xfs_owners, "the filesystem's own maps, by xfs_db"),
    "btrfs": (btrfs_owners, "the filesystem's trees, by btrfs inspect-internal"),
}
_UNSEEN = {
    "lvm": "LVM's physical volume, whose volumes are not looked into",
    "luks": "a LUKS container, whose key nobody asks for",
    "f2fs": "f2fs, which is not looked into here",
    "suspended swap": "the swap space of a system that is suspended to disk: all of it may be in use",
    "zeros": "no filesystem: zeros",
    "": "no filesystem that the harness knows",
}


@dataclass(frozen=True)
class DiskView(ReplicaView):
    """A disk where it lies, from byte ``start`` on, read past the page cache; several readings of one place agree only
    while nobody writes to it.
    """

    start: int = 0

    def _reading(self, number: int) -> list[str]:
        return ["sh", "-ec", _READ, "sh", self.path, str(CHUNK_BYTES), str(self._byte(number))]

    def _place(self, number: int) -> str:
        return f"at byte {self._byte(number)}"

    def _byte(self, number: int) -> int:
        return self.start + number * CHUNK_BYTES


def owners_on(
    node: InspectedNode, path: str, blocks: int, wanted: Iterable[int], *, running: bool
) -> tuple[Mapping[int, OwnedBlock], str]:  # fmt: skip
    """Whose each of ``wanted`` (4 KiB blocks) is by what ``path`` on ``node`` holds, and by what reasoning.

    ``running``: it is a snapshot of a disk in use, so that swap space may be in use.  What cannot be found out is
    unknown, with the reason.  Takes some minutes at most.
    """
    asked = sorted({*wanted})
    flush = [*_FLUSH, path]
    try:
        node.runner.run(flush, timeout=_TOOL_SECONDS, ok=())
        view = DiskView(node.runner, path, blocks)
        found, methods = _whole(view, asked, running=running)
    except (HarnessError, OSError, ValueError) as error:
        return unknown(asked, f"it could not be found out: {' '.join(str(error).split())}"), ""
    finally:
        # A machine that is lost by now is no reason to forget what a verify of hours has found.
        with contextlib.suppress(HarnessError):
            node.runner.run(flush, timeout=_TOOL_SECONDS, ok=())
    return found, "; ".join(dict.fromkeys(methods))


def _whole(view: DiskView, asked: list[int], *, running: bool) -> tuple[Mapping[int, OwnedBlock], list[str]]:
    kind = kind_of(view.read(0, HEAD_BYTES))
    if kind != "partitions":
        owned, method = _of(kind, view, asked, running=running, whole=True)
        return owned, [method] if method else []
    parts = partitions_of(view.read)
    found: dict[int, OwnedBlock] = dict(_around(parts, view.blocks).blocks(asked))
    methods = ["the partition table"]
    for part in parts:
        owned, method = _of_partition(view, part, asked, running=running)
        found |= owned
        methods += [method] if method else []
    return found, methods


def _of_partition(
    view: DiskView, part: DiskPartition, asked: list[int], *, running: bool
) -> tuple[Mapping[int, OwnedBlock], str]:
    if part.start % BLOCK_BYTES:
        mine = [block for block in asked if part.start <= block * BLOCK_BYTES < part.start + part.size]
        return unknown(mine, f"partition {part.number} does not begin at a block of 4 KiB"), ""
    first, count = part.start // BLOCK_BYTES, part.size // BLOCK_BYTES
    mine = [block - first for block in asked if first <= block < first + count]
    if not mine:
        return {}, ""
    inside = DiskView(view.runner, view.path, count, start=part.start)
    owned, method = _of(kind_of(inside.read(0, HEAD_BYTES)), inside, mine, running=running, whole=False)
    named = {
        block + first: replace(one, detail=f"partition {part.number}: {one.detail}",
                               path=f"partition {part.number}:{one.path}" if one.path else "")
        for block, one in owned.items()
    }  # fmt: skip
    return named, method


def _of(
    kind: str, view: DiskView, asked: list[int], *, running: bool, whole: bool
) -> tuple[Mapping[int, OwnedBlock], str]:
    """Whose ``asked`` are in a filesystem of ``kind`` that begins where ``view`` does."""
    if kind == "swap":
        if running:
            return unknown(asked, "swap space of a guest that runs: any slot may be in use"), ""
        return Swap().owners(view, asked), "swap space of a guest that is off: every slot is free"
    if kind in _ANYWHERE:
        owners, method = _ANYWHERE[kind]
        at = view
        if kind == "ext" and view.start:
            at = replace(view, path=f"{view.path}?offset={view.start}")
        return {**unknown(asked, "nobody tells"), **owners(at, asked)}, method
    if kind in _WHOLE_DISK and whole:
        owners, method = _WHOLE_DISK[kind]
        return {**unknown(asked, "nobody tells"), **owners(view, asked)}, method
    if kind in _WHOLE_DISK:
        return unknown(
            asked, f"{kind} in a partition, into which its tools do not look without a device of its own"
        ), ""
    return unknown(asked, _UNSEEN.get(kind, kind)), ""


def _around(parts: Iterable[DiskPartition], blocks: int) -> ByteMap:
    """What is in no partition; the table before the first one, and its copy at the end."""
    owners, end = ByteMap(), blocks * BLOCK_BYTES
    owners.paint(0, end, BlockOwner.FREE, "in no partition")
    first = min((part.start for part in parts), default=end)
    owners.paint(0, min(first, 2**20), BlockOwner.METADATA, "the partition table, or what boots from it")
    owners.paint(max(0, end - 9 * BLOCK_BYTES), end, BlockOwner.METADATA, "the copy of the partition table at the end")
    for part in parts:
        owners.paint(part.start, part.start + part.size, BlockOwner.UNKNOWN, f"partition {part.number}")
    return owners

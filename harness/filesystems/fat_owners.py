"""Who owns a block of a FAT or an exFAT: by its table or bitmap and the clusters of all files, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytsk3

from harness.filesystems.claims import Claim, paint_claims
from harness.filesystems.owned import ByteMap, OwnedBlock
from harness.filesystems.tsk import Run, TskFilesystem
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner
from harness.parse.bitmap import clear_runs
from harness.parse.fat import (
    EXFAT_BITMAP,
    FIRST_CLUSTER,
    FatLayout,
    exfat_layout,
    exfat_streams,
    exfat_system,
    fat_layout,
    free_clusters,
)

_BOOT_BYTES = 512


def fat_owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    """Who each of ``blocks`` belongs to; :class:`OSError` or :class:`ValueError` where its maps cannot be read.

    Reads the first file allocation table, which is the one in force, and all directories.
    """
    layout = fat_layout(view.read(0, _BOOT_BYTES))
    table = layout.tables[0]
    free = free_clusters(view.read(table.start, len(table)), layout)
    fs = TskFilesystem(view, pytsk3.TSK_FS_TYPE_FAT16 if layout.bits == 16 else pytsk3.TSK_FS_TYPE_FAT32)
    claims = list(_claims(fs, fs.names(), layout, {}))
    return _painted(view, layout, free, claims).blocks(blocks)


def exfat_owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    """As :func:`fat_owners`; what is free is told by the allocation bitmap."""
    layout = exfat_layout(view.read(0, _BOOT_BYTES))
    fs = TskFilesystem(view, pytsk3.TSK_FS_TYPE_EXFAT)
    names = fs.names()
    system = exfat_system(fs.content(fs.root))
    written: dict[int, int] = {}
    for inode in fs.directories:
        written |= {layout.place(one.cluster): one.written for one in exfat_streams(fs.content(inode))}
    own = [
        Claim(
            layout.place(cluster),
            layout.place(cluster) + -(-size // layout.cluster) * layout.cluster,
            BlockOwner.METADATA,
            name,
        )
        for name, (cluster, size) in system.items()
    ]
    # The Sleuth Kit lists these as files too, with names of its own.
    starts = {one.start for one in own}
    claims = [*own, *(one for one in _claims(fs, names, layout, written) if one.start not in starts)]
    cluster, size = system[EXFAT_BITMAP]
    bitmap = view.read(layout.place(cluster), size)
    free = [range(run.start + FIRST_CLUSTER, run.stop + FIRST_CLUSTER) for run in clear_runs(bitmap, layout.clusters)]
    return _painted(view, layout, free, claims).blocks(blocks)


def _painted(view: ReplicaView, layout: FatLayout, free: Sequence[range], claims: Sequence[Claim]) -> ByteMap:
    painted = ByteMap()
    painted.paint(0, layout.data, BlockOwner.METADATA, "the boot sector and what is reserved behind it")
    for table in layout.tables:
        painted.paint(table.start, table.stop, BlockOwner.METADATA, "the file allocation table")
    painted.paint(layout.root.start, layout.root.stop, BlockOwner.METADATA, "directory /")
    end = layout.place(FIRST_CLUSTER + layout.clusters)
    painted.paint(end, view.blocks * BLOCK_BYTES, BlockOwner.FREE, "behind the last cluster of the filesystem")
    places = [range(layout.place(run.start), layout.place(run.stop)) for run in free]
    paint_claims(painted, range(layout.data, end), places, claims)
    return painted


def _claims(
    fs: TskFilesystem, names: Mapping[int, Sequence[str]], layout: FatLayout, written: Mapping[int, int]
) -> Iterator[Claim]:
    """What files and directories have; ``written`` is how much of one was, by the place where it begins."""
    for inode, paths in names.items():
        runs = [run for stream in fs.streams(inode) for run in stream.runs if run.start >= layout.data]
        if inode in fs.directories:
            yield from (Claim(run.start, run.stop, BlockOwner.METADATA, f"directory {paths[0]}") for run in runs)
        else:
            yield from _data(paths[0], runs, written)


def _data(path: str, runs: Sequence[Run], written: Mapping[int, int]) -> Iterator[Claim]:
    begin = next((run.start for run in runs if run.offset == 0), None)
    limit = written.get(begin) if begin is not None else None
    for run in runs:
        edge = run.stop
        if limit is not None:
            edge = min(max(run.start + -(-limit // BLOCK_BYTES) * BLOCK_BYTES - run.offset, run.start), run.stop)
        yield Claim(run.start, edge, BlockOwner.ALLOCATED, path, path, run.offset)
        never = f"preallocated for {path} and never written: it reads as zeros"
        yield Claim(edge, run.stop, BlockOwner.FREE, never, path)

"""Who owns a block of an NTFS: by $Bitmap, the master file table and the clusters of all files, in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytsk3

from harness.filesystems.claims import Claim, paint_claims
from harness.filesystems.owned import ByteMap, OwnedBlock
from harness.filesystems.tsk import MAX_FILES, Run, Stream, TskFilesystem
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner
from harness.parse.bitmap import clear_runs
from harness.parse.ntfs import DATA, MftRecord, NtfsAttribute, mft_record, record_bytes

_MFT, _JOURNAL, _ROOT, _BITMAP, _FIRST = 0, 2, 5, 6, 24
# The directory of the filesystem's own files that have no number of their own.
_EXTENSIONS = "/$Extend/"
_INDEX, _INDEX_BITMAP = 160, 176


def ntfs_owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    """Who each of ``blocks`` belongs to; :class:`OSError` or :class:`ValueError` where its maps cannot be read.

    Reads the master file table, $Bitmap and all directories.  A small file lies in the master file table: its block is
    metadata, and is told with its name.
    """
    fs = TskFilesystem(view, pytsk3.TSK_FS_TYPE_NTFS)
    cluster, end = fs.block_bytes, fs.block_bytes * fs.blocks
    size = record_bytes(view.read(0, 512))
    table = fs.content(_MFT)
    records = dict(_records(table, size))
    names = fs.names()
    parts = _parts(records)
    claims: list[Claim] = []
    for inode, record in records.items():
        if record is not None and record.in_use and record.base is None:
            for stream in fs.streams(inode):
                if inode == _MFT and stream.kind == DATA:
                    claims += _table(stream.runs, size, records, names)
                else:
                    claims += _claims(inode, names.get(inode, ()), stream, parts[inode], cluster)
    painted = ByteMap()
    painted.paint(
        end, view.blocks * BLOCK_BYTES, BlockOwner.METADATA, "the copy of the boot sector, behind all clusters"
    )
    free = [range(run.start * cluster, run.stop * cluster) for run in clear_runs(fs.content(_BITMAP), fs.blocks)]
    paint_claims(painted, range(end), free, claims)
    return painted.blocks(blocks)


def _records(table: bytes, size: int) -> Iterator[tuple[int, MftRecord | None]]:
    """All records by their number; None for one that is torn or was never written."""
    for number in range(min(len(table) // size, MAX_FILES)):
        try:
            yield number, mft_record(table[number * size : (number + 1) * size])
        except ValueError:
            yield number, None


def _parts(records: Mapping[int, MftRecord | None]) -> Mapping[int, Sequence[NtfsAttribute]]:
    """The attributes of each file, also those in records that continue its own, by the number of that."""
    found: dict[int, list[NtfsAttribute]] = defaultdict(list)
    for number, record in records.items():
        if record is not None and record.in_use:
            found[number if record.base is None else record.base] += record.attributes
    return found


def _claims(
    inode: int, paths: Sequence[str], stream: Stream, parts: Sequence[NtfsAttribute], cluster: int
) -> Iterator[Claim]:
    """What ``stream`` of a file has, in the file's words."""
    if inode == _JOURNAL:
        yield from _whole(stream.runs, BlockOwner.JOURNAL, "the journal ($LogFile)")
    elif (inode < _FIRST and inode != _ROOT) or (paths and paths[0].startswith(_EXTENSIONS)):
        yield from _whole(stream.runs, BlockOwner.METADATA, f"the filesystem's own {paths[0] if paths else inode}")
    elif not paths:
        detail = f"record {inode} of the master file table, which no directory names"
        yield from _whole(stream.runs, BlockOwner.UNKNOWN, detail)
    elif stream.kind in (_INDEX, _INDEX_BITMAP):
        yield from _whole(stream.runs, BlockOwner.METADATA, f"directory {paths[0]}")
    elif stream.kind != DATA:
        yield from _whole(stream.runs, BlockOwner.METADATA, f"attributes of {paths[0]}")
    else:
        yield from _data(paths, stream, parts, cluster)


def _data(paths: Sequence[str], stream: Stream, parts: Sequence[NtfsAttribute], cluster: int) -> Iterator[Claim]:
    path = f"{paths[0]}:{stream.name}" if stream.name else paths[0]
    detail = f"{path} (also {', '.join(paths[1:4])})" if len(paths) > 1 else path
    own = [one for one in parts if one.kind == DATA and one.name == stream.name]
    if any(one.compressed for one in own):
        # Which part of the file a cluster holds is not told by its place.
        for run in stream.runs:
            yield Claim(run.start, run.stop, BlockOwner.ALLOCATED, f"{detail}, compressed", path)
        return
    written = next((one.initialized for one in own if one.initialized is not None), None)
    if written is None:
        yield from _whole(stream.runs, BlockOwner.UNKNOWN, f"{detail}, whose record could not be read")
        return
    # What is behind the last byte in the same block, or in the same cluster where that is smaller, is nobody else's.
    step = min(cluster, BLOCK_BYTES)
    written = -(-written // step) * step
    for run in stream.runs:
        edge = min(max(run.start + written - run.offset, run.start), run.stop)
        yield Claim(run.start, edge, BlockOwner.ALLOCATED, detail, path, run.offset)
        never = f"preallocated for {path} and never written: it reads as zeros"
        yield Claim(edge, run.stop, BlockOwner.FREE, never, path)


def _whole(runs: Iterable[Run], owner: BlockOwner, detail: str) -> Iterator[Claim]:
    return (Claim(run.start, run.stop, owner, detail) for run in runs)


def _table(
    runs: Iterable[Run], size: int, records: Mapping[int, MftRecord | None], names: Mapping[int, Sequence[str]]
) -> Iterator[Claim]:
    """The master file table, record by record: a small file is in there with its data."""
    for run in runs:
        for start in range(run.start, run.stop, size):
            number = (run.offset + start - run.start) // size
            record = records.get(number)
            owner = record.base if record is not None and record.base is not None else number
            detail = "unused records of the master file table"
            if record is not None and record.in_use:
                name = names.get(owner, (f"number {owner}",))[0]
                inside = any(one.kind == DATA and one.resident and one.size for one in record.attributes)
                detail = f"the record of {name}{' with its data' if inside else ''} in the master file table"
            yield Claim(start, min(start + size, run.stop), BlockOwner.METADATA, detail)

"""Whose a block of a Btrfs filesystem on one device is, by ``btrfs inspect-internal``.

The trees know logical addresses; chunks say where those are on the device, once or twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from harness.filesystems.owned import ByteMap, OwnedBlock, unknown
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner
from harness.parse.btrfs import FS_TREE, ROOT_TREE, BtrfsSuper, BtrfsTrees, Chunk, FilePart, super_block, trees

TOOL_SECONDS = 120.0
# Of what it prints of each inode and name a good half is about neither place nor name.  Where it fails it complains.
_LOOK = r"""
btrfs inspect-internal dump-super "$1"
echo '== trees'
btrfs inspect-internal dump-tree "$1" |
    grep -avP '^\t\t([acmors]time|sequence|transid|location key|(\w+_)?uuid|drop_progress|last_snapshot) '
"""
# fs/btrfs/disk-io.h and volumes.h: where superblocks are, and what no chunk begins in.
_SUPER_OFFSETS, _SUPER_BYTES, _RESERVED_BYTES = (64 << 10, 64 << 20, 256 << 30), 4096, 1 << 20
# A tree block that is damaged here is read from its second copy, and nothing is missing then.
_HARMLESS = "checksum verify failed on"
_KINDS = ("DATA", "METADATA", "SYSTEM")
_FIRST_INODE = 256
_BY_ANOTHER_TREE = BlockOwner.UNKNOWN, "in use by a tree that holds no files"
_UNTOLD = "in use, but no file that was read has it"


def btrfs_owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    """Who each of ``blocks`` (4 KiB) belongs to, by the trees of ``view``; the filesystem was unmounted.

    Both copies of a tree block are metadata, which inline data is part of.  A file that has several names is called by
    one of them; a block that files or snapshots share is theirs, without a place in one file.  Of a compressed file
    the path is known, but no place in it.  What no file shows any more of an extent is free.  Where a log tree was not
    replayed, and where btrfs could not read all of the trees, all but the superblocks is unknown.  Blocks for at most
    ``TOOL_SECONDS``; :class:`~harness.errors.HarnessError` and :class:`ValueError` where there is no superblock.
    """
    wanted = sorted({*blocks})
    if not wanted:
        return {}
    done = view.runner.run(["env", "LC_ALL=C", "sh", "-ec", _LOOK, "sh", view.path], timeout=TOOL_SECONDS)
    printed, _, dumped = done.stdout.partition("== trees\n")
    layout = super_block(printed)
    try:
        told = _complete(layout, dumped, done.stderr)
    except ValueError as error:
        supers = {place // BLOCK_BYTES for place in _supers(layout)}
        return {**unknown(wanted, str(error)), **{block: _SUPER for block in wanted if block in supers}}
    return _Map(layout, told).owners(wanted)


_SUPER = OwnedBlock(BlockOwner.METADATA, "a superblock")


def _supers(layout: BtrfsSuper) -> Iterator[int]:
    return (place for place in _SUPER_OFFSETS if place + _SUPER_BYTES <= layout.total_bytes)


def _complete(layout: BtrfsSuper, dumped: str, complaints: str) -> BtrfsTrees:
    """The trees; :class:`ValueError` where something of them is missing or would have to be replayed."""
    if layout.log_root:
        raise ValueError("the log tree was not replayed: the maps of the filesystem may be old")
    if layout.devices != 1:
        raise ValueError(f"it is on {layout.devices} devices")
    serious = [line for line in complaints.splitlines() if line.strip() and not line.startswith(_HARMLESS)]
    if serious:
        raise ValueError(f"btrfs complains of the filesystem: {serious[0][:120]}")
    told = trees(dumped)
    used = sum(told.data.values()) + len(told.tree_blocks) * layout.node_bytes
    if used != layout.bytes_used:
        raise ValueError(f"its trees tell of {used} bytes that are in use, and its superblock of {layout.bytes_used}")
    return told


class _Map:
    """The owners of a device, painted from the coarse to the fine."""

    def __init__(self, layout: BtrfsSuper, told: BtrfsTrees) -> None:
        self._layout = layout
        self._told = told
        self._bytes = ByteMap()
        self._paths: dict[tuple[int, int], str | None] = {}

    def owners(self, wanted: Sequence[int]) -> Mapping[int, OwnedBlock]:
        """The owner of each of ``wanted``."""
        total = self._layout.total_bytes
        end = (max(wanted) + 1) * BLOCK_BYTES
        self._bytes.paint(total, end, BlockOwner.FREE, "behind the end of the filesystem")
        self._bytes.paint(0, total, BlockOwner.FREE, "space that is given to no chunk")
        self._bytes.paint(0, _RESERVED_BYTES, BlockOwner.FREE, "kept free in front of the chunks")
        for chunk in self._told.chunks:
            kind = " and ".join(name.lower() for name in chunk.type.split("|") if name in _KINDS)
            self._paint(chunk.start, chunk.length, BlockOwner.FREE, f"free space for {kind}")
        for block, tree in self._told.tree_blocks.items():
            detail = f"a block of the tree {tree}" if tree else "a tree block"
            self._paint(block, self._layout.node_bytes, BlockOwner.METADATA, detail)
        parts = defaultdict(list)
        for part in self._told.parts:
            parts[part.disk].append(part)
        for start, length in self._told.data.items():
            self._data(start, length, parts[start])
        for place in _supers(self._layout):
            self._bytes.paint(place, place + _SUPER_BYTES, BlockOwner.METADATA, _SUPER.detail)
        return self._bytes.blocks(wanted)

    def _paint(
        self, start: int, length: int, owner: BlockOwner, detail: str, path: str = "", offset: int | None = None
    ) -> None:
        """The same for each copy of ``length`` bytes from the logical address ``start`` on."""
        for chunk in self._told.chunks:
            begin, end = max(start, chunk.start), min(start + length, chunk.start + chunk.length)
            if begin >= end:
                continue
            known, why = (owner, detail) if _one_to_one(chunk) else (BlockOwner.UNKNOWN, f"a chunk of {chunk.type}")
            for _, place in chunk.copies:
                at = place + begin - chunk.start
                of_file = offset + begin - start if offset is not None and known is owner else None
                self._bytes.paint(at, at + end - begin, known, why, path=path, offset=of_file)

    def _data(self, start: int, length: int, parts: Sequence[FilePart]) -> None:
        """A data extent: what each of its pieces is to the files that have parts of it."""
        if not parts:
            self._paint(start, length, BlockOwner.UNKNOWN, _UNTOLD)
            return
        spans = [(0, length) if one.compressed else (one.skip, one.skip + one.length) for one in parts]
        edges = sorted({0, length, *(edge for span in spans for edge in span if 0 < edge < length)})
        # A part ends in the middle of a sector where its file does.
        cuts = [self._end(one) for one in parts]
        edges = sorted({*edges, *(edge for edge in cuts if edge is not None and 0 < edge < length)})
        for begin, end in pairwise(edges):
            over = [one for one, span in zip(parts, spans, strict=True) if span[0] < end and begin < span[1]]
            owner, detail, path, offset = self._piece(begin, over, parts)
            self._paint(start + begin, end - begin, owner, detail, path, offset)

    def _end(self, part: FilePart) -> int | None:
        """Where in the extent the first sector behind the end of the file is; None for a compressed one."""
        if part.compressed:
            return None
        sector = self._layout.sector_bytes
        size = -(-self._told.sizes.get((part.tree, part.inode), 0) // sector) * sector
        return part.skip + max(0, size - part.offset)

    def _piece(
        self, begin: int, over: Sequence[FilePart], parts: Sequence[FilePart]
    ) -> tuple[BlockOwner, str, str, int | None]:
        """What the piece of an extent from its byte ``begin`` on is to the files whose parts are ``over`` it."""
        if any(one.tree < FS_TREE for one in parts):
            cache = all(one.tree == ROOT_TREE for one in parts)
            return (BlockOwner.METADATA, "a cache of free space", "", None) if cache else (*_BY_ANOTHER_TREE, "", None)
        live: list[tuple[str, str, int | None]] = []
        for one in over:
            if not one.written:
                continue
            name, path = self._name(one)
            if one.compressed:
                live.append((f"{name} (compressed)", path, None))
            elif (end := self._end(one)) is not None and begin < end:
                live.append((name, path, one.offset + begin - one.skip))
        if len(live) == 1:
            return BlockOwner.ALLOCATED, *live[0]
        if live:
            names = list(dict.fromkeys(name for name, _, _ in live))
            paths = {path for _, path, _ in live}
            path = paths.pop() if len(paths) == 1 else ""
            if len(names) == 1:
                return BlockOwner.ALLOCATED, names[0], path, None
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            return BlockOwner.ALLOCATED, f"shared by {shown}", path, None
        name, path = self._name(parts[0])
        if over:
            written = "behind the end of" if over[0].written else "preallocated and never written, of"
            return BlockOwner.FREE, f"{written} {self._name(over[0])[0]}", self._name(over[0])[1], None
        return BlockOwner.FREE, f"part of an extent of {name} that no file shows any more", path, None

    def _name(self, part: FilePart) -> tuple[str, str]:
        """What the file of ``part`` is called, and its path where it has one."""
        path = self._path(part.tree, part.inode)
        if path is not None:
            return path, path
        where = "" if part.tree == FS_TREE else f" of subvolume {part.tree}, which may be a deleted one"
        deleted = ", which was deleted" if self._told.links.get((part.tree, part.inode)) == 0 else ""
        return f"inode {part.inode}{where}{deleted}", ""

    def _path(self, tree: int, inode: int) -> str | None:
        """The path of an inode from the root of the filesystem; None where it has none, or is not to be found."""
        if (tree, inode) == (FS_TREE, _FIRST_INODE):
            return ""
        key = (tree, inode)
        if key not in self._paths:
            # A directory that is its own parent, in a broken filesystem, has no path.
            self._paths[key] = None
            self._paths[key] = self._found(tree, inode)
        return self._paths[key]

    def _found(self, tree: int, inode: int) -> str | None:
        if inode == _FIRST_INODE:
            if tree not in self._told.roots:
                return None
            parent_tree, directory, name = self._told.roots[tree]
        else:
            names = self._told.names.get((tree, inode), [])
            if not names:
                return None
            parent_tree, (directory, name) = tree, names[0]
        parent = self._path(parent_tree, directory)
        return None if parent is None else f"{parent}/{name}"


def _one_to_one(chunk: Chunk) -> bool:
    """Whether each copy of a chunk holds all of it, in its order, on this device."""
    profiles = {*chunk.type.split("|")} - {*_KINDS}
    return profiles <= {"single", "DUP"} and all(device == 1 for device, _ in chunk.copies)

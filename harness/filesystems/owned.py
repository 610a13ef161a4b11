"""Whose a block is: one block's owner, and a map of a device by bytes from which owners of blocks are read."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.model import BLOCK_BYTES, BlockOwner, FileBlocks, Ownership, extents_of

#: So many of the distinct names of what is hit are kept, and so many files.
MAX_NAMES = 50
#: So many of a file's offsets.
MAX_OFFSETS = 16


@dataclass(frozen=True)
class OwnedBlock:
    """One block's owner.

    ``detail`` is for people: "/mapped at byte 8192", "the journal", "free space".  ``path`` is the file's, from the
    root of its filesystem, where the block is a file's; ``offset`` is that of the block's first byte in the file, None
    where it is no file's or not known.
    """

    owner: BlockOwner
    detail: str
    path: str = ""
    offset: int | None = None


@dataclass(frozen=True)
class _Paint:
    start: int
    stop: int
    owner: BlockOwner
    detail: str
    path: str
    offset: int | None

    def owned(self, at: int) -> OwnedBlock:
        """What begins at byte ``at`` of the device."""
        if self.offset is None:
            return OwnedBlock(self.owner, self.detail, self.path)
        offset = self.offset + at - self.start
        return OwnedBlock(self.owner, f"{self.detail} at byte {offset}", self.path, offset)


_NOTHING = OwnedBlock(BlockOwner.UNKNOWN, "no map of the filesystem tells")


class ByteMap:
    """Who has which bytes of a device, whatever the size of the filesystem's own blocks.

    What is painted last stands; what nobody painted is unknown.
    """

    def __init__(self) -> None:
        self._paints: list[_Paint] = []

    def paint(
        self, start: int, stop: int, owner: BlockOwner, detail: str, *, path: str = "", offset: int | None = None
    ) -> None:
        """The bytes from ``start`` to before ``stop`` are ``owner``'s, over whatever was painted there.

        ``offset`` is that of the byte ``start`` in the file ``path``; it is added to ``detail`` by itself.  Nothing is
        painted where ``stop`` is not behind ``start``; :class:`ValueError` where ``start`` is negative.
        """
        if start < 0:
            raise ValueError(f"a place before the beginning of the device: byte {start}")
        if stop > start:
            self._paints.append(_Paint(start, stop, owner, detail, path, offset))

    def blocks(self, wanted: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """The owner of each of ``wanted``, numbers of 4 KiB blocks.

        One that parts of different owners share is unknown, with a detail that names them.  One that several of the
        same owner share is that owner's; it has a path where all of it is of one file.
        """
        pieces = list(self._on_top())
        ends = [stop for _, stop, _ in pieces]
        return {block: _owner(block, pieces, bisect_right(ends, block * BLOCK_BYTES)) for block in sorted({*wanted})}

    def _on_top(self) -> Iterator[tuple[int, int, _Paint]]:
        """The pieces (start, stop, what is seen there) in the order of the device, without those of nobody."""
        begins = sorted(range(len(self._paints)), key=lambda number: self._paints[number].start)
        edges = sorted({edge for paint in self._paints for edge in (paint.start, paint.stop)})
        over: list[int] = []  # the newest first, by negative numbers
        at = 0
        for start, stop in pairwise(edges):
            while at < len(begins) and self._paints[begins[at]].start <= start:
                heapq.heappush(over, -begins[at])
                at += 1
            while over and self._paints[-over[0]].stop <= start:
                heapq.heappop(over)
            if over:
                yield start, stop, self._paints[-over[0]]


def _owner(block: int, pieces: Sequence[tuple[int, int, _Paint]], at: int) -> OwnedBlock:
    """The owner of ``block``, of whose pieces the one at ``at`` is the first that may reach into it."""
    begin, end = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
    parts: list[OwnedBlock] = []
    reached = begin
    while at < len(pieces) and pieces[at][0] < end:
        start, stop, paint = pieces[at]
        if start > reached:
            parts.append(_NOTHING)
        parts.append(paint.owned(max(start, begin)))
        reached = stop
        at += 1
    if reached < end:
        parts.append(_NOTHING)
    return _together(parts)


def _together(parts: Sequence[OwnedBlock]) -> OwnedBlock:
    first = parts[0]
    names = list(dict.fromkeys(part.path or part.detail for part in parts))
    if len({part.owner for part in parts}) > 1:
        owners = dict.fromkeys(f"{part.owner} ({part.path or part.detail})" for part in parts)
        return OwnedBlock(BlockOwner.UNKNOWN, f"shared by {_list(list(owners))}")
    if len(names) == 1:
        return first
    if len({part.path for part in parts}) > 1:
        first = replace(first, path="", offset=None)
    return replace(first, detail=_list(names))


def _list(names: Sequence[str]) -> str:
    shown = [*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def unknown(blocks: Iterable[int], why: str) -> Mapping[int, OwnedBlock]:
    """Nobody can say."""
    return {block: OwnedBlock(BlockOwner.UNKNOWN, why) for block in blocks}


def summary(owned: Mapping[int, OwnedBlock], method: str) -> Ownership:
    """``owned`` counted, with at most ``MAX_NAMES`` of the distinct names of what is hit, and of the files."""
    count = {owner.value: sum(1 for one in owned.values() if one.owner is owner) for owner in BlockOwner}
    names = tuple(sorted({one.path or one.detail for one in owned.values()}))[:MAX_NAMES]
    extents = {
        owner: extents_of(block for block, one in owned.items() if one.owner is owner)
        for owner in BlockOwner
        if count[owner.value]
    }
    return Ownership(**count, method=method, names=names, files=_files(owned.values()), extents=extents)


def _files(owned: Iterable[OwnedBlock]) -> tuple[FileBlocks, ...]:
    """The files that have the most of the blocks, with the first of the offsets."""
    blocks: Counter[tuple[str, BlockOwner]] = Counter()
    offsets: dict[tuple[str, BlockOwner], list[int]] = {}
    for one in owned:
        if one.path:
            blocks[one.path, one.owner] += 1
            offsets.setdefault((one.path, one.owner), []).extend([] if one.offset is None else [one.offset])
    most = sorted(blocks, key=lambda file: (-blocks[file], file))[:MAX_NAMES]
    return tuple(FileBlocks(*file, blocks[file], tuple(sorted(offsets[file])[:MAX_OFFSETS])) for file in most)

"""Which blocks an inode has and what it is called: what ``debugfs`` answers to ``stat`` and ``ncheck``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_INODE = re.compile(r"^Inode: (\d+)[ \t]+Type: (.+?)[ \t]+Mode:", re.ASCII | re.MULTILINE)
_ATTRIBUTES = re.compile(r"^File ACL: ([1-9]\d*)", re.ASCII | re.MULTILINE)
_LINKS = re.compile(r"^Links: (\d+)", re.ASCII | re.MULTILINE)
_BLOCKS = re.compile(r"^(?:EXTENTS|BLOCKS):[ \t]*\n(.*)$", re.ASCII | re.MULTILINE)
_RUN = re.compile(r"\((?:(\d+)(?:-\d+)?(\[u\])?|[A-Z]+\d*)\):(\d+)(?:-(\d+))?", re.ASCII)
_PATH = re.compile(r"^(\d+)\t/?(/.*)$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True)
class DataRun:
    """Blocks that follow each other, on the device and in the file; ``first`` is the number of the first one there."""

    blocks: range
    first: int


@dataclass(frozen=True)
class InodeBlocks:
    """The blocks of one inode, as ranges of block numbers.

    ``kind`` is debugfs's name for what it is ("regular", "directory", ...).  ``data`` is what it holds; ``unwritten``
    is preallocated and reads as zeros, whatever the blocks hold; ``structure`` is what the filesystem needs to find
    them: the nodes of its extent tree or its indirect blocks, and its extended attributes.  ``links`` is how many names
    it has, None where debugfs did not say.
    """

    number: int
    kind: str
    data: tuple[DataRun, ...] = ()
    unwritten: tuple[DataRun, ...] = ()
    structure: tuple[range, ...] = ()
    links: int | None = None

    @property
    def runs(self) -> tuple[range, ...]:
        """All of them."""
        return (*(run.blocks for run in (*self.data, *self.unwritten)), *self.structure)


def inode_blocks(stat: str) -> Iterator[InodeBlocks]:
    """The inodes that ``stat`` printed, one after the other; the commands between them may have been echoed."""
    found = list(_INODE.finditer(stat))
    ends = [inode.start() for inode in found[1:]] + [len(stat)]
    for inode, end in zip(found, ends[: len(found)], strict=True):
        text = stat[inode.end() : end]
        data: list[DataRun] = []
        unwritten: list[DataRun] = []
        structure = [range(int(block), int(block) + 1) for block in _ATTRIBUTES.findall(text)[:1]]
        listed = _BLOCKS.search(text)
        for logical, flag, first, last in _RUN.findall(listed[1] if listed else ""):
            blocks = range(int(first), int(last or first) + 1)
            if logical:
                (unwritten if flag else data).append(DataRun(blocks, int(logical)))
            else:
                structure.append(blocks)
        links = _LINKS.search(text)
        yield InodeBlocks(
            int(inode[1]), inode[2], tuple(data), tuple(unwritten), tuple(structure), int(links[1]) if links else None
        )


def paths(ncheck: str) -> Mapping[int, tuple[str, ...]]:
    """Inode to its paths; system inodes such as the journal (8) have none.

    Where there are hard links debugfs may name several, but it stops at as many paths as the link counts of the inodes
    asked for promise: one whose count is too low takes the answer of another.
    """
    found: dict[int, tuple[str, ...]] = {}
    for inode, path in _PATH.findall(ncheck):
        found[int(inode)] = (*found.get(int(inode), ()), path)
    return found

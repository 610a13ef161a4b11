"""Units of a block device, and extents on it.

Offsets and lengths are 512-byte sectors (``*_sectors``), 4096-byte blocks (``*_blocks``, what DRBD's bitmap counts) or
bytes, and say which.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from harness.model.block_runs import BlockRuns, block_set

SECTOR_BYTES = 512


BLOCK_BYTES = 4096


SECTORS_PER_BLOCK = BLOCK_BYTES // SECTOR_BYTES


@dataclass(frozen=True, order=True, slots=True)  # runs have millions of them
class Extent:
    """A run of sectors: ``start`` and ``size`` in 512-byte sectors."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """First sector behind the extent."""
        return self.start + self.size

    def blocks(self) -> range:
        """The 4 KiB blocks it touches."""
        return range(self.start // SECTORS_PER_BLOCK, -(-self.end // SECTORS_PER_BLOCK))


@dataclass(frozen=True)
class DiskSource:
    """What QEMU is given as the disk under test: ``path`` on the node, a block device or a ``file``.

    ``format`` is QEMU's: ``raw``, or ``qcow2`` for an image that keeps a table of what it holds.  ``luks_key`` is the
    key of the LUKS header that it begins with, in no ``repr``; empty where QEMU decrypts nothing.
    """

    path: str
    file: bool = False
    format: str = "raw"
    luks_key: str = field(default="", repr=False)


def blocks_of(extents: Iterable[Extent]) -> AbstractSet[int]:
    """The set of 4 KiB block numbers that ``extents`` touch; its memory is bounded by their number, not their size."""
    # Not block by block in Python, nor by the methods of each: a run has millions of them.
    return block_set(
        [range(one.start // SECTORS_PER_BLOCK, -(-(one.start + one.size) // SECTORS_PER_BLOCK)) for one in extents]
    )


def extents_of(blocks: Iterable[int]) -> tuple[Extent, ...]:
    """``blocks`` (4 KiB block numbers, any order, repeats allowed) as the fewest sorted extents."""
    if isinstance(blocks, BlockRuns):
        return tuple(Extent(run.start * SECTORS_PER_BLOCK, len(run) * SECTORS_PER_BLOCK) for run in blocks.runs())
    merged: list[Extent] = []
    for block in sorted(set(blocks)):
        start = block * SECTORS_PER_BLOCK
        if merged and merged[-1].end == start:
            merged[-1] = Extent(merged[-1].start, merged[-1].size + SECTORS_PER_BLOCK)
        else:
            merged.append(Extent(start, SECTORS_PER_BLOCK))
    return tuple(merged)

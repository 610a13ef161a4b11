"""How large the DRBD device has to be for a cell: no larger than that, for each MiB is verified and compared."""

from __future__ import annotations

from harness.filesystems import FILESYSTEMS
from harness.filesystems.layers import LAYERS
from harness.model import BLOCK_BYTES, Cell

# Sizes are few, so that the device is made anew seldom: multiples of this many MiB.
_STEP_MIB = 64
# DRBD's own metadata is at the end of it.
_METADATA_MIB = 1


def device_mib(cell: Cell, least_mib: int, canary_blocks: int) -> int:
    """The size in MiB of the device for ``cell``, DRBD's metadata among them: ``least_mib``, or more where it needs it.

    ``canary_blocks`` are the 4 KiB blocks at the end that are the canary's in a cell that has one.
    """
    canary_mib = -(-canary_blocks * BLOCK_BYTES // 2**20) if cell.has_canary else 0
    needed = LAYERS[cell.layout].device_mib(FILESYSTEMS[cell.filesystem].needs_mib + canary_mib) + _METADATA_MIB
    return least_mib if needed <= least_mib else -(-needed // _STEP_MIB) * _STEP_MIB


def play_order(cell: Cell, mebibytes: int) -> tuple[int, int]:
    """What cells are sorted by before they are played, each with its size of the device: controls in front, and within
    a repetition the smallest first and last by turns, so that two repetitions meet at one size."""
    return (0, 0) if cell.control else (cell.repetition, mebibytes if cell.repetition % 2 else -mebibytes)

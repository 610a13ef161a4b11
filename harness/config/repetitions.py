"""Which repetitions of its cells a run plays, in which order, and the seed of each; pure."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import replace

from harness.model import Cell

# fio, the C library and every parser of numbers can hold such a seed.
_SEEDS = 0x7FFF_FFFF


def new_seed() -> int:
    """A seed for a run that was given none: 1 to 2**31 - 1."""
    return secrets.randbelow(_SEEDS) + 1


def cell_seed(run_seed: int, cell_id: str, repetition: int) -> int:
    """The seed of one repetition of a cell: 1 to 2**31 - 1, the same for the same three."""
    digest = hashlib.sha256(f"{run_seed} {cell_id} {repetition}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEEDS + 1


def play_order(place: int, repetition: int) -> tuple[int, int]:
    """What to sort plays by, for the cell at ``place`` of the plan: all once before one is played again.

    Every other time from the last to the first, so that a lab that becomes slower, or is fast while it is new, is not
    taken for what tells the cells apart.
    """
    return repetition, place if repetition % 2 else -place


def repeated(cells: Iterable[Cell], repeat: int | None, seed: int) -> tuple[Cell, ...]:
    """Each of ``cells`` ``repeat`` times in :func:`play_order`, each with its own seed from ``seed``.

    ``repeat`` None: as often as ``cells`` has it.  A control is not repeated: it is played by rules of its own.
    """
    counts: dict[str, tuple[Cell, int]] = {}
    for cell in cells:
        first, count = counts.get(cell.id, (cell, 0))
        counts[cell.id] = (first, count + 1)
    often = [(cell, 1 if cell.control else repeat or count) for cell, count in counts.values()]
    plays = [
        (play_order(place, number), replace(cell, repetition=number, seed=cell_seed(seed, cell.id, number)))
        for place, (cell, count) in enumerate(often)
        for number in range(1, count + 1)
    ]
    return tuple(cell for _, cell in sorted(plays, key=lambda play: play[0]))

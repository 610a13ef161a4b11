"""What a page of many cells leaves out so that it stays small: never a verdict, first what the raw files have; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.report.cells import CellView
from harness.report.view import FULL, SHORT, SHORTER, VERDICT_ONLY, ResultView

#: What a page may take, in bytes: it is sent by mail and kept beside the source.
PAGE_BYTES = 2_000_000

#: Which plays lose how much, one after the other from the last: those that tell (True) keep more for longer.
_STEPS = ((False, SHORT), (False, SHORTER), (False, VERDICT_ONLY), (True, SHORTER), (True, VERDICT_ONLY))

Measure = Callable[[ResultView], int]


def fitted(cells: Sequence[CellView], measure: Measure, limit: int = PAGE_BYTES) -> tuple[tuple[CellView, ...], int]:
    """The cells with as much evidence as fits in ``limit`` bytes by ``measure``, and how many plays were shortened.

    What is dull loses its details first: a later repetition before the one that stands for its cell, what ended as
    expected without a difference before what did not.
    """
    plays = [[replace(play, detail=VERDICT_ONLY) if play.result.evidence else play for play in cell.plays]
             for cell in cells]  # fmt: skip
    total = sum(measure(play) for cell in plays for play in cell)
    # From the verdicts alone on, the last step first: what a large page has no room for is never drawn.
    for number, at, detail in reversed(_shortenings(cells)):
        fuller = replace(cells[number].plays[at], detail=detail)
        more = measure(fuller) - measure(plays[number][at])
        if total + more > limit:
            break
        plays[number][at] = fuller
        total += more
    made = tuple(replace(cell, plays=tuple(kept)) for cell, kept in zip(cells, plays, strict=True))
    return made, sum(play.left_out for cell in plays for play in cell)


def alone(cells: Sequence[CellView]) -> tuple[CellView, ...]:
    """The cells for a page without the files of the attempts: nothing leads to them."""
    return tuple(replace(cell, plays=tuple(replace(play, linked=False) for play in cell.plays)) for cell in cells)


def _shortenings(cells: Sequence[CellView]) -> list[tuple[int, int, int]]:
    """Each step of shortening in its order: the cell's number, the play's, and the detail that it has before."""
    plays = [(number, at, play) for number, cell in enumerate(cells) for at, play in enumerate(cell.plays)]
    dullest = sorted(plays, key=lambda one: (one[2].mark == "unexpected", -one[1], -one[0]))
    telling = {(number, at) for number, cell in enumerate(cells) for at in _telling(cell)}
    found = []
    before = {False: FULL, True: FULL}
    for tells, level in _STEPS:
        found += [
            (number, at, before[tells])
            for number, at, play in dullest
            if play.result.evidence is not None and tells is ((number, at) in telling)
        ]
        before[tells] = level
    return found


def _telling(cell: CellView) -> list[int]:
    """The plays that somebody looks for: not expected, or the first of its cell in which blocks differ."""
    first: dict[str, int] = {}
    for at, play in enumerate(cell.plays):
        first.setdefault(play.style, at)
    harmed = {first.get("diverged"), first.get("corrupt")}
    return [at for at, play in enumerate(cell.plays) if play.mark == "unexpected" or at in harmed]

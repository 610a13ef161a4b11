"""What a page of many cells leaves out so that it stays small: never a verdict, first what the raw files have; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.report.cells import CellView
from harness.report.view import EvidenceView, ResultView

#: What a page may take, in bytes: it is sent by mail and kept beside the source.
PAGE_BYTES = 2_000_000

#: Steps of detail: everything; no hex, no lists of extents; no tables of settings; the verdict alone.
FULL, SHORT, SHORTER, VERDICT_ONLY = range(4)

#: Which plays lose how much, one after the other from the last: those that tell (True) keep more for longer.
_STEPS = ((False, SHORT), (False, SHORTER), (False, VERDICT_ONLY), (True, SHORTER), (True, VERDICT_ONLY))

Measure = Callable[[ResultView], int]


def fitted(cells: Sequence[CellView], measure: Measure, limit: int = PAGE_BYTES) -> tuple[tuple[CellView, ...], int]:
    """The cells with as much evidence as fits in ``limit`` bytes by ``measure``, and how many plays were shortened.

    What is dull loses its details first: a later repetition before the one that stands for its cell, what ended as
    expected without a difference before what did not.
    """
    plays = [(number, at, play) for number, cell in enumerate(cells) for at, play in enumerate(cell.plays)]
    sizes = {(number, at): measure(play) for number, at, play in plays}
    total = sum(sizes.values())
    shown: dict[tuple[int, int], ResultView] = {}
    dullest = sorted(plays, key=lambda one: (one[2].mark == "unexpected", -one[1], -one[0]))
    for telling, level in _STEPS:
        for number, at, play in dullest:
            if total <= limit:
                break
            if play.evidence is None or telling is not _tells(cells[number], at, play):
                continue
            place = (number, at)
            shown[place] = shortened(play, level)
            size = measure(shown[place])
            total += size - sizes[place]
            sizes[place] = size
    made = [
        replace(cell, plays=tuple(shown.get((number, at), play) for at, play in enumerate(cell.plays)))
        for number, cell in enumerate(cells)
    ]
    return tuple(made), len(shown)


def alone(cells: Sequence[CellView]) -> tuple[CellView, ...]:
    """The cells for a page without the files of the attempts: nothing leads to them."""
    return tuple(replace(cell, plays=tuple(map(_alone, cell.plays))) for cell in cells)


def _alone(play: ResultView) -> ResultView:
    return replace(play, evidence=replace(play.evidence, link="")) if play.evidence else play


def shortened(play: ResultView, level: int) -> ResultView:
    """``play`` with the details of ``level``; it says that some are left out, and where they are."""
    if play.evidence is None or level == FULL:
        return play
    kept = None if level == VERDICT_ONLY else replace(play.evidence, **dict(_without(play.evidence, level)))
    return replace(play, evidence=kept, left_out=True)


def _without(evidence: EvidenceView, level: int) -> Iterator[tuple[str, Any]]:
    for name in ("samples", "extents", "reread", "mismatches", "names", "rejoined_extents"):
        yield name, ()
    for name in ("samples_more", "extents_more", "reread_more", "mismatches_more", "names_more"):
        yield name, 0
    yield "changed", replace(evidence.changed, shown=(), more=0)
    if level >= SHORTER:
        yield "requested", ()
        yield "read_back", replace(evidence.read_back, delays=None, nodes=None, moves=None)
        for name in ("phases", "event_log", "canary_examples"):
            yield name, ()
        for gone in ("files", "migrations", "timeline"):
            yield gone, None


def _tells(cell: CellView, at: int, play: ResultView) -> bool:
    """Whether this is what somebody looks for: not expected, or the first of its cell in which blocks differ."""
    stands = not any(one.style == play.style for one in cell.plays[:at])
    return play.mark == "unexpected" or (stands and play.style in ("diverged", "corrupt"))

"""What a comparison of two runs says of one cell beside its verdicts, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from harness.judgement.compare_runs import FLIPS, CellComparison, Change, Rise
from harness.judgement.rerun_plan import PLAYS
from harness.judgement.standing import Level, Standing
from harness.report.formatting import joined, part_of, plural
from harness.report.formatting import sentence as full_stop
from harness.report.witness import why_not_watched

ARROW = "\u2192"
#: What the counts of a row count, by the worst answer in it.
COUNTED: Mapping[Level, str] = {
    Level.REFUSED: "refused or worse",
    Level.EARLY: "acknowledged too early or worse",
    Level.DIVERGED: "diverged or worse",
    Level.CORRUPT: "corrupt",
}


def notes_of(cell: CellComparison, again: bool) -> tuple[str, ...]:
    """What there is to say of a cell; ``again``: its flip was played again, which is said elsewhere."""
    notes = [full_stop(f"{reason[:1].upper()}{reason[1:]}") for reason in cell.reasons]
    if cell.change is Change.NOT_COMPARABLE and cell.direction:
        notes.append("It would be newly failing." if cell.direction > 0 else "It would be better.")
    if cell.rise is not None:
        notes.append(_risen(cell.rise, cell.level))
    if cell.fell:
        notes.append("It fails less often than before, by more than chance.")
    if cell.change is Change.NEWLY_FAILING and cell.new is not None and cell.new.mixed:
        notes.append("Not every play failed; one that did is not taken back by one that did not.")
    if cell.change in FLIPS and not cell.significant and not again:
        notes.append(_how_often(cell))
    if seen := _in_flight(cell):
        notes.append(seen)
    if expected := _not_expected(cell):
        notes.append(expected)
    if cell.change in (Change.STILL_FAILING, Change.UNSTABLE) and cell.new is not None and _as_expected(cell.new):
        notes.append("As the matrix expects.")
    return tuple(notes)


def _risen(rise: Rise, counted: Level | None) -> str:
    said = "It failed before too, and fails more often now, by more than chance"
    if rise.level is counted:
        return f"{said}."
    # The row counts what was worse before.
    return f"{said}: {COUNTED[rise.level]} {ratio(rise.counts)} ({probability(rise.p)})."


def _how_often(cell: CellComparison) -> str:
    assert cell.old is not None and cell.new is not None
    so_far = "So few plays do not tell it from chance"
    wanted = cell.trials_wanted
    if wanted is None:
        return f"{so_far}; at these rates it takes more than can be asked for."
    missing = [(wanted - one.answered, name) for one, name in ((cell.old, "the old"), (cell.new, "the new"))]
    more = joined(f"{plural(number, 'more time')} on {name} stack" for number, name in missing if number > 0)
    often = max(number for number, _ in missing)
    how = f"--rerun --plays {often}" if often > PLAYS else "--rerun"
    return f"{so_far}: play it {more} ({how})." if more else f"{so_far}: play it again ({how})."


def _in_flight(cell: CellComparison) -> str:
    """How much changed in flight on either stack: whether that is another, or only what became of it."""
    if cell.change not in FLIPS or cell.old is None or cell.new is None:
        return ""
    sides = [(name, *_watched(one)) for name, one in (("the old", cell.old), ("the new", cell.new))]
    if not any(counted for _, counted, _ in sides):
        return ""
    told = [f"{counted} on {name} stack" if counted else f"{name} stack was not watched ({why})"
            for name, counted, why in sides]  # fmt: skip
    return full_stop(f"Block writes that the witness saw change in flight: {', '.join(told)}")


def _watched(standing: Standing) -> tuple[str, str]:
    """``4 028 of 7 280``, over the plays that the witness watched; else nothing, and why not."""
    seen = [one.evidence.witness for one in standing.answers if one.evidence is not None and one.evidence.witness]
    watched = [one for one in seen if one.watched]
    if watched:
        writes = sum(one.block_writes for one in watched)
        return part_of(sum(one.changed_block_writes for one in watched), writes), ""
    return "", why_not_watched(seen) or "it was played without"


def _not_expected(cell: CellComparison) -> str:
    """That a flip leaves what the matrix expects, whichever way: DIVERGED is expected of some cells."""
    if cell.new is None or cell.change not in FLIPS:
        return ""
    for play in cell.new.answers:
        expected, verdict = play.cell.expected, play.verdict
        if expected is not None and verdict is not None and not verdict.meets(expected):
            return f"The matrix expects {joined(expected.verdicts, 'or')}: {full_stop(expected.reason)}"
    return ""


def _as_expected(standing: Standing) -> bool:
    """Whether a matrix expects something of the cell, and each answer is that."""
    met = [play.verdict.meets(play.cell.expected) for play in standing.answers if play.cell.expected and play.verdict]
    return bool(met) and all(met)


def ratio(counts: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """``0/5 -> 5/5``."""
    return f" {ARROW} ".join(f"{hits}/{trials}" for hits, trials in counts)


def probability(p: float) -> str:
    """``p = 0.0079``; never rounded below what a reader takes for zero."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"

"""What became of one cell over many runs, oldest first; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.judgement.comparable import other_lab, other_question
from harness.judgement.stack_changes import ComponentChange, component_changes
from harness.judgement.standing import Level, Standing, level_of, standings
from harness.model import Result, Run, StackLock


@dataclass(frozen=True)
class Judged:
    """A run as it was judged: its name, and the results of some of its cells."""

    name: str
    run: Run
    results: tuple[Result, ...]
    lock: StackLock | None = None


@dataclass(frozen=True)
class Point:
    """One cell in one run, and what of the versions under test is another than in the run before that has the cell.

    ``otherwise``: why its answer cannot be compared with that of the run before, in words: another duration, another
    kind of lab.
    """

    name: str
    run: Run
    standing: Standing
    changes: tuple[ComponentChange, ...] = ()
    otherwise: tuple[str, ...] = ()

    @property
    def harmed(self) -> tuple[int, int]:
        """How many of its plays diverged or lost data, of those that have an answer."""
        return self.standing.at_least(Level.DIVERGED)

    @property
    def early(self) -> int:
        """How many of its plays found nothing but writes that were acknowledged before they were flushed."""
        return sum(level_of(play) is Level.EARLY for play in self.standing.plays)


def history(cell_id: str, runs: Iterable[Judged]) -> tuple[Point, ...]:
    """The runs that have the cell, oldest first.

    A run that was merged into another of them, or is a copy of it, is left out: its plays would be there twice.
    """
    points: list[Point] = []
    before: Judged | None = None
    for one in without_merged(sorted(runs, key=lambda judged: (judged.run.started_at, judged.name))):
        standing = standings(one.results).get(cell_id)
        if standing is None:
            continue
        changes: tuple[ComponentChange, ...] = ()
        otherwise: tuple[str, ...] = ()
        if before is not None:
            changes = component_changes(before.run, one.run, before.lock, one.lock)
            otherwise = (*other_lab(before.run, one.run), *other_question(points[-1].standing, standing))
        before = one
        told = tuple(change for change in changes if change.under_test and change.known)
        points.append(Point(one.name, one.run, standing, told, otherwise))
    return tuple(points)


def without_merged(runs: Sequence[Judged]) -> list[Judged]:
    """Those of ``runs`` that are no part of another one of them; of copies of a run the first."""
    merged = {part.id for one in runs for part in one.run.merged}
    first = {_which(one.run): one for one in reversed(runs)}
    return [one for one in runs if one.run.id not in merged and first[_which(one.run)] is one]


def _which(run: Run) -> tuple[object, ...]:
    """What makes it that run: who merges the parts of each night may call every night's the same."""
    return run.id, run.started_at, run.merged

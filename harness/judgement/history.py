"""What became of one cell over many runs, oldest first; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.judgement.stack_changes import ComponentChange, component_changes
from harness.judgement.standing import Level, Standing, standings
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
    """One cell in one run, and what of the versions under test is another than in the run before that has the cell."""

    name: str
    run: Run
    standing: Standing
    changes: tuple[ComponentChange, ...] = ()

    @property
    def harmed(self) -> tuple[int, int]:
        """How many of its plays diverged or lost data, of those that have an answer."""
        return self.standing.at_least(Level.DIVERGED)


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
        changes = component_changes(before.run, one.run, before.lock, one.lock) if before is not None else ()
        before = one
        points.append(Point(one.name, one.run, standing, tuple(c for c in changes if c.under_test and c.known)))
    return tuple(points)


def without_merged(runs: Sequence[Judged]) -> list[Judged]:
    """Those of ``runs`` that are no part of another one of them; of copies of a run the first."""
    merged = {part.id for one in runs for part in one.run.merged}
    first = {one.run.id: one for one in reversed(runs)}
    return [one for one in runs if one.run.id not in merged and first[one.run.id] is one]

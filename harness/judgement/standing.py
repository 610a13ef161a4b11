"""What one run says of a cell for a comparison: how many of its plays were answered, and how bad the answers were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from harness.model import Cell, Result, VerdictKind


class Level(IntEnum):
    """How bad an answer is.

    The replicas are equal at the end; the stack would not do it; a write was acknowledged before it was flushed; the
    replicas differ; data is lost.

    Whether a matrix expected it makes no difference to that: an expectation is its author's, a flip is the stack's.
    """

    EQUAL = 0
    REFUSED = 1
    EARLY = 2
    DIVERGED = 3
    CORRUPT = 4


LEVELS: Mapping[VerdictKind, Level] = {
    VerdictKind.CLEAN: Level.EQUAL,
    VerdictKind.TRANSIENT: Level.EQUAL,
    VerdictKind.REFUSED: Level.REFUSED,
    VerdictKind.DIVERGED: Level.DIVERGED,
    VerdictKind.CORRUPT: Level.CORRUPT,
}


@dataclass(frozen=True)
class Standing:
    """All plays of one cell in one run.

    ``plays`` are those that the run plans or has evidence of.  A play that is INCONCLUSIVE, or was not played, has no
    answer, whatever a matrix expected: it is no pass and no failure.
    """

    plays: tuple[Result, ...]

    @property
    def cell(self) -> Cell:
        """What was asked."""
        return self.plays[0].cell

    @property
    def answers(self) -> tuple[Result, ...]:
        """The plays with an answer."""
        return tuple(play for play in self.plays if level_of(play) is not None)

    @property
    def planned(self) -> int:
        """How many plays there are, with an answer or without."""
        return len(self.plays)

    @property
    def answered(self) -> int:
        """How many have an answer."""
        return len(self.answers)

    @property
    def worst(self) -> Level | None:
        """The worst answer; None where there is none."""
        return max((level for play in self.plays if (level := level_of(play)) is not None), default=None)

    @property
    def mixed(self) -> bool:
        """Whether the plays have answers that are not as bad as each other."""
        return len({level_of(play) for play in self.answers}) > 1

    @property
    def kinds(self) -> Mapping[VerdictKind, int]:
        """How often each verdict came, those that came."""
        seen = [play.verdict.kind for play in self.plays if play.verdict is not None]
        return {kind: seen.count(kind) for kind in VerdictKind if kind in seen}

    def at_least(self, level: Level) -> tuple[int, int]:
        """How many answers are as bad as ``level`` or worse, and how many answers there are."""
        levels = [level_of(play) for play in self.answers]
        return sum(one is not None and one >= level for one in levels), len(levels)

    def first(self, level: Level) -> Result | None:
        """The first play that is as bad as ``level`` or worse."""
        return next((play for play in self.answers if (level_of(play) or Level.EQUAL) >= level), None)


def level_of(play: Result) -> Level | None:
    """How bad the answer of one play is; None where it has none."""
    if play.verdict is None:
        return None
    level = LEVELS.get(play.verdict.kind)
    return Level.EARLY if level is Level.EQUAL and play.verdict.acknowledged_early else level


def standings(results: Iterable[Result]) -> dict[str, Standing]:
    """By the cell's id, in the order in which ``results`` name a cell first.

    What tests the instrument itself, controls and sabotage, is left out: it says nothing of the stack.
    """
    plays: dict[str, list[Result]] = {}
    for result in results:
        if not result.cell.tests_instrument:
            plays.setdefault(result.cell.id, []).append(result)
    return {cell_id: Standing(tuple(found)) for cell_id, found in plays.items()}

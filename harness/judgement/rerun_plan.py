"""Flips played again on both stacks: in which blocks, and what came of it; pure.

Blocks go old, new, new, old (ABBA), each on a lab of its own, so that neither a machine that becomes slower nor a lab
that is odd makes a difference between the stacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.judgement.compare_runs import CellComparison
from harness.judgement.standing import Level, Standing
from harness.judgement.stats import at_least_so_far_apart, significant

#: The fewest plays on each stack: two labs with one each.
LEAST_PLAYS = 2
#: So many on each stack tell none of five from all of five.
PLAYS = 5


@dataclass(frozen=True)
class Block:
    """One lab of a rerun: which stack, and how often each cell is played there.  ``number`` counts from 1."""

    number: int
    new: bool
    plays: int

    @property
    def stack(self) -> str:
        """``old`` or ``new``."""
        return "new" if self.new else "old"

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.number}-{self.stack}"


def blocks(plays: int) -> tuple[Block, ...]:
    """The blocks in which each cell is played at least ``plays`` times on each stack, as often on one as on the other.

    ``ValueError`` for fewer plays than there are labs.
    """
    if plays < LEAST_PLAYS:
        raise ValueError(f"{plays} plays are fewer than the {LEAST_PLAYS} labs of a stack")
    first, second = plays - plays // 2, plays // 2
    return tuple(
        Block(number, new, often)
        for number, (new, often) in enumerate(
            [(False, first), (True, first), (True, second), (False, second)], 1
        )
    )  # fmt: skip


class Outcome(StrEnum):
    """What became of a flip when it was played again; what was seen the first time stays seen."""

    CLEARLY_AGAIN = "seen again, by more than chance"
    AGAIN = "seen again, but so few plays do not tell it from chance"
    NOT_AGAIN = "not seen again"
    BOTH = "both stacks do it: it is no flip"
    NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Replayed:
    """One flip in a rerun alone, without the plays that showed it: how many failed of how many, and Fisher's p."""

    old: tuple[int, int]
    new: tuple[int, int]
    p: float | None
    outcome: Outcome


def replayed(flip: CellComparison, old: Standing | None, new: Standing | None) -> Replayed:
    """What came of ``flip`` in the plays of a rerun, counted by the same level of badness as the flip itself."""
    level = flip.level or Level.DIVERGED
    counts = [(0, 0) if one is None else one.at_least(level) for one in (old, new)]
    rarely, often = counts if flip.direction >= 0 else counts[::-1]
    if not rarely[1] or not often[1]:
        return Replayed(counts[0], counts[1], None, Outcome.NO_ANSWER)
    p = at_least_so_far_apart(rarely, often)
    if often[0] * rarely[1] > rarely[0] * often[1]:
        outcome = Outcome.CLEARLY_AGAIN if significant(p) else Outcome.AGAIN
    else:
        outcome = Outcome.BOTH if rarely[0] else Outcome.NOT_AGAIN
    return Replayed(counts[0], counts[1], p, outcome)


def worth_playing(cells: Iterable[CellComparison]) -> tuple[CellComparison, ...]:
    """The flips, and what would be one if both runs had played it as often."""
    return tuple(one for one in cells if one.flipped or one.fewer_chances)

"""The repetitions of one cell as one answer: how often it diverged, how sure that makes us, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

from harness.judgement.rates import EXPOSED
from harness.judgement.rejudge import conclusive, worse
from harness.judgement.stats import Interval, bootstrapped_rate, rate_interval
from harness.model import Cell, Result, Verdict, VerdictKind

#: A repetition that ends as one of these is a trial; REFUSED and INCONCLUSIVE say nothing about the rate.
TRIALS = (VerdictKind.CLEAN, VerdictKind.TRANSIENT, VerdictKind.DIVERGED, VerdictKind.CORRUPT)
HITS = tuple(kind for kind in VerdictKind if kind.finds_harm)


@dataclass(frozen=True)
class BlockRate:
    """Which share of ``trials`` differed, over all repetitions that make such a rate; a description, no bound.

    ``what`` the trials are, in the plural: the opportunities where each of the repetitions counted them, block writes
    that were exposed otherwise.  ``varied`` is how far the share goes when other repetitions might have been played
    (:func:`~harness.judgement.stats.bootstrapped_rate`), None where there are too few.
    """

    differing: int
    trials: int
    what: str
    varied: Interval | None

    @property
    def rate(self) -> float:
        """The share, between 0 and 1."""
        return self.differing / self.trials

    @property
    def unit(self) -> str:
        """What the trials are, in one word for a table."""
        return "exposed" if self.what == EXPOSED else "opportunities"


@dataclass(frozen=True)
class CellAnswer:
    """All repetitions of one cell.

    ``plays``: one result for each repetition, in the order in which the run plans them; one without a verdict did not
    run.  ``worst``: the one that stands for the cell (:func:`~harness.judgement.rejudge.worse`).  ``kinds``: how often
    each verdict came, those that came.  ``disagree``: whether repetitions that have an answer have different ones.
    ``diverged`` of ``answered`` repetitions ended as DIVERGED or CORRUPT; the others of these as CLEAN or TRANSIENT.
    ``interval``: the exact 95 % interval of the rate at which that happens, None where none has an answer.
    """

    cell: Cell
    plays: tuple[Result, ...]
    worst: Result
    kinds: Mapping[VerdictKind, int]
    disagree: bool
    diverged: int
    answered: int
    interval: Interval | None

    @cached_property
    def block_rate(self) -> BlockRate | None:
        """How many of its chances diverged; reckoned only when it is asked for, for its bootstrap takes long."""
        return _block_rate([one.verdict for one in self.plays if one.verdict and one.verdict.kind in TRIALS])

    @property
    def early(self) -> int:
        """In how many repetitions QEMU acknowledged a write before it had flushed it."""
        return sum(bool(one.verdict.acknowledged_early) for one in self.plays if one.verdict)

    @property
    def cell_id(self) -> str:
        """The id that all repetitions share."""
        return self.cell.id


def answers(results: Iterable[Result]) -> tuple[CellAnswer, ...]:
    """One answer for each cell, in the order in which ``results`` name a cell first."""
    plays: dict[str, list[Result]] = {}
    for result in results:
        plays.setdefault(result.cell.id, []).append(result)
    return tuple(_answer(found) for found in plays.values())


def _answer(plays: list[Result]) -> CellAnswer:
    seen = [play.verdict.kind for play in plays if play.verdict is not None]
    diverged, answered = (sum(kind in among for kind in seen) for among in (HITS, TRIALS))
    return CellAnswer(
        cell=plays[0].cell,
        plays=tuple(plays),
        worst=reduce(worse, plays),
        kinds={kind: seen.count(kind) for kind in VerdictKind if kind in seen},
        disagree=_disagree(plays),
        diverged=diverged,
        answered=answered,
        interval=rate_interval(diverged, answered),
    )


def _disagree(plays: list[Result]) -> bool:
    if len({play.verdict.kind for play in plays if play.verdict}) < 2:
        # What is conclusive is judged again for a control, and nothing hangs on it here.
        return False
    return len({play.verdict.kind for play in plays if play.verdict and conclusive(play)}) > 1


def _block_rate(verdicts: list[Verdict]) -> BlockRate | None:
    # Where a resync ran before the replicas were compared there is no bound, and no rate either.
    rated = [verdict for verdict in verdicts if verdict.rate_upper_95 is not None]
    counted = [verdict.opportunities for verdict in rated if verdict.opportunities is not None]
    if counted and len(counted) == len(rated):
        trials = [one.count for one in counted]
        names = {one.what for one in counted}
        what = names.pop() if len(names) == 1 else "opportunities"
    else:
        trials, what = [verdict.exposed_blocks for verdict in rated], EXPOSED
    # A block may differ by chance too, beside those that the workload counted; a share is one at most.
    counts = [(min(one.differing_blocks, most), most) for one, most in zip(rated, trials, strict=True)]
    hits, total = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    return BlockRate(hits, total, what, bootstrapped_rate(counts)) if total else None

"""Two runs side by side, cell by cell: did the answer change?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.judgement.repetitions import CellAnswer, answers
from harness.judgement.stats import RateComparison, compare
from harness.model import Result, VerdictKind


@dataclass(frozen=True)
class CellComparison:
    """One cell in both runs, all repetitions of it.  None: that run does not have it.

    ``rates`` compares how many repetitions diverged of those with an answer, the only trials that are independent of
    each other; None where one of the runs has none.
    """

    cell_id: str
    before: CellAnswer | None
    after: CellAnswer | None
    rates: RateComparison | None = None

    @property
    def verdict_changed(self) -> bool:
        """Whether both runs have a verdict, that of the worst repetition, and they are of different kinds."""
        before, after = _kind(self.before), _kind(self.after)
        return before is not None and after is not None and before is not after


def compare_runs(before: Iterable[Result], after: Iterable[Result]) -> tuple[CellComparison, ...]:
    """The cells of both runs, in the order of ``before``; those that only ``after`` has come behind."""
    earlier, later = ({one.cell_id: one for one in answers(results)} for results in (before, after))
    cell_ids = dict.fromkeys([*earlier, *later])
    return tuple(_compared(cell_id, earlier.get(cell_id), later.get(cell_id)) for cell_id in cell_ids)


def _compared(cell_id: str, before: CellAnswer | None, after: CellAnswer | None) -> CellComparison:
    if before is None or after is None:
        return CellComparison(cell_id, before, after)
    rates = compare(before.diverged, before.answered, after.diverged, after.answered)
    return CellComparison(cell_id, before, after, rates)


def _kind(answer: CellAnswer | None) -> VerdictKind | None:
    return answer.worst.verdict.kind if answer is not None and answer.worst.verdict is not None else None

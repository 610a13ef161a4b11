"""Two runs side by side, cell by cell: did the answer change?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.judgement.stats import RateComparison, compare
from harness.model import Result, Verdict


@dataclass(frozen=True)
class CellComparison:
    """One cell in both runs.  No verdict: it did not run there.

    ``rates`` compares differing blocks by exposed writes; None where one of the runs has no such rate.
    """

    cell_id: str
    before: Verdict | None
    after: Verdict | None
    rates: RateComparison | None = None

    @property
    def verdict_changed(self) -> bool:
        """Whether both runs have a verdict and they are of different kinds."""
        return self.before is not None and self.after is not None and self.before.kind is not self.after.kind


def compare_runs(before: Iterable[Result], after: Iterable[Result]) -> tuple[CellComparison, ...]:
    """The cells of both runs, in the order of ``before``; those that only ``after`` has come behind."""
    earlier, later = ({result.cell.id: result.verdict for result in results} for results in (before, after))
    cell_ids = dict.fromkeys([*earlier, *later])
    return tuple(_compared(cell_id, earlier.get(cell_id), later.get(cell_id)) for cell_id in cell_ids)


def _compared(cell_id: str, before: Verdict | None, after: Verdict | None) -> CellComparison:
    if before is None or after is None:
        return CellComparison(cell_id, before, after)
    return CellComparison(cell_id, before, after, compare(*_counts(before), *_counts(after)))


def _counts(verdict: Verdict) -> tuple[int, int]:
    # One write may change more than one block; a rate is one at most.
    return min(verdict.differing_blocks, verdict.exposed_blocks), verdict.exposed_blocks

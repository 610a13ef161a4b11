"""Two runs side by side: which cells, which verdicts, how often they diverged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judgement.compare_runs import CellComparison, compare_runs
from harness.model import CacheMode, Cell, Result, Verdict, VerdictKind

NONE = Cell("no-writes", cache=CacheMode.NONE)
BACK = Cell("no-writes", cache=CacheMode.WRITEBACK)
UNSAFE = Cell("no-writes", cache=CacheMode.UNSAFE)
CLEAN, DIVERGED, INCONCLUSIVE = VerdictKind.CLEAN, VerdictKind.DIVERGED, VerdictKind.INCONCLUSIVE


def result(cell: Cell, kind: VerdictKind | None, differing: int = 0, repetition: int = 1) -> Result:
    verdict = Verdict(kind, "", differing_blocks=differing, exposed_blocks=1000) if kind else None
    return Result(replace(cell, repetition=repetition), verdict, None)


def run(*kinds: VerdictKind | None) -> list[Result]:
    """A run that plays one cell so many times."""
    return [result(NONE, kind, repetition=number) for number, kind in enumerate(kinds, 1)]


def compared(before: list[Result], after: list[Result]) -> CellComparison:
    (cell,) = compare_runs(before, after)
    return cell


def test_compare_runs_cells_of_both_in_the_order_of_the_first() -> None:
    cells = compare_runs(
        [result(BACK, CLEAN), result(NONE, CLEAN), result(NONE, CLEAN, repetition=2)],
        [result(UNSAFE, CLEAN), result(NONE, CLEAN)],
    )
    assert [cell.cell_id for cell in cells] == [BACK.id, NONE.id, UNSAFE.id]
    assert [(cell.before is None, cell.after is None) for cell in cells] == [
        (False, True),
        (False, False),
        (True, False),
    ]
    assert not any(cell.verdict_changed for cell in cells)


def test_compare_runs_none_of_five_then_five_of_five_significant() -> None:
    cell = compared(run(*[CLEAN] * 5), run(*[DIVERGED] * 5))
    assert cell.verdict_changed and cell.rates is not None
    assert (cell.rates.rate_a, cell.rates.rate_b, cell.rates.larger) == (0.0, 1.0, "b")
    assert cell.rates.p_value == pytest.approx(2 / 252) and cell.rates.significant()


def test_compare_runs_one_repetition_each_proves_nothing_whatever_its_blocks() -> None:
    cell = compared([result(NONE, CLEAN)], [result(NONE, DIVERGED, 900)])
    assert cell.verdict_changed and cell.rates is not None
    assert cell.rates.p_value == 1 and not cell.rates.significant(), "one burst is one event"
    cell = compared([result(NONE, DIVERGED, 1)], [result(NONE, DIVERGED, 900)])
    assert not cell.verdict_changed and cell.rates is not None and cell.rates.larger is None


def test_compare_runs_worst_repetition_decides_whether_the_verdict_changed() -> None:
    assert not compared(run(CLEAN, DIVERGED), run(DIVERGED, DIVERGED)).verdict_changed
    assert compared(run(CLEAN, CLEAN), run(CLEAN, DIVERGED)).verdict_changed
    assert compared(run(CLEAN), run(INCONCLUSIVE)).verdict_changed
    assert not compared(run(CLEAN, INCONCLUSIVE), run(CLEAN)).verdict_changed


def test_compare_runs_repetitions_without_an_answer_are_no_trials() -> None:
    cell = compared(run(CLEAN, INCONCLUSIVE, None), run(DIVERGED, DIVERGED, INCONCLUSIVE))
    assert cell.before is not None and (cell.before.diverged, cell.before.answered) == (0, 1)
    assert cell.after is not None and (cell.after.diverged, cell.after.answered) == (2, 2)
    assert compared(run(INCONCLUSIVE), run(CLEAN)).rates is None


def test_compare_runs_cell_not_run_is_no_change() -> None:
    cells = compare_runs(
        [result(NONE, DIVERGED, 5), result(BACK, None), result(UNSAFE, None)],
        [result(NONE, None), result(BACK, DIVERGED, 5), result(UNSAFE, None)],
    )
    assert [(cell.verdict_changed, cell.rates) for cell in cells] == [(False, None)] * 3

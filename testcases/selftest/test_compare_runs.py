"""Two runs side by side: which cells, which verdicts, which rates."""

from __future__ import annotations

from harness.judgement.compare_runs import compare_runs
from harness.model import CacheMode, Cell, Result, Verdict, VerdictKind

NONE = Cell("no-writes", cache=CacheMode.NONE)
BACK = Cell("no-writes", cache=CacheMode.WRITEBACK)
UNSAFE = Cell("no-writes", cache=CacheMode.UNSAFE)


def result(cell: Cell, kind: VerdictKind | None, differing: int = 0, exposed: int = 1000) -> Result:
    verdict = Verdict(kind, "", differing_blocks=differing, exposed_blocks=exposed) if kind else None
    return Result(cell, verdict, None)


def test_compare_runs_cells_of_both_in_the_order_of_the_first() -> None:
    compared = compare_runs(
        [result(BACK, VerdictKind.CLEAN), result(NONE, VerdictKind.CLEAN)],
        [result(UNSAFE, VerdictKind.CLEAN), result(NONE, VerdictKind.CLEAN)],
    )
    assert [cell.cell_id for cell in compared] == [BACK.id, NONE.id, UNSAFE.id]
    assert [(cell.before is None, cell.after is None) for cell in compared] == [
        (False, True),
        (False, False),
        (True, False),
    ]


def test_compare_runs_other_kind_is_a_change_other_count_is_none() -> None:
    (more,) = compare_runs([result(NONE, VerdictKind.DIVERGED, 1)], [result(NONE, VerdictKind.DIVERGED, 500)])
    assert not more.verdict_changed and more.rates is not None and more.rates.significant()
    assert (more.rates.rate_a, more.rates.rate_b) == (0.001, 0.5)
    (other,) = compare_runs([result(NONE, VerdictKind.CLEAN)], [result(NONE, VerdictKind.DIVERGED, 1)])
    assert other.verdict_changed and other.rates is not None and not other.rates.significant()


def test_compare_runs_cell_not_run_is_no_change() -> None:
    compared = compare_runs(
        [result(NONE, VerdictKind.DIVERGED, 5), result(BACK, None), result(UNSAFE, None)],
        [result(NONE, None), result(BACK, VerdictKind.DIVERGED, 5), result(UNSAFE, None)],
    )
    assert [(cell.verdict_changed, cell.rates) for cell in compared] == [(False, None)] * 3


def test_compare_runs_nothing_exposed_has_no_rate() -> None:
    (cell,) = compare_runs([result(NONE, VerdictKind.CLEAN, 0, 0)], [result(NONE, VerdictKind.CLEAN)])
    assert cell.rates is None


def test_compare_runs_more_blocks_than_writes_is_a_rate_of_one() -> None:
    (cell,) = compare_runs([result(NONE, VerdictKind.DIVERGED, 30, 20)], [result(NONE, VerdictKind.DIVERGED, 1, 20)])
    assert cell.rates is not None and (cell.rates.rate_a, cell.rates.larger) == (1.0, "a")

"""Repetitions of a cell as one answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.rejudge import badness
from harness.judgement.repetitions import CellAnswer, answers
from harness.judgement.stats import bootstrapped_rate, rate_interval
from harness.model import CacheMode, Cell, Opportunities, Result, Verdict, VerdictKind

NONE = Cell("reclaim", cache=CacheMode.NONE)
BACK = Cell("reclaim", cache=CacheMode.WRITEBACK)
CLEAN, TRANSIENT, DIVERGED = VerdictKind.CLEAN, VerdictKind.TRANSIENT, VerdictKind.DIVERGED
CORRUPT, REFUSED, INCONCLUSIVE = VerdictKind.CORRUPT, VerdictKind.REFUSED, VerdictKind.INCONCLUSIVE
KINDS = st.lists(st.none() | st.sampled_from(VerdictKind), min_size=1, max_size=8)


def result(kind: VerdictKind | None, repetition: int = 1, cell: Cell = NONE, **changed: object) -> Result:
    verdict = None
    if kind is not None:
        verdict = replace(Verdict(kind, "", exposed_blocks=1000, rate_upper_95=0.5), **changed)  # type: ignore[arg-type]
    return Result(replace(cell, repetition=repetition), verdict, None)


def answer(*kinds: VerdictKind | None) -> CellAnswer:
    (only,) = answers(result(kind, number) for number, kind in enumerate(kinds, 1))
    return only


def test_answers_interleaved_repetitions_by_cell_in_order_of_first_play() -> None:
    plays = [result(CLEAN, 1), result(DIVERGED, 1, BACK), result(DIVERGED, 2), result(CLEAN, 2, BACK)]
    first, second = answers(plays)
    assert (first.cell_id, second.cell_id) == (NONE.id, BACK.id)
    assert [first.plays, second.plays] == [(plays[0], plays[2]), (plays[1], plays[3])]
    assert (first.worst, second.worst) == (plays[2], plays[1])
    assert answers([]) == ()


@pytest.mark.parametrize(
    ("kinds", "diverged", "answered", "disagree"),
    [
        ((CLEAN, CLEAN, CLEAN), 0, 3, False),
        ((DIVERGED, CORRUPT, CLEAN, TRANSIENT), 2, 4, True),
        ((DIVERGED, INCONCLUSIVE, None), 1, 1, False),
        ((CLEAN, REFUSED), 0, 1, True),
        ((REFUSED, REFUSED), 0, 0, False),
        ((CLEAN, TRANSIENT), 0, 2, True),
        ((DIVERGED, CORRUPT), 2, 2, True),
        ((INCONCLUSIVE,), 0, 0, False),
        ((None, None), 0, 0, False),
    ],
)
def test_answers_verdicts_counted(
    kinds: tuple[VerdictKind | None, ...], diverged: int, answered: int, disagree: bool
) -> None:
    found = answer(*kinds)
    assert (found.diverged, found.answered, found.disagree) == (diverged, answered, disagree)
    assert found.interval == rate_interval(diverged, answered)
    assert found.kinds == {kind: kinds.count(kind) for kind in kinds if kind is not None}


def test_answers_none_of_five_diverged_interval_up_to_half() -> None:
    found = answer(*[CLEAN] * 5)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0.0, pytest.approx(0.5218, abs=1e-4))


def test_answers_without_verdict_nothing_known() -> None:
    found = answer(None)
    assert (found.worst.verdict, found.kinds, found.interval, found.block_rate) == (None, {}, None, None)


@given(KINDS, st.none() | st.sampled_from(VerdictKind))
def test_answers_one_more_repetition_never_lowers_the_worst(
    kinds: list[VerdictKind | None], more: VerdictKind | None
) -> None:
    before, after = answer(*kinds), answer(*kinds, more)
    assert badness(after.worst) >= badness(before.worst)
    assert badness(after.worst) >= badness(after.plays[-1])
    assert after.disagree or not before.disagree, "and two that disagree stay so"
    assert (after.diverged, after.answered) >= (before.diverged, before.answered)


@given(KINDS)
def test_answers_any_verdicts_consistent(kinds: list[VerdictKind | None]) -> None:
    found = answer(*kinds)
    assert 0 <= found.diverged <= found.answered <= len(found.plays) == len(kinds)
    assert sum(found.kinds.values()) == sum(kind is not None for kind in kinds)
    assert (found.interval is None) == (found.answered == 0)
    if found.interval is not None:
        assert found.interval.low <= found.diverged / found.answered <= found.interval.high


def test_block_rate_exposed_blocks_unless_every_repetition_counted_opportunities() -> None:
    pages = Opportunities(40, "pages reclaimed", "the workload")
    one, two, three = (
        result(DIVERGED, number, differing_blocks=number, opportunities=pages) for number in (1, 2, 3)
    )  # fmt: skip
    (found,) = answers([one, two, three])
    rate = found.block_rate
    assert rate is not None and (rate.differing, rate.trials, rate.what, rate.rate) == (6, 120, "pages reclaimed", 0.05)
    assert rate.varied == bootstrapped_rate([(1, 40), (2, 40), (3, 40)])
    (found,) = answers([one, two, result(CLEAN, 3)])
    rate = found.block_rate
    assert rate is not None and (rate.differing, rate.trials, rate.what) == (3, 3000, "exposed block writes")
    assert rate.varied == bootstrapped_rate([(1, 1000), (2, 1000), (0, 1000)])
    other = result(CLEAN, 2, opportunities=Opportunities(60, "changes in flight", "the witness"))
    (found,) = answers([one, other])
    rate = found.block_rate
    assert rate is not None and (rate.trials, rate.what, rate.varied) == (100, "opportunities", None)


def test_block_rate_more_blocks_than_trials_is_one() -> None:
    (found,) = answers([result(DIVERGED, differing_blocks=1400, opportunities=Opportunities(1042, "pages", "work"))])
    assert found.block_rate is not None and found.block_rate.rate == 1.0


def test_block_rate_nothing_to_rate_none() -> None:
    resynced = result(CLEAN, rate_upper_95=None)
    assert answers([resynced])[0].block_rate is None, "what a resync made equal is no rate"
    assert answers([result(INCONCLUSIVE), result(REFUSED, 2)])[0].block_rate is None, "no answer is no rate"
    (found,) = answers([resynced, result(DIVERGED, 2, differing_blocks=3), result(INCONCLUSIVE, 3)])
    assert found.block_rate is not None and (found.block_rate.differing, found.block_rate.trials) == (3, 1000)


@pytest.mark.parametrize("what", ["aaa", "block writes that changed in flight", "zzz"])
def test_block_rate_unit_exposed_or_opportunities(what: str) -> None:
    (found,) = answers([result(DIVERGED, opportunities=Opportunities(40, what, "the workload"))])
    assert found.block_rate is not None and found.block_rate.unit == "opportunities"
    (found,) = answers([result(DIVERGED)])
    assert found.block_rate is not None and found.block_rate.unit == "exposed"


def test_answers_cell_is_that_of_the_first_play() -> None:
    (found,) = answers([result(CLEAN, 1), result(CLEAN, 2), result(CLEAN, 3)])
    assert found.cell.repetition == 1

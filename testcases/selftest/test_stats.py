"""Bounds, intervals and comparisons of rates; that they cover the truth also where blocks differ in bursts."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from harness.judgement.stats import BOOTSTRAP_FROM, Interval, bootstrapped_rate, compare, rate_interval, rate_upper


@st.composite
def counts(draw: st.DrawFn, most: int = 10**6) -> tuple[int, int]:
    trials = draw(st.integers(1, most))
    return draw(st.integers(0, trials)), trials


CONFIDENCE = st.floats(0.5, 0.999)


def test_rate_upper_known_counts_known_values() -> None:
    assert rate_upper(0, 100) == pytest.approx(0.029513, abs=1e-6)
    assert rate_upper(0, 3) == pytest.approx(1 - 0.05 ** (1 / 3))


@given(counts(60), CONFIDENCE)
def test_rate_upper_any_count_meets_the_definition(count: tuple[int, int], confidence: float) -> None:
    hits, trials = count
    p = rate_upper(hits, trials, confidence)
    assert p is not None
    so_few = sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(hits + 1))
    assert so_few == pytest.approx(1 - confidence if hits < trials else 1, abs=1e-9)


@given(counts(), CONFIDENCE)
def test_rate_upper_any_count_not_below_estimate(count: tuple[int, int], confidence: float) -> None:
    hits, trials = count
    upper = rate_upper(hits, trials, confidence)
    assert upper is not None and hits / trials <= upper <= 1


@given(counts(), CONFIDENCE)
def test_rate_upper_more_hits_never_lower_more_trials_never_higher(count: tuple[int, int], confidence: float) -> None:
    hits, trials = count
    here = rate_upper(hits, trials, confidence)
    assert here is not None
    assert hits == trials or here < (rate_upper(hits + 1, trials, confidence) or 0)
    assert (rate_upper(hits, trials + 1, confidence) or 1) < here or hits == trials


@given(counts())
def test_rate_upper_more_confidence_wider(count: tuple[int, int]) -> None:
    assert (rate_upper(*count, 0.9) or 1) <= (rate_upper(*count, 0.99) or 0)


def test_rate_upper_zero_hits_meets_general_formula() -> None:
    assert rate_upper(0, 50, 0.95) == pytest.approx(float(beta.ppf(0.95, 1, 50)))


def test_rate_upper_no_rate_none() -> None:
    for hits, trials in ((0, 0), (3, 0), (4, 3)):
        assert rate_upper(hits, trials) is None
        assert compare(hits, trials, 1, 2) is compare(1, 2, hits, trials) is None


@pytest.mark.parametrize("wrong", [(-1, 3, 0.95), (0, -1, 0.95), (1, 3, 1.0), (1, 3, 0.0), (1, 3, -0.5), (1, 3, 1.5)])
def test_rate_upper_impossible_counts_value_error(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError):
        rate_upper(*wrong)


def test_compare_known_counts_significant_or_not() -> None:
    apart = compare(930, 40_000, 23, 40_000)
    assert apart and apart.larger == "a" and apart.significant() and apart.p_value < 1e-100
    near = compare(1, 40_000, 2, 40_000)
    assert near and near.larger == "b" and not near.significant() and near.p_value == pytest.approx(1)
    assert not near.significant(near.p_value), "at the level is not below it"
    tea = compare(3, 4, 1, 4)
    assert tea and tea.p_value == pytest.approx(0.485714, abs=1e-6)


@given(counts(2000), counts(2000))
def test_compare_swapped_sides_same_p_value(a: tuple[int, int], b: tuple[int, int]) -> None:
    there, back = compare(*a, *b), compare(*b, *a)
    assert there and back
    assert there.p_value == pytest.approx(back.p_value)
    assert 0 <= there.p_value <= 1 + 1e-9
    assert {there.larger, back.larger} in ({None}, {"a", "b"})


@given(counts(2000))
def test_compare_equal_counts_not_significant(count: tuple[int, int]) -> None:
    same = compare(*count, *count)
    assert same and same.larger is None and not same.significant()


@given(counts(60), CONFIDENCE)
def test_rate_interval_any_count_leaves_half_of_the_doubt_on_each_side(
    count: tuple[int, int], confidence: float
) -> None:
    hits, trials = count
    found = rate_interval(hits, trials, confidence)
    assert found is not None and 0 <= found.low <= hits / trials <= found.high <= 1
    assert found.high == rate_upper(hits, trials, (1 + confidence) / 2)
    p = found.low
    so_many = sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(hits, trials + 1))
    assert so_many == pytest.approx((1 - confidence) / 2 if hits else 1, abs=1e-9)


def test_rate_interval_known_counts_known_values() -> None:
    found = rate_interval(2, 5)
    assert found is not None and (found.low, found.high) == (
        pytest.approx(0.052745, abs=1e-6),
        pytest.approx(0.853367, abs=1e-6),
    )
    assert rate_interval(0, 0) is rate_interval(3, 2) is None


@pytest.mark.parametrize("wrong", [(-1, 3, 0.95), (0, -1, 0.95), (1, 3, 1.0), (1, 3, -1.0)])
def test_rate_interval_impossible_counts_value_error(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError):
        rate_interval(*wrong)


# --------------------------------------------------------------------------- what repetitions say of blocks


def test_bootstrapped_rate_too_few_repetitions_with_trials_none() -> None:
    assert BOOTSTRAP_FROM == 3
    assert bootstrapped_rate([]) is bootstrapped_rate([(1, 10), (2, 10), (0, 0)]) is None
    assert bootstrapped_rate([(1, 10), (2, 10), (0, 1)]) is not None


def test_bootstrapped_rate_known_repetitions_known_values() -> None:
    assert bootstrapped_rate([(3, 10)] * 4) == Interval(0.3, 0.3), "what never varied does not vary"
    rounded = bootstrapped_rate([(1, 309)] * 3)
    assert rounded and rounded.low <= rounded.high
    found = bootstrapped_rate([(0, 100), (0, 100), (0, 100), (80, 100), (0, 100)])
    assert found == Interval(0.0, 0.48), "one burst may come three times in five, or never"
    assert found == bootstrapped_rate([(0, 100), (0, 100), (0, 100), (80, 100), (0, 100)]), "and again the same"
    wider = bootstrapped_rate([(0, 100), (10, 100), (20, 100), (80, 100)], 0.99)
    narrow = bootstrapped_rate([(0, 100), (10, 100), (20, 100), (80, 100)], 0.5)
    assert wider and narrow and wider.low < narrow.low < narrow.high < wider.high


@given(st.lists(counts(1000), min_size=3, max_size=6))
@settings(max_examples=30)
def test_bootstrapped_rate_any_repetitions_between_the_least_and_the_most(each: list[tuple[int, int]]) -> None:
    found = bootstrapped_rate(each)
    rates = [hits / trials for hits, trials in each]
    assert found and min(rates) - 1e-9 <= found.low <= found.high <= max(rates) + 1e-9


# --------------------------------------------------------------------------- bursts

# One repetition writes BLOCKS blocks.  With the chance BURST it meets the race at all; then a run of blocks differs
# that is one longer with the chance LONGER, as neighbouring pages of one buffer do.
RUNS, REPETITIONS, BLOCKS, BURST, LONGER = 2000, 10, 2000, 0.15, 0.99
# How many of its blocks such a repetition loses on average, at most all of them; and which share of all blocks.
LOST = (1 - LONGER**BLOCKS) / (1 - LONGER)
BLOCK_RATE = BURST * LOST / BLOCKS


def a_run(chance: random.Random) -> list[int]:
    """How many blocks differ in each repetition of one run."""
    found = []
    for _ in range(REPETITIONS):
        length = 0
        if chance.random() < BURST:
            length = 1
            while length < BLOCKS and chance.random() < LONGER:
                length += 1
        found.append(length)
    return found


def covered(true_rate: float, interval: Callable[[list[int]], Interval | None]) -> float:
    """Which share of the runs has an interval that the true rate is in."""
    chance, inside = random.Random(20261128), 0
    for _ in range(RUNS):
        found = interval(a_run(chance))
        inside += found is not None and found.low <= true_rate <= found.high
    return inside / RUNS


def upper_only(hits: int, trials: int) -> Interval:
    upper = rate_upper(hits, trials)
    assert upper is not None
    return Interval(0.0, upper)


def test_intervals_over_repetitions_with_bursts_cover_as_stated() -> None:
    assert covered(BURST, lambda run: rate_interval(sum(map(bool, run)), REPETITIONS)) >= 0.95
    assert covered(BURST, lambda run: upper_only(sum(map(bool, run)), REPETITIONS)) >= 0.95


def test_intervals_over_blocks_with_bursts_cover_far_less() -> None:
    assert covered(BLOCK_RATE, lambda run: rate_interval(sum(run), REPETITIONS * BLOCKS)) < 0.3
    assert covered(BLOCK_RATE, lambda run: upper_only(sum(run), REPETITIONS * BLOCKS)) < 0.7


def test_what_counts_nothing_does_not_load_scipys_statistics() -> None:
    loads = "import sys, harness.cli.main, harness.pytest_plugin.items; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0, "they take most of a second"

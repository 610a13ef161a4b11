"""Bounds and comparisons of rates."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from harness.judgement.stats import compare, rate_upper

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


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


@pytest.mark.parametrize("wrong", [(-1, 3, 0.95), (0, -1, 0.95), (1, 3, 1.0), (1, 3, 0.0)])
def test_rate_upper_impossible_counts_value_error(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError):
        rate_upper(*wrong)


def test_compare_known_counts_significant_or_not() -> None:
    apart = compare(930, 40_000, 23, 40_000)
    assert apart and apart.larger == "a" and apart.significant() and apart.p_value < 1e-100
    near = compare(1, 40_000, 2, 40_000)
    assert near and near.larger == "b" and not near.significant() and near.p_value == pytest.approx(1)
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

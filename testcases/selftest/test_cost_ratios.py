"""What a mitigation costs, as ratios to its baseline: which repetitions make a pair, and how sure that makes us."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from harness.judgement.cost_ratios import CostRatio, cost_ratios, ratio_interval
from harness.model import (
    CacheMode,
    Cell,
    DelayProfile,
    Evidence,
    FioFigures,
    FioPerformance,
    Layout,
    Mitigation,
    Preset,
    Result,
    Verdict,
    VerdictKind,
    Work,
    settings,
)

RATIOS = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=12)
BASE = Cell("fio-cost", cache=CacheMode.NONE)


def cell(mitigation: Mitigation | None, preset: Preset | None = None) -> Cell:
    """The cell that a matrix makes of it."""
    values = settings(preset, mitigation)
    return replace(BASE, mitigation=mitigation, preset=preset).with_values(values)


def result(
    of: Cell, repetition: int, iops: float, kind: VerdictKind = VerdictKind.CLEAN, lab: str = "lab", p99: int = 1000
) -> Result:
    """One repetition that measured ``iops``."""
    figures = FioFigures("4k random writes", 100, iops, iops * 4096, None, p99)
    played = replace(of, repetition=repetition)
    work = Work(10, performance=FioPerformance((figures,)))
    return Result(played, Verdict(kind, ""), Evidence(played, 1, "", lab=lab, work=work))


def measured(found: tuple[CostRatio, ...], measure: str) -> CostRatio:
    """That of one measure; there has to be exactly one."""
    (one,) = [ratio for ratio in found if ratio.measure.endswith(measure)]
    return one


@given(RATIOS)
def test_ratio_interval_of_any_ratios_holds_the_mean_and_that_is_between_them(ratios: list[float]) -> None:
    found = ratio_interval(ratios)
    assert found is not None
    mean, low, high = found
    assert low <= mean * (1 + 1e-9) and mean <= high * (1 + 1e-9)
    assert min(ratios) * (1 - 1e-9) <= mean <= max(ratios) * (1 + 1e-9)


@given(RATIOS)
def test_ratio_interval_of_the_inverse_is_the_inverse(ratios: list[float]) -> None:
    found, inverse = ratio_interval(ratios), ratio_interval([1 / one for one in ratios])
    assert found is not None and inverse is not None
    if found[2] < 1e200:
        assert inverse[0] == pytest.approx(1 / found[0], rel=1e-6)
        assert inverse[1] == pytest.approx(1 / found[2], rel=1e-6)


@given(RATIOS, st.floats(0.01, 100))
def test_ratio_interval_scaled_is_as_wide(ratios: list[float], factor: float) -> None:
    found, scaled = ratio_interval(ratios), ratio_interval([one * factor for one in ratios])
    assert found is not None and scaled is not None
    if found[2] < 1e200:
        assert scaled[2] / scaled[1] == pytest.approx(found[2] / found[1], rel=1e-6)


def test_ratio_interval_of_five_covers_the_truth_as_often_as_it_says() -> None:
    chance = random.Random(20261129)
    trials, covered = 2000, 0
    for _ in range(trials):
        found = ratio_interval([math.exp(chance.gauss(math.log(0.5), 0.3)) for _ in range(5)])
        assert found is not None
        covered += found[1] <= 0.5 <= found[2]
    assert 0.935 < covered / trials < 0.965


@given(RATIOS)
def test_ratio_interval_is_students_as_scipy_has_it(ratios: list[float]) -> None:
    found, logs = ratio_interval(ratios), [math.log(one) for one in ratios]
    assume(len({*logs}) > 1)
    assert found is not None
    ends = stats.t.interval(0.95, len(logs) - 1, loc=sum(logs) / len(logs), scale=stats.sem(logs))
    for mine, theirs in zip(found[1:], ends, strict=True):
        if abs(theirs) < 600:
            assert math.log(mine) == pytest.approx(theirs, rel=1e-6, abs=1e-6)


def test_ratio_interval_of_one_is_none() -> None:
    assert ratio_interval([0.5]) is None


def test_cost_ratios_of_a_slow_machine_pairs_by_repetition() -> None:
    # Twice as slow in the second round, which is none of the mitigation's doing.
    slow = cell(Mitigation.PROTOCOL_A)
    found = cost_ratios(
        [result(BASE, 1, 1000), result(slow, 1, 500), result(BASE, 2, 500), result(slow, 2, 250)]
    )  # fmt: skip
    one = measured(found, "IOPS")
    assert (one.mitigation, one.cache, one.n, one.baseline) == ("protocol-a", "none", 2, "none-fio-cost")
    assert (one.ratio, one.low, one.high) == pytest.approx((0.5, 0.5, 0.5))
    better = {measure: measured(found, measure).more_is_better for measure in ("IOPS", "bandwidth", "p99 latency")}
    assert better == {"IOPS": True, "bandwidth": True, "p99 latency": False}


@pytest.mark.parametrize(
    "lost",
    [{"kind": VerdictKind.INCONCLUSIVE}, {"kind": VerdictKind.REFUSED}, {"lab": "another"}, {"iops": 0.0}],
    ids=lambda lost: next(iter(lost)),
)
def test_cost_ratios_without_a_pair_leaves_the_repetition_out(lost: dict[str, object]) -> None:
    slow = cell(Mitigation.STABLE_WRITES)
    plays = [result(one, number, 100) for number in (1, 2) for one in (BASE, slow)]
    third = {"iops": 5.0, **lost}
    found = cost_ratios([*plays, result(BASE, 3, 100), result(slow, 3, **third)])  # type: ignore[arg-type]
    assert measured(found, "IOPS").n == 2
    assert measured(found, "IOPS").ratio == pytest.approx(1)


def test_cost_ratios_without_the_baseline_says_nothing() -> None:
    slow = cell(Mitigation.STABLE_WRITES)
    assert cost_ratios([result(slow, 1, 100), result(slow, 2, 100)]) == ()


@pytest.mark.parametrize("mitigation", Mitigation)
def test_without_presets_of_any_mitigation_is_the_cell_without_it(mitigation: Mitigation) -> None:
    assert cell(mitigation).without_presets() == BASE
    assert cell(mitigation).id.endswith(f"-{mitigation}")


@pytest.mark.parametrize("mitigation", Mitigation)
def test_without_presets_of_a_mitigated_preset_is_the_cell_without_both(mitigation: Mitigation) -> None:
    both = cell(mitigation, Preset.PROXMOX_VE)
    assert both.without_presets() == BASE
    assert both.id == f"{both.cache}-fio-cost-proxmox-ve-{mitigation}"


def test_cell_id_of_a_mitigation_keeps_what_it_does_not_set() -> None:
    found = replace(cell(Mitigation.CRYPT_GUEST), delays=DelayProfile(20, 0, 5))
    assert (found.id, found.layout) == ("none-fio-cost-link20ms-flush5ms-crypt-guest", Layout.CRYPT)
    plain = replace(found, mitigation=None)
    assert plain.id == "none-crypt-fio-cost-link20ms-flush5ms"

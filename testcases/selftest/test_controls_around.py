"""Which controls count for a cell, by when they were played; a failed one is never made good by a later one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from judged_evidence import NOTICED, evidence, oracles

from harness.config.controls import CONTROL_CELLS
from harness.judgement.controls_around import PlayedControl, controls_around, judge_between, played_controls
from harness.judgement.rejudge import conclusive, judged_attempts, rejudged
from harness.model import (
    Cell,
    ClientKind,
    Control,
    ControlOutcome,
    Evidence,
    Failure,
    Result,
    Run,
    Verdict,
    VerdictKind,
)

HOUR = 60
# When the cell began, in minutes.
CELL_AT = 30
KINDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "transient": {**oracles({5}, set()), "alarms": NOTICED},
    "diverged": oracles({5}, {5}),
}


def at(minute: int) -> str:
    """The moment ``minute`` minutes after one o'clock."""
    return f"2026-11-23T{1 + minute // HOUR:02}:{minute % HOUR:02}:00.000+00:00"


def cell(kind: str = "clean", minute: int = CELL_AT, **changed: Any) -> Evidence:
    return replace(evidence(**KINDS[kind]), started_at=at(minute), **changed)


def control(which: Control, minute: int, held: bool = True, lab: str = "lab") -> PlayedControl:
    return PlayedControl(ControlOutcome(which, held, f"at {minute}"), lab, at(minute))


def round_at(minute: int, failed: Control | None = None, lab: str = "lab") -> list[PlayedControl]:
    return [control(which, minute, which is not failed, lab) for which in Control]


def judged(found: Evidence, played: list[PlayedControl], given_up: dict[str, str] | None = None) -> Verdict:
    return judge_between(found, sorted(played, key=lambda one: one.started_at), given_up or {})


PLAYED = st.builds(
    control, st.sampled_from(Control), st.integers(0, 90), st.booleans(), st.sampled_from(["lab", "other"])
)


# --------------------------------------------------------------------------- which count


def test_controls_around_latest_before_and_first_after_a_failed_one_wins() -> None:
    held = controls_around(cell(), round_at(0) + round_at(20) + round_at(40))
    assert {one.sentence for one in held.values()} == {"at 20"} and set(held) == set(Control)
    failed = controls_around(cell(), round_at(0) + round_at(40, Control.STEADY))
    assert not failed[Control.STEADY].held and failed[Control.IDLE].held


@pytest.mark.parametrize("which", Control)
def test_judge_between_failed_before_is_not_made_good(which: Control) -> None:
    played = round_at(0, which) + round_at(20) + round_at(40)
    assert judged(cell(), played).kind is VerdictKind.INCONCLUSIVE
    assert f"the {which} control failed: at 0" in judged(cell(), played).sentence


@pytest.mark.parametrize("kind", ["clean", "transient"])
@pytest.mark.parametrize("which", Control)
def test_judge_between_closing_one_failed_is_inconclusive(which: Control, kind: str) -> None:
    verdict = judged(cell(kind), round_at(0) + round_at(40, which))
    assert verdict.kind is VerdictKind.INCONCLUSIVE and f"the {which} control failed" in verdict.sentence
    assert judged(cell(kind), round_at(0) + round_at(40) + round_at(50, which)).kind is not VerdictKind.INCONCLUSIVE, (
        "it stands between two that held"
    )


@pytest.mark.parametrize("which", Control)
def test_judge_between_difference_stays_unless_the_lab_differs_by_itself(which: Control) -> None:
    verdict = judged(cell("diverged"), round_at(0) + round_at(40, which))
    if which in (Control.STEADY, Control.IDLE):
        assert verdict.kind is VerdictKind.INCONCLUSIVE
    else:
        assert verdict.kind is VerdictKind.DIVERGED and f"the {which} control failed: at 40" in verdict.reasons


def test_judge_between_controls_of_another_lab_count_for_nothing() -> None:
    assert judged(cell(), round_at(0, lab="other") + round_at(40, lab="other")).kind is VerdictKind.INCONCLUSIVE
    played = round_at(0) + round_at(10, Control.IDLE, "other") + round_at(40)
    assert judged(cell(), played) == judged(cell(), round_at(0) + round_at(40))


def test_judge_between_only_later_controls_are_not_enough() -> None:
    verdict = judged(cell(), round_at(40))
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "control of this run has no result" in verdict.sentence


@given(st.lists(PLAYED, max_size=12), PLAYED, st.sampled_from(sorted(KINDS)))
def test_judge_between_later_control_never_makes_an_answer(
    played: list[PlayedControl], later: PlayedControl, kind: str
) -> None:
    assume(all(one.started_at < later.started_at for one in played))
    before, after = judged(cell(kind), played), judged(cell(kind), [*played, later])
    assert after.kind in (before.kind, VerdictKind.INCONCLUSIVE)


@given(st.lists(PLAYED, max_size=12), PLAYED, st.sampled_from(sorted(KINDS)))
def test_judge_between_failed_control_never_makes_an_answer(
    played: list[PlayedControl], failed: PlayedControl, kind: str
) -> None:
    failed = replace(failed, outcome=replace(failed.outcome, held=False))
    before, after = judged(cell(kind), played), judged(cell(kind), [*played, failed])
    assert after.kind in (before.kind, VerdictKind.INCONCLUSIVE)
    if failed.lab == "lab" and failed.started_at <= at(CELL_AT):
        assert after.kind not in (VerdictKind.CLEAN, VerdictKind.TRANSIENT)


@given(st.lists(PLAYED, max_size=12))
def test_judge_between_clean_only_where_every_control_around_it_held(played: list[PlayedControl]) -> None:
    if judged(cell(), played).kind is VerdictKind.CLEAN:
        here = [one for one in played if one.lab == "lab"]
        before = [one for one in here if one.started_at <= at(CELL_AT)]
        assert {one.outcome.control for one in before if one.outcome.held} == set(Control)
        assert all(one.outcome.held for one in before)


# --------------------------------------------------------------------------- none after it


def test_judge_between_nothing_after_it_is_a_reason_beside_clean() -> None:
    verdict = judged(cell(), round_at(0))
    assert verdict.kind is VerdictKind.CLEAN and "no control was played after it" in verdict.reasons
    some = judged(cell(), [*round_at(0), control(Control.PLANTED, 40), control(Control.IN_FLIGHT, 40)])
    assert "no idle and no steady and no in-flight-guest control was played after it" in some.reasons
    assert judged(cell(), round_at(0) + round_at(40)).reasons == ()
    assert judged(cell("diverged"), round_at(0)).reasons == ()


@pytest.mark.parametrize("kind", ["clean", "transient"])
def test_judge_between_lab_given_up_without_closing_controls_is_inconclusive(kind: str) -> None:
    verdict = judged(cell(kind), round_at(0), {"lab": "nodea does not answer"})
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == ("no control was played after it, for the run gave up on its lab: nodea does not answer")
    assert verdict.reasons[0].startswith(f"{kind}: ") and verdict.potency is None
    assert judged(cell(kind), round_at(0) + round_at(40), {"lab": "x"}).kind is not VerdictKind.INCONCLUSIVE
    assert judged(cell(kind), round_at(0), {"other": "x"}).kind is not VerdictKind.INCONCLUSIVE
    assert judged(cell("diverged"), round_at(0), {"lab": "x"}).kind is VerdictKind.DIVERGED


def test_judge_between_older_schema_three_controls_of_any_time() -> None:
    three = [control(which, 40) for which in (Control.PLANTED, Control.IDLE, Control.IN_FLIGHT)]
    verdict = judged(cell(schema=2), three, {"lab": "x"})
    assert verdict.kind is VerdictKind.CLEAN and verdict.reasons == ()
    assert judged(cell(), three).kind is VerdictKind.INCONCLUSIVE
    failed = [*three, control(Control.IDLE, 50, held=False)]
    assert judged(cell(schema=2), failed).kind is VerdictKind.INCONCLUSIVE


# --------------------------------------------------------------------------- a whole run

BROKEN = Failure("lost-node", "work", "nodea does not answer")
STEADY = next(one for one in CONTROL_CELLS if one.control is Control.STEADY)
PLANTED = Cell("planted", client=ClientKind.HOST, control=Control.PLANTED)


def steady(minute: int, lab: str = "lab", **changed: Any) -> Evidence:
    return replace(evidence(STEADY, **changed), started_at=at(minute), lab=lab)


def stands(attempts: list[Evidence]) -> Result:
    (found,) = rejudged(Run("run1", "quick", at(0), (STEADY,)), attempts)
    return found


def test_played_controls_are_in_the_order_of_time() -> None:
    played = played_controls([steady(40), cell(), steady(0)])
    assert [one.started_at for one in played] == [at(0), at(40)]


def test_rejudged_control_is_what_it_was_on_the_newest_lab() -> None:
    broken = oracles({5}, {5})
    failed_first = stands([steady(0, **broken), steady(40)])
    assert not conclusive(failed_first), "a later one on the same lab does not replace it"
    assert failed_first.evidence is not None and failed_first.evidence.started_at == at(0)
    assert not conclusive(stands([steady(40, **broken), steady(0)])), "whatever the order of the folders"
    rebuilt = stands([steady(0, **broken), steady(40, "lab2")])
    assert conclusive(rebuilt) and rebuilt.verdict is not None and rebuilt.verdict.kind is VerdictKind.CLEAN


def test_played_controls_interrupted_one_is_none() -> None:
    stopped = steady(40, failure=Failure("interrupted", "work", "KeyboardInterrupt"))
    assert [one.started_at for one in played_controls([steady(0), stopped])] == [at(0)]
    assert [one.started_at for one in played_controls([steady(0), replace(stopped, failure=BROKEN)])] == [at(0), at(40)]
    held = stands([steady(0), stopped])
    assert conclusive(held) and held.evidence is not None and held.evidence.started_at == at(0)
    assert not conclusive(stands([stopped])) and not conclusive(stands([steady(0), replace(stopped, failure=BROKEN)]))


def test_judged_attempts_each_between_its_own_controls() -> None:
    run = Run("run1", "quick", at(0), (STEADY,), given_up={"lab": "it broke"})
    results = judged_attempts(run, [steady(0), cell(minute=10), steady(20, **oracles({5}, {5}))])
    assert [one.verdict.kind for one in results if one.verdict] == [
        VerdictKind.CLEAN, VerdictKind.INCONCLUSIVE, VerdictKind.DIVERGED
    ]  # fmt: skip

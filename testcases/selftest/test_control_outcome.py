"""What a control has to find to have held, and what is taken away from a cell where one failed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_evidence import HELD, IDLE, IN_FLIGHT, IN_FLIGHT_GUEST, NOTICED, PLANTED, SPLIT, STEADY, evidence, oracles

from harness.judgement.controls import control_outcome, outcomes
from harness.judgement.judge import judge
from harness.model import Control, ControlOutcome, Extent, Failure, VerdictKind, Work, extents_of

# --------------------------------------------------------------------------- the controls themselves


def planted(wanted: set[int], verified: set[int], compared: set[int]) -> ControlOutcome:
    extents = extents_of(wanted)
    return control_outcome(evidence(PLANTED, planted=extents, exposed_blocks=0, **oracles(verified, compared)))


def test_control_outcome_planted_holds_only_for_exact_blocks() -> None:
    assert planted({0, 1000, 5003}, {0, 1000, 5003}, {0, 1000, 5003}).held
    assert not planted({0, 1000}, {0, 1000, 7}, {0, 1000, 7}).held, "one too many"
    assert not planted({0, 1000, 7}, {0, 1000}, {0, 1000}).held, "one too few"
    assert not planted({0, 1000}, {0, 7}, {0, 7}).held, "another"
    assert not planted(set(), {0}, {0}).held, "nothing was noted as planted"
    assert not planted({0}, set(), set()).held, "nothing was found"


def test_control_outcome_planted_missed_by_one_oracle_names_it() -> None:
    outcome = planted({0, 1000}, {0, 1000}, {0})
    assert not outcome.held
    assert outcome.sentence == "the comparison found blocks [0], planted were [0, 1000]"


def test_control_outcome_in_flight_needs_diverged_idle_needs_clean() -> None:
    assert control_outcome(evidence(IN_FLIGHT, **oracles({3}, {3}))).held
    silent = control_outcome(evidence(IN_FLIGHT))
    assert not silent.held and silent.sentence.startswith("DIVERGED was expected: ")
    assert not control_outcome(evidence(IN_FLIGHT, **oracles({3}, set()))).held, "transient is not enough"
    assert control_outcome(evidence(IDLE, exposed_blocks=0)).held
    noisy = control_outcome(evidence(IDLE, **oracles({3}, {3})))
    assert not noisy.held and noisy.sentence.startswith("CLEAN was expected: 1 blocks differ")


def test_control_outcome_steady_needs_clean_and_load() -> None:
    wrote = Work(5.0, {"writer_write_bytes": 64e6})
    assert control_outcome(evidence(STEADY, work=wrote)).held
    noisy = control_outcome(evidence(STEADY, work=wrote, **oracles({3}, {3})))
    assert not noisy.held and noisy.sentence.startswith("CLEAN was expected: 1 blocks differ")
    for idle, doubt in (
        ({"work": wrote, "exposed_blocks": 0}, "no block write was exposed"),
        ({"work": Work(5.0, {"writer_write_bytes": 0.0})}, "its writer wrote nothing"),
    ):
        outcome = control_outcome(evidence(STEADY, **idle))
        assert not outcome.held and outcome.sentence.endswith(doubt), "no load is no proof"


def test_control_outcome_planted_split_brain_without_oracles_failed() -> None:
    split = replace(NOTICED, split_brain=SPLIT)
    outcome = control_outcome(evidence(PLANTED, alarms=split, verify=None, comparison=None))
    assert not outcome.held and outcome.sentence.startswith("an oracle did not answer: split brain")


def test_control_outcome_in_flight_guest_needs_diverged_and_the_cache_it_asks_for() -> None:
    found = evidence(IN_FLIGHT_GUEST, **oracles({3}, {3}))
    assert control_outcome(found).held and not control_outcome(evidence(IN_FLIGHT_GUEST)).held
    buffered = replace(found, observed=replace(found.observed, o_direct=False))
    assert not control_outcome(buffered).held


def test_control_outcome_failure_not_held() -> None:
    broken = Failure("lost-node", "work", "gone")
    for cell in (PLANTED, IN_FLIGHT, IDLE, STEADY, IN_FLIGHT_GUEST):
        outcome = control_outcome(evidence(cell, failure=broken, **oracles({3}, {3})))
        assert not outcome.held and "work: gone" in outcome.sentence


def test_judge_control_cell_needs_no_controls() -> None:
    assert judge(evidence(IDLE), None).kind is VerdictKind.CLEAN
    assert judge(evidence(IN_FLIGHT, **oracles({3}, {3})), None).kind is VerdictKind.DIVERGED


def test_control_outcome_ordinary_cell_value_error() -> None:
    with pytest.raises(ValueError, match="none-swap-pressure is no control"):
        control_outcome(evidence())


def test_outcomes_several_attempts_of_one_control_failed_stays() -> None:
    good, bad = evidence(IN_FLIGHT, **oracles({3}, {3})), evidence(IN_FLIGHT)
    assert outcomes([good, evidence(), bad])[Control.IN_FLIGHT].held is False
    assert outcomes([good, good])[Control.IN_FLIGHT].held is True
    assert outcomes([bad, good])[Control.IN_FLIGHT].held is False
    assert set(outcomes([good, evidence()])) == {Control.IN_FLIGHT}


# --------------------------------------------------------------------------- whatever the evidence


FOUND = {
    "diverged": oracles({1}, {1}),
    "corrupt": {"work": Work(1.0, read_back_errors=1)},
    "transient": {"alarms": NOTICED},
    "clean": {},
}


@pytest.mark.parametrize("failed", Control)
@pytest.mark.parametrize("found", FOUND)
def test_judge_failed_control_takes_away_what_rests_on_it(failed: Control, found: str) -> None:
    controls = {**HELD, failed: ControlOutcome(failed, False, "it did not hold")}
    verdict = judge(evidence(**FOUND[found]), controls)
    stands = found in ("diverged", "corrupt") and failed not in (Control.IDLE, Control.STEADY)
    assert verdict.kind.lower() == (found if stands else "inconclusive")
    assert "it did not hold" in "; ".join((verdict.sentence, *verdict.reasons)), "and says so in any case"


def test_outcomes_failed_control_is_not_replaced_by_a_later_one() -> None:
    missed, held = evidence(PLANTED), evidence(PLANTED, **oracles({3}, {3}), planted=(Extent(24, 8),))
    assert outcomes([held])[Control.PLANTED].held
    for attempts in ([missed, held], [held, missed], [held, missed, held]):
        assert not outcomes(attempts)[Control.PLANTED].held

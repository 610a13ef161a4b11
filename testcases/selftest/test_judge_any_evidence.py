"""Evidence to verdict: what holds whatever the evidence is."""

from __future__ import annotations

from dataclasses import replace

from drawn_evidence import NUMBERS, OUTCOMES, any_evidence
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judged_evidence import HELD, SWAP, evidence, kind, oracles

from harness.judgement.controls import control_outcome
from harness.judgement.judge import judge
from harness.judgement.losses import data_loss_findings
from harness.model import (
    Alarms,
    Control,
    ControlOutcome,
    Crash,
    CrashRecovery,
    Evidence,
    Failure,
    MigrationOutcome,
    Verdict,
    VerdictKind,
    Work,
)


@settings(max_examples=150)
@given(any_evidence(), OUTCOMES)
@example(Evidence(SWAP, 1, ""), {})
def test_judge_any_evidence_one_consistent_verdict(found: Evidence, controls: dict[Control, ControlOutcome]) -> None:
    verdict = judge(found, controls)
    assert isinstance(verdict, Verdict) and verdict.sentence is not None
    assert judge(found, controls) == verdict, "the same evidence, the same verdict"
    if verdict.kind is VerdictKind.CLEAN:
        assert found.cell.control or (len(controls) == 3 and all(one.held for one in controls.values()))
        assert found.comparison and found.verify and found.verify.complete
        assert found.counter_kib == 0 and not found.comparison.differing_blocks
        assert found.failure is None and not found.log_holes and not data_loss_findings(found)
        if not found.cell.control:
            assert not any(change.owner for change in found.planted), "what was planted differs"
            assert not (found.cell.has_canary and found.canary is None)
            assert found.fault_injected or found.cell.fault is None
            assert found.readback is None or not found.readback.differing
            assert not any(one.outcome is MigrationOutcome.REFUSED for one in found.migrations)
        assert found.alarms is None or not (found.alarms.detections or found.alarms.split_brain)
        assert verdict.rate_upper_95 is None or not (found.alarms and found.alarms.resynced_kib)
        assert found.fault_injected or found.alarms is None or not found.alarms.drops
    if verdict.kind is VerdictKind.TRANSIENT:
        assert found.failure is None
    if verdict.kind in (VerdictKind.DIVERGED, VerdictKind.TRANSIENT):
        split = found.alarms is not None and found.alarms.split_brain is not None and found.alarms.split_brain.confirmed
        assert found.equal_before is True or split
        assert (verdict.kind is VerdictKind.DIVERGED) is (split or bool(verdict.differing_blocks))
    if verdict.kind is VerdictKind.CORRUPT:
        assert data_loss_findings(found)
    elif data_loss_findings(found):
        assert verdict.kind is VerdictKind.INCONCLUSIVE, "only what was not in force as asked outweighs a loss"
    assert verdict.rate_upper_95 is None or 0 < verdict.rate_upper_95 <= 1
    if found.cell.control:
        control_outcome(found)


@given(NUMBERS, NUMBERS)
def test_judge_comparison_only_block_inconclusive(verified: set[int], compared: set[int]) -> None:
    found = kind(evidence(**oracles(verified, compared)))
    if compared - verified:
        assert found is VerdictKind.INCONCLUSIVE
    else:
        found_something = VerdictKind.DIVERGED if compared else VerdictKind.INCONCLUSIVE
        assert found is (found_something if verified else VerdictKind.CLEAN)


@given(st.integers(1, 10**9))
def test_judge_more_exposure_bound_never_looser(exposed: int) -> None:
    fewer, more = (judge(evidence(exposed_blocks=count), HELD).rate_upper_95 for count in (exposed, exposed + 1))
    assert fewer is not None and more is not None and fewer >= more > 0


FAILURE = st.builds(
    Failure, st.sampled_from(["refused", "deadline", "lost-node"]), st.just("work"), st.just("it broke")
)


@settings(max_examples=150)
@given(any_evidence(), OUTCOMES, FAILURE)
def test_judge_adding_a_failure_never_removes_an_agreed_difference_or_a_loss(
    found: Evidence, controls: dict[Control, ControlOutcome], failure: Failure
) -> None:
    before = judge(replace(found, failure=None), controls)
    after = judge(replace(found, failure=failure), controls)
    if before.kind in (VerdictKind.CORRUPT, VerdictKind.DIVERGED):
        assert (after.kind, after.differing_blocks) == (before.kind, before.differing_blocks)
        assert any("it broke" in reason for reason in after.reasons), "and says that something failed"
    elif after.kind not in (VerdictKind.REFUSED, VerdictKind.DIVERGED):
        assert after.kind is VerdictKind.INCONCLUSIVE


@settings(max_examples=150)
@given(any_evidence(), OUTCOMES)
def test_judge_not_in_force_as_asked_is_inconclusive_whatever_was_found(
    found: Evidence, controls: dict[Control, ControlOutcome]
) -> None:
    other = replace(found.observed, link_delay_ms=found.cell.delays.link_delay_ms + 1)
    verdict = judge(replace(found, observed=other, work=found.work or Work(1.0)), controls)
    assert verdict.kind is VerdictKind.INCONCLUSIVE


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_judge_resynced_replicas_have_no_rate_bound(exposed: int, kib: int) -> None:
    crashed = CrashRecovery(Crash.NODE, resynced_kib=kib)
    for changed in ({"alarms": Alarms(resynced_kib=kib)}, {"crash_recovery": crashed}):
        verdict = judge(evidence(exposed_blocks=exposed, **changed), HELD)
        assert verdict.rate_upper_95 is None and "MiB" in verdict.sentence and "%" not in verdict.sentence

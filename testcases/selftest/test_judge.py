"""Evidence to verdict: one of each kind, and which of two comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_evidence import HELD, NOTICED, SPLIT, evidence, kind, moved, oracles

from harness.judgement.judge import judge
from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    Evidence,
    Failure,
    Fault,
    MigrationOutcome,
    Ownership,
    VerdictKind,
    Work,
)

# --------------------------------------------------------------------------- one of each kind


def test_judge_nothing_found_controls_held_clean_with_bound() -> None:
    verdict = judge(evidence(), HELD)
    assert verdict.kind is VerdictKind.CLEAN
    assert (verdict.exposed_blocks, verdict.differing_blocks, verdict.reasons) == (1000, 0, ())
    assert verdict.rate_upper_95 == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert "1000 exposed block writes" in verdict.sentence and "0.30 % of them" in verdict.sentence


def test_judge_verify_only_blocks_need_a_cause() -> None:
    verdict = judge(evidence(**oracles({1, 2, 3}, set()), alarms=NOTICED), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.TRANSIENT, 0)
    assert "3 blocks" in verdict.sentence
    verdict = judge(evidence(**oracles({1, 2, 3}, set())), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "nothing explains it" in verdict.sentence


def test_judge_differing_blocks_diverged_with_owners_and_reported_state() -> None:
    found = evidence(**oracles({5, 6, 7, 900}, {5, 6, 900}), ownership=Ownership(allocated=1, free=2))
    verdict = judge(found, HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.DIVERGED, 3)
    assert verdict.sentence.startswith("3 blocks differ (1 allocated, 2 free) after 1000 exposed block writes")
    assert "while DRBD reported Connected, UpToDate/UpToDate" in verdict.sentence
    assert verdict.reasons == ("1 more blocks were reported and are equal again",)
    assert verdict.rate_upper_95 is not None and verdict.rate_upper_95 > 0.003


def test_judge_differing_blocks_without_controls_scatter_gather_owner_diverged() -> None:
    found = evidence(**oracles({5}, {5}), after=None, exposed_blocks=0)
    found = replace(found, observed=replace(found.observed, scatter_gather=False))
    verdict = judge(found, {})
    assert (verdict.kind, verdict.sentence) == (VerdictKind.DIVERGED, "1 blocks differ (no owner known)")
    assert verdict.rate_upper_95 is None, "no trials, no rate"


def test_judge_more_differing_than_exposed_diverged_with_rate_one() -> None:
    verdict = judge(evidence(**oracles({1, 2, 3}, {1, 2, 3}), exposed_blocks=2), HELD)
    assert (verdict.kind, verdict.rate_upper_95) == (VerdictKind.DIVERGED, 1.0)


def test_judge_read_back_errors_corrupt() -> None:
    verdict = judge(evidence(work=Work(8.0, read_back_errors=3), **oracles({4, 5}, {4})), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.CORRUPT, 1)
    assert "3 time(s)" in verdict.sentence


def test_judge_refused_failure_refused_with_message() -> None:
    text = "libvirt or QEMU refused: io=native needs cache.direct=on"
    verdict = judge(evidence(failure=Failure("refused", "attach", text), verify=None, comparison=None), None)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.REFUSED, text)


def test_judge_failure_inconclusive_with_phase() -> None:
    verdict = judge(evidence(failure=Failure("deadline", "verify", "it took too long")), HELD)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.INCONCLUSIVE, "verify: it took too long")


def test_judge_failure_names_a_kernels_error_beside_it() -> None:
    failure, errors = Failure("deadline", "replication", "no connection"), ("nodeb: BUG: NULL", "nodeb: Call Trace:")
    verdict = judge(evidence(failure=failure, kernel_errors=errors), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == "replication: no connection; and a kernel reported an error: nodeb: BUG: NULL"
    meant = judge(
        evidence(
            Cell("swap-pressure", cache=CacheMode.NONE, fault=Fault.IO_ERROR), failure=failure, kernel_errors=errors
        ),
        HELD,
    )
    assert meant.sentence == "replication: no connection", "the harness made the disk fail"


# --------------------------------------------------------------------------- which comes first


def layered(*layers: str) -> Evidence:
    """Evidence with several things to say at once."""
    found = evidence(**oracles({1, 2}, {1}) if "diverged" in layers else oracles({1}, set()))
    if "clean" in layers:
        found = evidence()
    if "mismatch" in layers:
        found = replace(found, observed=replace(found.observed, o_direct=not found.observed.o_direct))
    if "disagree" in layers:
        found = replace(found, counter_kib=2)
    if "corrupt" in layers:
        found = replace(found, work=Work(1.0, read_back_errors=1))
    if "failed" in layers:
        found = replace(found, failure=Failure("lost-guest", "work", "gone"))
    if "unmoved" in layers:
        found = replace(found, migrations=(moved(1, MigrationOutcome.REFUSED, text="Unsafe migration"),))
    if "lost" in layers:
        found = replace(found, canary=Canary({"fsync": 9}, {"fsync": 1}))
    if "split" in layers:
        found = replace(found, alarms=Alarms(split_brain=SPLIT))
    if "apart" in layers:
        found = replace(found, alarms=Alarms(split_brain=replace(SPLIT, confirmed=False)))
    if "noticed" in layers:
        found = replace(found, alarms=NOTICED)
    if "refused" in layers:
        found = replace(found, failure=Failure("refused", "attach", "no"))
    return found


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        (("refused", "corrupt", "diverged"), VerdictKind.CORRUPT),
        (("refused", "diverged"), VerdictKind.DIVERGED),
        (("refused", "mismatch", "disagree"), VerdictKind.INCONCLUSIVE),
        (("refused", "disagree"), VerdictKind.REFUSED),
        (("unmoved", "corrupt"), VerdictKind.CORRUPT),
        (("unmoved", "diverged"), VerdictKind.DIVERGED),
        (("unmoved", "failed"), VerdictKind.REFUSED),
        (("unmoved", "clean"), VerdictKind.REFUSED),
        (("lost", "failed", "diverged"), VerdictKind.CORRUPT),
        (("lost", "refused"), VerdictKind.CORRUPT),
        (("lost", "clean"), VerdictKind.CORRUPT),
        (("split", "failed"), VerdictKind.DIVERGED),
        (("apart", "failed"), VerdictKind.INCONCLUSIVE),
        (("apart", "clean"), VerdictKind.INCONCLUSIVE),
        (("apart", "diverged"), VerdictKind.DIVERGED),
        (("split", "mismatch"), VerdictKind.INCONCLUSIVE),
        (("split", "disagree"), VerdictKind.DIVERGED),
        (("split", "lost"), VerdictKind.CORRUPT),
        (("split", "diverged"), VerdictKind.DIVERGED),
        (("split", "clean"), VerdictKind.DIVERGED),
        (("noticed", "diverged"), VerdictKind.DIVERGED),
        (("noticed", "clean"), VerdictKind.TRANSIENT),
        (("corrupt", "failed", "diverged"), VerdictKind.CORRUPT),
        (("corrupt", "mismatch", "diverged"), VerdictKind.INCONCLUSIVE),
        (("corrupt", "disagree"), VerdictKind.CORRUPT),
        (("corrupt", "clean"), VerdictKind.CORRUPT),
        (("failed", "diverged"), VerdictKind.DIVERGED),
        (("failed", "mismatch", "diverged"), VerdictKind.INCONCLUSIVE),
        (("mismatch", "diverged"), VerdictKind.INCONCLUSIVE),
        (("disagree", "diverged"), VerdictKind.INCONCLUSIVE),
        (("mismatch", "clean"), VerdictKind.INCONCLUSIVE),
        (("diverged",), VerdictKind.DIVERGED),
        ((), VerdictKind.INCONCLUSIVE),
        (("noticed",), VerdictKind.TRANSIENT),
        (("clean",), VerdictKind.CLEAN),
    ],
    ids=lambda value: "+".join(value) or "marked only" if isinstance(value, tuple) else str(value),
)
def test_judge_several_findings_first_question_decides(layers: tuple[str, ...], wanted: VerdictKind) -> None:
    assert kind(layered(*layers)) is wanted

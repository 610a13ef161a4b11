"""A crash after which not all goes as it should: the failed node rejoins all the same, and what was seen is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from crashing_stage import NODE, QEMU, Crashing, staged
from fake_story import in_order
from judged_evidence import HELD

from harness.engine.disturbances import crash
from harness.errors import DeadlineError, HarnessError, LostGuestError, LostNodeError, RefusedError
from harness.judgement.judge import judge
from harness.model import Cell, VerdictKind

__all__ = ["staged"]


def test_crash_work_over_before_is_no_answer(staged: Callable[..., Crashing]) -> None:
    stage = staged(replace(NODE, seconds=1))
    stage.workload.ends, stage.workload.ended_by = None, None
    found = stage.play()
    assert found.failure and "the work was over before the crash" in found.failure.message
    assert "kill nodea" not in stage.steps and found.crash_recovery is None
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE and stage.rests()


def test_crash_work_failed_before_says_why(staged: Callable[..., Crashing]) -> None:
    stage = staged(replace(NODE, seconds=1))
    stage.workload.ends, stage.workload.ended_by = None, DeadlineError("fio did not end")
    found = stage.play()
    assert found.failure and found.failure.message == "fio did not end" and "kill nodea" not in stage.steps


def test_crash_work_unaware_is_left_behind(staged: Callable[..., Crashing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "NOTICE_SECONDS", 0.02)
    stage = staged(QEMU)
    stage.lab.story.when.clear()
    found = stage.play()
    stage.end()
    assert found.failure is None
    assert "the workload did not notice the crash; it is left behind" in found.event_log


def test_fail_over_peer_unaware_is_a_deadline_without_promotion(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken["wait on nodeb: the loss of the peer"] = DeadlineError("the loss did not happen")
    found = stage.play()
    assert found.failure and found.failure.kind == "deadline" and found.failure.phase == "crash recovery"
    assert "drbdadm nodeb primary" not in stage.steps and "start on nodeb" not in stage.steps


def taken_back(stage: Crashing) -> bool:
    return (
        in_order(stage.steps, "kill nodea", "revive nodea", "rejoin nodea", "drbdadm nodea primary") and stage.rests()
    )


@pytest.mark.parametrize("step", ["attach on nodeb", "recover /dev/vdb1", "canary received on /dev/vdb2"])
@pytest.mark.parametrize("error", [LostGuestError("gone"), DeadlineError("late"), KeyboardInterrupt()], ids=repr)
def test_fail_over_any_error_still_rejoins_the_failed_node(
    staged: Callable[..., Crashing], step: str, error: BaseException
) -> None:
    stage = staged()
    stage.lab.story.broken[step] = error
    if isinstance(error, HarnessError):
        found = stage.play()
        assert found.comparison is not None, "the oracles are asked all the same"
    else:
        with pytest.raises(KeyboardInterrupt):
            stage.play()
        found = stage.kept()
    assert found.failure and found.failure.phase == "crash recovery"
    assert taken_back(stage) and not any(guest.living for guest in stage.started)


def test_check_guest_data_failing_still_collects_the_canary(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken["recover /dev/vdb1"] = DeadlineError("mount did not end")
    found = stage.play()
    assert found.canary is not None and found.failure and found.failure.message == "mount did not end"


def test_fail_over_guest_dies_still_rejoins_the_failed_node(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken |= {
        "recover /dev/vdb1": LostGuestError("panic"), "detach": LostGuestError("the disk was not detached")
    }  # fmt: skip
    stage.play()
    assert taken_back(stage)


def test_fail_over_no_guest_starts_still_rejoins_the_failed_node(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.refuses_to_start = LostGuestError("libvirt on nodeb did not start the guest")
    found = stage.play()
    assert found.failure and "did not start the guest" in found.failure.message
    assert taken_back(stage)


@pytest.mark.parametrize("step", ["drbdadm nodeb primary", "wait on nodeb: the loss of the peer"])
def test_fail_over_no_promotion_still_rejoins_the_failed_node(staged: Callable[..., Crashing], step: str) -> None:
    stage = staged()
    stage.lab.story.broken[step] = DeadlineError("late")
    stage.play()
    assert "revive nodea" in stage.steps


def test_fail_over_refused_is_no_answer(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    words = "State change failed: (-2) Need access to UpToDate data"
    stage.lab.story.broken["drbdadm nodeb primary"] = RefusedError("DRBD on nodeb", words)
    assert judge(stage.play(), HELD).kind is not VerdictKind.REFUSED


def test_rejoin_node_lost_keeps_what_was_seen(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken["revive nodea"] = LostNodeError("nodea gave its boot up")
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-node"
    assert found.crash_recovery and found.crash_recovery.fsck_status == 0 and found.canary is not None
    assert found.crash_recovery.rejoined_seconds is None and not stage.started[0].living


@pytest.mark.parametrize("cell", [NODE, QEMU], ids=lambda cell: str(cell.crash))
def test_crash_qemu_no_new_guest_is_no_answer(staged: Callable[..., Crashing], cell: Cell) -> None:
    stage = staged(cell)
    stage.refuses_to_start = LostGuestError("libvirt did not start the guest")
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-guest" and found.crash_recovery is not None
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE

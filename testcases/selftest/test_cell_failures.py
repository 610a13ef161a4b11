"""One cell in which something fails, is refused or is interrupted: what is kept, undone, and asked all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from fake_drbd import NARROW
from fake_guest import FakeGuest
from fake_stage import Stage
from fake_story import in_order
from staged_cell import ALARMED, HOST_CELL, staged

from harness.engine.cell_run import play
from harness.engine.disturbances import base
from harness.errors import (
    CommandError,
    DeadlineError,
    HarnessError,
    InfrastructureError,
    LostGuestError,
    LostNodeError,
    RefusedError,
    WorkloadFailedError,
)
from harness.guest.domain import Guest
from harness.judgement.judge import judge
from harness.model import Failure, Repair, VerdictKind

__all__ = ["staged"]


# --------------------------------------------------------------------------- when something fails

PHASES = {
    "status": "begin",
    "compare": "begin",
    "attach": "attach",
    "observe": "attach",
    "prepare /dev/vdb": "prepare",
    "apply_delays 20/0": "prepare",
    "work 10": "work",
    "quiesce": "quiesce",
    "detach": "detach",
    "digest nodea": "exposure",
    "verify": "verify",
}


@pytest.mark.parametrize("name", ["a", "b"])
def test_fail_node_lost_in_the_work_ends_it_at_once(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(base, "LOOK_SECONDS", 0.01)
    stage = staged()
    stage.workload.ends = threading.Event()
    node = getattr(stage.lab, name)
    stage.lab.story.when["work 10"] = lambda: setattr(node.runner, "silent", "it has answered nothing for 30 s")
    found = stage.play()
    stage.workload.ends.set()
    assert found.failure == Failure("lost-node", "work", "it has answered nothing for 30 s")
    assert found == stage.kept() and found.finished_at


def test_repair_with_a_node_that_does_not_answer_is_not_begun(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5}
    stage.lab.story.when["owners"] = lambda: setattr(stage.lab.b, "alive", False)
    found = stage.play()
    assert found.failure and (found.failure.phase, found.failure.kind) == ("repair", "lost-node")
    assert "repair" not in stage.steps, "nobody would see its end"


@pytest.mark.parametrize(("step", "phase"), PHASES.items())
def test_fail_any_step_keeps_phase_and_leaves_nothing_on(staged: Callable[..., Stage], step: str, phase: str) -> None:
    stage = staged()
    stage.lab.story.broken[step] = InfrastructureError("it broke")
    found = stage.play()
    assert found.failure is not None and found == stage.kept()
    assert (found.failure.kind, found.failure.phase, found.failure.message) == ("infrastructure", phase, "it broke")
    assert found.finished_at and phase in found.phases
    assert stage.resource.delayed == NARROW, "the next cell would be slow and not know why"
    assert judge(found).kind is VerdictKind.INCONCLUSIVE


@pytest.mark.parametrize("step", ["observe", "prepare /dev/vdb", "work 10", "quiesce", "detach"])
def test_rescue_guest_with_the_disk_is_ended(staged: Callable[..., Stage], step: str) -> None:
    stage = staged()
    stage.lab.story.broken[step] = DeadlineError("it took too long")
    stage.play()
    assert not stage.guest.attached, "QEMU still has the device open, and the next cell attaches it again"
    assert "destroy" in stage.steps
    assert stage.raw("guest-console.txt") == "== the guest's console on nodea\nguest said\n\n"


def test_workload_that_fails_leaves_the_guest_warm_and_nothing_mounted(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["work 10"] = WorkloadFailedError("the disk is full: no space left")
    found = stage.play()
    assert found.failure == Failure("workload", "work", "the disk is full: no space left")
    assert in_order(stage.steps, "work 10", "clean up", "detach")
    assert stage.guest.living and "destroy" not in stage.steps, "changing what is played costs no boot"
    assert found.comparison is not None and judge(found).kind is VerdictKind.INCONCLUSIVE


def test_workload_that_fails_on_the_node_is_cleaned_up_there(staged: Callable[..., Stage]) -> None:
    stage = staged(HOST_CELL)
    stage.lab.story.broken["work 10"] = WorkloadFailedError("the script ended with status 1")
    assert stage.play().failure is not None
    assert in_order(stage.steps, "work 10", "clean up"), "the device would be held open"


def test_workload_that_fails_and_cannot_be_cleaned_up_costs_the_guest(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["work 10"] = WorkloadFailedError("the script ended with status 1")
    stage.lab.story.broken["clean up"] = CommandError("guest", ["umount"], 32, "", "target is busy")
    assert (stage.play().failure or Failure("", "", "")).kind == "workload"
    assert "destroy" in stage.steps and not stage.guest.attached


def test_rescue_guest_without_the_disk_lives_on(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["attach"] = RefusedError("libvirt or QEMU", "io=native needs cache.direct=on")
    found = stage.play()
    assert "destroy" not in stage.steps and stage.guest.living
    assert judge(found).kind is VerdictKind.REFUSED
    assert "io=native needs" in judge(found).sentence


@pytest.mark.parametrize("error", [DeadlineError("the disk's appearance"), LostGuestError("it was lost")])
def test_attach_that_fails_is_tried_once_on_another_guest(staged: Callable[..., Stage], error: HarnessError) -> None:
    stage = staged()
    stage.lab.story.broken["attach"] = error
    stage.lab.story.when["destroy"] = stage.lab.story.broken.clear
    guests = [stage.guest, FakeGuest(stage.lab.story, stage.lab.a)]
    handed = iter(guests)
    found = play(stage.run, stage.workload, lambda: cast(Guest, next(handed)))
    assert found.failure is None and stage.run.guest_disk.guest is cast(Any, guests[1])
    assert guests[0].ended and not guests[1].ended and stage.steps.count("attach") == 2
    assert any("tried once more on another guest" in event for event in found.event_log)


def test_attach_that_fails_on_another_guest_too_fails_the_cell(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["attach"] = DeadlineError("the disk's appearance in the guest")
    found = stage.play()
    assert found.failure is not None and (found.failure.kind, found.failure.phase) == ("deadline", "attach")
    assert stage.steps.count("attach") == 2


def test_attach_that_is_refused_is_not_tried_again(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["attach"] = RefusedError("libvirt or QEMU", "io=native needs cache.direct=on")
    stage.play()
    assert stage.steps.count("attach") == 1


@pytest.mark.parametrize("step", ["attach", "prepare /dev/vdb", "work 10", "quiesce", "detach"])
def test_conclude_after_a_failure_still_runs_the_oracles(staged: Callable[..., Stage], step: str) -> None:
    stage = staged()
    stage.lab.story.broken[step] = LostGuestError("the guest is gone")
    stage.workload.leaves = {4}
    found = stage.play()
    asked = stage.steps[stage.steps.index(step) + 1 :]
    assert "verify" in asked and found.verify and found.comparison and found.counter_kib is not None
    assert stage.raw("kmsg-nodea.txt")
    if step in ("quiesce", "detach"):
        assert found.comparison.differing_blocks == 1 and found.repair == Repair("by hand", 1.0, 0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LostNodeError("gone"), "lost-node"),
        (LostGuestError("gone"), "lost-guest"),
        (DeadlineError("late"), "deadline"),
        (CommandError("nodea", ["x"], 1, "", "no"), "command"),
        (InfrastructureError("broken"), "infrastructure"),
        (HarnessError("broken"), "infrastructure"),
    ],
)
def test_fail_each_error_has_its_kind(staged: Callable[..., Stage], error: HarnessError, kind: str) -> None:
    stage = staged()
    stage.lab.story.broken["work 10"] = error
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.message) == (kind, str(error))


@pytest.mark.parametrize(("step", "phase"), PHASES.items())
def test_fail_refusal_counts_only_for_what_the_cell_asked(staged: Callable[..., Stage], step: str, phase: str) -> None:
    stage = staged()
    stage.lab.story.broken[step] = RefusedError("DRBD on nodea", "no")
    found = stage.play()
    asked = phase in ("attach", "prepare")
    assert found.failure and (found.failure.kind, found.failure.phase) == ("refused" if asked else "command", phase)
    assert (judge(found).kind is VerdictKind.REFUSED) is asked
    assert phase != "prepare" or "destroy" not in stage.steps, "the guest is as good as before"


def test_fail_refusal_in_the_baseline_is_no_answer(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
    stage.resource.refuses["nodea connect"] = ["no"]
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.phase) == ("command", "begin")


def test_fail_twice_keeps_the_first_reason(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken |= {"work 10": LostGuestError("first"), "verify": LostNodeError("second")}
    found = stage.play()
    assert found.failure and (found.failure.phase, found.failure.message) == ("work", "first")


def test_rescue_failing_hides_nothing(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken |= {
        "work 10": LostNodeError("first"),
        "apply_delays 0/0": LostNodeError("second"),
        "console nodea": LostNodeError("third"),
    }
    found = stage.play()
    assert found.failure and found.failure.message == "first"
    assert not stage.guest.attached
    assert "== the guest's console on nodea is unreadable: third\n" in stage.raw("guest-console.txt")


@pytest.mark.parametrize("step", ["work 10", "verify"])
def test_conclude_after_a_failure_keeps_kernel_logs(staged: Callable[..., Stage], step: str) -> None:
    stage = staged()
    stage.lab.a.log.text = "4,1,1000,-;BUG: soft lockup - CPU#0\n"
    stage.lab.story.broken[step] = DeadlineError("it took too long")
    found = stage.play()
    assert (stage.run.context.attempt.directory / "kmsg-nodea.txt").exists(), "this is where the reason would be"
    assert found.kernel_errors == ("nodea: BUG: soft lockup - CPU#0",)


def test_conclude_out_of_time_keeps_kernel_logs(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.run.context.deadline = replace(stage.run.context.deadline, at=0.0)
    found = stage.play()
    assert (
        found.failure
        and found.failure.kind == "deadline"
        and "the cell none-swap-pressure-link20ms" in found.failure.message
    )
    assert (stage.run.context.attempt.directory / "kmsg-nodea.txt").exists(), "this is where the reason would be"


# --------------------------------------------------------------------------- when somebody, or we, break it


@pytest.mark.parametrize("step", ["status", "work 10", "verify", "owners", "repair"])
@pytest.mark.parametrize(
    ("error", "kind"), [(KeyboardInterrupt(), "interrupted"), (ZeroDivisionError("by zero"), "bug")]
)
def test_play_ctrl_c_or_bug_is_raised_after_evidence_is_kept(
    staged: Callable[..., Stage], error: BaseException, kind: str, step: str
) -> None:
    stage = staged()
    stage.workload.leaves = {4}
    stage.lab.story.broken[step] = error
    with pytest.raises(type(error)):
        stage.play()
    found = stage.kept()
    assert found.failure is not None and found.failure.kind == kind
    assert found.failure.message == (str(error) or "the run was interrupted")
    assert found.finished_at
    assert stage.resource.delayed == NARROW and not stage.guest.attached
    if step == "work 10":
        assert found.failure.phase == "work" and "verify" not in stage.steps
        assert "destroy" in stage.steps


def test_abandon_ctrl_c_keeps_kernel_logs(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["work 10"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        stage.play()
    assert (stage.run.context.attempt.directory / "kmsg-nodea.txt").exists()


@pytest.mark.parametrize("step", ["status", "observe", "work 10", "detach", "verify", "repair"])
def test_play_what_cannot_be_read_is_a_sentence_in_the_evidence(staged: Callable[..., Stage], step: str) -> None:
    stage = staged()
    stage.workload.leaves = {4}
    stage.lab.story.broken[step] = ValueError("tc printed no JSON\nbut 'Segmentation fault'")
    found = stage.play()
    assert found.failure is not None and found.failure.kind == "infrastructure"
    assert found.failure.message == (
        "something that a machine printed cannot be read: tc printed no JSON but 'Segmentation fault'"
    )
    assert "verify" in stage.steps and found.comparison is not None, "the oracles are asked all the same"
    assert stage.resource.delayed == NARROW and not stage.guest.attached
    assert judge(found).kind in (VerdictKind.INCONCLUSIVE, VerdictKind.DIVERGED)

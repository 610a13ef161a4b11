"""One cell, start to finish, over a lab that only remembers: the order of the steps, and what each failure leaves."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import BLOCKS, HEALTHY, NARROW, FakeGuest, Stage, in_order

from harness.engine import cell_steps
from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.engine.disturbances import base
from harness.engine.oracle_run import MAX_SAMPLES
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
from harness.judgement.doubts import doubts
from harness.judgement.judge import judge
from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    DelayProfile,
    Failure,
    FilesystemKind,
    Observed,
    Ownership,
    Protocol,
    Repair,
    ReplicationProfile,
    VerdictKind,
    Work,
    extents_of,
)
from harness.parse.kernel_log import LEFT_OUT
from harness.report.read_back import lost_rows
from harness.store import Attempt
from harness.workloads.controls import Planted

GUEST_CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(20, 0))
HOST_CELL = Cell("inflight-modify", client=ClientKind.HOST)


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    numbers = itertools.count(1)
    return lambda cell=GUEST_CELL: Stage.of(tmp_path / f"runs{next(numbers)}", cell)


def told(stage: Stage) -> list[str]:
    """What was done, without what was only asked."""
    return [step for step in stage.steps if step != "status"]


# --------------------------------------------------------------------------- when all goes well


def test_play_guest_cell_steps_are_in_order(staged: Callable[..., Stage]) -> None:
    stage = staged()
    found = stage.play()
    assert told(stage) == [
        "mark nodea: none-swap-pressure-link20ms begins", "mark nodeb: none-swap-pressure-link20ms begins", "compare",
        "mark nodea: none-swap-pressure-link20ms is watched", "mark nodeb: none-swap-pressure-link20ms is watched",
        "attach", "observe", "prepare /dev/vdb", "sync", "digest nodea", "compare", "apply_delays 20/0",
        "witness on nodea", "work 10", "quiesce", "apply_delays 0/0", "sync", "digest nodea", "detach", "sync",
        "verify", "compare", "console nodea", "console nodeb",
        "mark nodea: none-swap-pressure-link20ms ended", "mark nodeb: none-swap-pressure-link20ms ended",
    ]  # fmt: skip
    counted = ("witness on nodea", "status", "status", "work 10", "apply_delays 0/0", "sync", "status", "digest nodea")
    assert in_order(stage.steps, *counted, "detach"), "around the work only"
    assert found.failure is None and found == stage.kept()
    assert (found.before, found.after, found.equal_before) == (HEALTHY, HEALTHY, True)
    assert (found.exposed_blocks, found.counter_kib, found.lab, found.device_blocks) == (100, 0, "lab1", BLOCKS)
    assert found.observed.link_delay_ms == 20 and found.observed.o_direct is True
    assert found.work == Work(10.0, {"pages_swapped_out": 5.0}) and found.finished_at >= found.started_at
    assert list(found.phases) == [
        "begin",
        "replication",
        "attach",
        "prepare",
        "exposure",
        "witness",
        "work",
        "quiesce",
        "detach",
        "verify",
        "compare",
    ]
    assert (stage.raw("kmsg-verify-source.txt"), stage.raw("kmsg-verify-target.txt")) == ("raw of a", "raw of b")
    assert stage.raw("kmsg-nodea.txt") == stage.raw("kmsg-nodeb.txt") == "6,1,1000,-;quiet\n"


def test_play_host_cell_needs_no_guest_and_no_delays(staged: Callable[..., Stage]) -> None:
    stage = staged(HOST_CELL)
    found = stage.play()
    assert found.failure is None and "prepare /dev/drbd0" in stage.steps
    assert not {"attach", "observe", "detach"} & set(stage.steps)
    assert not any(step.startswith("apply_delays") for step in stage.steps)


def test_repair_with_a_node_that_does_not_answer_is_not_begun(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5}
    stage.lab.story.when["owners"] = lambda: setattr(stage.lab.b, "alive", False)
    found = stage.play()
    assert found.failure and (found.failure.phase, found.failure.kind) == ("repair", "lost-node")
    assert "repair" not in stage.steps, "nobody would see its end"


def test_conclude_differing_blocks_are_sampled_owned_and_repaired(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5, 6, 900}
    found = stage.play()
    assert told(stage)[-8:-3] == ["compare", "owners", "repair", "compare", "console nodea"]
    assert found.comparison and found.comparison.differing_blocks == 3 and found.counter_kib == 12
    assert [(one.block, one.owner, one.detail) for one in found.samples] == [
        (block, BlockOwner.FREE, "free swap slot") for block in (5, 6, 900)
    ]
    assert found.ownership == Ownership(
        free=3, method="after swapoff every slot is free", names=("free swap slot",),
        extents={BlockOwner.FREE: extents_of({5, 6, 900})},
    )  # fmt: skip
    assert found.repair == Repair("by hand", 1.0, 0)
    assert judge(found).kind is VerdictKind.DIVERGED


def test_conclude_marked_but_equal_is_repaired(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.resource.verified = {7}
    found = stage.play()
    assert "repair" in stage.steps and "owners" not in stage.steps
    verdict = judge(found)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "nothing explains it" in verdict.sentence


def test_conclude_many_differing_blocks_are_counted_and_few_sampled(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = set(range(5000))
    found = stage.play()
    assert [one.block for one in found.samples] == list(range(MAX_SAMPLES))
    assert found.ownership == Ownership(
        free=5000, method="after swapoff every slot is free", names=("free swap slot",),
        extents={BlockOwner.FREE: extents_of(set(range(5000)))},
    )  # fmt: skip


def test_quiesce_wrong_reads_add_up(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.wrong = 2
    found = stage.play()
    assert found.work and found.work.read_back_errors == 3
    assert judge(found).kind is VerdictKind.CORRUPT


def test_play_planted_control_notes_what_was_planted(staged: Callable[..., Stage]) -> None:
    stage = staged(Cell("planted", client=ClientKind.HOST, control=Control.PLANTED))
    stage.workload.planted = Planted.changes(BLOCKS, 5, "nodea", "nodeb")
    assert stage.play().planted == stage.workload.planted


@pytest.mark.parametrize("left", ["counted", "uncounted"])
def test_begin_unequal_replicas_are_repaired(staged: Callable[..., Stage], left: str) -> None:
    stage = staged()
    if left == "counted":
        stage.resource.oos_kib = 4
    else:
        stage.lab.differing = {3}
    found = stage.play()
    assert stage.steps.index("repair") < stage.steps.index("attach")
    assert found.equal_before is True and found.failure is None
    assert judge(found).kind is not VerdictKind.DIVERGED, "what was there before is not this cell's"


def test_begin_unrepairable_replicas_are_inconclusive(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.differing, stage.resource.mends = {3}, False
    stage.resource.verified = {3}
    found = stage.play()
    assert found.equal_before is False
    assert judge(found).kind is VerdictKind.INCONCLUSIVE


def test_begin_remaining_marks_are_not_the_cells(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.resource.stuck_kib = 4
    found = stage.play()
    assert judge(found).kind is VerdictKind.INCONCLUSIVE, "they were there before anything was written"


def test_capture_kernel_errors_and_holes_are_noted(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.b.log.text = "4,1,1000,-;BUG: soft lockup - CPU#0\n4,5,1001,-;fine\n"
    found = stage.play()
    assert found.kernel_errors == ("nodeb: BUG: soft lockup - CPU#0",)
    assert found.log_holes == 3


def test_capture_of_a_flood_notes_what_was_left_out_and_some_of_its_errors(staged: Callable[..., Stage]) -> None:
    stage = staged()
    flood = "".join(f"4,{n},1000,-;drbd r0/0 drbd0: ASSERTION put_ldev {n} FAILED\n" for n in range(1, 101))
    stage.lab.a.log.text = f"{flood}{LEFT_OUT} 900, such as: x\n4,1001,1001,-;fine\n"
    found = stage.play()
    assert (found.log_holes, found.log_left_out) == (0, 900)
    assert len(found.kernel_errors) == 21 and found.kernel_errors[-1].startswith("nodea: 80 more like: drbd r0/0 drbd0")
    assert ("Kernel messages left out, which only repeat", "900") in lost_rows(found)


# --------------------------------------------------------------------------- how DRBD replicates

ALARMED = Cell("inflight-modify", client=ClientKind.HOST, replication=ReplicationProfile(integrity="crc32c"))
BOTH = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.NONE,
    replication=ReplicationProfile(integrity="crc32c", two_primaries=True),
)
DIGEST = "drbd r0/0 drbd0: Digest integrity check FAILED: 64s +4096"
SPLIT_BRAIN = "drbd r0/0 drbd0: Split-Brain detected but unresolved, dropping connection!"
GAVE_UP = "drbd r0: conn( Connected -> StandAlone )"


def test_begin_replication_profile_is_applied_and_read_back(staged: Callable[..., Stage]) -> None:
    for cell in (ALARMED, replace(GUEST_CELL, replication=ReplicationProfile(protocol=Protocol.A))):
        stage = staged(cell)
        found = stage.play()
        assert in_order(stage.steps, "drbdadm nodea adjust", "drbdadm nodeb adjust", "compare", "verify")
        assert found.observed.replication == cell.replication and found.before == HEALTHY and found.failure is None
        assert found.fault_injected is False


def test_observed_profile_not_as_asked_is_kept(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.lab.a.answers["drbdsetup show"] = (0, "resource r0 {\n}\n== parameter\nN\n== link\n", "")
    found = stage.play()
    assert found.observed.replication == ReplicationProfile() and judge(found).kind is VerdictKind.INCONCLUSIVE


def test_begin_refused_profile_is_refused_before_any_write(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.resource.refuses["nodea adjust"] = ["data-integrity-alg: not found"]
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.phase) == ("refused", "replication")
    assert judge(found).kind is VerdictKind.REFUSED and "data-integrity-alg: not found" in judge(found).sentence
    assert "prepare /dev/drbd0" not in stage.steps and found.comparison is not None


def test_release_two_primaries_become_one(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    seen: list[dict[str, str]] = []
    stage.lab.story.when["work 10"] = lambda: seen.append(dict(stage.resource.roles))
    assert stage.play().failure is None
    assert seen == [{"nodea": "Primary", "nodeb": "Primary"}] and stage.resource.state == HEALTHY


def test_begin_two_primaries_again_in_the_next_cell(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    assert stage.play().failure is None and stage.resource.roles["nodeb"] == "Secondary"
    seen: list[dict[str, str]] = []
    stage.lab.story.when["work 10"] = lambda: seen.append(dict(stage.resource.roles))
    again = CellRun(cast(Any, stage.lab), cast(Any, stage.resource), stage.store.begin(BOTH))
    assert play(again, stage.workload, lambda: cast(Guest, stage.guest)).failure is None
    assert seen == [{"nodea": "Primary", "nodeb": "Primary"}]


def apart(stage: Stage) -> None:
    """In the middle of the work a digest fails, and that is a split brain; twelve blocks differ then."""

    def part() -> None:
        stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
        stage.lab.a.log.text = f"4,1,1000000,-;{DIGEST}\n1,2,1400000,-;{SPLIT_BRAIN}\n4,3,1500000,-;{GAVE_UP}\n"
        stage.lab.differing = set(range(12))

    stage.lab.story.when["work 10"] = part
    stage.lab.story.when["drbdadm nodea connect"] = lambda: stage.lab.differing.clear()


def test_reconcile_split_brain_is_kept_before_it_is_resolved(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    apart(stage)
    found = stage.play()
    assert found.failure is None and found.alarms is not None, found.failure
    split = found.alarms.split_brain
    assert split is not None and split.victim == "nodeb" and split.repaired and split.differing_blocks == 12
    assert [one.connection for one in split.states.values()] == ["StandAlone", "StandAlone"]
    assert split.after_seconds == pytest.approx(0.4) and found.alarms.detections == 1
    assert in_order(stage.steps, "detach", "sync", "compare", "drbdadm nodeb connect --discard-my-data",
                    "drbdadm nodea connect", "sync", "verify")  # fmt: skip
    assert any(one.startswith("at the end: split brain (nodea StandAlone Primary/Unknown; nodeb") for one in
               found.event_log)  # fmt: skip
    assert stage.resource.state == HEALTHY
    verdict = judge(found)
    assert verdict.kind is VerdictKind.DIVERGED and "split brain 0.4 s after" in verdict.sentence


def test_reconcile_unresolvable_is_inconclusive_and_kept(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    apart(stage)
    stage.lab.story.when["drbdadm nodea connect"] = lambda: setattr(stage.resource, "split", True)
    found = stage.play()
    assert found.failure and "nodeb and nodea are StandAlone again" in found.failure.message
    assert judge(found).kind is not VerdictKind.CLEAN


def test_alarms_silent_digest_is_noted_and_no_digest_is_not(staged: Callable[..., Stage]) -> None:
    noted = staged(ALARMED).play().alarms
    assert noted is not None and (noted.algorithm, noted.detections, noted.drops) == ("crc32c", 0, 0)
    assert noted.watched_seconds >= 0
    assert staged(HOST_CELL).play().alarms is None


def test_alarms_digest_failures_of_both_nodes_count(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.lab.a.log.text = (
        "4,1,1000000,-;drbd r0/0 drbd0: Digest mismatch, buffer modified by upper layers during write: 8s +4096\n"
    )
    stage.lab.b.log.text = f"4,1,1000000,-;{DIGEST}\n"
    found = stage.play()
    assert found.alarms and found.alarms.detections == 2
    assert judge(found).kind is VerdictKind.TRANSIENT


def test_alarms_before_the_preconditions_do_not_count(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    log, when = stage.lab.a.log, stage.lab.story.when

    def early() -> None:
        del when["compare"]
        log.says(f"4,1,1000000,-;{DIGEST}")

    when["compare"] = early
    when["work 10"] = lambda: log.says(f"4,2,1200000,-;{DIGEST}")
    found = stage.play()
    assert found.alarms is not None and found.alarms.detections == 1 and len(log.said) == 2


def test_alarms_of_another_cell_do_not_count(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.lab.a.log.says(f"4,1,1000000,-;{DIGEST}")
    stage.lab.story.broken["compare"] = LostNodeError("gone")
    found = stage.play()
    assert found.failure is not None and found.failure.phase == "begin"
    assert found.alarms is not None and found.alarms.detections == 0


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


# --------------------------------------------------------------------------- a test of one's own


def test_steps_own_work_in_the_middle_gives_evidence(staged: Callable[..., Stage]) -> None:
    stage = staged()
    run = stage.run
    run.begin()
    target = run.take_guest(lambda: cast(Guest, stage.guest))
    assert run.guest_disk.attached is not None and target.device == run.guest_disk.attached.path == "/dev/vdb"
    assert target.runner is stage.guest.agent
    run.delays.apply()
    run.context.note(work=Work(1.0, notes=("the test's own work",)))
    run.release()
    assert run.guest_disk.attached is None
    run.conclude(stage.workload.owners, "own")
    found = run.finish()
    assert found == stage.kept() and found.verify is not None and found.failure is None


def test_events_that_were_lost_take_the_ground(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stream = stage.resource.events(cast(Any, stage.lab.a)).stream
    stream.append("- skipped 9")
    stage.lab.story.when["work 10"] = lambda: stream.append("- skipped 3")
    found = stage.play()
    assert found.events_lost == ("3 events of nodea were skipped",), "what was lost before is no cell's"
    stage.lab.story.when["work 10"] = lambda: stream.end("the connection to nodea ended")
    attempt = stage.store.begin(GUEST_CELL)
    run = CellRun(cast(Any, stage.lab), cast(Any, stage.resource), attempt)
    again = play(run, stage.workload, lambda: cast(Guest, stage.guest))
    assert again.events_lost == ("the events of nodea ended: the connection to nodea ended",)
    assert "DRBD's events are not complete" in " ".join(doubts(again))


def test_events_complete_are_known_to_be(staged: Callable[..., Stage]) -> None:
    assert staged().play().events_lost == ()


def test_attempt_second_keeps_its_number(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.play()
    attempt: Attempt = stage.store.begin(GUEST_CELL)
    again = CellRun(cast(Any, stage.lab), cast(Any, stage.resource), attempt)
    assert play(again, stage.workload, lambda: cast(Guest, FakeGuest(stage.lab.story, stage.lab.a))).attempt == 2


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

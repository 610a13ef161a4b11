"""One cell, start to finish, over a lab that only remembers: the order of the steps, what the evidence has of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from fake_drbd import BLOCKS, HEALTHY
from fake_guest import FakeGuest
from fake_stage import Stage
from fake_story import in_order
from staged_cell import GUEST_CELL, HOST_CELL, staged

from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.engine.oracle_run import MAX_SAMPLES
from harness.guest.domain import Guest
from harness.judgement.doubts import doubts
from harness.judgement.judge import judge
from harness.model import BlockOwner, Cell, ClientKind, Control, Ownership, Repair, VerdictKind, Work, extents_of
from harness.parse.kernel_log import LEFT_OUT
from harness.report.read_back import lost_rows
from harness.store import Attempt
from harness.workloads.controls import Planted

__all__ = ["staged"]


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

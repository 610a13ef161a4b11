"""Sabotages of the instrument: what is left behind for a cell, and undone at its end however that is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_drbd import BLOCKS
from fake_stage import Stage
from fake_story import in_order
from sabotaged_stage import A, B, ran, staged

from harness.engine.disturbances.sabotage import left_behind
from harness.engine.disturbances.sabotage.undo import DIRECTORY
from harness.errors import CommandError, LostGuestError
from harness.model import PlantedKind, Sabotage

__all__ = ["staged"]


@pytest.mark.parametrize(
    ("sabotage", "node", "done", "undone"),
    [
        (Sabotage.DELAY_LEFT_A, A, f"netem delay {left_behind.DELAY_MS}ms", "tc qdisc del"),
        (Sabotage.DELAY_LEFT_B, B, f"netem delay {left_behind.DELAY_MS}ms", "tc qdisc del"),
        (Sabotage.SCATTER_GATHER_OFF_A, A, "ethtool -K repl0 sg off", "ethtool -K repl0 sg on"),
        (Sabotage.SCATTER_GATHER_OFF_B, B, "ethtool -K repl0 sg off", "ethtool -K repl0 sg on"),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_leave_behind_is_before_the_readback_and_undone_at_the_end(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, node: str, done: str, undone: str, fails: bool
) -> None:
    stage = staged(sabotage)
    other = B if node == A else A
    when: list[int] = []
    stage.lab.story.when["observe"] = lambda: when.append(len(ran(stage, done, node)))
    if fails:
        stage.workload.ended_by = CommandError("guest", ["x"], 1, "", "it failed")
    found = stage.play()
    assert when == [1] and not ran(stage, done, other) and not ran(stage, undone, other)
    assert ran(stage, done, node)[0] < ran(stage, undone, node)[-1]
    assert (found.failure is not None) is fails and stage.run.unreverted is None
    assert found.event_log[0].startswith("sabotage: ") and node in found.event_log[0]


@pytest.mark.parametrize("sabotage", [Sabotage.SILENT_VERIFY, Sabotage.PARTIAL_VERIFY])
def test_verify_is_covered_after_the_work_and_uncovered_after_the_oracles(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage
) -> None:
    stage = staged(sabotage)
    when: dict[str, tuple[int, int]] = {}
    for step in ("quiesce", "verify"):
        stage.lab.story.when[step] = lambda step=step: when.setdefault(
            step, (len(ran(stage, "mount --bind", A)), len(ran(stage, "umount -l", A)))
        )
    found = stage.play()
    assert when == {"quiesce": (0, 0), "verify": (1, 0)} and len(ran(stage, "umount -l", A)) == 1
    assert in_order(stage.steps, "quiesce", "sync", f"plant_below on {B}", "verify")
    (change,) = found.planted
    assert change.node == B and change.kind is PlantedKind.BYTE and change.owner is None
    assert change.blocks() == range(BLOCKS // 4, BLOCKS // 4 + 1)


def test_cleanup_that_fails_is_the_cells_failure_and_takes_the_lab(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.SCATTER_GATHER_OFF_A)
    stage.lab.a.answers = {"sg on": (1, "", "no such device")}
    found = stage.play()
    assert found.failure and "no such device" in found.failure.message
    assert stage.run.unreverted and stage.run.unreverted.startswith("what the cell injected could not be ended")


def test_cleanup_in_a_guest_that_is_gone_is_no_error(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.IDLE_WORKLOAD)
    stage.workload.ended_by = LostGuestError("it is gone")
    stage.lab.story.when["work 1"] = lambda: setattr(stage.guest, "living", False)
    stage.play()
    assert stage.run.unreverted is None and not ran(stage, "umount -l", "guest")


def test_idle_workload_covers_the_storm_in_the_guest_only_while_it_works(
    staged: Callable[[Sabotage], Stage],
) -> None:
    stage = staged(Sabotage.IDLE_WORKLOAD)
    when: list[int] = []
    stage.lab.story.when["work 1"] = lambda: when.append(len(ran(stage, "mount --bind", "guest")))
    found = stage.play()
    assert when == [1] and len(ran(stage, "umount -l", "guest")) == 1
    assert found.failure is None and not ran(stage, "mount --bind", A)


@pytest.mark.parametrize("sabotage", [Sabotage.SWAP_LEFT_ON, Sabotage.MOUNT_LEFT])
def test_left_in_the_guest_is_detached_without_quiesce(staged: Callable[[Sabotage], Stage], sabotage: Sabotage) -> None:
    stage = staged(sabotage)
    found = stage.play()
    assert "quiesce" not in stage.steps and in_order(stage.steps, "work 1", "detach", "verify")
    assert found.failure is None and "in the guest whose disk is detached" in found.event_log[0]


def test_full_disk_is_filled_before_the_guest_is_taken_and_emptied_at_the_end(
    staged: Callable[[Sabotage], Stage],
) -> None:
    stage = staged(Sabotage.FULL_DISK)
    when: list[int] = []
    stage.lab.story.when["observe"] = lambda: when.append(len(ran(stage, "fallocate", A)))
    stage.play()
    assert when == [1] and ran(stage, "fallocate", A)[0] < ran(stage, f"rm -rf {DIRECTORY}", A)[-1]


@pytest.mark.parametrize(
    ("sabotage", "breaks", "where", "undone"),
    [
        (Sabotage.DELAY_LEFT_B, "netem delay", B, "tc qdisc del"),
        (Sabotage.SILENT_VERIFY, "mount --bind", A, "umount -l"),
        (Sabotage.SCATTER_GATHER_OFF_A, "sg off", A, "sg on"),
    ],
)
def test_sabotage_that_fails_half_way_is_undone(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, breaks: str, where: str, undone: str
) -> None:
    stage = staged(sabotage)
    node = stage.lab.a if where == A else stage.lab.b
    node.answers = {breaks: (1, "", "it broke")}
    found = stage.play()
    assert found.failure and "it broke" in found.failure.message
    assert ran(stage, undone, where) and stage.run.unreverted is None

"""Sabotages of the instrument: a machine or a program that stops in the middle of the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import evidence
from sabotaged_stage import CELL, B, cell, staged

from harness.engine.session import _lost
from harness.model import Failure, Result, Sabotage, Verdict, VerdictKind

__all__ = ["staged"]


def test_stopped_node_stops_in_the_middle_of_the_work(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.STOPPED_NODE)
    stage.workload.ends = threading.Event()
    stage.lab.story.when[f"stop {B}"] = stage.workload.ends.set
    found = stage.play()
    assert in_order(stage.steps, "work 1", f"stop {B}", "verify") or found.failure
    assert f"stop {B}" in stage.steps and found.event_log[0] == "sabotage: the machine of nodeb was stopped"
    assert found.failure is not None, "a node that does not answer is no answer"


def test_stopped_node_work_that_is_over_before_is_a_failure(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.STOPPED_NODE)
    found = stage.play()
    assert found.failure and "over before the sabotage 'stopped-node'" in found.failure.message
    assert f"stop {B}" not in stage.steps


def test_lost_node_of_a_sabotaged_cell_is_its_answer_and_is_not_played_again() -> None:
    failed = replace(evidence(CELL), failure=Failure("lost-node", "detach", "nodeb does not answer"))
    verdict = Verdict(VerdictKind.INCONCLUSIVE, "nodeb does not answer")
    assert _lost(CELL, Result(CELL, verdict, failed))
    asked = cell(Sabotage.STOPPED_NODE)
    assert not _lost(asked, Result(asked, verdict, replace(failed, cell=asked)))


@pytest.mark.parametrize(
    ("sabotage", "step", "says"),
    [
        (Sabotage.STOPPED_GUEST, "kill -STOP", "the guest's QEMU on nodea was stopped"),
        (Sabotage.STOPPED_LIBVIRTD, "systemctl stop", "libvirtd on nodea was stopped"),
        (Sabotage.LOST_EVENTS, "kill -9", "whoever reads DRBD's events on nodea was killed"),
        (Sabotage.LOST_KERNEL_MESSAGES, "/dev/kmsg", "the kernel of nodea printed more than it keeps"),
    ],
)
def test_loss_is_in_the_middle_of_the_work_and_nothing_undoes_it(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, step: str, says: str
) -> None:
    stage = staged(sabotage)
    stage.workload.ends = threading.Event()
    node = stage.lab.a
    done: list[bool] = []

    answer, ends = node.runner._answer, stage.workload.ends

    def answered(argv: tuple[str, ...]) -> Any:
        if step in " ".join(argv):
            done.append(ends.is_set())
            ends.set()
        return answer(argv)

    node.runner._answer = answered
    found = stage.play()
    assert done == [False] and stage.run.unreverted is None
    assert any(event.startswith(f"sabotage: {says}") for event in found.event_log)


def test_killed_libvirt_is_the_labs_business(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.KILLED_LIBVIRTD)
    stage.workload.ends = threading.Event()
    stage.lab.story.when["kill libvirt"] = stage.workload.ends.set
    found = stage.play()
    assert found.failure is None and found.event_log == ("sabotage: the controller's libvirt was killed",)
    assert in_order(stage.steps, "work 1", "kill libvirt", "quiesce", "verify")

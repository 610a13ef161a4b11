"""What happens to a guest while it works: disks that fail, and a connection that is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from fake_drbd import HEALTHY
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD
from moving_stage import BROKEN, rests, staged

from harness.engine.disturbances import io_error
from harness.judgement.judge import judge
from harness.model import Fault, VerdictKind

__all__ = ["staged"]


def test_io_error_pauses_the_guest_until_the_disks_are_back(staged: Callable[..., Stage]) -> None:
    stage = staged(BROKEN)
    stage.guest.pauses = [None, None, "I/O error"]
    stage.workload.ends = threading.Event()
    held: list[bool] = []

    def resumed() -> None:
        held.append(stage.guest.agent.holding > 0)
        assert stage.workload.ends is not None
        stage.workload.ends.set()

    stage.lab.story.when["resume"] = resumed
    stage.lab.story.when["break the disk of nodea"] = lambda: held.append(stage.guest.agent.holding > 0)
    found = stage.play()
    assert found.failure is None, found.failure
    assert {"break the disk of nodea", "break the disk of nodeb"} <= set(stage.steps)
    assert in_order(
        stage.steps,
        "break the disk of nodea",
        "apply_delays 0/0",
        "drbdadm nodea attach",
        "drbdadm nodeb attach",
        "drbdadm nodea primary",
        "resume",
        "quiesce",
    )
    assert held == [True, True], "nothing is asked of a guest that cannot answer"
    assert found.fault_injected
    assert any("the guest was paused: I/O error; DRBD reported nodea" in one and "Diskless" in one
               for one in found.event_log)  # fmt: skip
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_io_error_guest_never_paused_is_no_answer(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_error, "PAUSE_SECONDS", 0.05)
    stage = staged(BROKEN)
    stage.guest.pauses = [None]
    stage.workload.ends = threading.Event()
    found = stage.play()
    stage.workload.ends.set()
    assert found.failure and found.failure.kind == "deadline" and "pause by an I/O error" in found.failure.message
    assert in_order(stage.steps, "break the disk of nodea", "drbdadm nodea attach") and rests(stage)
    assert stage.guest.agent.holding == 0 and not stage.guest.attached


def test_standalone_fault_returns_to_baseline_before_any_write(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(BROKEN, fault=Fault.STANDALONE))
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(
        stage.steps,
        "mark nodea: none-swap-pressure-fault.standalone begins",
        "drbdadm nodea disconnect",
        "drbdadm nodeb disconnect",
        "drbdadm nodeb connect --discard-my-data",
        "compare",
        "attach",
    )
    assert found.fault_injected and found.event_log[0] == "both nodes were made StandAlone before the cell"
    assert found.event_log[1].startswith("found StandAlone Primary UpToDate, StandAlone Secondary UpToDate")
    assert found.before == HEALTHY and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)

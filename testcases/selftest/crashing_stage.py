"""A cell over a lab that only remembers, whose work goes on until a crash.  Nothing here is a test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fake_drbd import HEALTHY, NARROW
from fake_guest import FakeGuest, FakeWatch
from fake_lab import FakeNode
from fake_stage import Stage

from harness.drbd import roles
from harness.engine.disturbances import canary_steps, crash
from harness.errors import LostGuestError
from harness.guest.domain import Guest
from harness.model import CacheMode, Cell, Crash, FilesystemKind
from harness.util.deadline import poll
from harness.workloads.base import CheckResult, Recovered

NODE = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, crash=Crash.NODE, seconds=0)
QEMU, RESET = replace(NODE, crash=Crash.QEMU), replace(NODE, crash=Crash.RESET)
STRUCK = {Crash.NODE: "kill nodea", Crash.QEMU: "kill the guest", Crash.RESET: "reset the guest"}


class Crashing(Stage):
    """A stage whose work goes on until the crash, and which knows each guest that was started after it."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.started: list[FakeGuest] = []
        self.refuses_to_start: BaseException | None = None

    def start(self, lab: object, node: FakeNode) -> FakeGuest:
        self.lab.story(f"start on {node.name}")
        if self.refuses_to_start is not None:
            raise self.refuses_to_start
        self.started.append(FakeGuest(self.lab.story, node))
        return self.started[-1]

    def power_cut(self) -> None:
        """What nodea's end means to the guest on it."""
        self.guest.living = False
        self.end()

    def end(self) -> None:
        assert self.workload.ends is not None
        self.workload.ends.set()

    def rests(self) -> bool:
        return self.resource.state == HEALTHY and self.resource.delayed == NARROW


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Crashing]:
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)
    # What does not find together here never will.
    monkeypatch.setattr(roles, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(crash, "NOTICE_SECONDS", 5.0)

    def stage(cell: Cell = NODE) -> Crashing:
        made = cast(Crashing, Crashing.of(tmp_path, cell))
        made.workload.ends = threading.Event()
        made.workload.ended_by = LostGuestError("the agent does not answer")
        made.workload.recovers = Recovered(True, check=CheckResult(0, "clean"))
        assert cell.crash is not None
        made.lab.story.when[STRUCK[cell.crash]] = made.power_cut if cell.crash is Crash.NODE else made.end
        monkeypatch.setattr(Guest, "start", made.start)
        return made

    return stage

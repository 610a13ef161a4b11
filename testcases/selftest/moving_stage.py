"""A cell whose guest moves, over a lab that only remembers, and what a fault meets there.  Nothing here is a test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fake_drbd import HEALTHY, NARROW
from fake_guest import FakeWatch, Traveller
from fake_libvirt import LibvirtSaid
from fake_stage import Stage

from harness.drbd import roles
from harness.engine.disturbances import canary_steps, crash, io_error, migrations
from harness.guest import migration as migration
from harness.model import CacheMode, Cell, Evidence, Fault, FilesystemKind, MigrationOutcome
from harness.util.deadline import poll

MOVED = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, migrations=2, seconds=1)
UNDER_WAY: dict[str, object] = {"type": 2, "memory_iteration": 2}
COMPLETED, FAILED, ABORTED = MigrationOutcome.COMPLETED, MigrationOutcome.FAILED, MigrationOutcome.ABORTED
BROKEN = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, fault=Fault.IO_ERROR, seconds=0)


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    def quickly(check: Any, deadline: Any, every: float) -> Any:
        return poll(check, deadline, every=0.001)

    monkeypatch.setattr(roles, "poll", quickly)
    monkeypatch.setattr(io_error, "poll", quickly)
    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)
    # What does not find together here never will.
    monkeypatch.setattr(roles, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(crash, "NOTICE_SECONDS", 5.0)
    monkeypatch.setattr(migration, "SAMPLE_SECONDS", 0.005)
    monkeypatch.setattr(migration, "ABORT_SECONDS", 0.5)
    monkeypatch.setattr(migrations, "STORM_PAUSE_SECONDS", 0.005)
    return lambda cell=MOVED: Stage.of(tmp_path, cell, Traveller)


def traveller(stage: Stage) -> Traveller:
    return cast(Traveller, stage.guest)


def outcomes(found: Evidence) -> list[tuple[str, str, str, str]]:
    return [(one.source, one.target, str(one.outcome), one.during) for one in found.migrations]


def rests(stage: Stage) -> bool:
    """Whether the lab is as the next cell wants it: nodea the only Primary, both well, nothing delayed or broken."""
    forbidden = all(node.net.get("allow-two-primaries", "no") == "no" for node in (stage.lab.a, stage.lab.b))
    return stage.resource.state == HEALTHY and stage.resource.delayed == NARROW and forbidden


def under_way(stage: Stage, ends_with: str, words: str | None = "Lost connection to destination host") -> None:
    """The first migration is on its way until the step ``ends_with``, and then breaks with ``words``."""
    domain = stage.guest.domain
    domain.ends, domain.sample = threading.Event(), dict(UNDER_WAY)
    if words is not None:
        domain.error = LibvirtSaid(words)

    before = stage.lab.story.when.get(ends_with, lambda: None)

    def end() -> None:
        before()
        domain.ends.set()

    def forget() -> None:
        domain.error = domain.ends = None

    stage.lab.story.when[ends_with] = end
    # The next migration of the same domain goes well.
    stage.lab.story.when["drbdadm nodea primary"] = forget


def faulty(fault: Fault) -> Cell:
    return replace(MOVED, fault=fault)


def cuttable(stage: Stage) -> None:
    """Without its link the nodes lose each other, and with it they find together again."""
    silent = {"nodea": "Connecting", "nodeb": "Connecting"}
    well = {"nodea": "Connected", "nodeb": "Connected"}
    stage.lab.story.when["link of nodeb cut"] = lambda: setattr(stage.resource, "links", silent)
    stage.lab.story.when["link of nodeb joined"] = lambda: setattr(stage.resource, "links", well)


def guest_dies_at(stage: Stage, step: str) -> None:
    """The guest dies at that step, and with it the migration that is on its way."""

    def strike() -> None:
        stage.guest.living = False
        stage.guest.domain.ends.set()

    stage.lab.story.when[step] = strike

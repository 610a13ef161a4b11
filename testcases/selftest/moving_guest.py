"""A guest that is moved between two nodes of a lab that only remembers.  Nothing here is a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest
from fake_drbd import FakeResource
from fake_guest import FakeDomain, Traveller
from fake_lab import FakeLab

from harness.drbd import roles
from harness.drbd.resource import Resource
from harness.guest import migration as module
from harness.guest.domain import Guest
from harness.guest.migration import MigrationRequest, migrate
from harness.lab.node import Node
from harness.model import Migration
from harness.util.deadline import poll

UNDER_WAY: dict[str, object] = {"type": 2, "memory_iteration": 2, "memory_total": 1 << 28}


class Stage:
    """A guest between two nodes, and a DRBD below it."""

    def __init__(self) -> None:
        self.lab = FakeLab()
        self.resource = FakeResource(self.lab)
        self.guest = Traveller(self.lab)
        self.domain: FakeDomain = self.guest.here

    def go(
        self, seconds: float = 20.0, unsafe: bool = False, bandwidth_mib: int = 0,
        on_precopy: Callable[[], None] | None = None,
    ) -> Migration:  # fmt: skip
        target = self.lab.b if self.guest.node is self.lab.a else self.lab.a
        request = MigrationRequest(1, seconds, unsafe, bandwidth_mib)
        return migrate(
            cast(Guest, self.guest), cast(Resource, self.resource), cast(Node, target), request,
            time.monotonic() - 3, on_precopy,
        )  # fmt: skip

    @property
    def steps(self) -> list[str]:
        return self.lab.story.steps

    def rests_on(self, name: str) -> bool:
        """Whether that node, where the guest is, is the only Primary, and two are not allowed any more."""
        other = "nodea" if name == "nodeb" else "nodeb"
        alone = {"allow-two-primaries": "no", "ping-timeout": "5"}
        forbidden = all(node.net == alone for node in (self.lab.a, self.lab.b))
        return self.guest.node.name == name and forbidden and self.resource.roles == {
            name: "Primary", other: "Secondary"
        }  # fmt: skip


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module, "SAMPLE_SECONDS", 0.005)
    monkeypatch.setattr(module, "ABORT_SECONDS", 0.2)
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    return Stage()


def under_way(stage: Stage) -> threading.Event:
    """The migration goes on, with memory on its way, until the event that is returned."""
    stage.domain.ends = threading.Event()
    stage.domain.sample = dict(UNDER_WAY)
    return stage.domain.ends

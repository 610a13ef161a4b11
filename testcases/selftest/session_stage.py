"""A session over labs that only remember, and what a cell finds there.  Nothing here is a test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from fake_drbd import FakeResource
from fake_guest import FakeGuest
from fake_lab import FakeLab
from fake_story import Story
from judged_evidence import evidence as judged_evidence
from judged_evidence import observed, oracles

from harness.config.lab_spec import GuestSpec, LabSpec, UserImageSpec
from harness.drbd.resource import Resource
from harness.engine import session as module
from harness.engine.cell_steps import CellRun
from harness.engine.session import Session
from harness.errors import GuestImageError
from harness.guest.domain import Guest
from harness.guest.user_guest import Ready
from harness.lab.base import Lab
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Control,
    Evidence,
    Failure,
    FilesystemKind,
    Result,
    Run,
    Stack,
    StackLock,
    VerdictKind,
)
from harness.parse.guest_facts import guest_facts
from harness.store import Store
from harness.util.logs import PROGRESS
from harness.workloads.controls import Planted

SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
OTHER = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK)
CONTROLS = ["host-planted", "host-steady", "host-no-writes", "host-inflight-modify", "directsync-inflight-modify"]
REVIVAL = ["host-planted", "host-inflight-modify"]
BLOCKS = 32768


def answer(cell: Cell) -> dict[str, Any]:
    """What a good lab finds."""
    if cell.control is Control.PLANTED:
        planted = Planted.changes(BLOCKS, 5, "nodea", "nodeb")
        blocks = {block for extent in planted for block in extent.blocks()}
        return {"planted": planted, **oracles(blocks, blocks)}
    if cell.control in (Control.IN_FLIGHT, Control.IN_FLIGHT_GUEST):
        return oracles({1, 2}, {1, 2})
    return {}


def moment(number: int) -> str:
    """When the attempt with this number in a session began."""
    return f"2026-11-23T01:{number // 60:02}:{number % 60:02}.000+00:00"


@dataclass
class Stage:
    """A session over labs that only remember; ``finds`` says what the next attempt at a cell finds."""

    session: Session
    store: Store
    labs: list[FakeLab] = field(default_factory=list)
    resources: list[FakeResource] = field(default_factory=list)
    guests: list[FakeGuest] = field(default_factory=list)
    guest_prints: str = "guest said\n"
    closed: list[str] = field(default_factory=list)
    played: list[str] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)
    finds: Callable[[Cell, int], dict[str, Any]] = lambda cell, turn: {}
    before_lab: Callable[[], None] = lambda: None
    before_up: Callable[[], None] = lambda: None
    asks_guest: bool = True
    lock: StackLock = field(default_factory=StackLock)
    #: A user's guest image of the labs, and whether no guest comes up by it.
    image: UserImageSpec = field(default_factory=UserImageSpec)
    image_fails: bool = False

    def play(self, run: CellRun, workload: object, guest: Callable[[], Guest]) -> Evidence:
        """In the place of :func:`harness.engine.cell_run.play`."""
        cell = run.cell
        self.played.append(cell.id)
        if cell.client is ClientKind.GUEST and self.asks_guest:
            guest()
        found: dict[str, Any] = {
            "lab": run.context.lab.id,
            "observed": observed(cell),
            **answer(cell),
            **self.finds(cell, self.played.count(cell.id)),
        }
        whole = replace(judged_evidence(cell, **found), started_at=moment(len(self.played)))
        run.context.attempt.save(whole)
        return replace(whole, attempt=run.context.attempt.number)

    @contextmanager
    def lab(self) -> Iterator[Lab]:
        self.before_lab()
        lab = FakeLab(Story(), id=f"lab{len(self.labs) + 1}", stack=Stack(kernel="6.12", drbd="8.4.11"))
        lab.spec = LabSpec(guest=GuestSpec(image=self.image))
        lab.lock = self.lock
        self.labs.append(lab)
        yield cast(Lab, lab)
        self.closed.append(lab.id)

    def for_nodes(self, a: Any, b: Any, spec: Any) -> FakeResource:
        outer = self

        class Up(FakeResource):
            def create(self, *, skip_initial_sync: bool) -> None:
                outer.before_up()
                super().create(skip_initial_sync=skip_initial_sync)

        self.resources.append(Up(self.labs[-1]))
        return self.resources[-1]

    def start(self, lab: Any, node: Any, *, harness_own: bool = False) -> FakeGuest:
        assert node is lab.a
        user = None if harness_own or not lab.guest_spec.image.there else lab.guest_spec.image
        if user is not None and self.image_fails:
            raise GuestImageError("no guest came up by the guest image")
        self.guests.append(FakeGuest(self.labs[-1].story, node))
        self.guests[-1].image, self.guests[-1].spec = user, lab.guest_spec
        self.guests[-1].ready = (
            Ready(guest_facts({"kernel-release": "6.6", "pretty-name": "Mine"})) if user else Ready()
        )
        self.guests[-1].agent.kernel = "6.1.0-guest\n"
        self.guests[-1].printed = self.guest_prints
        return self.guests[-1]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    store = Store.create(tmp_path, Run("run1", "quick", "2026-11-23T01:50:03Z", (SWAP, OTHER)))
    made: list[Stage] = []
    session = Session(store, lambda: made[0].lab())
    made.append(Stage(session, store))
    monkeypatch.setattr(module, "play", made[0].play)
    monkeypatch.setattr(Resource, "for_nodes", made[0].for_nodes)
    monkeypatch.setattr(Guest, "start", made[0].start)
    logger, handler = logging.getLogger(PROGRESS), logging.Handler()
    handler.emit = lambda record: made[0].reported.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    # Not by monkeypatch: a logger remembers which levels are on, and forgets it only here.
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield made[0]
    logger.removeHandler(handler)
    logger.setLevel(level)


def failing(kind: str = "lost-node", phase: str = "work") -> dict[str, Any]:
    return {"failure": Failure(kind, phase, "it broke")}


def verdict(result: Result) -> VerdictKind:
    assert result.verdict is not None
    return result.verdict.kind


def loses_its_peer_once(stage: Stage) -> None:
    """Node b is lost in the first play of SWAP."""

    def once(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP or turn > 1:
            return {}
        cast(Any, stage.labs[-1].b).alive = False
        return failing()

    stage.finds = once

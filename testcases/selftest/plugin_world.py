"""A suite that pytest runs in this process, over labs that only remember.  Nothing here is a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fake_drbd import FakeResource
from fake_guest import FakeGuest, Traveller
from fake_lab import FakeLab
from fake_story import Story
from judged_evidence import evidence as judged_evidence
from judged_evidence import observed, oracles
from lxml import etree

from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.drbd.resource import Resource
from harness.engine import session
from harness.guest.domain import Guest
from harness.model import Cell, Control, Failure, Stack, Work
from harness.pytest_plugin import pytest_run, two_machines
from harness.report.html import evidence_html, write_html
from harness.store import Store
from harness.util import resources
from harness.workloads.controls import Planted

MATRIX = """
schema = 1
description = "three cells"
[[cells]]
cache = ["none", "writeback", "unsafe"]
filesystem = "swap"
workload = "pressure"
[[expect]]
cache = "none"
filesystem = "swap"
workload = "pressure"
verdicts = ["DIVERGED"]
reason = "buffers change in flight"
[[expect]]
cache = "writeback"
verdicts = ["CLEAN"]
reason = "pages are copied"
"""
OWN = """
import pytest
@pytest.mark.cell({keys})
def test_my_own(own_cell):
    pass
"""
# What a suite says that wants the harness.
ASKS = 'pytest_plugins = ["harness.fixtures"]'
# Pages cost more than everything else here; the tests that look at one ask for the real ones.
PAGES = {"evidence_html": evidence_html, "write_html": write_html}
CONTROLS = ["host-planted", "host-steady", "host-no-writes", "host-inflight-modify", "directsync-inflight-modify"]
IDS = [
    *CONTROLS,
    "none-swap-pressure",
    "writeback-swap-pressure",
    "unsafe-swap-pressure",
]
SWAPS = ["none-swap-pressure", "writeback-swap-pressure", "unsafe-swap-pressure"]


@dataclass
class World:
    """What the session stands on: labs that only remember; ``finds`` says what a cell finds, by its id."""

    finds: dict[str, dict[str, Any]] = field(default_factory=dict)
    finds_later: dict[str, dict[str, Any]] = field(default_factory=dict)
    labs: list[str] = field(default_factory=list)
    lab_now: FakeLab = field(default_factory=FakeLab)
    story: Story = field(default_factory=Story)
    specs: list[tuple[LabSpec, StackSpec]] = field(default_factory=list)
    played: list[str] = field(default_factory=list)
    error: BaseException | None = None
    moves: bool = False
    guests: list[FakeGuest] = field(default_factory=list)

    @contextlib.contextmanager
    def lab(self, spec: LabSpec, stack: StackSpec, evidence: Path) -> Iterator[FakeLab]:
        assert evidence.name == spec.name
        self.specs.append((spec, stack))
        if self.error is not None:
            raise self.error
        self.labs.append(f"lab{len(self.labs) + 1}")
        self.lab_now = FakeLab(self.story, id=self.labs[-1], stack=Stack(kernel="6.12-fake", drbd="8.4.11"))
        yield self.lab_now

    def guest(self, lab: Any, node: Any, *, harness_own: bool = False) -> FakeGuest:
        self.guests.append(Traveller(lab) if self.moves else FakeGuest(self.story, node))
        return self.guests[-1]

    def play(self, run: Any, workload: Any, guest: Callable[[], Any]) -> Any:
        cell: Cell = run.cell
        self.played.append(cell.id)
        good: dict[str, Any] = {}
        if cell.control is Control.PLANTED:
            blocks = {block for extent in Planted.changes(32768, 5, "nodea", "nodeb") for block in extent.blocks()}
            good = {"planted": Planted.changes(32768, 5, "nodea", "nodeb"), **oracles(blocks, blocks)}
        elif cell.control in (Control.IN_FLIGHT, Control.IN_FLIGHT_GUEST) or cell.id == "none-swap-pressure":
            good = oracles({1, 2}, {1, 2})
        wrong = self.finds.get(cell.id, {})
        later = self.finds_later.get(cell.id)
        if later is not None and self.played.count(cell.id) > 1:
            wrong = later
        if isinstance(wrong.get("raises"), BaseException):
            raise wrong["raises"]
        stopped = wrong.get("stops")
        if isinstance(stopped, BaseException):
            wrong = {"failure": Failure("interrupted", "work", "KeyboardInterrupt")}
        found = {"lab": run.context.lab.id, "observed": observed(cell), **good, **wrong}
        whole = replace(judged_evidence(cell, **found), started_at=datetime.now(UTC).isoformat())
        run.context.attempt.save(whole)
        if isinstance(stopped, BaseException):
            raise stopped
        return whole


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return made_world(monkeypatch)


def made_world(monkeypatch: pytest.MonkeyPatch) -> World:
    """What the session of the next pytest in this process stands on."""
    made = World()
    monkeypatch.setattr(two_machines, "nested_lab", made.lab)
    monkeypatch.setattr(pytest_run, "evidence_html", lambda result: "")
    monkeypatch.setattr(pytest_run, "write_html", lambda path, run, results, **_: path.write_text(run.id))
    monkeypatch.setattr(session, "play", made.play)
    monkeypatch.setattr(Resource, "for_nodes", lambda a, b, spec: FakeResource(made.lab_now, sent_kib=0))
    monkeypatch.setattr(Guest, "start", made.guest)
    return made


@pytest.fixture
def pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, real in PAGES.items():
        monkeypatch.setattr(pytest_run, name, real)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> None:
    """A folder whose conftest asks for the harness."""
    pytester.makeconftest(ASKS)


@pytest.fixture
def matrix(suite: None, pytester: pytest.Pytester) -> Path:
    """A folder as a checkout has it: the lab's testcase and a matrix."""
    pytester.makepyfile(test_cells=(resources.testcases() / "lab" / "test_cells.py").read_text())
    path = pytester.path / "three.toml"
    path.write_text(MATRIX)
    return path


@dataclass
class Ran:
    """How a pytest session ended: its exit code, its outcomes by item, what it said."""

    status: int
    outcomes: dict[str, int]
    out: str
    err: str
    folder: Path

    @property
    def store(self) -> Store:
        # Two that began in one second have ids in any order.
        written = (self.folder / "runs").glob("*/run.json")
        return Store(max(written, key=lambda path: path.stat().st_mtime_ns).parent)


Runs = Callable[..., Ran]


@pytest.fixture
def run(suite: None, pytester: pytest.Pytester) -> Runs:
    def run(*arguments: str) -> Ran:
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments)
        outcomes: dict[str, int] = {}
        with contextlib.suppress(ValueError):
            outcomes = result.parseoutcomes()
        return Ran(int(result.ret), outcomes, result.stdout.str(), result.stderr.str(), pytester.path)

    return run


def diverged() -> dict[str, Any]:
    return oracles({5, 6}, {5, 6})


def corrupt() -> dict[str, Any]:
    return {"work": Work(10.0, {}, 3)}


def broken() -> dict[str, Any]:
    return {"failure": Failure("deadline", "work", "it took too long")}


def junit(ran: Ran) -> tuple[dict[str | None, list[Any]], Any]:
    """What junit's file has inside each test, and its suite."""
    root = etree.fromstring((ran.folder / "junit.xml").read_bytes())
    return {case.get("name"): list(case) for case in root.iter("testcase")}, next(root.iter("testsuite"))

"""One attempt at a cell, really played, over a lab, a guest and a workload that only remember.  No test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fake_drbd import FakeResource
from fake_guest import FakeGuest
from fake_lab import FakeLab
from fake_workload import Script

from harness.drbd.resource import Resource
from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.guest.domain import Guest
from harness.lab.base import Lab
from harness.model import Cell, Evidence, Run
from harness.store import Store


@dataclass
class Stage:
    """Everything that one attempt at a cell needs."""

    run: CellRun
    lab: FakeLab
    resource: FakeResource
    guest: FakeGuest
    workload: Script
    store: Store

    @classmethod
    def of(cls, runs: Path, cell: Cell, guest: Callable[[FakeLab], FakeGuest] | None = None) -> Stage:
        store = Store.create(runs, Run("run1", "quick", "2026-11-23T01:50:03Z", (cell,)))
        lab = FakeLab()
        resource = FakeResource(lab)
        run = CellRun(cast(Lab, lab), cast(Resource, resource), store.begin(cell))
        made = guest(lab) if guest is not None else FakeGuest(lab.story, lab.a)
        stage = cls(run, lab, resource, made, Script(lab, resource), store)
        if cell.migrations:
            stage.workload.outlasts = "migrate nodea to nodeb"
        return stage

    def play(self) -> Evidence:
        return play(self.run, self.workload, lambda: cast(Guest, self.guest))

    @property
    def steps(self) -> list[str]:
        return self.lab.story.steps

    def kept(self) -> Evidence:
        """What is on the disk."""
        found = self.store.evidence(self.run.cell.id)
        assert found is not None, "no evidence was kept"
        return found

    def raw(self, name: str) -> str:
        return (self.run.context.attempt.directory / name).read_text()

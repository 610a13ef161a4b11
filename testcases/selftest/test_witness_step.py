"""The witness in a cell: where it is started and read, and that nothing of it ever fails a cell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_guest import FakeGuest, FakeWatch, Traveller
from fake_lab import FakeLab
from fake_stage import Stage
from fake_story import in_order
from test_witness import READY, report

from harness.drbd import roles, witness
from harness.engine import cell_steps, witness_step
from harness.engine.disturbances import canary_steps, crash
from harness.errors import LostGuestError
from harness.guest.domain import Guest
from harness.model import CacheMode, Cell, Crash, DelayProfile, FilesystemKind, Observed
from harness.util.deadline import poll

CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(20, 0), seconds=0)
MOVED = replace(CELL, migrations=1)
DIES = replace(CELL, crash=Crash.NODE)


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    """A stage on whose nodes there is a witness: each has a report of its own."""
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    monkeypatch.setattr(roles, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(crash, "NOTICE_SECONDS", 5.0)
    monkeypatch.setattr(witness_step, "READY_SECONDS", 0.2)
    monkeypatch.setattr(witness_step, "REPORT_SECONDS", 0.2)
    monkeypatch.setattr(witness, "REPORT_SECONDS", 0.2)

    def stage(cell: Cell = CELL, guest: Callable[[FakeLab], FakeGuest] | None = None) -> Stage:
        made = Stage.of(tmp_path, cell, guest)
        made.lab.a.runner.witness = made.lab.b.runner.witness = READY
        made.lab.a.runner.report = report([[4, 2]], writes=7, block_writes=9)
        made.lab.b.runner.report = report([[5, 2]], writes=2, block_writes=2)
        return made

    return stage


def test_witness_plain_cell_watches_the_work_on_the_primary(staged: Callable[..., Stage]) -> None:
    stage = staged()
    found = stage.play()
    assert in_order(
        stage.steps, "prepare /dev/vdb", "apply_delays 20/0", "witness on nodea", "work 0", "quiesce",
        "apply_delays 0/0", "sync", "witness stops on nodea", "detach",
    )  # fmt: skip
    assert not any("nodeb" in step for step in stage.steps if "witness" in step)
    assert found.failure is None and found.witness is not None and found.witness == stage.kept().witness
    assert found.witness.watched and found.witness.nodes == ("nodea",)
    assert (found.witness.writes, found.witness.block_writes, found.witness.changed_blocks) == (7, 9, 2)
    assert stage.raw("witness-nodea.txt").splitlines()[-1] == report([[4, 2]], writes=7, block_writes=9)
    assert list(found.phases)[3:7] == ["prepare", "exposure", "witness", "work"]


def test_witness_migration_both_nodes_are_summed(staged: Callable[..., Stage]) -> None:
    stage = staged(MOVED, Traveller)
    found = stage.play()
    # After the work and the read-back it is on nodea again.
    assert in_order(stage.steps, "witness on nodea", "witness on nodeb", "migrate nodea to nodeb", "sync")
    assert found.failure is None and found.witness is not None
    assert found.witness.watched and found.witness.nodes == ("nodea", "nodeb")
    assert (found.witness.writes, found.witness.changed_blocks) == (9, 3)


def test_witness_two_primaries_both_nodes_are_watched(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(CELL, replication=replace(CELL.replication, two_primaries=True)))
    found = stage.play().witness
    assert found is not None and found.nodes == ("nodea", "nodeb")


def test_witness_own_test_may_ask_for_both_nodes(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.run.begin()
    stage.run.witness.start(on_both=True)
    stage.run.release()
    assert stage.run.evidence.witness is not None and stage.run.evidence.witness.nodes == ("nodea", "nodeb")


def test_witness_power_cut_its_counts_are_lost_and_the_peers_stay(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(DIES)
    stage.workload.ends, stage.workload.ended_by = threading.Event(), LostGuestError("the agent does not answer")

    def power_cut() -> None:
        stage.guest.living = False
        assert stage.workload.ends is not None
        stage.workload.ends.set()

    stage.lab.story.when["kill nodea"] = power_cut
    monkeypatch.setattr(Guest, "start", lambda lab, node: FakeGuest(stage.lab.story, node))
    found = stage.play()
    assert found.failure is None and found.witness is not None
    assert not found.witness.watched
    assert found.witness.reason == "nodea lost its power, and with it what was counted there until then"
    assert (found.witness.nodes, found.witness.writes) == (("nodeb",), 2)


@pytest.mark.parametrize(
    ("begins", "ends", "says"),
    [
        ("unwatched this kernel has no BTF", "", "nodea: not watched: this kernel has no BTF"),
        ("loading", "", "nodea: the start of the witness did not happen within 0 s (last line of the witness on nodea"),
        (READY, "", "nodea: the report of the witness did not happen within 0 s (last line"),
        (READY, "{]", "nodea: this is no report of the witness"),
    ],
)
def test_witness_fails_cell_goes_on_without(staged: Callable[..., Stage], begins: str, ends: str, says: str) -> None:
    stage = staged()
    stage.lab.a.runner.witness, stage.lab.a.runner.report = begins, ends
    found = stage.play()
    assert found.failure is None and found.comparison is not None and "work 0" in stage.steps
    assert found.witness is not None and not found.witness.watched
    assert found.witness.reason.startswith(says) and found.witness.writes == 0


def test_witness_node_gone_before_the_report_says_so(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.a.answers["kill -TERM"] = (1, "", "kill: (77) - No such process")
    found = stage.play()
    assert found.failure is None and found.witness is not None
    assert "No such process" in found.witness.reason


def test_witness_work_fails_counts_are_kept(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["work 0"] = LostGuestError("the agent does not answer")
    found = stage.play()
    assert found.failure is not None and found.failure.phase == "work"
    assert found.witness is not None and found.witness.writes == 7


def test_witness_bug_of_ours_it_does_not_stay_on(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["work 0"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        stage.play()
    assert "witness stops on nodea" in stage.steps


def test_witness_sync_refused_still_read(staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = staged()
    calls: list[Any] = []

    def sync(node: Any = None) -> None:
        calls.append(node)
        # The first one is of what was prepared.
        if len(calls) == 2:
            raise LostGuestError("refused")

    monkeypatch.setattr(stage.resource, "sync", sync)
    found = stage.play()
    assert found.failure is None and found.witness is not None
    assert found.witness.writes == 7 and found.witness.reason == "nodea: refused"

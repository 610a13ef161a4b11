"""What a cell's work exposed: counted around the work, without preparation and resyncs, and the blocks that changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_drbd import HEALTHY, FakeResource
from fake_lab import FakeLab
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD

from harness.engine import cell_steps
from harness.engine.exposure import Exposure
from harness.errors import InfrastructureError, LostNodeError
from harness.judgement.judge import judge
from harness.model import (
    Alarms,
    CacheMode,
    Cell,
    ClientKind,
    Counters,
    Crash,
    DelayProfile,
    FilesystemKind,
    Observed,
    VerdictKind,
    blocks_of,
)

CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(20, 0))
RAW = Cell("inflight-modify", client=ClientKind.HOST)


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    return lambda cell=CELL: Stage.of(tmp_path, cell)


def sends(stage: Stage, kib: int) -> Callable[[], None]:
    def send() -> None:
        stage.resource.sent_kib += kib

    return send


# --------------------------------------------------------------------------- around the work, and nothing else


@pytest.mark.parametrize("step", ["prepare /dev/vdb", "detach", "repair", "verify"])
def test_exposure_what_is_sent_before_and_after_the_work_does_not_count(
    staged: Callable[..., Stage], step: str
) -> None:
    stage = staged()
    stage.workload.leaves = {5}
    stage.lab.story.when[step] = sends(stage, 8000)
    found = stage.play()
    assert step in stage.steps and found.failure is None
    assert found.exposed_blocks == 100, "400 KiB of work"


def test_exposure_what_quiesce_still_writes_counts(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.when["quiesce"] = sends(stage, 40)
    assert stage.play().exposed_blocks == 110


def test_exposure_only_the_preparation_wrote_is_no_exposure(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.when["prepare /dev/vdb"] = sends(stage, 8000)
    stage.lab.story.when["work 10"] = sends(stage, -400)
    found = stage.play()
    assert found.failure is None and found.exposed_blocks == 0
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "the workload exposed no block write" in verdict.sentence


def test_exposure_everything_prepared_is_written_before_the_first_look(staged: Callable[..., Stage]) -> None:
    stage = staged()
    synced: list[list[str]] = []
    stage.lab.story.when["digest nodea"] = lambda: synced.append(list(map(" ".join, stage.guest.agent.ran)))
    stage.play()
    assert in_order(stage.steps, "prepare /dev/vdb", "sync", "digest nodea", "compare", "apply_delays 20/0", "work 10")
    assert "sync" in synced[0], "what waits in the guest's own cache"


def test_exposure_a_digest_that_cannot_be_read_fails_the_cell(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["digest nodea"] = InfrastructureError("the backing file cannot be read")
    found = stage.play()
    assert found.failure and found.failure.phase == "exposure" and found.written is None
    assert "work 10" not in stage.steps and found.comparison is not None


# --------------------------------------------------------------------------- the blocks that changed


def test_written_blocks_are_those_that_changed_during_the_work(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.when["prepare /dev/vdb"] = lambda: stage.lab.changed.update({1, 2})
    stage.lab.story.when["work 10"] = lambda: stage.lab.changed.update({7, 8, 900})
    stage.lab.story.when["detach"] = lambda: stage.lab.changed.update({3000})
    written = stage.play().written
    assert written and (written.node, written.blocks) == ("nodea", stage.resource.blocks)
    assert blocks_of(written.changed) == {7, 8, 900} and written.changed_blocks == 3
    assert written.unequal_before == () and written.seconds > 0


def test_written_a_block_that_changed_on_the_peer_only_is_a_reason(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {7, 8}
    stage.lab.story.when["work 10"] = lambda: stage.lab.changed.add(7)
    verdict = judge(stage.play(), HELD)
    assert verdict.kind is VerdictKind.DIVERGED and verdict.differing_blocks == 2, "nothing is taken away"
    assert "1 of the blocks that differ did not change on nodea during the work" in verdict.reasons


def test_written_a_block_that_differed_before_the_work_is_told(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.when["prepare /dev/vdb"] = lambda: stage.lab.differing.add(40)
    stage.resource.verified = {40}
    found = stage.play()
    assert found.written and blocks_of(found.written.unequal_before) == {40}
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.DIVERGED
    assert "1 of the blocks that differ did so before the work began" in verdict.reasons


def test_written_all_that_differs_was_written_is_no_reason(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {7}
    stage.lab.story.when["work 10"] = lambda: stage.lab.changed.add(7)
    assert not any("of the blocks that differ" in one for one in judge(stage.play(), HELD).reasons)


# --------------------------------------------------------------------------- resyncs in the middle of the work


class Counting:
    """An exposure over two nodes whose counters a test sets; ``drops`` is what DRBD's events show."""

    def __init__(self, cell: Cell = CELL) -> None:
        lab = FakeLab()
        self.resource = FakeResource(lab)
        self.sent = {"nodea": 0, "nodeb": 0}
        self.written_kib = 0
        self.drops = 0
        self.gone: set[str] = set()
        self.noted: dict[str, Any] = {}
        self.resource.status = self.status  # type: ignore[method-assign]
        context = SimpleNamespace(
            cell=cell, lab=lab, nodes=(lab.a, lab.b), resource=self.resource, note=self.noted.update
        )
        capture = SimpleNamespace(alarms=lambda: Alarms(drops=self.drops))
        self.exposure = Exposure(cast(Any, context), cast(Any, capture))

    def status(self, node: Any = None) -> Any:
        if node.name in self.gone:
            raise LostNodeError(f"{node.name} does not answer")
        return HEALTHY, Counters(self.sent[node.name], 0, self.written_kib, 0, 0)

    def count(self) -> int:
        self.exposure.end()
        return cast(int, self.noted["exposed_blocks"])


def test_exposure_resync_between_pause_and_resume_does_not_count() -> None:
    made = Counting()
    made.sent["nodea"] = 9000
    made.exposure.begin()
    made.sent["nodea"] += 400
    made.exposure.pause(drops=1)
    made.drops = 1
    # The new connection counts anew: 80 MB of resync.
    made.sent["nodea"], made.written_kib = 80_000, 7000
    made.exposure.resume()
    made.sent["nodea"] += 40
    made.sent["nodeb"] += 4
    assert made.count() == 111


def test_exposure_connection_lost_unannounced_counts_what_a_wrote() -> None:
    made = Counting()
    made.exposure.begin()
    made.sent["nodea"], made.drops, made.written_kib = 8, 1, 400
    assert made.count() == 100, "what was sent over the first connection is forgotten"


def test_exposure_paused_and_never_resumed_counts_until_the_pause() -> None:
    made = Counting(replace(CELL, crash=Crash.NODE))
    made.exposure.begin()
    made.sent["nodea"] = 400
    made.exposure.pause(drops=1)
    made.gone = {"nodea"}
    made.sent["nodeb"] = 80_000
    assert made.count() == 100


def test_exposure_only_the_first_end_counts() -> None:
    made = Counting()
    made.exposure.begin()
    made.sent["nodea"] = 400
    assert made.count() == 100
    made.sent["nodea"] = 80_000
    made.exposure.resume()
    assert made.count() == 100


def test_exposure_work_never_begun_notes_nothing() -> None:
    made = Counting()
    made.exposure.end()
    assert made.noted == {}

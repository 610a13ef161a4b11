"""The delays of both nodes, read in every cell: what somebody left, what cannot be read, what cannot be removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_drbd import NARROW
from fake_guest import Traveller
from fake_lab import FakeNode
from fake_stage import Stage

from harness.engine import cell_steps
from harness.engine.disturbances import canary_steps
from harness.errors import CommandError, InfrastructureError, LostNodeError
from harness.judgement.doubts import doubts
from harness.judgement.judge import judge
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    DelayProfile,
    DelayReading,
    FilesystemKind,
    Observed,
    VerdictKind,
)

NATURAL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
DELAYED = replace(NATURAL, delays=DelayProfile(20, 5))
NONE = DelayProfile()


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    numbers = itertools.count(1)
    return lambda cell, guest=None: Stage.of(tmp_path / f"runs{next(numbers)}", cell, guest)


def unreadable(stage: Stage, name: str) -> None:
    """The delays of the node called ``name`` cannot be read any more."""
    read = stage.resource.delays

    def delays(node: FakeNode | None = None) -> tuple[int, int]:
        if node is not None and node.name == name:
            raise InfrastructureError(f"the delay of repl0 on {name} cannot be read back: tc printed no JSON")
        return read(node)

    stage.resource.delays = delays  # type: ignore[method-assign]


@pytest.mark.parametrize("cell", [NATURAL, Cell("inflight-modify", client=ClientKind.HOST)])
def test_natural_cell_with_delay_left_on_node_b_inconclusive_and_delay_removed(
    staged: Callable[..., Stage], cell: Cell
) -> None:
    stage = staged(cell)
    stage.resource.delayed["nodeb"] = DelayProfile(20, 0)
    found = stage.play()
    verdict = judge(found)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == "a delay of 20 ms was left on nodeb's link (read before the work went on)"
    assert stage.resource.delayed == NARROW and "apply_delays 0/0 on nodeb" in stage.steps
    assert (found.observed.link_delay_ms, found.observed.disk_delay_ms) == (0, 0), "those of the node that wrote"


def test_natural_cell_with_delay_that_came_during_the_work_inconclusive(staged: Callable[..., Stage]) -> None:
    stage = staged(NATURAL)
    stage.lab.story.when["work 10"] = lambda: stage.resource.delayed.update(nodea=DelayProfile(0, 7))
    verdict = judge(stage.play())
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == "a delay of 7 ms was left on nodea's disk (read after the work)"


def test_natural_cell_undelayed_reads_both_nodes_twice_and_clears_nothing(staged: Callable[..., Stage]) -> None:
    stage = staged(NATURAL)
    found = stage.play()
    nodes = {"nodea": NONE, "nodeb": NONE}
    assert found.observed.delays == (
        DelayReading("before the work went on", None, nodes),
        DelayReading("after the work", None, nodes),
    )
    assert not any(step.startswith("apply_delays") for step in stage.steps)
    assert found == stage.kept(), "it is stored and read again"


def test_delays_of_a_node_that_cannot_be_read_are_unknown_and_inconclusive(staged: Callable[..., Stage]) -> None:
    stage = staged(NATURAL)
    unreadable(stage, "nodea")
    found = stage.play()
    assert found.observed.link_delay_ms is None and found.observed.disk_delay_ms is None, "unknown is not 0"
    assert [one.nodes["nodea"] for one in found.observed.delays] == [None, None, None]
    verdict = judge(found)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == "the delays of nodea could not be read back before the work went on"
    assert "apply_delays 0/0" in stage.steps, "what may be on is taken off"


def test_delayed_cell_has_them_on_the_writer_and_none_on_the_other(staged: Callable[..., Stage]) -> None:
    stage = staged(DELAYED)
    found = stage.play()
    nodes = {"nodea": DelayProfile(20, 5), "nodeb": NONE}
    assert found.observed.delays == (
        DelayReading("before the work went on", "nodea", nodes),
        DelayReading("after the work", "nodea", nodes),
        DelayReading("after they were cleared", None, {"nodea": NONE}, over=True),
    )
    assert "delay" not in judge(found).sentence


def test_delayed_cell_whose_delay_vanished_inconclusive(staged: Callable[..., Stage]) -> None:
    stage = staged(DELAYED)
    stage.lab.story.when["work 10"] = lambda: stage.resource.delayed.update(nodea=DelayProfile(0, 5))
    sentence = "the delay of nodea's link was 0 ms, 20 ms were requested (read after the work)"
    assert judge(stage.play()).sentence == sentence


def test_delayed_cell_on_both_nodes_inconclusive(staged: Callable[..., Stage]) -> None:
    stage = staged(DELAYED)
    stage.resource.delayed["nodeb"] = DelayProfile(20, 5)
    assert judge(stage.play()).sentence == "a delay of 20 ms was left on nodeb's link (read before the work went on)"


def test_delayed_guest_that_moves_is_read_on_its_new_node(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_guest import FakeWatch

    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)
    stage = staged(replace(DELAYED, migrations=1), Traveller)
    set_ = [one for one in stage.play().observed.delays if one.when == "before the work went on"]
    assert [one.delayed for one in set_] == ["nodea", "nodeb"]
    assert set_[1].nodes == {"nodea": NONE, "nodeb": DelayProfile(20, 5)}


def test_delay_that_cannot_be_removed_is_unknown_at_the_end(staged: Callable[..., Stage]) -> None:
    stage = staged(DELAYED)
    stage.lab.story.broken["apply_delays 0/0"] = CommandError("nodea", ["tc"], 2, "", "tc: busy")
    found = stage.play()
    left = [one for one in found.observed.delays if one.over]
    assert left and all(one.nodes["nodea"] is None for one in left), "not recorded as 0"
    assert any(event.startswith("a delay may be left: ") for event in found.event_log)
    assert "the delays of nodea could not be read back after they were cleared" in doubts(found)


def test_rescue_after_a_failure_reads_what_is_left(staged: Callable[..., Stage]) -> None:
    stage = staged(DELAYED)
    stage.lab.story.broken["work 10"] = LostNodeError("nodea does not answer")
    found = stage.play()
    (left,) = [one for one in found.observed.delays if one.over]
    assert left.nodes == {"nodea": NONE, "nodeb": NONE} and stage.resource.delayed == NARROW


def test_next_cell_finds_what_the_cell_before_could_not_remove(staged: Callable[..., Stage]) -> None:
    stage = staged(DELAYED)
    stage.lab.story.broken["apply_delays 0/0"] = CommandError("nodea", ["tc"], 2, "", "tc: busy")
    stage.play()
    following = staged(NATURAL)
    following.resource.delayed = dict(stage.resource.delayed)
    assert (
        judge(following.play()).sentence == "a delay of 20 ms was left on nodea's link (read before the work went on)"
    )

"""A run in progress: a lost lab is rebuilt once between two answers, and what never comes up ends the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from session_stage import CONTROLS, OTHER, SWAP, Stage, failing, loses_its_peer_once, stage, verdict

from harness.engine import lab_keeper
from harness.engine import session as module
from harness.engine.cell_steps import CellRun
from harness.errors import DeadlineError, HarnessError, InfrastructureError, LostNodeError
from harness.guest.domain import Guest
from harness.model import (
    Cell,
    Control,
    Evidence,
    LabProvenance,
    NodeLock,
    Sabotage,
    Software,
    Stack,
    StackLock,
    VerdictKind,
)
from harness.store import keep_lock, read_lock

__all__ = ["stage"]


def dies(stage: Stage, *which: Cell) -> None:
    """Each attempt at ``which`` takes a node with it."""

    def find(cell: Cell, turn: int) -> dict[str, Any]:
        if cell not in which:
            return {}
        cast(Any, stage.labs[-1].a).alive = False
        return failing()

    stage.finds = find


def test_rebuild_lost_node_plays_controls_on_the_new_lab(stage: Stage) -> None:
    loses_its_peer_once(stage)
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN, "played once more, on what replaced the lost node"
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.played == [*CONTROLS, SWAP.id, *CONTROLS, SWAP.id, OTHER.id, *CONTROLS]
    assert stage.closed == ["lab1", "lab2"] and not stage.guests[0].living
    assert stage.store.run().notes == ("the lab was rebuilt: nodeb does not answer",)
    assert len(stage.store.every_attempt()) == 18, "both attempts are kept"


def test_rebuild_lost_again_gives_up_and_answers_the_rest(stage: Stage) -> None:
    dies(stage, SWAP)
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.INCONCLUSIVE
        with pytest.raises(InfrastructureError, match="the run gave up on its lab: nodea does not answer"):
            session.play(OTHER)
        with pytest.raises(InfrastructureError, match="the run gave up on its lab"):
            assert session.lab
    assert len(stage.labs) == 2 and stage.closed == ["lab1", "lab2"]
    assert stage.played.count(SWAP.id) == 2 and OTHER.id not in stage.played
    assert any(line.startswith("giving the lab up") for line in stage.reported)


def test_rebuild_after_something_injected_that_could_not_be_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage.play

    def leaves_something(run: CellRun, workload: object, guest: Callable[[], Guest]) -> Evidence:
        if run.cell == SWAP:
            run.unreverted = "what the cell injected could not be ended: no such device"
        return played(run, workload, guest)

    monkeypatch.setattr(module, "play", leaves_something)
    with stage.session as session:
        session.play(SWAP)
        session.play(OTHER)
    assert stage.closed == ["lab1", "lab2"], "the next cell does not stand on it"
    assert stage.played == [*CONTROLS, SWAP.id, *CONTROLS, OTHER.id, *CONTROLS]


def test_play_sabotaged_cell_that_lost_its_node_is_not_played_again(stage: Stage) -> None:
    stopped = replace(SWAP, sabotage=Sabotage.STOPPED_NODE)

    def lost(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != stopped:
            return {}
        cast(Any, stage.labs[-1].b).alive = False
        return failing()

    stage.finds = lost
    with stage.session as session:
        assert verdict(session.play(stopped)) is VerdictKind.INCONCLUSIVE
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.played == [*CONTROLS, stopped.id, *CONTROLS, OTHER.id, *CONTROLS] and stage.closed == ["lab1", "lab2"]


def test_rebuild_answer_in_between_allows_another(stage: Stage) -> None:
    def now_and_then(cell: Cell, turn: int) -> dict[str, Any]:
        if cell.control is not None or turn > 1:
            return {}
        cast(Any, stage.labs[-1].a).alive = False
        return failing()

    stage.finds = now_and_then
    with stage.session as session:
        for cell in (SWAP, OTHER):
            assert verdict(session.play(cell)) is VerdictKind.CLEAN
    assert len(stage.labs) == 3 and len(stage.store.run().notes) == 2


def test_rebuild_lost_in_controls_plays_all_controls_again(stage: Stage) -> None:
    def once(cell: Cell, turn: int) -> dict[str, Any]:
        if cell.control is not Control.IDLE or turn > 1:
            return {}
        cast(Any, stage.labs[-1].a).alive = False
        return failing()

    stage.finds = once
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN
    assert len(stage.labs) == 2
    second = [one.cell.id for one in stage.store.every_attempt() if one.lab == "lab2"]
    assert sorted(second) == sorted([*CONTROLS, SWAP.id, *CONTROLS]), "what another lab proved does not count"


def test_lab_never_up_is_not_tried_for_every_cell(stage: Stage) -> None:
    tries: list[int] = []

    def refuse() -> None:
        tries.append(1)
        raise InfrastructureError("node a did not boot")

    stage.before_lab = refuse
    with stage.session as session:
        for cell in (SWAP, OTHER):
            with pytest.raises(HarnessError, match="node a did not boot"):
                session.play(cell)
    assert len(tries) == 1


def test_resource_never_up_costs_one_rebuild(stage: Stage) -> None:
    tries: list[int] = []

    def refuse() -> None:
        tries.append(1)
        raise DeadlineError("the first connection of the resource did not happen within 60 s")

    stage.before_up = refuse
    with stage.session as session:
        for _ in range(5):
            with pytest.raises(HarnessError):
                session.play(SWAP)
    assert len(tries) <= 1 + lab_keeper.REBUILDS, "once the lab was rebuilt and failed again the run stops"


def test_resource_of_two_nodes_that_cannot_speak_to_each_other_ends_the_run_in_the_words_of_the_kernel(
    stage: Stage,
) -> None:
    said = "drbd r0: incompatible DRBD dialects: I support 86-101, peer supports 118-124"

    def refuse() -> None:
        stage.labs[-1].b.log.text += f"3,9,9000,-;{said}\n"
        raise DeadlineError("the first connection of the resource did not happen within 60 s")

    stage.before_up = refuse
    with stage.session as session:
        for cell in (SWAP, OTHER):
            with pytest.raises(HarnessError) as caught:
                session.play(cell)
            assert f"the two nodes cannot speak to each other: the kernel of nodeb: {said}" in str(caught.value)
    assert len(stage.labs) == 1, "another lab would be no better"


def test_lab_of_other_versions_than_the_run_began_with_ends_the_run_and_leaves_what_was_recorded(stage: Stage) -> None:
    def began(kernel: str) -> StackLock:
        return StackLock("trixie", NodeLock("nodea", runs=Software(kernel=kernel)), NodeLock("nodeb"))

    keep_lock(stage.store, began("6.12.107"), LabProvenance())
    stage.lock = began("6.12.118")
    with stage.session as session:
        for cell in (SWAP, OTHER):
            with pytest.raises(HarnessError, match=r"with Linux 6\.12\.107 on nodea, where Linux 6\.12\.118 runs now"):
                session.play(cell)
    assert len(stage.labs) == 1 and stage.closed == ["lab1"] and stage.played == []
    assert stage.store.run().stack == Stack() and read_lock(stage.store) == began("6.12.107")


def test_resource_up_at_second_try_has_its_controls(stage: Stage) -> None:
    tries: list[int] = []

    def refuse_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise DeadlineError("the first connection of the resource did not happen within 60 s")

    stage.before_up = refuse_once
    with stage.session as session:
        result = session.play(SWAP)
    assert verdict(result) is VerdictKind.CLEAN and stage.played == [*CONTROLS, SWAP.id, *CONTROLS]


@pytest.mark.parametrize("error", [LostNodeError, DeadlineError])
def test_lab_node_lost_at_boot_is_tried_once_more(stage: Stage, error: type[HarnessError]) -> None:
    tries: list[int] = []

    def refuse_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise error("node a ended while it was booting")

    stage.before_lab = refuse_once
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN
    assert len(tries) == 2
    assert "the lab was rebuilt: node a ended while it was booting" in stage.store.run().notes


def test_lab_node_never_boots_ends_the_run(stage: Stage) -> None:
    tries: list[int] = []

    def refuse() -> None:
        tries.append(1)
        raise LostNodeError("node a ended while it was booting")

    stage.before_lab = refuse
    with stage.session as session:
        for cell in (SWAP, OTHER):
            with pytest.raises(HarnessError, match="ended while it was booting"):
                session.play(cell)
    assert len(tries) == 1 + lab_keeper.REBUILDS

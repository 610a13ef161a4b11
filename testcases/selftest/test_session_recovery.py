"""A run in progress: after a failure the lab that is there is looked at, and what is broken of it is set up again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from judged_evidence import oracles
from session_stage import OTHER, SWAP, Stage, failing, stage, verdict

from harness.errors import InfrastructureError
from harness.model import Cell, NodeLock, Repair, Software, StackLock, VerdictKind

__all__ = ["stage"]


def test_recover_healthy_lab_keeps_it(stage: Stage) -> None:
    stage.finds = lambda cell, turn: failing("deadline") if cell == SWAP else {}
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.INCONCLUSIVE
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert len(stage.labs) == 1 and stage.resources[0].ups == [True]


def test_recover_libvirt_that_hangs_on_a_node_rebuilds_the_lab(stage: Stage) -> None:
    def hangs(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP or turn > 1:
            return {}
        cast(Any, stage.labs[-1].b).libvirt_lost = True
        return failing("deadline")

    stage.finds = hangs
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.INCONCLUSIVE
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.closed == ["lab1", "lab2"]
    assert stage.store.run().notes == ("the lab was rebuilt: no libvirt on nodeb: it hangs",)


@pytest.mark.parametrize("comes_back", [True, False])
def test_recover_connection_lost_connects_again_before_it_rebuilds(stage: Stage, comes_back: bool) -> None:
    def lost(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP or turn > 1:
            return {}
        node = cast(Any, stage.labs[-1].b)
        node.alive, node.connection_lost = False, comes_back
        return failing("lost-node")

    stage.finds = lost
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN, "played once more, in either case"
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.played.count(SWAP.id) == 2
    assert len(stage.labs) == (1 if comes_back else 2)
    assert any(line.startswith("connected to nodeb anew") for line in stage.reported) is comes_back


def test_recover_unhealthy_resource_sets_it_up_again(stage: Stage) -> None:
    def ill(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP:
            return {}
        stage.resources[0].state = replace(stage.resources[0].state, connection="StandAlone")
        return failing("deadline")

    stage.finds = ill
    with stage.session as session:
        session.play(SWAP)
        assert stage.resources[0].ups == [True, False], "nobody knows what is on the disks"
        assert not stage.guests[0].living, "it may hold the device"
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert (len(stage.labs), len(stage.guests)) == (1, 2)


def test_recover_listens_again_where_a_stream_has_ended(stage: Stage) -> None:
    def deaf(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP:
            return {}
        resource = stage.resources[0]
        resource.events(resource.a).stream.end("the command ended")
        cast(Any, stage.labs[-1].b).log_ended = True
        return failing("command")

    stage.finds = deaf
    with stage.session as session:
        session.play(SWAP)
        resource = stage.resources[0]
        assert resource.events(resource.a).stream.ended is None and not cast(Any, stage.labs[-1].b).log_ended
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert len(stage.labs) == 1
    assert "the events of nodea had ended, and are followed anew" in stage.reported
    assert "the kernel log of nodeb had ended, and is read anew" in stage.reported


def test_recover_node_that_booted_with_another_kernel_ends_the_run(stage: Stage) -> None:
    def booted(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP:
            return {}
        lab = cast(Any, stage.labs[-1])
        lab.lock = StackLock(a=NodeLock(lab.a.name, runs=Software(kernel="6.12.118")))
        lab.a.answers["uname -r"] = (0, "kernel=7.1.2\n", "")
        return failing("infrastructure")

    stage.finds = booted
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.INCONCLUSIVE
        with pytest.raises(
            InfrastructureError, match=r"not played: nodea has booted and runs Linux 7\.1\.2, where it ran"
        ):
            session.play(OTHER)
    assert len(stage.labs) == 1, "another lab would be no better"


def test_recover_starts_a_libvirtd_anew_that_was_stopped(stage: Stage) -> None:
    def stopped(cell: Cell, turn: int) -> dict[str, Any]:
        if cell == SWAP:
            node = cast(Any, stage.labs[-1].a)
            node.libvirt_lost = node.libvirt_starts = True
        return failing("lost-guest") if cell == SWAP else {}

    stage.finds = stopped
    with stage.session as session:
        session.play(SWAP)
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
        assert len(stage.labs) == 1 and "libvirtd restarted on nodea" in stage.labs[0].story.steps
    assert "libvirtd on nodea is started anew: no libvirt on nodea: it hangs" in stage.reported


def test_recover_on_a_machine_of_somebodys_starts_no_libvirtd_and_reads_no_others_log(stage: Stage) -> None:
    def stopped(cell: Cell, turn: int) -> dict[str, Any]:
        lost = cell == SWAP and turn == 1
        if lost:
            node = cast(Any, stage.labs[-1].a)
            node.somebodys = node.libvirt_lost = node.libvirt_starts = True
            node.answers = {'/var/log/libvirt/qemu/$1.log" sh drbd-harness-guest': (0, "ours\n", "")}
        return failing("lost-guest") if lost else {}

    stage.finds = stopped
    with stage.session as session:
        session.play(SWAP)
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert "libvirtd restarted on nodea" not in stage.labs[0].story.steps and len(stage.labs) == 2
    (kept,) = (stage.store.directory / "lab" / "lab1").glob("libvirt-nodea.log")
    assert kept.read_text() == "ours\n"


def test_recover_failed_repair_sets_the_resource_up_again(stage: Stage) -> None:
    def stuck(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP:
            return {}
        stage.resources[0].oos_kib = 4
        return {**oracles({5}, {5}), "repair": Repair("by hand", 1.0, 1)}

    stage.finds = stuck
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.DIVERGED
    assert stage.resources[0].ups == [True, False]

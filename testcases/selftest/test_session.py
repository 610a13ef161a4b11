"""A run in progress: what is brought up once and when, its controls first and once, a guest that is replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_guest import FakeGuest
from session_stage import CONTROLS, OTHER, SWAP, Stage, loses_its_peer_once, stage, verdict

from harness.config.controls import with_controls
from harness.config.lab_spec import UserImageSpec
from harness.drbd.resource import Resource
from harness.errors import HarnessError, InfrastructureError, LostNodeError
from harness.guest.domain import Guest
from harness.model import Control, NodeLock, StackLock, VerdictKind
from harness.store import read_lock

__all__ = ["stage"]


RECORDINGS = Path(__file__).parent / "recordings"


# --------------------------------------------------------------------------- brought up once, when needed


def test_session_unused_brings_nothing_up(stage: Stage) -> None:
    with stage.session:
        pass
    assert stage.labs == [] and stage.reported == []
    assert stage.store.run().finished_at


def test_session_many_cells_share_lab_resource_and_guest(stage: Stage) -> None:
    with stage.session as session:
        assert [verdict(session.play(cell)) for cell in (SWAP, OTHER)] == [VerdictKind.CLEAN] * 2
        assert stage.closed == []
    assert (len(stage.labs), len(stage.resources), len(stage.guests)) == (1, 1, 1)
    assert stage.resources[0].ups == [True], "the disks are new, so the first sync is skipped"
    assert stage.closed == ["lab1"] and not stage.guests[0].living


IMAGE = UserImageSpec(name="mine.qcow2", digest="ab" * 32)


def test_session_user_image_cells_in_it_controls_in_the_harness_own(stage: Stage) -> None:
    stage.image = IMAGE
    with stage.session as session:
        assert [verdict(session.play(cell)) for cell in (SWAP, OTHER)] == [VerdictKind.CLEAN] * 2
    images = [guest.image for guest in stage.guests]
    assert images[:2] == [None, IMAGE] and len(images) <= 3, "one for the controls, one for all cells"
    assert not stage.guests[0].living, "a node has the memory for one"
    assert stage.store.run().stack.guest_kernel == "6.6 (Mine), from mine.qcow2, SHA-256 abababababab"


def test_session_user_image_never_boots_ends_the_run_and_waits_once(stage: Stage) -> None:
    stage.image, stage.image_fails = IMAGE, True
    with stage.session as session:
        with pytest.raises(HarnessError, match="no guest came up"):
            session.play(SWAP)
        with pytest.raises(InfrastructureError, match=r"^not played: no guest came up by the guest image"):
            session.play(OTHER)
    assert len(stage.labs) == 1 and all(guest.image is None for guest in stage.guests)
    assert SWAP.id not in stage.played and OTHER.id not in stage.played


@pytest.mark.parametrize(
    ("healthy", "owns_files", "error", "adopted"),
    [
        (True, True, None, True),
        (False, True, None, False),
        (True, False, None, False),
        (True, True, InfrastructureError("r0 is not there"), False),
    ],
)
def test_resource_lab_stays_up_adopts_only_a_healthy_one_of_ours(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    healthy: bool,
    owns_files: bool,
    error: Exception | None,
    adopted: bool,
) -> None:
    running = SimpleNamespace(
        owns_files=owns_files, status=lambda: (SimpleNamespace(healthy=healthy), None), apply_delays=lambda *_: None
    )

    def adopt(a: object, b: object, name: str, *, spec: object) -> object:
        if error is not None:
            raise error
        return running

    monkeypatch.setattr(Resource, "adopt", adopt)
    with stage.session as session:
        cast(Any, session.lab).fresh = False
        assert (session.resource is running) == adopted
    assert bool(stage.resources) != adopted


def test_resource_lab_not_fresh_does_the_initial_sync(stage: Stage) -> None:
    with stage.session as session:
        cast(Any, session.lab).fresh = False
        # There is none to adopt: the nodes of this lab run nothing.
        assert session.resource is not None
    assert stage.resources[0].ups == [False]


def test_run_record_lab_up_has_versions_and_seconds(stage: Stage) -> None:
    with stage.session as session:
        session.play(SWAP)
    run = stage.store.run()
    assert (run.stack.kernel, run.stack.drbd, run.stack.guest_kernel) == ("6.12", "8.4.11", "6.1.0-guest")
    assert set(run.lab_seconds) == {"lab", "resource", "guest"} and run.finished_at


def test_guest_whose_kernel_fails_while_it_boots_is_told_once(stage: Stage) -> None:
    stage.guest_prints = (RECORDINGS / "guest-console/debian-13-avx-without-xsave.txt").read_text()
    with stage.session as session:
        session.play(SWAP)
        stage.guests[-1].living = False
        session.play(OTHER)
    assert len(stage.guests) == 2
    assert stage.store.run().notes == (
        "the guest's kernel reported an error while it booted: Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI, "
        "and 1 more",
    )


def test_run_that_is_resumed_has_no_end_while_it_plays(stage: Stage) -> None:
    stage.store.save_run(replace(stage.store.run(), finished_at="2026-11-23T01:50:03+00:00"))
    with stage.session as session:
        session.play(SWAP)
        assert not stage.store.run().finished_at
    assert stage.store.run().finished_at


def test_session_ctrl_c_takes_everything_down(stage: Stage) -> None:
    with pytest.raises(KeyboardInterrupt), stage.session as session:
        session.play(SWAP)
        raise KeyboardInterrupt
    assert stage.closed == ["lab1"] and stage.store.run().finished_at
    assert (stage.store.directory / "lab" / "lab1" / "console-guest.log").read_text() == "guest said\n"


def test_session_keeps_the_logs_of_each_lab_apart(stage: Stage) -> None:
    loses_its_peer_once(stage)
    with stage.session as session:
        session.play(SWAP)
    kept = stage.store.directory / "lab"
    assert (kept / "lab1" / "libvirt-nodea.log").read_text() == "QEMU on nodea said\n"
    assert {path.name for path in (kept / "lab1").iterdir()} == {"console-guest.log", "libvirt-nodea.log"}
    assert {path.name for path in (kept / "lab2").iterdir()} == {
        "console-guest.log", "libvirt-nodea.log", "libvirt-nodeb.log",
    }  # fmt: skip


def test_session_records_the_lock_and_the_protocol_that_the_nodes_agreed_upon(stage: Stage) -> None:
    stage.lock = StackLock("trixie", NodeLock("nodea"), NodeLock("nodeb"), machine="pc-q35-10.0")
    stage.before_up = lambda: stage.labs[-1].a.log.says(
        "6,9,9000,-;drbd r0: Handshake successful: Agreed network protocol version 101"
    )
    with stage.session as session:
        session.play(SWAP)
    assert read_lock(stage.store) == replace(stage.lock, drbd_protocol="101", packages_sha256=_packages(stage))
    assert stage.store.run().stack.drbd_protocol == "101"


def _packages(stage: Stage) -> str:
    return stage.store.run().provenance.packages_digest


# --------------------------------------------------------------------------- controls


def test_controls_first_cell_are_played_once_before_it(stage: Stage) -> None:
    with stage.session as session:
        session.play(SWAP)
        session.play(OTHER)
        assert stage.played == [*CONTROLS, SWAP.id, OTHER.id]


def test_controls_cells_of_the_run_are_not_played_again(stage: Stage) -> None:
    with stage.session as session:
        results = [session.play(cell) for cell in with_controls((SWAP, OTHER))]
        assert stage.played == [*CONTROLS, SWAP.id, OTHER.id]
    kinds = ("DIVERGED", "CLEAN", "CLEAN", "DIVERGED", "DIVERGED", "CLEAN", "CLEAN")
    assert [verdict(one) for one in results] == [VerdictKind(name) for name in kinds]


def test_control_played_already_is_not_played_for_its_item(stage: Stage) -> None:
    planted = next(cell for cell in with_controls(()) if cell.control is Control.PLANTED)
    with stage.session as session:
        session.play(SWAP)
        result = session.play(planted)
        assert verdict(result) is VerdictKind.DIVERGED and result.evidence is not None
        assert stage.played.count(planted.id) == 1


def test_judged_cell_verdict_is_kept_and_reported(stage: Stage) -> None:
    with stage.session as session:
        result = session.play(SWAP)
    assert stage.store.verdict(SWAP.id) == result.verdict and stage.store.evidence(SWAP.id) == result.evidence
    assert any(line.startswith("none-swap-pressure: CLEAN: ") for line in stage.reported)


# --------------------------------------------------------------------------- the guest


def test_guest_silent_is_replaced(stage: Stage) -> None:
    with stage.session as session:
        first = session.guest
        assert session.guest is first
        cast(Any, first).living = False
        assert session.guest is not first
    assert len(stage.guests) == 2 and len(stage.labs) == 1
    assert stage.labs[0].story.steps.count("destroy") == 2
    assert "the guest does not answer any more; starting another" in stage.reported


def test_guest_ended_by_a_cell_is_replaced_without_a_warning(stage: Stage) -> None:
    with stage.session as session:
        first = session.guest
        first.destroy()
        assert session.guest is not first
    assert not any("does not answer" in line for line in stage.reported)


def test_guest_start_refused_is_tried_again_for_the_next_cell(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(lab: Any, node: Any, *, harness_own: bool = False) -> FakeGuest:
        raise LostNodeError("no libvirt on nodea")

    with stage.session as session:
        with monkeypatch.context() as patched:
            patched.setattr(Guest, "start", refuse)
            with pytest.raises(LostNodeError):
                assert session.guest
        assert session.guest is cast(Any, stage.guests[0])


def test_guest_that_a_test_left_dirty_is_replaced_before_the_next_cell(stage: Stage) -> None:
    with stage.session as session:
        session.play(SWAP)
        stage.guests[0].agent.answers["/proc/swaps"] = "left on: swap on /dev/vdb\n"
        assert session.guest is cast(Any, stage.guests[0]), "a test that is under way keeps its guest"
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert len(stage.guests) == 2 and len(stage.labs) == 1 and stage.guests[0].ended
    assert stage.store.run().notes == ("the guest was replaced: it has swap on /dev/vdb",)


def test_guest_that_runs_no_program_any_more_is_replaced_before_the_next_cell(stage: Stage) -> None:
    with stage.session as session:
        session.play(SWAP)
        stage.guests[0].agent.dead = 135
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert len(stage.guests) == 2 and stage.guests[0].ended
    assert "the guest was replaced: it does not run a program: " in stage.store.run().notes[0]

"""A run in progress: controls first and once, one rebuild between answers, a guest that is replaced, never silence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import FakeGuest, FakeLab, FakeResource, Story, in_order
from judged_evidence import evidence as judged_evidence
from judged_evidence import observed, oracles

from harness.config.controls import with_controls
from harness.config.lab_spec import GuestSpec, LabSpec, UserImageSpec
from harness.drbd.resource import Resource
from harness.engine import lab_keeper
from harness.engine import session as module
from harness.engine.cell_steps import CellRun
from harness.engine.session import Session
from harness.errors import DeadlineError, GuestImageError, HarnessError, InfrastructureError, LostNodeError, StoreError
from harness.guest.domain import Guest
from harness.guest.user_guest import Ready
from harness.lab.base import Lab
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Control,
    Crash,
    Evidence,
    Failure,
    Fault,
    FilesystemKind,
    LabProvenance,
    NodeLock,
    Repair,
    Result,
    Run,
    Sabotage,
    Software,
    Stack,
    StackLock,
    VerdictKind,
)
from harness.parse.guest_facts import guest_facts
from harness.store import Store, keep_lock, read_lock
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


def test_session_ctrl_c_takes_everything_down(stage: Stage) -> None:
    with pytest.raises(KeyboardInterrupt), stage.session as session:
        session.play(SWAP)
        raise KeyboardInterrupt
    assert stage.closed == ["lab1"] and stage.store.run().finished_at
    assert (stage.store.directory / "lab" / "lab1" / "console-guest.log").read_text() == "guest said\n"


def _loses_its_peer_once(stage: Stage) -> None:
    """Node b is lost in the first play of SWAP."""

    def once(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != SWAP or turn > 1:
            return {}
        cast(Any, stage.labs[-1].b).alive = False
        return failing()

    stage.finds = once


def test_session_keeps_the_logs_of_each_lab_apart(stage: Stage) -> None:
    _loses_its_peer_once(stage)
    with stage.session as session:
        session.play(SWAP)
    kept = stage.store.directory / "lab"
    assert (kept / "lab1" / "libvirt-nodea.log").read_text() == "QEMU on nodea said\n"
    assert {path.name for path in (kept / "lab1").iterdir()} == {"console-guest.log", "libvirt-nodea.log"}
    assert {path.name for path in (kept / "lab2").iterdir()} == {
        "console-guest.log", "libvirt-nodea.log", "libvirt-nodeb.log",
    }  # fmt: skip


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


# --------------------------------------------------------------------------- after a failure


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


def dies(stage: Stage, *which: Cell) -> None:
    """Each attempt at ``which`` takes a node with it."""

    def find(cell: Cell, turn: int) -> dict[str, Any]:
        if cell not in which:
            return {}
        cast(Any, stage.labs[-1].a).alive = False
        return failing()

    stage.finds = find


def test_rebuild_lost_node_plays_controls_on_the_new_lab(stage: Stage) -> None:
    _loses_its_peer_once(stage)
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


# --------------------------------------------------------------------------- once more, or not

MOVED = replace(SWAP, migrations=2)
CRASHED, FAULTY = replace(SWAP, crash=Crash.NODE), replace(MOVED, fault=Fault.TARGET_KILL)


@pytest.mark.parametrize(
    ("cell", "kind", "again"),
    [
        (SWAP, "lost-node", True),
        (SWAP, "lost-guest", True),
        (SWAP, "deadline", False),
        (SWAP, "infrastructure", False),
        (MOVED, "lost-node", True),
        (MOVED, "lost-guest", False),
        (CRASHED, "lost-node", False),
        (CRASHED, "lost-guest", False),
        (FAULTY, "lost-node", False),
        (FAULTY, "lost-guest", False),
        (FAULTY, "deadline", False),
    ],
    ids=lambda value: value.id if isinstance(value, Cell) else str(value),
)
def test_play_lost_cell_is_repeated_only_where_the_loss_is_no_answer(
    stage: Stage, cell: Cell, kind: str, again: bool
) -> None:
    stage.store.save_run(replace(stage.store.run(), cells=(cell,)))
    stage.finds = lambda one, turn: failing(kind) if one == cell and turn == 1 else {}
    with stage.session as session:
        result = session.play(cell)
        assert stage.played.count(cell.id) == 1 + again
        assert len(stage.store.every_attempt()) == len(CONTROLS) + 1 + again, "each attempt is kept"
    failed = result.evidence is not None and result.evidence.failure is not None
    assert failed is not again


def test_play_lost_twice_is_answered(stage: Stage) -> None:
    stage.finds = lambda cell, turn: failing("lost-guest") if cell == SWAP else {}
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.INCONCLUSIVE
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.played.count(SWAP.id) == 2 and len(stage.labs) == 1


def test_play_store_error_is_not_repeated(stage: Stage) -> None:
    def full(cell: Cell, turn: int) -> dict[str, Any]:
        if cell == SWAP:
            raise StoreError("evidence.json cannot be written: No space left on device")
        return {}

    stage.finds = full
    with stage.session as session, pytest.raises(StoreError, match="No space left"):
        session.play(SWAP)
    assert stage.played.count(SWAP.id) == 1


def test_play_repeated_cell_says_why(stage: Stage) -> None:
    def once(cell: Cell, turn: int) -> dict[str, Any]:
        if cell == SWAP and turn == 1:
            raise DeadlineError("the guest did not start within 60 s")
        return {}

    stage.finds = once
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN
    assert in_order(stage.reported, f"{SWAP.id}: the guest did not start within 60 s", f"{SWAP.id}: once more")


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

"""What happens to a guest while it works: migrations, faults in the middle of them, and how it arrives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest
from fakes import HEALTHY, NARROW, FakeWatch, LibvirtSaid, Stage, Traveller, in_order
from judged_evidence import HELD

from harness.drbd import roles
from harness.engine.disturbances import canary_steps, io_error, migrations
from harness.errors import (
    DeadlineError,
    HarnessError,
    InfrastructureError,
    LostGuestError,
    LostNodeError,
    RefusedError,
    StoreError,
)
from harness.guest import migration as migration
from harness.judgement.judge import judge
from harness.model import (
    BlockOwner,
    CacheMode,
    Canary,
    Cell,
    ClientKind,
    DelayProfile,
    Evidence,
    Fault,
    FilesystemKind,
    MigrationOutcome,
    Ownership,
    VerdictKind,
    extents_of,
)
from harness.util.deadline import poll

MOVED = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, migrations=2, seconds=1)
UNDER_WAY: dict[str, object] = {"type": 2, "memory_iteration": 2}
COMPLETED, FAILED, ABORTED = MigrationOutcome.COMPLETED, MigrationOutcome.FAILED, MigrationOutcome.ABORTED


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    def quickly(check: Any, deadline: Any, every: float) -> Any:
        return poll(check, deadline, every=0.001)

    monkeypatch.setattr(roles, "poll", quickly)
    monkeypatch.setattr(io_error, "poll", quickly)
    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)
    # What does not find together here never will.
    monkeypatch.setattr(roles, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(migration, "SAMPLE_SECONDS", 0.005)
    monkeypatch.setattr(migration, "ABORT_SECONDS", 0.5)
    monkeypatch.setattr(migrations, "STORM_PAUSE_SECONDS", 0.005)
    return lambda cell=MOVED: Stage.of(tmp_path, cell, Traveller)


def traveller(stage: Stage) -> Traveller:
    return cast(Traveller, stage.guest)


def outcomes(found: Evidence) -> list[tuple[str, str, str, str]]:
    return [(one.source, one.target, str(one.outcome), one.during) for one in found.migrations]


def rests(stage: Stage) -> bool:
    """Whether the lab is as the next cell wants it: nodea the only Primary, both well, nothing delayed or broken."""
    forbidden = all(node.net.get("allow-two-primaries", "no") == "no" for node in (stage.lab.a, stage.lab.b))
    return stage.resource.state == HEALTHY and stage.resource.delayed == NARROW and forbidden


# --------------------------------------------------------------------------- a guest that moves


def test_migrations_two_steps_are_in_order(staged: Callable[..., Stage]) -> None:
    stage = staged()
    found = stage.play()
    assert found.failure is None and found == stage.kept()
    assert in_order(
        stage.steps,
        "attach", "divide /dev/vdb 249856 12288", "observe", "prepare /dev/vdb1",
        "follow nodea", "follow nodeb", "canary on /dev/vdb2",
        "migrate nodea to nodeb", "moved to nodeb", "drbdadm nodea secondary",
        "migrate nodeb to nodea", "moved to nodea", "drbdadm nodeb secondary",
        "quiesce", "canary stops",
        "read /dev/vdb", "migrate nodea to nodeb", "moved to nodeb", "read /dev/vdb",
        "canary received on /dev/vdb2",
        "detach", "sync nodeb", "console nodea", "console nodeb", "destroy",
        "drbdadm nodeb secondary", "drbdadm nodea primary", "sync", "verify", "canary left",
    ), "\n".join(stage.steps)  # fmt: skip
    assert outcomes(found) == [
        ("nodea", "nodeb", "completed", "work"), ("nodeb", "nodea", "completed", "work"),
        ("nodea", "nodeb", "completed", "readback"),
    ]  # fmt: skip
    assert [one.number for one in found.migrations] == [1, 2, 3]
    assert found.readback and (found.readback.before, found.readback.after) == ("nodea", "nodeb")
    assert found.readback.blocks == found.device_blocks and found.readback.differing == ()
    assert found.canary == replace(FakeWatch.found, survived=True)
    assert stage.raw("canary.txt") == "what it said\n"
    assert found.event_log[0].startswith("migration 1 from nodea to nodeb completed in")
    assert {"work", "readback", "canary", "detach"} <= set(found.phases)
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_migrations_storm_is_told_of_each_move_and_the_disk_is_read_after_it(staged: Callable[..., Stage]) -> None:
    stage = staged()
    held: list[int] = []
    stage.lab.story.when["observe"] = lambda: held.append(stage.guest.agent.holding)
    found = stage.play()
    assert in_order(
        stage.steps, "observe",
        "storm told b", "migrate nodea to nodeb", "storm told e", "observe",
        "storm told b", "migrate nodeb to nodea", "storm told e", "observe",
        "quiesce", "migrate nodea to nodeb", "observe",
    ), "\n".join(stage.steps)  # fmt: skip
    assert stage.steps.count("storm told b") == 2, "nothing storms any more around the read-backs"
    seen = [(one.migration, one.node, one.observed is not None) for one in found.observed_after_moves]
    assert seen == [(1, "nodeb", True), (2, "nodea", True), (3, "nodeb", True)]
    assert held == [0, 1, 1, 1], "the work speaks over the same connection"
    assert found.work is not None and found.work.took_seconds is not None
    assert found.migrations[0].began < found.work.took_seconds


def test_migrations_storm_that_fills_its_memory_for_all_of_its_seconds_is_waited_for(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(replace(MOVED, migrations=1, seconds=1))
    began: list[float] = []
    told: list[bool] = []

    def works() -> None:
        began.append(time.monotonic())
        time.sleep(2.0)

    stage.lab.story.when["work 1"] = works
    stage.guest.agent.storms = lambda: bool(began) and time.monotonic() > began[0] + 1.3
    stage.lab.story.when["storm told b"] = lambda: told.append(stage.guest.agent.storms())
    stage.play()
    assert told == [True], "a move that nobody was there to be told of counts no page"


def test_migrations_storm_is_told_that_its_guest_did_not_move(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=1))
    traveller(stage).here.error = LibvirtSaid("it broke")
    found = stage.play()
    assert in_order(stage.steps, "storm told b", "migrate nodea to nodeb", "storm told x")
    assert "storm told e" not in stage.steps and found.observed_after_moves == ()


def test_migrations_disk_that_cannot_be_read_after_a_move_is_kept_as_unread(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=1))
    stage.lab.story.when["moved to nodeb"] = lambda: stage.lab.story.broken.update(observe=LostGuestError("no answer"))
    found = stage.play()
    (seen, *_) = found.observed_after_moves
    assert (seen.migration, seen.node, seen.observed, seen.message) == (1, "nodeb", None, "no answer")
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "on nodeb, after migration 1, what is in" in verdict.sentence


def test_release_guest_on_nodeb_is_ended(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.play()
    assert not stage.guest.living and not stage.guest.attached


def test_release_guest_on_nodea_lives_on(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=1))
    stage.play()
    assert stage.guest.living and not stage.guest.attached and "destroy" not in stage.steps
    assert stage.guest.node is stage.lab.a and rests(stage)


def test_migrations_work_goes_on_and_its_result_is_kept(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.ends = threading.Event()
    moves: list[int] = []

    def arrived() -> None:
        moves.append(1)
        if len(moves) == 2:
            assert stage.workload.ends is not None
            stage.workload.ends.set()

    stage.lab.story.when = {"moved to nodeb": arrived, "moved to nodea": arrived}
    found = stage.play()
    assert found.failure is None and found.work and found.work.facts == {"pages_swapped_out": 5.0}
    assert in_order(stage.steps, "work 1", "moved to nodea", "quiesce")


def test_migrations_work_error_is_the_cells(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.ended_by = DeadlineError("fio did not end")
    found = stage.play()
    assert found.failure and (found.failure.phase, found.failure.message) == ("work", "fio did not end")
    assert len(found.migrations) == 2 and rests(stage) and not stage.guest.attached


def test_delays_follow_the_guest_and_end_with_the_cell(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=1, delays=DelayProfile(20, 0)))
    on: list[dict[str, DelayProfile]] = []
    stage.lab.story.when["quiesce"] = lambda: on.append(dict(stage.resource.delayed))
    found = stage.play()
    assert on == [{"nodea": DelayProfile(0, 0), "nodeb": DelayProfile(20, 0)}]
    assert found.observed.link_delay_ms == 20 and rests(stage)


def test_undisturbed_cell_has_no_canary(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=0))
    found = stage.play()
    assert found.failure is None and found.canary is None and found.readback is None
    assert not [step for step in stage.steps if "canary" in step or "follow" in step or "divide" in step]
    assert "prepare /dev/vdb" in stage.steps


# --------------------------------------------------------------------------- a guest that does not move


def test_migrations_split_brain_at_promotion_ends_them(staged: Callable[..., Stage]) -> None:
    stage = staged()

    def lose_each_other() -> None:
        del stage.lab.story.when["drbdadm nodea primary"]
        stage.resource.split = True
        stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}

    def arrived() -> None:
        stage.lab.story.when["drbdadm nodea primary"] = lose_each_other

    stage.lab.story.when["moved to nodeb"] = arrived
    found = stage.play()
    assert outcomes(found) == [("nodea", "nodeb", "completed", "work"), ("nodeb", "nodea", "failed", "work")]
    assert found.readback is None and found.alarms is not None and found.alarms.split_brain is not None
    assert not found.alarms.split_brain.confirmed, "no kernel logged one"
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "without a split brain in the kernel log" in verdict.sentence
    assert rests(stage)


@pytest.mark.parametrize(("fault", "seconds"), [(None, 480), (Fault.STALL, 60)])
def test_migrations_take_as_long_as_the_machine_is_slow_but_for_one_that_cannot_end(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, fault: Fault | None, seconds: float
) -> None:
    stage = staged(replace(MOVED, migrations=1, migration_deadline=60, fault=fault))
    asked: list[migration.MigrationRequest] = []

    def never(
        guest: object, resource: object, target: object, request: migration.MigrationRequest, *rest: object
    ) -> None:
        asked.append(request)
        raise LostGuestError("it is only asked how long")

    monkeypatch.setattr(migrations, "migrate", never)
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "8")
    stage.play()
    assert [one.seconds for one in asked] == [seconds]


def test_migrations_refused_is_not_repeated(staged: Callable[..., Stage]) -> None:
    stage = staged()
    words = "Unsafe migration: Migration may lead to data corruption"
    stage.guest.domain.error = LibvirtSaid(words, libvirt.VIR_ERR_MIGRATE_UNSAFE)
    found = stage.play()
    assert outcomes(found) == [("nodea", "nodeb", "refused", "work")]
    assert found.readback is None and found.canary is not None and found.failure is None
    assert stage.guest.living and rests(stage)
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.REFUSED and "Unsafe migration" in verdict.sentence


def test_migrations_refused_by_drbd_is_refused(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.resource.refuses["nodea net-options --allow-two-primaries=yes --ping-timeout=50"] = [
        "two primaries need protocol C"
    ]
    found = stage.play()
    assert outcomes(found) == [("nodea", "nodeb", "refused", "work")] and rests(stage)


def test_migrations_failed_one_is_kept_and_the_next_tried(staged: Callable[..., Stage]) -> None:
    stage = staged()
    domain = stage.guest.domain
    domain.error = LibvirtSaid("Lost connection to destination host")
    stage.lab.story.when["drbdadm nodeb secondary"] = lambda: setattr(domain, "error", None)
    found = stage.play()
    assert [one.outcome for one in found.migrations] == [FAILED, COMPLETED, COMPLETED]
    assert found.failure is None and rests(stage)
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_migrations_guest_lost_is_lost(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.guest.domain.error = LibvirtSaid("qemu unexpectedly closed the monitor")
    stage.lab.story.when["migrate nodea to nodeb"] = lambda: setattr(stage.guest, "living", False)
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-guest"
    assert "migration 1: qemu unexpectedly closed the monitor" in found.failure.message
    assert len(found.migrations) == 1, "how it went is kept"
    assert rests(stage) and found.comparison is not None


def test_migrations_refusal_of_roles_is_no_answer(staged: Callable[..., Stage]) -> None:
    stage = staged()
    words = "State change failed: (-2) Need access to UpToDate data"
    stage.lab.story.when["detach"] = lambda: stage.resource.refuses.update({"nodea primary": [words] * 9})
    assert judge(stage.play(), HELD).kind is VerdictKind.INCONCLUSIVE


# --------------------------------------------------------------------------- faults


def under_way(stage: Stage, ends_with: str, words: str | None = "Lost connection to destination host") -> None:
    """The first migration is on its way until the step ``ends_with``, and then breaks with ``words``."""
    domain = stage.guest.domain
    domain.ends, domain.sample = threading.Event(), dict(UNDER_WAY)
    if words is not None:
        domain.error = LibvirtSaid(words)

    before = stage.lab.story.when.get(ends_with, lambda: None)

    def end() -> None:
        before()
        domain.ends.set()

    def forget() -> None:
        domain.error = domain.ends = None

    stage.lab.story.when[ends_with] = end
    # The next migration of the same domain goes well.
    stage.lab.story.when["drbdadm nodea primary"] = forget


def faulty(fault: Fault) -> Cell:
    return replace(MOVED, fault=fault)


def cuttable(stage: Stage) -> None:
    """Without its link the nodes lose each other, and with it they find together again."""
    silent = {"nodea": "Connecting", "nodeb": "Connecting"}
    well = {"nodea": "Connected", "nodeb": "Connected"}
    stage.lab.story.when["link of nodeb cut"] = lambda: setattr(stage.resource, "links", silent)
    stage.lab.story.when["link of nodeb joined"] = lambda: setattr(stage.resource, "links", well)


def test_fault_link_cut_is_reverted_first(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodeb cut")
    found = stage.play()
    assert found.failure is None, found.failure
    assert {"link of nodea cut", "link of nodea joined"} <= set(stage.steps)
    assert in_order(stage.steps, "migrate nodea to nodeb", "link of nodeb cut", "link of nodeb joined",
                    "drbdadm nodea primary", "migrate nodea to nodeb", "quiesce")  # fmt: skip
    assert [one.outcome for one in found.migrations] == [FAILED, COMPLETED, COMPLETED]
    assert "the replication link was cut in mid-migration" in found.event_log
    assert "the guest is alive on nodea" in found.event_log
    assert found.fault_injected
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_fault_refusal_on_precopy_is_no_answer(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "abort")
    stage.lab.story.broken["link of nodea cut"] = RefusedError("nodea", "tc: no")
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.phase) == ("command", "work")
    assert "abort" in stage.steps and not found.fault_injected, "it was not to go on behind our back"
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_fault_target_kill_brings_the_target_back(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.TARGET_KILL))
    under_way(stage, "kill nodeb")
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(
        stage.steps,
        "migrate nodea to nodeb",
        "kill nodeb",
        "drbdadm nodea net-options --allow-two-primaries=no --ping-timeout=5",
        "revive nodeb",
        "rejoin nodeb",
        "follow nodeb",
        "drbdadm nodeb secondary",
        "drbdadm nodea primary",
        "quiesce",
    )
    assert stage.raw("kmsg-nodeb-before-power-cut.txt") == "6,1,1000,-;quiet\n", "its last words"
    assert [one.outcome for one in found.migrations] == [FAILED, COMPLETED, COMPLETED]
    assert found.fault_injected and "nodeb lost its power in mid-migration" in found.event_log
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_fault_libvirtd_restart_finds_the_guest_again(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LIBVIRTD_RESTART))
    under_way(stage, "libvirtd restarted on nodea", "Cannot recv data: Connection reset by peer")
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(stage.steps, "libvirtd restarted on nodea", "libvirt of nodea answers", "found again", "quiesce")
    assert found.migrations[0].outcome is FAILED and "Connection reset" in found.migrations[0].message
    assert found.fault_injected and "libvirtd on nodea was restarted in mid-migration" in found.event_log
    assert rests(stage)


def test_fault_stall_migration_is_aborted(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(faulty(Fault.STALL), migration_deadline=0, migrations=1))
    under_way(stage, "never", None)
    found = stage.play()
    assert found.failure is None, found.failure
    first = traveller(stage).here.asked[0][1]
    assert first[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == migrations.STALL_MIB, "so little that it cannot end"
    assert stage.steps.count("abort") == 1 and found.migrations[0].outcome is ABORTED
    assert found.fault_injected and "the migration had 1 MiB/s and could not end" in found.event_log
    assert libvirt.VIR_MIGRATE_PARAM_BANDWIDTH not in traveller(stage).here.asked[1][1], (
        "only the first one has the fault"
    )
    assert rests(stage)


@pytest.mark.parametrize("fault", [Fault.LINK_CUT, Fault.TARGET_KILL, Fault.STALL])
def test_fault_not_injected_is_inconclusive(staged: Callable[..., Stage], fault: Fault) -> None:
    stage = staged(faulty(fault))
    found = stage.play()
    assert found.migrations[0].outcome is COMPLETED and not found.fault_injected
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and f"the fault '{fault}' was not injected" in verdict.sentence


def test_fault_split_brain_discards_the_other_nodes_changes(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(faulty(Fault.LINK_CUT), migrations=1))
    cuttable(stage)
    under_way(stage, "link of nodeb cut", None)

    def apart() -> None:
        stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}

    stage.lab.story.when["link of nodeb joined"] = apart
    found = stage.play()
    assert found.migrations[0].outcome is COMPLETED, "it was over the moment the link was cut"
    assert "drbdadm nodeb connect --discard-my-data" not in stage.steps
    assert "drbdadm nodea connect --discard-my-data" in stage.steps
    assert any(
        one.startswith("after the fault: a node is StandAlone, without a split brain in the kernel log (")
        and one.endswith("the changes of nodea were discarded") for one in found.event_log
    )  # fmt: skip
    assert found.alarms and found.alarms.split_brain and found.alarms.split_brain.victim == "nodea"


# --------------------------------------------------------------------------- mended, whatever comes

CUT = ("link of nodea joined", "link of nodeb joined")


@pytest.mark.parametrize("error", [LostNodeError("gone"), InfrastructureError("tc: no such device")])
def test_fault_link_cut_failing_is_reverted(staged: Callable[..., Stage], error: HarnessError) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodea cut")
    stage.lab.story.broken["link of nodeb cut"] = error
    found = stage.play()
    assert found.failure and found.failure.message == str(error)
    assert set(CUT) <= set(stage.steps) and not stage.guest.attached


def test_fault_guest_dies_leaves_the_lab_whole(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodea cut")

    def strike() -> None:
        stage.guest.living = False
        stage.guest.domain.ends.set()

    stage.lab.story.when["link of nodea cut"] = strike
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.message) == (
        "lost-guest", "the guest did not live through the fault 'link-cut'"
    )  # fmt: skip
    assert set(CUT) <= set(stage.steps) and stage.resource.state == HEALTHY
    assert found.comparison is not None, "what it left behind is worth knowing"


@pytest.mark.parametrize(
    ("fault", "fault_injected", "back"),
    [(Fault.LINK_CUT, "link of nodeb cut", "link of nodeb joined"), (Fault.TARGET_KILL, "kill nodeb", "rejoin nodeb")],
)
def test_fault_ctrl_c_or_bug_leaves_nothing_injected(
    staged: Callable[..., Stage], fault: Fault, fault_injected: str, back: str
) -> None:
    stage = staged(faulty(fault))
    cuttable(stage)
    under_way(stage, fault_injected)
    stage.guest.domain.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        stage.play()
    assert in_order(stage.steps, fault_injected, back) and not stage.guest.attached
    failure = stage.kept().failure
    assert failure and failure.kind == "interrupted"


def test_revert_faults_newest_first_and_once(staged: Callable[..., Stage]) -> None:
    run = staged().run
    undone: list[int] = []
    for number in (1, 2):
        run.register_fault_cleanup(lambda number=number: undone.append(number))  # type: ignore[misc]
    run.revert_faults()
    run.revert_faults()
    run.rescue()
    assert undone == [2, 1]


def test_rescue_node_gone_clears_the_others_delays(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, delays=DelayProfile(20, 5)))
    stage.resource.delayed["nodeb"] = (20, 5)
    stage.lab.power_off(stage.lab.a)
    stage.run.rescue()
    assert stage.resource.delayed["nodeb"] == DelayProfile()


def test_fault_target_kill_failing_is_reverted(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.TARGET_KILL))
    under_way(stage, "kill nodeb")
    stage.lab.story.broken["kill nodeb"] = InfrastructureError("the power switch does not answer")
    found = stage.play()
    assert found.failure and "the power switch" in found.failure.message
    assert in_order(stage.steps, "kill nodeb", "revive nodeb", "rejoin nodeb"), "it may be without power all the same"


# --------------------------------------------------------------------------- disks that fail

BROKEN = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, fault=Fault.IO_ERROR, seconds=0)


def test_io_error_pauses_the_guest_until_the_disks_are_back(staged: Callable[..., Stage]) -> None:
    stage = staged(BROKEN)
    stage.guest.pauses = [None, None, "I/O error"]
    stage.workload.ends = threading.Event()
    held: list[bool] = []

    def resumed() -> None:
        held.append(stage.guest.agent.holding > 0)
        assert stage.workload.ends is not None
        stage.workload.ends.set()

    stage.lab.story.when["resume"] = resumed
    stage.lab.story.when["break the disk of nodea"] = lambda: held.append(stage.guest.agent.holding > 0)
    found = stage.play()
    assert found.failure is None, found.failure
    assert {"break the disk of nodea", "break the disk of nodeb"} <= set(stage.steps)
    assert in_order(
        stage.steps,
        "break the disk of nodea",
        "apply_delays 0/0",
        "drbdadm nodea attach",
        "drbdadm nodeb attach",
        "drbdadm nodea primary",
        "resume",
        "quiesce",
    )
    assert held == [True, True], "nothing is asked of a guest that cannot answer"
    assert found.fault_injected
    assert any("the guest was paused: I/O error; DRBD reported nodea" in one and "Diskless" in one
               for one in found.event_log)  # fmt: skip
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_io_error_guest_never_paused_is_no_answer(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_error, "PAUSE_SECONDS", 0.05)
    stage = staged(BROKEN)
    stage.guest.pauses = [None]
    stage.workload.ends = threading.Event()
    found = stage.play()
    stage.workload.ends.set()
    assert found.failure and found.failure.kind == "deadline" and "pause by an I/O error" in found.failure.message
    assert in_order(stage.steps, "break the disk of nodea", "drbdadm nodea attach") and rests(stage)
    assert stage.guest.agent.holding == 0 and not stage.guest.attached


def test_standalone_fault_returns_to_baseline_before_any_write(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(BROKEN, fault=Fault.STANDALONE))
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(
        stage.steps,
        "mark nodea: none-swap-pressure-fault.standalone begins",
        "drbdadm nodea disconnect",
        "drbdadm nodeb disconnect",
        "drbdadm nodeb connect --discard-my-data",
        "compare",
        "attach",
    )
    assert found.fault_injected and found.event_log[0] == "both nodes were made StandAlone before the cell"
    assert found.event_log[1].startswith("found StandAlone Primary UpToDate, StandAlone Secondary UpToDate")
    assert found.before == HEALTHY and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


# --------------------------------------------------------------------------- how it arrives


def test_canary_dead_is_collected_all_the_same(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["canary stops"] = LostGuestError("the canary in guest is not running any more: no such pid")
    found = stage.play()
    assert found.failure is None and found.canary and not found.canary.survived
    assert any("the canary in guest is not running any more" in one for one in found.event_log)
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_canary_dead_with_its_guest_is_lost_guest(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["canary stops"] = LostGuestError("the agent of guest did not do guest-exec")
    stage.lab.story.when["canary stops"] = lambda: setattr(stage.guest, "living", False)
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-guest"
    assert found.canary is None and stage.raw("canary.txt") == "what it said\n", "what was heard is kept"


def test_canary_lost_records_are_corrupt(staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWatch, "found", Canary({"fsync": 9}, {"fsync": 2}))
    assert judge(staged().play(), HELD).kind is VerdictKind.CORRUPT


def reads_otherwise_on_nodeb(stage: Stage, *blocks: int) -> None:
    """The guest reads ``blocks`` as something else when it is on nodeb."""
    agent, plain = stage.guest.agent, stage.guest.agent.digest
    agent.digest = lambda block: "f" * 16 if block in blocks and stage.guest.node is stage.lab.b else plain(block)


def test_readback_differing_is_noted_with_owners(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5, 6}
    reads_otherwise_on_nodeb(stage, 5, 6)
    found = stage.play()
    assert found.readback and found.readback.differing == extents_of({5, 6})
    assert found.readback.ownership == Ownership(
        free=2,
        method="after swapoff every slot is free",
        names=("free swap slot",),
        extents={BlockOwner.FREE: extents_of({5, 6})},
    )
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.DIVERGED, "dead blocks hurt nobody"
    assert any("reads 2 blocks differently" in why for why in verdict.reasons)


def test_classify_canary_blocks_are_allocated(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5, 32_000}
    reads_otherwise_on_nodeb(stage, 5, 32_000)
    found = stage.play()
    assert [(one.block, one.owner.value) for one in found.samples] == [(5, "free"), (32_000, "allocated")]
    assert (found.ownership.allocated, found.ownership.free) == (1, 1)
    assert judge(found, HELD).kind is VerdictKind.CORRUPT


def test_readback_differing_has_owners_where_replicas_are_equal(staged: Callable[..., Stage]) -> None:
    stage = staged()
    reads_otherwise_on_nodeb(stage, 5)
    found = stage.play()
    assert found.readback and found.readback.ownership.free == 1
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.CORRUPT and "the same in 1 of them" in verdict.sentence


def test_capture_consoles_of_both_nodes_are_one_file(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=1))

    def arrived() -> None:
        stage.lab.b.console += "said on nodeb\n"

    def stays() -> None:
        stage.lab.b.console += "Oops: said later\n"

    stage.lab.story.when |= {"moved to nodeb": arrived, "canary stops": stays}
    found = stage.play()
    assert stage.raw("guest-console.txt") == (
        "== the guest's console on nodea\nguest said\n\n"
        "== the guest's console on nodeb\nsaid on nodeb\nOops: said later\n\n"
    )
    assert found.console_errors == ("Oops: said later",)


def test_capture_console_kept_twice_stands_once(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=0))
    stage.run.begin()
    stage.run.take_guest(lambda: cast(Any, stage.guest))
    stage.run.capture.keep_console()
    stage.lab.a.console += "and then\n"
    for _ in range(2):
        stage.run.capture.keep_console()
    heading = "== the guest's console on nodea\n"
    assert stage.raw("guest-console.txt") == f"{heading}guest said\n\n{heading}and then\n\n"


def test_readback_migration_failed_leaves_none(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.when["canary stops"] = lambda: setattr(
        stage.guest.domain, "error", LibvirtSaid("Lost connection to destination host")
    )
    found = stage.play()
    assert found.readback is None and found.migrations[-1].outcome is FAILED
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_has_canary_host_cell_is_false() -> None:
    assert not Cell("inflight-modify", client=ClientKind.HOST, migrations=2).has_canary
    assert MOVED.has_canary and BROKEN.has_canary and not replace(MOVED, migrations=0).has_canary


def test_migrate_once_moves_there_and_back(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=0))
    run = stage.run
    run.begin()
    run.take_guest(lambda: cast(Any, stage.guest))
    assert migrations.migrate_once(run).target == "nodeb" and migrations.migrate_once(run).target == "nodea"
    assert migrations.migrate_once(run).number == 3
    run.release()
    assert not stage.guest.living and rests(stage)


def test_finish_canary_not_keepable_keeps_the_evidence(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged()

    def full() -> None:
        raise StoreError("canary.txt cannot be written: No space left on device")

    monkeypatch.setattr(stage.run, "keep_canary", full)
    stage.play()
    assert stage.kept().failure and "canary left" in stage.steps

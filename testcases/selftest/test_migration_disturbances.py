"""What happens to a guest while it works: migrations, of a guest that moves and of one that does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import libvirt
import pytest
from fake_guest import FakeWatch
from fake_libvirt import LibvirtSaid
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD
from moving_stage import COMPLETED, FAILED, MOVED, outcomes, rests, staged, traveller

from harness.engine.disturbances import migrations
from harness.errors import DeadlineError, LostGuestError
from harness.guest import migration as migration
from harness.judgement.judge import judge
from harness.model import DelayProfile, Fault, VerdictKind

__all__ = ["staged"]


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


def test_migrate_once_moves_there_and_back(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=0))
    run = stage.run
    run.begin()
    run.take_guest(lambda: cast(Any, stage.guest))
    assert migrations.migrate_once(run).target == "nodeb" and migrations.migrate_once(run).target == "nodea"
    assert migrations.migrate_once(run).number == 3
    run.release()
    assert not stage.guest.living and rests(stage)


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


def test_migrations_storm_has_as_long_as_the_machine_is_slow(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(migrations, "STORM_START_SECONDS", 0.01)
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "100")
    stage = staged(replace(MOVED, migrations=1, seconds=0))
    stage.workload.ends = threading.Event()
    began = time.monotonic()
    told: list[bool] = []
    stage.guest.agent.storms = lambda: time.monotonic() > began + 0.4
    stage.lab.story.when["storm told b"] = lambda: told.append(stage.guest.agent.storms())
    stage.lab.story.when["moved to nodeb"] = stage.workload.ends.set
    stage.play()
    assert told == [True]


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

"""A crash in the middle of the work, and what is there afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import HEALTHY, NARROW, FakeGuest, FakeNode, FakeWatch, Stage, in_order
from test_judge import HELD

from harness.drbd import roles
from harness.engine.disturbances import canary_steps, crash
from harness.errors import DeadlineError, HarnessError, LostGuestError, LostNodeError, RefusedError
from harness.guest.domain import Guest
from harness.judgement.judge import judge
from harness.model import (
    CacheMode,
    Canary,
    Cell,
    Crash,
    DelayProfile,
    FilesystemKind,
    ReplicationProfile,
    Sabotage,
    VerdictKind,
)
from harness.util.deadline import poll
from harness.workloads.base import CheckResult, Recovered

NODE = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, crash=Crash.NODE, seconds=0)
QEMU, RESET = replace(NODE, crash=Crash.QEMU), replace(NODE, crash=Crash.RESET)
DIGEST = "drbd r0/0 drbd0: Digest integrity check FAILED: 64s +4096"
STRUCK = {Crash.NODE: "kill nodea", Crash.QEMU: "kill the guest", Crash.RESET: "reset the guest"}


class Crashing(Stage):
    """A stage whose work goes on until the crash, and which knows each guest that was started after it."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.started: list[FakeGuest] = []
        self.refuses_to_start: BaseException | None = None

    def start(self, lab: object, node: FakeNode) -> FakeGuest:
        self.lab.story(f"start on {node.name}")
        if self.refuses_to_start is not None:
            raise self.refuses_to_start
        self.started.append(FakeGuest(self.lab.story, node))
        return self.started[-1]

    def power_cut(self) -> None:
        """What nodea's end means to the guest on it."""
        self.guest.living = False
        self.end()

    def end(self) -> None:
        assert self.workload.ends is not None
        self.workload.ends.set()

    def rests(self) -> bool:
        return self.resource.state == HEALTHY and self.resource.delayed == NARROW


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Crashing]:
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)
    # What does not find together here never will.
    monkeypatch.setattr(roles, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(crash, "NOTICE_SECONDS", 5.0)

    def stage(cell: Cell = NODE) -> Crashing:
        made = cast(Crashing, Crashing.of(tmp_path, cell))
        made.workload.ends = threading.Event()
        made.workload.ended_by = LostGuestError("the agent does not answer")
        made.workload.recovers = Recovered(True, check=CheckResult(0, "clean"))
        assert cell.crash is not None
        made.lab.story.when[STRUCK[cell.crash]] = made.power_cut if cell.crash is Crash.NODE else made.end
        monkeypatch.setattr(Guest, "start", made.start)
        return made

    return stage


# --------------------------------------------------------------------------- each crash, in its order


def test_crash_node_fails_over_and_rejoins(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    found = stage.play()
    assert found.failure is None and found == stage.kept(), found.failure
    assert in_order(
        stage.steps,
        "canary on /dev/vdb2", "console nodea", "kill nodea",
        "wait on nodeb: the loss of the peer", "drbdadm nodeb primary", "compare", "start on nodeb", "attach on nodeb",
        "divide /dev/vdb 249856 12288", "recover /dev/vdb1", "canary received on /dev/vdb2",
        "detach", "destroy", "sync nodeb", "revive nodea", "rejoin nodea",
        "drbdadm nodeb secondary", "drbdadm nodea primary", "sync", "verify", "canary left",
    ), "\n".join(stage.steps)  # fmt: skip
    assert "quiesce" not in stage.steps and "canary stops" not in stage.steps, "there is nobody left to ask"
    assert not stage.started[0].living, "the guest on nodeb is ended"
    assert stage.rests() and stage.resource.roles == {"nodea": "Primary", "nodeb": "Secondary"}
    seen = found.crash_recovery
    assert seen and seen.crash is Crash.NODE and seen.differing_blocks == 0 and seen.fsck_status == 0
    assert seen.promoted_seconds is not None and seen.guest_seconds is not None and seen.rejoined_seconds is not None
    assert 0 <= seen.promoted_seconds <= seen.guest_seconds <= seen.rejoined_seconds < 60
    assert found.canary and not found.canary.survived
    assert found.work and found.work.notes == ("ended by the crash 'node'",)
    assert stage.raw("kmsg-nodea-before-power-cut.txt") == "6,1,1000,-;quiet\n"
    assert judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_crash_qemu_starts_another_guest_on_the_same_node(staged: Callable[..., Crashing]) -> None:
    stage = staged(QEMU)

    def strike() -> None:
        stage.lab.differing.update({5, 6})
        stage.end()

    stage.lab.story.when["kill the guest"] = strike
    stage.lab.story.when["start on nodea"] = stage.lab.differing.clear
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(
        stage.steps, "kill the guest", "sync", "compare", "start on nodea", "attach", "divide /dev/vdb 249856 12288",
        "recover /dev/vdb1", "canary received on /dev/vdb2", "detach", "verify",
    )  # fmt: skip
    assert found.crash_recovery and found.crash_recovery.differing_blocks == 2, (
        "as the crash left them, before any writing"
    )
    assert found.crash_recovery.promoted_seconds is None and found.crash_recovery.guest_seconds is not None
    assert stage.rests() and not stage.started[0].attached
    assert judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


@pytest.mark.parametrize(
    ("sabotage", "what"),
    [(Sabotage.DAMAGE_SUPERBLOCK, "seek=1 "), (Sabotage.DAMAGE_DIRECTORY, "blocks <11>")],
)
def test_crash_damage_is_through_drbd_and_before_anybody_recovers(
    staged: Callable[..., Crashing], sabotage: Sabotage, what: str
) -> None:
    stage = staged(replace(QEMU, sabotage=sabotage))
    when: dict[str, int] = {}

    def damages() -> list[tuple[str, ...]]:
        return [argv for argv in stage.lab.a.runner.ran if what in " ".join(argv)]

    for step in ("compare", "start on nodea"):
        stage.lab.story.when[step] = lambda step=step: when.update({step: len(damages())})  # type: ignore[misc]
    found = stage.play()
    assert found.failure is None and when["start on nodea"] == 1, found.failure
    assert damages()[0][-1] == "/dev/drbd0" and len(damages()) == 1
    assert in_order(stage.steps, "kill the guest", "compare", "sync", "start on nodea", "recover /dev/vdb1")
    assert any("was overwritten with zeros" in event for event in found.event_log)


def test_crash_reset_rediscovers_the_disk(staged: Callable[..., Crashing]) -> None:
    stage = staged(RESET)
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(stage.steps, "reset the guest", "compare", "located", "divide /dev/vdc 249856 12288",
                    "recover /dev/vdc1", "canary received on /dev/vdc2", "detach", "verify")  # fmt: skip
    assert stage.started == [] and stage.guest.living and not stage.guest.attached
    assert found.crash_recovery and found.crash_recovery.crash is Crash.RESET
    assert judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


@pytest.mark.parametrize("cell", [NODE, QEMU, RESET], ids=lambda cell: str(cell.crash))
def test_crash_recovery_findings_are_judged(
    staged: Callable[..., Crashing], monkeypatch: pytest.MonkeyPatch, cell: Cell
) -> None:
    stage = staged(cell)
    stage.workload.recovers = Recovered(True, check=CheckResult(4, "errors left"), wrong_reads=3)
    monkeypatch.setattr(FakeWatch, "found", Canary({"fsync": 9}, {"fsync": 1}))
    found = stage.play()
    assert found.crash_recovery and (found.crash_recovery.fsck_status, found.crash_recovery.wrong_reads) == (4, 3)
    assert (found.crash_recovery.fsck_message, found.crash_recovery.mounted) == ("errors left", True)
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.CORRUPT
    assert all(words in verdict.sentence for words in ("3 time(s)", "fsck ended with status 4", "1 acknowledged"))


def test_crash_recovery_mount_that_failed_is_kept_and_judged(staged: Callable[..., Crashing]) -> None:
    stage = staged(QEMU)
    stage.workload.recovers = Recovered(False, "mount: wrong fs type", CheckResult(0, "clean"))
    found = stage.play()
    kept = found.crash_recovery
    assert kept and (kept.mounted, kept.mount_message, kept.fsck_status) == (False, "mount: wrong fs type", 0)
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.CORRUPT and "could not be mounted: mount: wrong fs type" in verdict.sentence


def test_crash_node_delays_are_off_in_the_end(staged: Callable[..., Crashing]) -> None:
    stage = staged(replace(NODE, delays=DelayProfile(20, 5)))
    found = stage.play()
    assert found.failure is None and found.observed.link_delay_ms == 20 and stage.rests()


def test_rejoin_split_brain_discards_the_failed_nodes_changes(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.resource.split = True
    stage.lab.b.log.text += "1,2,2000,-;drbd r0/0 drbd0: Split-Brain detected but unresolved, dropping connection!\n"
    found = stage.play()
    assert found.failure is None, found.failure
    discards = [step for step in stage.steps if "discard" in step]
    assert discards == ["drbdadm nodea connect --discard-my-data"], "nodeb has what the guest was told of since"
    assert any(one.startswith("at nodea's return: split brain (") for one in found.event_log) and stage.rests()


# --------------------------------------------------------------------------- when it does not go that way


def test_crash_work_over_before_is_no_answer(staged: Callable[..., Crashing]) -> None:
    stage = staged(replace(NODE, seconds=1))
    stage.workload.ends, stage.workload.ended_by = None, None
    found = stage.play()
    assert found.failure and "the work was over before the crash" in found.failure.message
    assert "kill nodea" not in stage.steps and found.crash_recovery is None
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE and stage.rests()


def test_crash_work_failed_before_says_why(staged: Callable[..., Crashing]) -> None:
    stage = staged(replace(NODE, seconds=1))
    stage.workload.ends, stage.workload.ended_by = None, DeadlineError("fio did not end")
    found = stage.play()
    assert found.failure and found.failure.message == "fio did not end" and "kill nodea" not in stage.steps


def test_crash_work_unaware_is_left_behind(staged: Callable[..., Crashing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "NOTICE_SECONDS", 0.02)
    stage = staged(QEMU)
    stage.lab.story.when.clear()
    found = stage.play()
    stage.end()
    assert found.failure is None
    assert "the workload did not notice the crash; it is left behind" in found.event_log


def test_fail_over_peer_unaware_is_a_deadline_without_promotion(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken["wait on nodeb: the loss of the peer"] = DeadlineError("the loss did not happen")
    found = stage.play()
    assert found.failure and found.failure.kind == "deadline" and found.failure.phase == "crash recovery"
    assert "drbdadm nodeb primary" not in stage.steps and "start on nodeb" not in stage.steps


def taken_back(stage: Crashing) -> bool:
    return (
        in_order(stage.steps, "kill nodea", "revive nodea", "rejoin nodea", "drbdadm nodea primary") and stage.rests()
    )


@pytest.mark.parametrize("step", ["attach on nodeb", "recover /dev/vdb1", "canary received on /dev/vdb2"])
@pytest.mark.parametrize("error", [LostGuestError("gone"), DeadlineError("late"), KeyboardInterrupt()], ids=repr)
def test_fail_over_any_error_still_rejoins_the_failed_node(
    staged: Callable[..., Crashing], step: str, error: BaseException
) -> None:
    stage = staged()
    stage.lab.story.broken[step] = error
    if isinstance(error, HarnessError):
        found = stage.play()
        assert found.comparison is not None, "the oracles are asked all the same"
    else:
        with pytest.raises(KeyboardInterrupt):
            stage.play()
        found = stage.kept()
    assert found.failure and found.failure.phase == "crash recovery"
    assert taken_back(stage) and not any(guest.living for guest in stage.started)


def test_check_guest_data_failing_still_collects_the_canary(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken["recover /dev/vdb1"] = DeadlineError("mount did not end")
    found = stage.play()
    assert found.canary is not None and found.failure and found.failure.message == "mount did not end"


def test_fail_over_guest_dies_still_rejoins_the_failed_node(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken |= {
        "recover /dev/vdb1": LostGuestError("panic"), "detach": LostGuestError("the disk was not detached")
    }  # fmt: skip
    stage.play()
    assert taken_back(stage)


def test_fail_over_no_guest_starts_still_rejoins_the_failed_node(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.refuses_to_start = LostGuestError("libvirt on nodeb did not start the guest")
    found = stage.play()
    assert found.failure and "did not start the guest" in found.failure.message
    assert taken_back(stage)


@pytest.mark.parametrize("step", ["drbdadm nodeb primary", "wait on nodeb: the loss of the peer"])
def test_fail_over_no_promotion_still_rejoins_the_failed_node(staged: Callable[..., Crashing], step: str) -> None:
    stage = staged()
    stage.lab.story.broken[step] = DeadlineError("late")
    stage.play()
    assert "revive nodea" in stage.steps


def test_fail_over_refused_is_no_answer(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    words = "State change failed: (-2) Need access to UpToDate data"
    stage.lab.story.broken["drbdadm nodeb primary"] = RefusedError("DRBD on nodeb", words)
    assert judge(stage.play(), HELD).kind is not VerdictKind.REFUSED


def test_rejoin_node_lost_keeps_what_was_seen(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.broken["revive nodea"] = LostNodeError("nodea gave its boot up")
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-node"
    assert found.crash_recovery and found.crash_recovery.fsck_status == 0 and found.canary is not None
    assert found.crash_recovery.rejoined_seconds is None and not stage.started[0].living


@pytest.mark.parametrize("cell", [NODE, QEMU], ids=lambda cell: str(cell.crash))
def test_crash_qemu_no_new_guest_is_no_answer(staged: Callable[..., Crashing], cell: Cell) -> None:
    stage = staged(cell)
    stage.refuses_to_start = LostGuestError("libvirt did not start the guest")
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-guest" and found.crash_recovery is not None
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


# --------------------------------------------------------------------------- evidence


def before_the_crash(stage: Crashing, words: str) -> None:
    """The guest says ``words`` on nodea while it works."""

    def progress() -> None:
        stage.lab.a.console += words

    stage.lab.story.when["canary on /dev/vdb2"] = progress


def test_capture_console_before_the_crash_is_kept(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    before_the_crash(stage, "the guest's words before the crash\n")
    stage.play()
    said = stage.raw("guest-console.txt")
    assert in_order(said.splitlines(), "== the guest's console on nodea", "the guest's words before the crash",
                    "== the guest's console on nodeb", "guest said")  # fmt: skip
    assert "said before" not in said, "that is another cell's"
    assert said.count("the guest's words before the crash") == 1


@pytest.mark.parametrize("crash", Crash)
def test_workload_hears_the_console_until_the_crash_before_it_recovers(
    staged: Callable[..., Crashing], crash: Crash
) -> None:
    stage = staged(replace(NODE, crash=crash))
    stage.workload.recovers = Recovered(True, "", CheckResult(0, "clean"), 2, ("row 3 is wrong",), "all rows")
    found = stage.play()
    assert "guest said" in stage.workload.heard
    assert found.crash_recovery is not None
    assert (found.crash_recovery.findings, found.crash_recovery.looked_at) == (("row 3 is wrong",), "all rows")
    assert "2 time(s): row 3 is wrong" in judge(found).sentence


def test_capture_console_errors_before_the_crash_count(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    before_the_crash(stage, "EXT4-fs error (device vdb1): bad\n")
    found = stage.play()
    assert found.console_errors == ("EXT4-fs error (device vdb1): bad",)


def test_capture_console_of_the_failed_node_is_no_later_guests(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    before_the_crash(stage, "half a li")

    def booted() -> None:
        stage.lab.a.console += "\nwritten while it was down\n"

    stage.lab.story.when["revive nodea"] = booted
    stage.play()
    assert "written while it was down" not in stage.raw("guest-console.txt")


def test_crash_node_notes_injection_and_resync(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    resynced = "6,2,2000,-;drbd r0/0 drbd0: Began resync as SyncTarget (will sync 48 KB [12 bits set]).\n"
    stage.lab.story.when["rejoin nodea"] = lambda: setattr(stage.lab.a.log, "text", resynced)
    found = stage.play()
    assert found.fault_injected and found.crash_recovery and found.crash_recovery.resynced_kib == 48


def test_alarms_before_and_after_the_power_cut_count(
    staged: Callable[..., Crashing],
) -> None:
    stage = staged(replace(NODE, replication=ReplicationProfile(integrity="crc32c")))
    log = stage.lab.a.log
    log.says(f"4,1,1000000,-;{DIGEST}")

    def early() -> None:
        # Done to reach the preconditions: in the cell's log, and none of its alarms.
        del stage.lab.story.when["compare"]
        log.says(f"4,2,1100000,-;{DIGEST}")

    stage.lab.story.when["compare"] = early
    stage.lab.story.when["canary on /dev/vdb2"] = lambda: log.says(f"4,3,1200000,-;{DIGEST}")
    stage.lab.story.when["rejoin nodea"] = lambda: log.says(f"4,1,1000,-;{DIGEST}")
    found = stage.play()
    assert found.alarms is not None and len(found.alarms.failures) == 2, found.alarms
    assert stage.raw("kmsg-nodea-before-power-cut.txt").count(DIGEST) == 2


def test_exposure_power_cut_counts_only_before_it(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.when["rejoin nodea"] = lambda: setattr(stage.resource, "sent_kib", 40_000)
    assert stage.play().exposed_blocks == 100, "400 KiB of work"


def test_capture_kernel_errors_before_the_crash_count(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.a.log.text = "4,1,1000,-;BUG: soft lockup - CPU#0\n"
    stage.lab.story.when["revive nodea"] = lambda: setattr(stage.lab.a.log, "text", "6,1,1000,-;booted\n")
    found = stage.play()
    assert "BUG: soft lockup" in stage.raw("kmsg-nodea-before-power-cut.txt")
    assert found.kernel_errors == ("nodea: BUG: soft lockup - CPU#0",)

"""A crash in the middle of the work, of a node, QEMU or the guest, and in which order all is there again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from crashing_stage import NODE, QEMU, RESET, Crashing, staged
from fake_guest import FakeWatch
from fake_story import in_order
from judged_evidence import HELD

from harness.judgement.judge import judge
from harness.model import Canary, Cell, Crash, DelayProfile, Sabotage, VerdictKind
from harness.workloads.base import CheckResult, Recovered

__all__ = ["staged"]


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

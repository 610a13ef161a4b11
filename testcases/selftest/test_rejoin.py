"""Replicas that were apart are compared before anything is resynced: crash, cut link, lost node, split brain, disks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from fake_guest import FakeWatch, Traveller
from fake_libvirt import LibvirtSaid
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD, evidence, oracles
from moving_stage import cuttable, faulty, guest_dies_at, staged, under_way

from harness.engine.rejoin import compare_before_rejoin
from harness.errors import InfrastructureError, LostGuestError
from harness.guest.domain import Guest
from harness.judgement.judge import judge
from harness.model import (
    Alarms,
    CacheMode,
    Cell,
    Comparison,
    Crash,
    CrashRecovery,
    Fault,
    FilesystemKind,
    RejoinComparison,
    VerdictKind,
    blocks_of,
    extents_of,
)
from harness.workloads.base import Recovered

__all__ = ["staged"]

NODE = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, crash=Crash.NODE, seconds=0)
RESYNC = "6,9,9000,-;drbd r0/0 drbd0: Began resync as SyncSource (will sync 48 KB [12 bits set])."


def blocks(stage: Stage) -> list[set[int]]:
    """What differed in each comparison before a rejoin."""
    return [set(blocks_of(one.comparison.differing)) for one in stage.run.evidence.rejoin_comparisons]


# --------------------------------------------------------------------------- the comparison itself


def paused(stage: Stage, guest: Any) -> RejoinComparison | None:
    stage.steps.clear()
    return compare_before_rejoin(stage.run.context, cast(Any, stage.lab.b), "while it was away", guest)


def test_compare_before_rejoin_living_guest_is_paused_meanwhile(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    stage.lab.differing, stage.resource.oos_kib = {3, 4}, 4
    held: list[int] = []
    stage.lab.story.when["compare"] = lambda: held.append(stage.guest.agent.holding)
    found = paused(stage, stage.guest)
    assert stage.steps == ["suspend", "sync", "compare", "status", "resume"] and held == [1]
    assert found and (found.away, found.quiet, found.out_of_sync_kib) == ("nodeb", True, 4)
    assert blocks_of(found.comparison.differing) == {3, 4} and stage.run.evidence.rejoin_comparisons == (found,)


def test_compare_before_rejoin_guest_that_is_paused_already_stays_so(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    stage.guest.pauses = ["I/O error"]
    found = paused(stage, stage.guest)
    assert found and found.quiet and not {"suspend", "resume"} & set(stage.steps)


def test_compare_before_rejoin_no_guest_is_quiet(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    found = paused(stage, None)
    assert found and found.quiet and stage.steps == ["compare", "status"]
    stage.guest.living = False
    found = paused(stage, stage.guest)
    assert found and found.quiet and stage.steps == ["compare", "status"]


@pytest.mark.parametrize("step", ["suspend", "sync"])
def test_compare_before_rejoin_under_writes_says_so(staged: Callable[..., Stage], step: str) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    stage.lab.story.broken[step] = LostGuestError("libvirt did not do it")
    found = paused(stage, stage.guest)
    assert found and not found.quiet and "compare" in stage.steps
    assert stage.run.evidence.event_log == (
        "the guest may have written while the devices were compared: libvirt did not do it",
    )
    assert stage.guest.paused() is None, "it goes on in any case"


def test_compare_before_rejoin_unreadable_device_fails_the_cell_only(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    stage.lab.story.broken["compare"] = InfrastructureError("the backing file cannot be read")
    assert paused(stage, stage.guest) is None and stage.guest.paused() is None
    failure = stage.run.evidence.failure
    assert failure and failure.message == "the backing file cannot be read"


# --------------------------------------------------------------------------- before each rejoin


def crashing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Primary loses its power in the middle of the work; twelve blocks differ, and the resync makes them equal."""
    stage.workload.ends, stage.workload.ended_by = threading.Event(), LostGuestError("the agent does not answer")
    stage.workload.recovers = Recovered(True)
    monkeypatch.setattr(Guest, "start", lambda lab, node: Traveller(stage.lab))

    def cut() -> None:
        stage.guest.living = False
        stage.lab.differing = set(range(12))
        assert stage.workload.ends is not None
        stage.workload.ends.set()

    def back() -> None:
        stage.lab.differing = set()
        stage.lab.a.log.text = f"{RESYNC}\n"

    stage.lab.story.when |= {"kill nodea": cut, "rejoin nodea": back}


def test_crash_node_is_compared_before_anybody_writes_and_before_it_rejoins(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(NODE)
    crashing(stage, monkeypatch)
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(stage.steps, "kill nodea", "drbdadm nodeb primary", "compare", "recover /dev/vdb1", "rejoin nodea")
    assert found == stage.kept() and blocks(stage) == [set(range(12))]
    (seen,) = found.rejoin_comparisons
    assert (seen.away, seen.quiet, seen.when) == ("nodea", True, "after nodea had lost its power")
    assert found.crash_recovery and found.crash_recovery.differing_blocks == 12
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.CLEAN and verdict.rate_upper_95 is None, verdict
    assert any(one.startswith("12 blocks differed after nodea had lost its power") for one in verdict.reasons)


def test_crash_node_not_promoted_is_compared_before_it_rejoins(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(NODE)
    crashing(stage, monkeypatch)
    stage.lab.story.broken["drbdadm nodeb primary"] = LostGuestError("no")
    stage.play()
    assert in_order(stage.steps, "kill nodea", "compare", "revive nodea", "rejoin nodea")
    assert blocks(stage) == [set(range(12))]


def test_crash_node_that_cannot_be_compared_comes_back_all_the_same(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(NODE)
    crashing(stage, monkeypatch)
    cut = stage.lab.story.when["kill nodea"]

    def unreadable() -> None:
        cut()
        stage.lab.story.broken["compare"] = InfrastructureError("the backing file cannot be read")

    stage.lab.story.when["kill nodea"] = unreadable
    found = stage.play()
    assert "rejoin nodea" in stage.steps and found.rejoin_comparisons == ()
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_crash_node_whose_device_only_itself_can_read_is_compared_when_it_has_power_again(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(NODE)
    crashing(stage, monkeypatch)
    stage.lab.reads_by_nodes, stage.lab.changed = True, {40, 41}
    found = stage.play()
    assert found.failure is None, found.failure
    # The side that lives is read before its guest writes, the other one before DRBD is up there again.
    assert in_order(stage.steps, "drbdadm nodeb primary", "digest nodeb", "recover /dev/vdb1", "revive nodea")
    assert in_order(stage.steps, "revive nodea", "digest nodea", "rejoin nodea")
    assert "compare" not in stage.steps[stage.steps.index("kill nodea") : stage.steps.index("rejoin nodea")]
    (seen,) = found.rejoin_comparisons
    assert blocks(stage) == [set(range(12))] and "once it had its power again" in seen.comparison.where
    assert found.crash_recovery and found.crash_recovery.differing_blocks == 12


def test_crash_node_that_cannot_read_its_device_afterwards_comes_back_all_the_same(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(NODE)
    crashing(stage, monkeypatch)
    stage.lab.reads_by_nodes = True
    begins = stage.lab.story.when["kill nodea"]

    def unreadable() -> None:
        begins()
        stage.lab.story.broken["digest nodea"] = InfrastructureError("a block cannot be read")

    stage.lab.story.when["kill nodea"] = unreadable
    found = stage.play()
    assert "rejoin nodea" in stage.steps and found.rejoin_comparisons == ()
    assert found.failure and found.failure.message == "a block cannot be read"


@pytest.mark.parametrize(
    ("fault", "apart", "together", "when"),
    [
        (Fault.LINK_CUT, "link of nodeb cut", "link of nodea joined", "while the replication link was cut"),
        (Fault.TARGET_KILL, "kill nodeb", "revive nodeb", "while nodeb was without power"),
    ],
)
def test_fault_is_compared_before_it_ends(
    staged: Callable[..., Stage], fault: Fault, apart: str, together: str, when: str
) -> None:
    stage = staged(replace(faulty(fault), migrations=1))
    cuttable(stage)
    before = stage.lab.story.when.get(apart, lambda: None)

    def diverge() -> None:
        before()
        stage.lab.differing = {5, 6}

    stage.lab.story.when[apart] = diverge
    under_way(stage, apart)
    joined = stage.lab.story.when.get(together, lambda: None)

    def heal() -> None:
        joined()
        stage.lab.differing = set()
        stage.resource.sent_kib += 80_000

    stage.lab.story.when[together] = heal
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(stage.steps, apart, "suspend", "sync", "compare", "resume", together)
    assert blocks(stage) == [{5, 6}] and found.rejoin_comparisons[0].away == "nodeb"
    assert found.rejoin_comparisons[0].when == when and found.rejoin_comparisons[0].quiet
    assert found.exposed_blocks <= 100, "what the resync sent is no write of the workload's"
    verdict = judge(found, HELD)
    assert verdict.rate_upper_95 is None
    assert any(one.startswith(f"2 blocks differed {when}") for one in verdict.reasons), verdict.reasons


def test_fault_guest_dead_is_compared_before_the_link_joins(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodea cut")
    guest_dies_at(stage, "link of nodea cut")
    stage.play()
    assert in_order(stage.steps, "link of nodea cut", "compare", "link of nodea joined")
    assert blocks(stage) == [set()] and "suspend" not in stage.steps


def test_split_brain_extents_are_kept_before_changes_are_discarded(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(faulty(Fault.LINK_CUT), migrations=1))
    cuttable(stage)
    under_way(stage, "link of nodeb cut")

    def apart() -> None:
        stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
        stage.lab.differing = {11, 12, 13}

    stage.lab.story.when["link of nodeb joined"] = apart
    stage.lab.story.when["drbdadm nodea connect"] = stage.lab.differing.clear
    found = stage.play()
    assert in_order(stage.steps, "link of nodeb joined", "suspend", "compare", "resume",
                    "drbdadm nodeb connect --discard-my-data")  # fmt: skip
    assert blocks(stage) == [set(), {11, 12, 13}]
    assert found.rejoin_comparisons[1].when == "after the fault, before nodeb's changes were discarded"
    assert found.alarms and found.alarms.split_brain and found.alarms.split_brain.differing_blocks == 3


def test_io_error_is_compared_before_the_disks_come_back(staged: Callable[..., Stage]) -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, fault=Fault.IO_ERROR, seconds=0)
    stage = staged(cell)
    stage.guest.pauses = ["I/O error"]
    stage.lab.story.when["break the disk of nodeb"] = lambda: stage.lab.differing.add(9)
    stage.lab.story.when["drbdadm nodeb attach"] = stage.lab.differing.clear
    stage.lab.a.log.text = f"{RESYNC}\n"
    found = stage.play()
    assert in_order(stage.steps, "break the disk of nodeb", "compare", "drbdadm nodea attach", "resume")
    assert blocks(stage) == [{9}]
    assert found.alarms and found.alarms.resynced_kib == 48, "the connection was never lost"


def test_suspend_refused_by_libvirt_is_a_lost_guest() -> None:
    class Refusing:
        def suspend(self) -> None:
            raise LibvirtSaid("domain is not running")

    lab = Stage  # only its name is needed
    guest = Guest.__new__(Guest)
    guest.domain, guest._lab_id = cast(Any, Refusing()), lab.__name__
    guest.spec = cast(Any, type("Spec", (), {"name": "guest"}))
    guest.node = cast(Any, type("Node", (), {"name": "nodea"}))
    with pytest.raises(LostGuestError, match="was not paused: domain is not running"):
        guest.suspend()


# --------------------------------------------------------------------------- what the judge makes of it


def rejoined(differing: set[int], *, quiet: bool = True, marked: int | None = 8) -> RejoinComparison:
    return RejoinComparison("while it was away", "nodeb", Comparison(9, extents_of(differing), 0.1, "x"), quiet, marked)


def test_judge_differences_before_a_rejoin_are_told_and_bound_nothing() -> None:
    verdict = judge(evidence(rejoin_comparisons=(rejoined({1, 2, 3}),)), HELD)
    assert verdict.kind is VerdictKind.CLEAN and verdict.rate_upper_95 is None
    assert "equal after a resync of" in verdict.sentence
    assert verdict.reasons == ("3 blocks differed while it was away, DRBD knew of 2; a resync of nodeb followed",)


def test_judge_what_no_resync_copied_is_told() -> None:
    """As DRBD 9.3.3 was seen to leave it when both disks had failed and were attached again."""
    found = evidence(rejoin_comparisons=(rejoined({1, 2, 3}, marked=0),), **oracles({2, 3, 7}, {2, 3, 7}))
    (reason,) = (one for one in judge(found, HELD).reasons if "while it was away" in one)
    assert reason == (
        "3 blocks differed while it was away, DRBD knew of 0; 2 of them differ still at the end: no resync of nodeb "
        "copied them, or they came to differ again"
    )
    all_of_them = replace(found, rejoin_comparisons=(rejoined({2, 3}),))
    assert any("; they differ still at the end: " in one for one in judge(all_of_them, HELD).reasons)


def test_judge_comparison_under_writes_says_so() -> None:
    verdict = judge(evidence(rejoin_comparisons=(rejoined({1}, quiet=False, marked=None),)), HELD)
    (reason,) = verdict.reasons
    assert reason == "1 block differed while it was away, while it may have been written to; a resync of nodeb followed"


def test_judge_equal_before_a_rejoin_keeps_the_bound() -> None:
    verdict = judge(evidence(rejoin_comparisons=(rejoined(set()),)), HELD)
    assert verdict.kind is VerdictKind.CLEAN and verdict.rate_upper_95 is not None and verdict.reasons == ()


def test_judge_resync_in_alarms_and_recovery_counts_once() -> None:
    found = evidence(
        replace(NODE, seconds=8), fault_injected=True, canary=FakeWatch.found,
        crash_recovery=CrashRecovery(Crash.NODE, resynced_kib=2048, mounted=True, fsck_status=0),
        alarms=Alarms(resynced_kib=2048),
    )  # fmt: skip
    assert "equal after a resync of 2.0 MiB" in judge(found, HELD).sentence

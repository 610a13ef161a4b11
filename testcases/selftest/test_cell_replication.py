"""How DRBD replicates in one cell: the profile that is set and read back, two Primaries, split brain, alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from fake_drbd import HEALTHY
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD
from staged_cell import ALARMED, GUEST_CELL, HOST_CELL, staged
from test_alarms import BROKEN, START, told

from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.errors import LostNodeError
from harness.guest.domain import Guest
from harness.judgement.judge import judge
from harness.model import CacheMode, Cell, FilesystemKind, Protocol, ReplicationProfile, VerdictKind

__all__ = ["staged"]

BOTH = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.NONE,
    replication=ReplicationProfile(integrity="crc32c", two_primaries=True),
)
DIGEST = "drbd r0/0 drbd0: Digest integrity check FAILED: 64s +4096"
SPLIT_BRAIN = "drbd r0/0 drbd0: Split-Brain detected but unresolved, dropping connection!"
GAVE_UP = "drbd r0: conn( Connected -> StandAlone )"


def test_begin_replication_profile_is_applied_and_read_back(staged: Callable[..., Stage]) -> None:
    for cell in (ALARMED, replace(GUEST_CELL, replication=ReplicationProfile(protocol=Protocol.A))):
        stage = staged(cell)
        found = stage.play()
        assert in_order(stage.steps, "drbdadm nodea adjust", "drbdadm nodeb adjust", "compare", "verify")
        assert found.observed.replication == cell.replication and found.before == HEALTHY and found.failure is None
        assert found.fault_injected is False


def test_observed_profile_not_as_asked_is_kept(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.lab.a.answers["drbdsetup show"] = (0, "resource r0 {\n}\n== parameter\nN\n== link\n", "")
    found = stage.play()
    assert found.observed.replication == ReplicationProfile() and judge(found).kind is VerdictKind.INCONCLUSIVE


def test_begin_refused_profile_is_refused_before_any_write(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.resource.refuses["nodea adjust"] = ["data-integrity-alg: not found"]
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.phase) == ("refused", "replication")
    assert judge(found).kind is VerdictKind.REFUSED and "data-integrity-alg: not found" in judge(found).sentence
    assert "prepare /dev/drbd0" not in stage.steps and found.comparison is not None


def test_release_two_primaries_become_one(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    seen: list[dict[str, str]] = []
    stage.lab.story.when["work 10"] = lambda: seen.append(dict(stage.resource.roles))
    assert stage.play().failure is None
    assert seen == [{"nodea": "Primary", "nodeb": "Primary"}] and stage.resource.state == HEALTHY


def test_begin_two_primaries_again_in_the_next_cell(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    assert stage.play().failure is None and stage.resource.roles["nodeb"] == "Secondary"
    seen: list[dict[str, str]] = []
    stage.lab.story.when["work 10"] = lambda: seen.append(dict(stage.resource.roles))
    again = CellRun(cast(Any, stage.lab), cast(Any, stage.resource), stage.store.begin(BOTH))
    assert play(again, stage.workload, lambda: cast(Guest, stage.guest)).failure is None
    assert seen == [{"nodea": "Primary", "nodeb": "Primary"}]


def apart(stage: Stage) -> None:
    """In the middle of the work a digest fails, and that is a split brain; twelve blocks differ then."""

    def part() -> None:
        stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
        stage.lab.a.log.text = f"4,1,1000000,-;{DIGEST}\n1,2,1400000,-;{SPLIT_BRAIN}\n4,3,1500000,-;{GAVE_UP}\n"
        stage.lab.differing = set(range(12))

    stage.lab.story.when["work 10"] = part
    stage.lab.story.when["drbdadm nodea connect"] = lambda: stage.lab.differing.clear()


def test_reconcile_split_brain_is_kept_before_it_is_resolved(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    apart(stage)
    found = stage.play()
    assert found.failure is None and found.alarms is not None, found.failure
    split = found.alarms.split_brain
    assert split is not None and split.victim == "nodeb" and split.repaired and split.differing_blocks == 12
    assert [one.connection for one in split.states.values()] == ["StandAlone", "StandAlone"]
    assert split.after_seconds == pytest.approx(0.4) and found.alarms.detections == 1
    assert in_order(stage.steps, "detach", "sync", "compare", "drbdadm nodeb connect --discard-my-data",
                    "drbdadm nodea connect", "sync", "verify")  # fmt: skip
    assert any(one.startswith("at the end: split brain (nodea StandAlone Primary/Unknown; nodeb") for one in
               found.event_log)  # fmt: skip
    assert stage.resource.state == HEALTHY
    verdict = judge(found)
    assert verdict.kind is VerdictKind.DIVERGED and "split brain 0.4 s after" in verdict.sentence


def test_reconcile_unresolvable_is_inconclusive_and_kept(staged: Callable[..., Stage]) -> None:
    stage = staged(BOTH)
    apart(stage)
    stage.lab.story.when["drbdadm nodea connect"] = lambda: setattr(stage.resource, "split", True)
    found = stage.play()
    assert found.failure and "nodeb and nodea are StandAlone again" in found.failure.message
    assert judge(found).kind is not VerdictKind.CLEAN


def test_alarms_silent_digest_is_noted_and_no_digest_is_not(staged: Callable[..., Stage]) -> None:
    noted = staged(ALARMED).play().alarms
    assert noted is not None and (noted.algorithm, noted.detections, noted.drops) == ("crc32c", 0, 0)
    assert noted.watched_seconds >= 0
    assert staged(HOST_CELL).play().alarms is None


def test_alarms_digest_failures_of_both_nodes_count(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.lab.a.log.text = (
        "4,1,1000000,-;drbd r0/0 drbd0: Digest mismatch, buffer modified by upper layers during write: 8s +4096\n"
    )
    stage.lab.b.log.text = f"4,1,1000000,-;{DIGEST}\n"
    found = stage.play()
    assert found.alarms and found.alarms.detections == 2
    assert judge(found).kind is VerdictKind.TRANSIENT


def test_alarms_before_the_preconditions_do_not_count(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    log, when = stage.lab.a.log, stage.lab.story.when

    def early() -> None:
        del when["compare"]
        log.says(f"4,1,1000000,-;{DIGEST}")

    when["compare"] = early
    when["work 10"] = lambda: log.says(f"4,2,1200000,-;{DIGEST}")
    found = stage.play()
    assert found.alarms is not None and found.alarms.detections == 1 and len(log.said) == 2


def test_alarms_of_a_guest_that_boots_do_not_count_and_are_kept(staged: Callable[..., Stage]) -> None:
    for when, drops in (("attach", 0), ("work 10", 1)):
        stage = staged(GUEST_CELL)
        events = stage.resource.events(stage.lab.a).stream
        for line in START:
            events.append(line)

        def lost(stage: Stage = stage) -> None:
            for line in (*told(BROKEN, 1), *told(HEALTHY, 3)):
                stage.resource.events(stage.lab.a).stream.append(line)
            stage.lab.b.log.says("3,1,1000000,-;drbd r0: PingAck did not arrive in time.")

        stage.lab.story.when[when] = lost
        found = stage.play()
        assert found.failure is None and (found.alarms.drops if found.alarms else 0) == drops, when
        kept = "the connection was lost 1 time(s) while the guest came up (nodeb: PingAck did not arrive in time)"
        assert any(kept in one for one in found.event_log) is (drops == 0)
        assert judge(found, HELD).kind is (VerdictKind.TRANSIENT if drops else VerdictKind.CLEAN)


def test_alarms_of_another_cell_do_not_count(staged: Callable[..., Stage]) -> None:
    stage = staged(ALARMED)
    stage.lab.a.log.says(f"4,1,1000000,-;{DIGEST}")
    stage.lab.story.broken["compare"] = LostNodeError("gone")
    found = stage.play()
    assert found.failure is not None and found.failure.phase == "begin"
    assert found.alarms is not None and found.alarms.detections == 0

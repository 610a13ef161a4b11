"""Doubts: those that take the ground away from a CLEAN, those that are only said, and those that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_evidence import HELD, SWAP, evidence, observed, oracles

from harness.judgement.doubts import doubts, without_ground
from harness.judgement.judge import judge
from harness.judgement.workload_proof import PROOFS
from harness.model import (
    Canary,
    Cell,
    DelayProfile,
    DelayReading,
    Evidence,
    Migration,
    MigrationOutcome,
    NodeSettings,
    ObservedAfterMove,
    ReplicationProfile,
    VerdictKind,
    Work,
)


def moving(*began: float, took: float | None = 30.0, workload: str = "pressure", **facts: float) -> Evidence:
    """A cell whose guest moved at these moments, for 5 s each, while its work took 30 s."""
    cell = replace(SWAP, migrations=len(began), workload=workload)
    moves = tuple(
        Migration(number, "nodea", "nodeb", MigrationOutcome.COMPLETED, at, 5.0) for number, at in enumerate(began, 1)
    )
    done = {**{proof.fact: 4000.0 for proof in PROOFS[workload]}, **facts}
    return evidence(cell, migrations=moves, work=Work(10.0, done, took_seconds=took), canary=Canary({"fsync": 9}))


def inconclusive_with(found: Evidence, text: str) -> None:
    assert without_ground(found) is not None and text in (without_ground(found) or "")
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and text in verdict.sentence, verdict
    diverged = judge(replace(found, **oracles({5}, {5})), HELD)
    assert diverged.kind is VerdictKind.DIVERGED, "a difference that was found stands"
    assert any(text in reason for reason in diverged.reasons)


def clean_with(found: Evidence, text: str) -> None:
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.CLEAN, verdict
    assert any(text in reason for reason in verdict.reasons), verdict.reasons


def test_doubts_of_plain_evidence_are_none() -> None:
    assert doubts(evidence()) == () and without_ground(evidence()) is None
    assert doubts(moving(1.0, 20.0)) == ()


# --------------------------------------------------------------------------- migrations and the work


def test_doubts_every_migration_after_the_work_takes_the_ground() -> None:
    inconclusive_with(moving(31.0), "the only migration began when the work was over already: 1.0 s after the work had")
    inconclusive_with(moving(30.0, 40.0), "each of the 2 migrations began when the work was over already")


def test_doubts_one_late_migration_of_two_is_said() -> None:
    clean_with(moving(2.0, 33.5), "migration 2 began 3.5 s after the work had ended")


def test_doubts_migration_that_outlasts_the_work_is_said() -> None:
    clean_with(moving(28.0), "migration 1 ended 3.0 s after the work: only its beginning was under load")


def test_doubts_older_evidence_does_not_know_how_long_the_work_took() -> None:
    assert doubts(moving(300.0, took=None)) == ()


def test_doubts_where_only_the_canary_writes_no_migration_is_late() -> None:
    assert doubts(moving(300.0, workload="no-writes")) == ()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"moves": 1.0, "pages_moved_checked": 0.0}, True),
        ({"moves": 1.0, "pages_moved_checked": 7.0}, False),
        ({"moves": 0.0, "pages_moved_checked": 0.0}, False),
        ({}, False),
    ],
)
def test_doubts_no_page_checked_across_a_move_is_said(facts: dict[str, float], said: bool) -> None:
    sentence = "no page that was swapped out before a migration was read from swap and checked after it"
    assert (sentence in doubts(moving(5.0, **facts))) is said


# --------------------------------------------------------------------------- what was not read, or lost


@pytest.mark.parametrize("after", [False, True])
def test_doubts_guest_that_holds_pages_still_takes_the_ground(after: bool) -> None:
    still = replace(observed(SWAP), guest_stable_writes=True)
    changed: dict[str, Any] = (
        {"observed_after_moves": (ObservedAfterMove(1, "nodeb", still),)} if after else {"observed": still}
    )
    inconclusive_with(evidence(**changed), "the guest's kernel holds pages still while it writes them (stable_writes)")
    assert doubts(evidence(observed=replace(observed(SWAP), guest_stable_writes=False))) == ()
    assert doubts(evidence(observed=replace(observed(SWAP), drbd_stable_writes=True))) == (), "its own queue's is noted"


def test_doubts_scatter_gather_of_node_b_unread_takes_the_ground() -> None:
    profile = ReplicationProfile()
    nodes = {"nodea": NodeSettings(profile, "repl0", True), "nodeb": NodeSettings(profile, "repl0", None)}
    found = evidence(observed=replace(observed(SWAP), nodes=nodes))
    inconclusive_with(found, "whether nodeb's replication NIC (repl0) has scatter-gather could not be read")
    off = ReplicationProfile(scatter_gather=False)
    cell: Cell = replace(SWAP, replication=off)
    nodes = {name: NodeSettings(off, "repl0", None) for name in ("nodea", "nodeb")}
    assert doubts(evidence(cell, observed=replace(observed(cell), nodes=nodes))) == ()


def test_doubts_lost_events_take_the_ground() -> None:
    inconclusive_with(evidence(events_lost=("3 events of nodea were skipped",)), "3 events of nodea were skipped")
    assert doubts(evidence(events_lost=())) == doubts(evidence(events_lost=None)) == ()


def test_doubts_delay_left_after_the_cell_is_said() -> None:
    readings = (
        DelayReading("before the work went on", None, {"nodea": DelayProfile(), "nodeb": DelayProfile()}),
        DelayReading("after they were cleared", None, {"nodea": None, "nodeb": DelayProfile(20, 0)}, over=True),
    )
    found = evidence(observed=replace(observed(SWAP), delays=readings))
    clean_with(found, "the delays of nodea could not be read back after they were cleared")
    clean_with(found, "a delay of 20 ms was left on nodeb's link (read after they were cleared)")

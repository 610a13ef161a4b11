"""What was not in force as asked, in a user's terms: each node's replication, and the disk after each move."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_judge import HELD, SWAP, evidence, observed

from harness.judgement.in_force import not_in_force
from harness.judgement.judge import judge
from harness.model import (
    Evidence,
    NodeSettings,
    ObservedAfterMove,
    Protocol,
    ReplicationProfile,
    VerdictKind,
)

ASKED = ReplicationProfile()


def with_nodes(a: ReplicationProfile = ASKED, b: ReplicationProfile = ASKED) -> Evidence:
    nodes = {"nodea": NodeSettings(a, "repl0", a.scatter_gather), "nodeb": NodeSettings(b, "repl1", b.scatter_gather)}
    return evidence(observed=replace(observed(SWAP), replication=a, nodes=nodes))


def test_not_in_force_both_nodes_as_asked_is_nothing() -> None:
    assert not_in_force(with_nodes()) is None
    assert judge(with_nodes(), HELD).kind is VerdictKind.CLEAN


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            ReplicationProfile(scatter_gather=False),
            "scatter-gather is off on nodeb's replication NIC (repl1), although the cell asked for it on",
        ),
        (
            ReplicationProfile(protocol=Protocol.A),
            "DRBD on nodeb replicates with protocol A, although the cell asked for protocol C",
        ),
        (
            ReplicationProfile(integrity="crc32c"),
            "DRBD on nodeb has the digest crc32c (data-integrity-alg), although the cell asked for no digest",
        ),
        (
            ReplicationProfile(disable_sendpage=True),
            "disable_sendpage of DRBD on nodeb is on, although the cell asked for it off",
        ),
        (
            ReplicationProfile(two_primaries=True),
            "DRBD on nodeb allows two Primaries, although the cell asked for one",
        ),
    ],
)
def test_not_in_force_on_node_b_only_says_what_differs_and_where(found: ReplicationProfile, sentence: str) -> None:
    one = with_nodes(b=found)
    assert not_in_force(one) == sentence
    verdict = judge(one, HELD)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.INCONCLUSIVE, sentence)
    text = f"{verdict.sentence} {verdict.reasons}"
    assert "ReplicationProfile" not in text and "Protocol." not in text, "never a Python repr"


def test_not_in_force_older_evidence_without_nodes_is_judged_by_what_it_has() -> None:
    older = evidence(observed=replace(observed(SWAP), replication=ReplicationProfile(scatter_gather=False)))
    assert not_in_force(older) == (
        "scatter-gather is off on the replication NIC, although the cell asked for it on"
    )  # fmt: skip


def test_not_in_force_after_a_move_is_judged_as_before_it() -> None:
    seen = observed(SWAP)
    as_asked = ObservedAfterMove(1, "nodeb", seen)
    assert not_in_force(evidence(observed_after_moves=(as_asked,))) is None
    buffered = ObservedAfterMove(2, "nodea", replace(seen, o_direct=False))
    assert not_in_force(evidence(observed_after_moves=(as_asked, buffered))) == (
        "on nodea, after migration 2, O_DIRECT of QEMU's descriptor is off, although the cell asked for cache=none, "
        "aio=threads, which makes it on"
    )


def test_not_in_force_unread_after_a_move_is_not_taken_for_granted() -> None:
    lost = ObservedAfterMove(1, "nodeb", None, "the guest's QEMU does not report what it opened")
    assert not_in_force(evidence(observed_after_moves=(lost,))) == (
        "on nodeb, after migration 1, what is in force of the disk could not be read back: the guest's QEMU does not "
        "report what it opened"
    )
    partly = ObservedAfterMove(1, "nodeb", replace(observed(SWAP), guest_write_cache=None))
    verdict = judge(evidence(observed_after_moves=(partly,)), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == "on nodeb, after migration 1, the guest's write_cache could not be read back"

"""Evidence to verdict: preconditions, oracles that are silent, and oracles that disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_evidence import BLOCKS, HEALTHY, HELD, NOTICED, assert_inconclusive, evidence, kind, oracles

from harness.judgement.judge import judge
from harness.model import Comparison, Evidence, Extent, State, VerdictKind, extents_of

# --------------------------------------------------------------------------- preconditions and silent oracles


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"before": None}, "was not Connected and UpToDate/UpToDate before the cell: its state was not read"),
        (
            {"before": replace(HEALTHY, connection="Connecting")},
            "UpToDate before the cell: Connecting, Primary/Secondary, UpToDate/UpToDate, Established",
        ),
        ({"before": replace(HEALTHY, peer_disk="Inconsistent")}, "was not Connected and UpToDate/UpToDate before"),
        ({"before": replace(HEALTHY, replication="VerifyS")}, "was not Connected and UpToDate/UpToDate before"),
        ({"equal_before": False}, "the replicas were not equal before"),
        ({"equal_before": None}, "the replicas were not equal before"),
        ({"verify": None}, "the start and the end of the verify were not both seen"),
        ({"counter_kib": None}, "an oracle did not answer"),
        ({"comparison": None}, "an oracle did not answer"),
        ({"device_blocks": BLOCKS + 1}, f"the comparison covered {BLOCKS} of {BLOCKS + 1} blocks"),
        ({"device_blocks": 0, "comparison": Comparison(0, (), 0.0, "nowhere")}, "the comparison covered 0 of 0"),
    ],
)
def test_judge_precondition_or_oracle_missing_inconclusive(change: dict[str, Any], text: str) -> None:
    assert_inconclusive(evidence(**change), text)
    assert_inconclusive(evidence(**{**oracles({1}, {1}), **change}), text)


@pytest.mark.parametrize("seen", [{"started": False}, {"finished": False}])
def test_judge_verify_start_or_end_missing_inconclusive(seen: dict[str, bool]) -> None:
    complete = oracles(set(), set())["verify"]
    assert_inconclusive(
        evidence(verify=replace(complete, source=replace(complete.source, **seen))), "were not both seen"
    )


def test_judge_verify_that_drbd_cut_off_says_how_drbd_was_then() -> None:
    complete = oracles(set(), set())["verify"]
    cut = State("Connecting", "Primary", "Unknown", "UpToDate", "DUnknown", "Off")
    assert_inconclusive(
        evidence(verify=replace(complete, source=replace(complete.source, finished=False)), after=cut),
        "were not both seen; after it DRBD reported Connecting, Primary/Unknown, UpToDate/DUnknown, Off",
    )


def test_judge_verify_skipped_blocks_or_log_holes_inconclusive() -> None:
    complete = oracles(set(), set())["verify"]
    assert_inconclusive(evidence(verify=replace(complete, skipped_blocks=7)), "the verify skipped 7 busy blocks")
    assert_inconclusive(evidence(log_holes=3), "3 kernel messages were lost")


# --------------------------------------------------------------------------- oracles that disagree


def seen_by_target(blocks: set[int], **facts: Any) -> Evidence:
    """Evidence whose target's kernel log names other blocks than the source's."""
    verify = facts["verify"]
    target = replace(verify.target, extents=extents_of(blocks))
    return evidence(**{**facts, "verify": replace(verify, target=target)})


def test_oracles_nodes_name_different_blocks_disagree() -> None:
    assert_inconclusive(
        seen_by_target({1}, **oracles({1, 2}, {1, 2})), "1 blocks of the same verify stand in the log of one node"
    )
    assert_inconclusive(seen_by_target({1, 3}, **oracles({1, 2}, {1, 2})), "name 3 blocks, DRBD counts 2 out of sync")


def test_oracles_log_names_fewer_than_marked_agree() -> None:
    verdict = judge(seen_by_target({1}, **oracles({1, 2}, {1, 2, 9}, 16)), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.DIVERGED, 3)
    assert verdict.reasons == (
        "1 more blocks were reported and are equal again",
        "the kernel log names 2 of the 4 blocks that verify marked",
    )
    assert kind(evidence(**oracles(set(), set(), 4), alarms=NOTICED)) is VerdictKind.TRANSIENT


def test_oracles_same_blocks_other_extents_agree() -> None:
    facts = oracles({1, 2}, {1, 2})
    target = replace(facts["verify"].target, extents=(Extent(16, 8), Extent(8, 8), Extent(16, 8)))
    assert kind(evidence(**{**facts, "verify": replace(facts["verify"], target=target)})) is VerdictKind.DIVERGED


@pytest.mark.parametrize(
    ("verified", "compared", "counter", "text"),
    [
        ({1, 2}, {1, 2}, 4, "name 2 blocks, DRBD counts 1 out of sync"),
        ({1, 2}, {1, 2}, 0, "name 2 blocks, DRBD counts 0 out of sync"),
        ({1, 2}, set(), 4, "name 2 blocks, DRBD counts 1 out of sync"),
        ({1}, {1}, 5, "DRBD counts 5 KiB out of sync, which is no whole number of blocks"),
        (set(), set(), 3, "DRBD counts 3 KiB out of sync, which is no whole number of blocks"),
        (set(), {9}, 0, "1 blocks differ that verify did not report"),
        (set(), {9, 10}, 4, "1 blocks differ that verify did not report"),
        ({1}, {1, 9, 10}, 4, "2 blocks differ that verify did not report"),
        ({1}, {9}, 4, "1 blocks differ that verify did not report"),
    ],
)
def test_oracles_contradiction_inconclusive_naming_it(
    verified: set[int], compared: set[int], counter: int, text: str
) -> None:
    found = evidence(**oracles(verified, compared, counter))
    assert_inconclusive(found, "the oracles disagree: ")
    assert_inconclusive(found, text)

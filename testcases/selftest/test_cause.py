"""Why blocks differ: those that changed in flight, those that nothing explains, and who cannot tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn_evidence import any_evidence
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import HELD, evidence, oracles

from harness.judgement.cause import cause, cause_findings
from harness.judgement.judge import judge
from harness.model import Evidence, PlantedChange, VerdictKind, Witness, extents_of

BLOCKS = st.sets(st.integers(0, 60))


def witness(changed: set[int], **other: object) -> Witness:
    seen = Witness(
        True, nodes=("nodea",), writes=1000, block_writes=1000, changed_writes=len(changed),
        changed_block_writes=len(changed), changed_blocks=len(changed), changed=tuple(extents_of(changed)),
    )  # fmt: skip
    return replace(seen, **other)  # type: ignore[arg-type]


def differing(blocks: set[int], changed: set[int], **other: object) -> Evidence:
    return evidence(**oracles(blocks, blocks), witness=witness(changed, **other))


def test_cause_all_changed_in_flight_says_each() -> None:
    found = differing({3, 4}, {2, 3, 4})
    assert cause_findings(found) == ("the witness saw a write of each of the 2 differing blocks change in flight",)
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.DIVERGED and cause_findings(found)[0] in verdict.reasons


def test_cause_some_unexplained_says_how_many() -> None:
    found = differing({3, 4, 9}, {3})
    assert cause_findings(found) == (
        "the witness saw a write of 1 of the 3 differing blocks change in flight; "
        "what made the other 2 differ is not known",
    )
    assert cause_findings(found)[0] in judge(found, HELD).reasons


@pytest.mark.parametrize(
    "other",
    [
        {"watched": False, "reason": "no BTF"},
        {"block_writes": 0},
        {"block_writes": 900},
        {"not_watched": {"no_room": 1}},
        {"changed_blocks": 5},
        {"changed_blocks": 0},
    ],
)
def test_cause_witness_incomplete_nobody_can_tell(other: dict[str, object]) -> None:
    assert cause(differing({3}, {3}, **other)) is None and cause_findings(differing({3}, {3}, **other)) == ()


def test_cause_no_witness_or_comparison_nobody_can_tell() -> None:
    assert cause(evidence(**oracles({3}, {3}))) is None
    assert cause(replace(differing({3}, {3}), comparison=None)) is None


def test_cause_changed_below_drbd_on_purpose_left_out() -> None:
    planted = PlantedChange(8 * 7, 2, node="nodeb")
    found = replace(differing({3, 7}, {3}), planted=(planted,))
    assert cause_findings(found) == ("the witness saw a write of each of the 1 differing blocks change in flight",)


@given(BLOCKS, BLOCKS)
def test_cause_every_differing_block_in_one_of_both(blocks: set[int], changed: set[int]) -> None:
    found = cause(differing(blocks, changed))
    assert found is not None
    assert found.in_flight | found.other == blocks and found.in_flight <= changed and not found.other & changed


@given(any_evidence(), BLOCKS)
def test_cause_any_evidence_never_a_verdict_of_its_own(found: Evidence, changed: set[int]) -> None:
    found = replace(found, witness=witness(changed))
    told = cause_findings(found)
    assert len(told) <= 1 and (not told or (found.comparison is not None and found.comparison.differing))
    assert judge(found, HELD).kind is judge(replace(found, witness=None), HELD).kind

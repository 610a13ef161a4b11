"""A planted change whose owner is known: found, looked at, and given to whom it belongs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import HELD, evidence, oracles

from harness.judgement.judge import judge
from harness.judgement.planted_owner import misattributed
from harness.model import BlockOwner, Evidence, PlantedChange, PlantedKind, Sample, VerdictKind

CHANGE = PlantedChange(8 * 30 + 3, 1, "b", PlantedKind.BYTE, 7, BlockOwner.ALLOCATED, "/modified")
RIGHT = Sample(30, 7, 1, "00", "ff", BlockOwner.ALLOCATED, "/modified")


def found(
    *samples: Sample, differing: frozenset[int] = frozenset({30}), planted: tuple[PlantedChange, ...] = (CHANGE,)
) -> Evidence:
    return evidence(**oracles(set(differing), set(differing)), planted=planted, samples=samples)


def test_misattributed_found_and_right_none() -> None:
    assert misattributed(found(RIGHT)) is None
    assert judge(found(RIGHT), HELD).kind is VerdictKind.DIVERGED
    others = (replace(RIGHT, block=29, owner=BlockOwner.FREE), RIGHT, replace(RIGHT, block=31, detail=""))
    assert misattributed(found(*others, differing=frozenset({29, 30, 31}))) is None


@pytest.mark.parametrize(
    ("samples", "differing", "told"),
    [
        ((RIGHT,), {29, 31}, "block 30, which was changed on b below DRBD, was not found"),
        ((replace(RIGHT, block=29),), {29, 30}, "nobody looked for the owner of block 30"),
        ((), {30}, "nobody looked for the owner of block 30"),
        *(
            ((replace(RIGHT, owner=owner),), {30}, f"is allocated (/modified) and was taken for {owner} (/modified)")
            for owner in BlockOwner
            if owner is not BlockOwner.ALLOCATED
        ),
        *(
            ((replace(RIGHT, detail=detail),), {30}, f"is of /modified and was taken for {detail}")
            for detail in ("/aaa", "/zzz", "")
        ),
    ],
)
def test_misattributed_wrong_answer_inconclusive_with_what_is_wrong(
    samples: tuple[Sample, ...], differing: set[int], told: str
) -> None:
    wrong = found(*samples, differing=frozenset(differing))
    assert told in (misattributed(wrong) or "")
    verdict = judge(wrong, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and told in verdict.sentence
    assert verdict.reasons[0].startswith("diverged: "), "and what was found is beside it"


def test_misattributed_not_compared_at_all_was_not_found() -> None:
    assert "was not found" in (misattributed(replace(found(RIGHT), comparison=None)) or "")


def test_misattributed_known_owner_without_a_detail_any_detail_is_right() -> None:
    planted = (replace(CHANGE, owner_detail=""),)
    assert misattributed(found(RIGHT, planted=planted)) is None
    assert misattributed(found(replace(RIGHT, owner=BlockOwner.FREE), planted=planted)) is not None


def test_misattributed_each_block_of_each_change_is_asked_for() -> None:
    two = replace(CHANGE, start=8 * 30, size=16, kind=PlantedKind.SECTORS, byte=None)
    both = frozenset({30, 31})
    assert "block 31" in (misattributed(found(RIGHT, planted=(two,), differing=both)) or "")
    assert misattributed(found(RIGHT, replace(RIGHT, block=31), planted=(two,), differing=both)) is None
    later = (replace(CHANGE, owner=None), replace(CHANGE, start=8 * 40))
    assert "block 40" in (misattributed(found(RIGHT, planted=later)) or "")


@given(st.sampled_from([None, *BlockOwner]), st.booleans())
def test_misattributed_owner_that_nobody_knows_is_no_doubt(owner: BlockOwner | None, differs: bool) -> None:
    planted = (replace(CHANGE, owner=None),)
    seen = () if owner is None else (replace(RIGHT, owner=owner),)
    assert misattributed(found(*seen, planted=planted, differing=frozenset({30} if differs else {}))) is None

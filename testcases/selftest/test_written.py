"""Blocks that differ although the replica that was watched did not change there: before the work, or elsewhere."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import BLOCKS, HELD, evidence, oracles

from harness.judgement.judge import judge
from harness.judgement.written import UnwrittenDifferences, unwritten_differences, unwritten_findings
from harness.model import Evidence, VerdictKind, Written, extents_of

SOME = st.sets(st.integers(0, 30))


def found(differing: set[int], changed: set[int], before: set[int]) -> Evidence:
    written = Written("nodea", BLOCKS, extents_of(changed), extents_of(before), 1.0)
    return evidence(**oracles(differing, differing), written=written)


def test_unwritten_differences_before_the_work_and_elsewhere() -> None:
    one = found({1, 2, 3, 4}, {1, 9}, {2, 9, 12})
    assert unwritten_differences(one) == UnwrittenDifferences("nodea", frozenset({2}), frozenset({3, 4}))
    assert unwritten_findings(one) == (
        "1 of the blocks that differ did so before the work began",
        "2 of the blocks that differ did not change on nodea during the work",
    )
    verdict = judge(one, HELD)
    assert verdict.kind is VerdictKind.DIVERGED and set(unwritten_findings(one)) <= set(verdict.reasons)


def test_unwritten_findings_one_of_two_is_told_alone() -> None:
    assert unwritten_findings(found({2}, set(), {2})) == ("1 of the blocks that differ did so before the work began",)
    assert unwritten_findings(found({2}, set(), set())) == (
        "1 of the blocks that differ did not change on nodea during the work",
    )
    assert unwritten_findings(found({2}, {2}, {2})) == (), "what was written is explained"


def test_unwritten_differences_nobody_counted_or_compared_not_known() -> None:
    one = found({1}, set(), set())
    for unknown in (replace(one, written=None), replace(one, comparison=None)):
        assert unwritten_differences(unknown) is None and unwritten_findings(unknown) == ()


@given(SOME, SOME, SOME)
def test_unwritten_differences_any_blocks_apart_and_among_those_that_differ(
    differing: set[int], changed: set[int], before: set[int]
) -> None:
    both = unwritten_differences(found(differing, changed, before))
    assert both is not None and not both.before & both.elsewhere
    assert both.before | both.elsewhere == differing - changed and both.before <= before

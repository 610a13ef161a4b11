"""Stored attempts, judged again: what an earlier one found stands."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from test_judge import evidence, oracles

from harness.judgement.rejudge import conclusive, rejudged, worse
from harness.model import CacheMode, Cell, FilesystemKind, Result, Run, Verdict, VerdictKind

SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
KINDS = st.lists(st.sampled_from(VerdictKind), min_size=1, max_size=5)


def results(kinds: list[VerdictKind]) -> list[Result]:
    return [Result(SWAP, Verdict(kind, f"attempt {number}"), None) for number, kind in enumerate(kinds)]


@given(KINDS)
def test_worse_any_order_never_erases_a_finding(kinds: list[VerdictKind]) -> None:
    standing, *later = results(kinds)
    for result in later:
        standing = worse(standing, result)
    assert standing.verdict is not None
    for found in (VerdictKind.CORRUPT, VerdictKind.DIVERGED, VerdictKind.TRANSIENT):
        if found in kinds:
            assert standing.verdict.kind is found
            break
    assert conclusive(standing) == any(kind is not VerdictKind.INCONCLUSIVE for kind in kinds)


def test_worse_equally_bad_the_later_stands() -> None:
    first, second = results([VerdictKind.CLEAN, VerdictKind.CLEAN])
    assert worse(first, second) is second
    assert worse(Result(SWAP, None, None), first) is first, "any answer is better than none"


def test_rejudged_difference_then_clean_attempt_stays_diverged() -> None:
    run = Run("run1", "quick", "2026-11-23T01:50:03Z", (SWAP,))
    found = [replace(evidence(SWAP, **oracles({5}, {5})), attempt=1), replace(evidence(SWAP), attempt=2)]
    (result,) = rejudged(run, found)
    assert result.verdict is not None and result.verdict.kind is VerdictKind.DIVERGED
    assert result.evidence is not None and result.evidence.attempt == 1

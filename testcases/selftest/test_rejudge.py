"""Stored attempts, judged again: what an earlier one found stands."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import evidence, oracles

from harness.judgement.rejudge import badness, conclusive, rejudged, worse
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Control,
    FilesystemKind,
    Result,
    Run,
    Verdict,
    VerdictKind,
)

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


def test_badness_order_of_all_answers() -> None:
    none = Result(SWAP, None, None)
    of = {kind: badness(Result(SWAP, Verdict(kind, ""), None)) for kind in VerdictKind}
    assert of[VerdictKind.REFUSED] == of[VerdictKind.CLEAN]
    found = (VerdictKind.TRANSIENT, VerdictKind.DIVERGED, VerdictKind.CORRUPT)
    ranks = [badness(none), *(of[kind] for kind in (VerdictKind.INCONCLUSIVE, VerdictKind.CLEAN, *found))]
    assert ranks == sorted(set(ranks)), "each is worse than the one before it"
    for kind in VerdictKind:
        (answer,) = results([kind])
        assert worse(none, answer) is worse(answer, none) is answer, "any answer is better than none"


def test_rejudged_control_is_what_it_was_on_the_newest_lab_whatever_its_name() -> None:
    idle = Cell("no-writes", client=ClientKind.HOST, control=Control.IDLE)
    run = Run("run1", "quick", "2026-11-23T01:50:03Z", (idle,))
    noisy, quiet = evidence(idle, **oracles({5}, {5})), evidence(idle, exposed_blocks=0)
    for old, new in (("zzz", "aaa"), ("aaa", "zzz")):
        first = replace(noisy, lab=old, started_at="2026-11-23T01:50:10Z")
        second = replace(quiet, lab=new, started_at="2026-11-23T02:50:10Z")
        for attempts in ([first, second], [second, first]):
            (result,) = rejudged(run, attempts)
            assert result.evidence is second, "in whatever order they are kept"
    later = replace(quiet, lab="aaa", started_at="2026-11-23T03:50:10Z")
    (result,) = rejudged(run, [replace(noisy, lab="aaa", started_at="2026-11-23T02:50:10Z"), later])
    assert result.evidence is not later, "on one lab the first that failed"

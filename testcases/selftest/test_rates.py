"""What a bound is of, where there is none, and how it is written down: never lower than it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import SWAP, evidence

from harness.judgement.rates import (
    exposed_text,
    nothing_found,
    opportunities,
    rate_bound,
    resynced_kib,
    trials,
    upper_bound,
)
from harness.model import Alarms, Comparison, Crash, CrashRecovery, Evidence, Extent, RejoinComparison, Work


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0002412, "0.025 %"),
        (0.00024, "0.024 %"),
        (0.009999, "1.00 %"),
        (0.01, "1.0 %"),
        (0.0101, "1.1 %"),
        (0.099, "9.9 %"),
        (0.1, "10 %"),
        (0.101, "11 %"),
        (0.5, "50 %"),
        (1.0, "100 %"),
        (3.1e-8, "0.0000031 %"),
        (0.0, "0 %"),
        (-0.5, "0 %"),
    ],
)
def test_upper_bound_known_rates_never_rounded_down(rate: float, text: str) -> None:
    assert upper_bound(rate) == text


@given(st.floats(1e-9, 1.0))
def test_upper_bound_any_rate_not_smaller(rate: float) -> None:
    text = float(upper_bound(rate).removesuffix(" %")) / 100
    assert rate * (1 - 1e-6) <= text <= rate * 1.11


def rejoined(blocks: int) -> RejoinComparison:
    return RejoinComparison("after the crash", "b", Comparison(64, (Extent(0, 8 * blocks),), 0.1, "controller"), True)


def resynced(logged: int | None = None, after_crash: int | None = None, apart: tuple[int, ...] = ()) -> dict[str, Any]:
    """Facts of a cell in which so many KiB were resynced, and whose replicas differed in so many blocks before."""
    return {
        "alarms": None if logged is None else Alarms(resynced_kib=logged),
        "crash_recovery": CrashRecovery(Crash.NODE, resynced_kib=after_crash),
        "rejoin_comparisons": tuple(rejoined(blocks) for blocks in apart),
    }


@pytest.mark.parametrize(
    ("facts", "kib"),
    [
        ({}, 0),
        (resynced(), 0),
        (resynced(80), 80),
        (resynced(None, 12), 12),
        (resynced(80, 12), 80),
        (resynced(12, 80), 80),
        (resynced(12, None, (2, 5, 1)), 20),
        (resynced(None, None, (1,)), 4),
        (resynced(400, None, (5,)), 400),
    ],
)
def test_resynced_kib_the_most_that_anybody_knows_of(facts: dict[str, Any], kib: int) -> None:
    found = evidence(**facts)
    assert resynced_kib(found) == kib
    assert (rate_bound(found, 0) is None) == (kib > 0), "what a resync made equal is no trial"


def test_nothing_found_known_evidence_says_what_it_means() -> None:
    nothing = "verify and comparison found nothing"
    assert nothing_found(evidence(exposed_blocks=0)) == f"{nothing}; no block write was exposed"
    assert nothing_found(evidence()) == (
        f"{nothing} in 1000 exposed block writes: at most 0.30 % of them diverge (95 %)"
    )
    assert nothing_found(evidence(exposed_blocks=1)) == (
        f"{nothing} in 1 exposed block writes: at most 95 % of them diverge (95 %)"
    )
    assert nothing_found(evidence(**resynced(1024 * 1024))).endswith("equal after a resync of 1024.0 MiB")
    assert nothing_found(evidence(**resynced(1536))) == (
        f"{nothing} in 1000 exposed block writes: equal after a resync of 1.5 MiB"
    )


def reclaimed(count: float, exposed: int = 1000) -> Evidence:
    return evidence(SWAP, work=Work(1.0, opportunities=count, opportunity="pages"), exposed_blocks=exposed)


def test_trials_opportunities_or_else_exposed_blocks() -> None:
    assert trials(reclaimed(1.0)) == (1, "pages")
    assert trials(reclaimed(1000.0)) == (1000, "pages")
    assert trials(reclaimed(1001.0)) == (1000, "pages")
    assert trials(reclaimed(0.0)) == trials(evidence()) == (1000, "exposed block writes")
    counted = opportunities(reclaimed(7.9))
    assert counted is not None and counted.count == 7, "a part of a page is none"
    assert trials(reclaimed(5.0, exposed=0)) == (0, "exposed block writes")


def test_rate_bound_without_trials_none_and_at_most_one() -> None:
    assert rate_bound(reclaimed(5.0, exposed=0), 3) is None
    assert rate_bound(reclaimed(5.0), 5) == rate_bound(reclaimed(5.0), 9) == 1.0
    four = rate_bound(reclaimed(5.0), 4)
    assert four is not None and four < 1.0


def test_exposed_text_known_evidence_as_the_end_of_a_sentence() -> None:
    assert exposed_text(evidence(exposed_blocks=0)) == ""
    assert exposed_text(evidence(exposed_blocks=1)) == " after 1 exposed block writes"
    assert exposed_text(reclaimed(3.0)) == " after 1000 exposed block writes and 3 pages"


@pytest.mark.parametrize("what", ["aaa", "block writes that changed in flight", "exposed", "pages", "zzz"])
def test_rates_opportunities_are_named_in_each_sentence(what: str) -> None:
    found = evidence(SWAP, work=Work(1.0, opportunities=3.0, opportunity=what))
    assert exposed_text(found) == f" after 1000 exposed block writes and 3 {what}"
    assert nothing_found(found).endswith(f"at most 64 % of the 3 {what} diverge (95 %)")

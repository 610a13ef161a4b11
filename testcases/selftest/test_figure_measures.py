"""What a table of figures says of a group of plays, one measure each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_evidence import evidence, oracles

from harness.model import (
    AioMode,
    CacheMode,
    Canary,
    Cell,
    Crash,
    DelayProfile,
    Evidence,
    FilesystemKind,
    Ownership,
    Readback,
    Result,
    Stack,
    Verdict,
    VerdictKind,
    Work,
    extents_of,
)
from harness.report.figure_measures import MEASURES, Play, spread

SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
STACK = Stack(drbd="8.4.11", kernel="6.12.1+x", qemu="10.0", accelerator="tcg")


def play(kind: VerdictKind, differing: int = 0, cell: Cell = SWAP, found: Evidence | None = None) -> Play:
    seen = found or evidence(cell, **oracles(set(range(differing)), set(range(differing))))
    said = Verdict(kind, "It is so.", differing_blocks=differing, exposed_blocks=1000)
    return Play(Result(cell, said, seen), "a-run", STACK)


def with_canary(lost: int, kind: VerdictKind = VerdictKind.CLEAN) -> Play:
    cell = replace(SWAP, crash=Crash.NODE, aio=AioMode.IO_URING, delays=DelayProfile(20))
    canary = Canary(acknowledged={"fsync": 60, "dsync": 40}, lost={"fsync": lost})
    return play(kind, cell=cell, found=evidence(cell, canary=canary))


@pytest.mark.parametrize(
    ("values", "text"),
    [([], ""), ([7], "7"), ([7, 7, 7], "7"), ([9, 7], "7 to 9"), ([1200, 7, 8], "7 to 1 200, median 8")],
)
def test_spread_ends_and_middle(values: list[float], text: str) -> None:
    assert spread(values) == text


def test_verdicts_counts_of_those_with_an_answer() -> None:
    plays = [play(VerdictKind.CLEAN), *[play(VerdictKind.DIVERGED, 5)] * 3, play(VerdictKind.INCONCLUSIVE)]
    assert MEASURES["verdicts"].text(plays) == "CLEAN 1 of 4, **DIVERGED** 3 of 4, 1 without an answer"
    assert MEASURES["n"].text(plays) == "4, and 1 without an answer"
    assert MEASURES["interval"].text(plays) == "19 % to 100 %"
    assert MEASURES["differing"].text(plays) == "0 to 5, median 5"
    assert MEASURES["blocks"].text(plays) == "0\u20135 of 1 000"


def test_differing_owners_add_up() -> None:
    def owned(blocks: int, **owners: int) -> str:
        one = play(VerdictKind.DIVERGED, blocks)
        assert one.result.evidence is not None
        found = replace(one.result.evidence, ownership=Ownership(**owners))
        return MEASURES["differing"].text([replace(one, result=replace(one.result, evidence=found))])

    assert owned(5, free=5) == "5; all free"
    assert owned(5, free=2, unknown=1) == "5; 2 free, 1 owner unknown and 2 not looked up"
    assert owned(5) == owned(5, free=6) == "5", "nobody looked one up; more owners than blocks"


def test_log_of_a_verify_that_leaves_blocks_out_is_counted_by_the_oracles() -> None:
    both = {"verified": {1, 2}, "compared": {1, 2, 3}, "counter_kib": 12}
    short = play(VerdictKind.DIVERGED, 3, found=evidence(SWAP, **oracles(**both)))
    whole = play(VerdictKind.DIVERGED, 2, found=evidence(SWAP, **oracles({1, 2}, {1, 2})))
    nothing = play(VerdictKind.CLEAN)
    assert MEASURES["marking"].text([short, whole, nothing]) == "2; 5 blocks"
    assert MEASURES["unnamed"].text([short, whole, nothing]) == "1 of 2; 1 block"
    assert MEASURES["unnamed"].text([nothing]) == ""


def test_power_cuts_count_cuts_and_records() -> None:
    cuts = [with_canary(0), with_canary(3, VerdictKind.CORRUPT), with_canary(9, VerdictKind.INCONCLUSIVE)]
    assert MEASURES["losing"].text(cuts) == "1 of 2", "no answer is no cut"
    assert MEASURES["losing_interval"].text(cuts) == "1 % to 99 %"
    assert MEASURES["records"].text(cuts) == "197 of 200"


def test_reread_blocks_and_whose() -> None:
    moved = Readback(100, "a", "b", extents_of([3, 4]), Ownership(allocated=1, free=1))
    one = play(VerdictKind.CORRUPT, found=evidence(SWAP, readback=moved))
    assert MEASURES["reread"].text([one]) == "2; 1 allocated and 1 free"


def test_acknowledged_early_of_each_kind_of_write_over_all_plays() -> None:
    def probe(first: int, meanwhile: int, writes: int) -> Play:
        facts = {"acknowledged_writes": writes, "early_first": first, "early_alone": 0, "early_meanwhile": meanwhile}
        work = Work(1.0, facts={name: float(value) for name, value in facts.items()})
        return play(VerdictKind.CLEAN, found=evidence(SWAP, work=work))

    plays = [probe(8, 7, 24), probe(10, 10, 30), play(VerdictKind.CLEAN), play(VerdictKind.INCONCLUSIVE)]
    found = [MEASURES[name].text(plays) for name in ("early_first", "early_alone", "early_meanwhile")]
    assert found == ["18 of 18", "0 of 18", "17 of 18"]


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_nothing_are_empty(name: str) -> None:
    assert MEASURES[name].text([]) in ("", "0")
    MEASURES[name].text([play(VerdictKind.INCONCLUSIVE), play(VerdictKind.REFUSED)])

"""Whether two rows of a table of figures differ by more than chance, as its last sentence says."""

from __future__ import annotations

import pytest
from judged_evidence import evidence

from harness.config.sentences import validated
from harness.errors import UsageError
from harness.model import AioMode, CacheMode, Canary, Cell, Crash, DelayProfile, Result, Stack, Verdict, VerdictKind
from harness.report.figure_apart import told_apart
from harness.report.figure_measures import Play
from harness.report.figure_spec import FigureTable

TABLE = FigureTable(runs=("cuts-*",), rows=("cache", "aio"), show=("n", "losing"), apart="aio")


def plays(aio: AioMode, lost: int, of: int, cache: CacheMode = CacheMode.WRITETHROUGH) -> list[Play]:
    cell = Cell("buffered", cache=cache, aio=aio, crash=Crash.NODE, delays=DelayProfile(20))
    said = Verdict(VerdictKind.CLEAN, "It is so.")
    canaries = [Canary(acknowledged={"fsync": 60}, lost={"fsync": int(number < lost)}) for number in range(of)]
    return [Play(Result(cell, said, evidence(cell, canary=one)), "a-run", Stack(drbd="8.4.11")) for one in canaries]


def test_rows_that_differ_in_that_property_alone_are_told_apart_by_fishers_test() -> None:
    every = plays(AioMode.THREADS, 7, 16) + plays(AioMode.IO_URING, 0, 15)
    # Another cache mode is another row: nothing is beside it.
    every += plays(AioMode.THREADS, 9, 9, CacheMode.UNSAFE)
    assert told_apart(TABLE, every) == [
        "writethrough: aio threads lost an acknowledged write in 7 of 16 plays, io_uring in 0 of 15:"
        " p = 0.0068 (Fisher's exact test, two-sided)."
    ]


@pytest.mark.parametrize(("few", "said"), [(3, 0), (4, 1)])
def test_too_few_plays_of_a_row_to_be_told_from_chance_have_no_sentence(few: int, said: int) -> None:
    assert len(told_apart(TABLE, plays(AioMode.THREADS, few, few) + plays(AioMode.IO_URING, 0, 15))) == said


def test_a_table_that_does_not_ask_has_no_sentence() -> None:
    every = plays(AioMode.THREADS, 7, 16) + plays(AioMode.IO_URING, 0, 15)
    assert told_apart(TABLE.model_copy(update={"apart": ""}), every) == []


def test_apart_is_a_property_that_tells_rows() -> None:
    written = {"runs": ["cuts-*"], "rows": ["cache"], "show": ["n"], "apart": "aio"}
    with pytest.raises(UsageError, match="'apart' is one of 'rows', and 'aio' is not"):
        validated(FigureTable, written, source="docs/figures.toml", place="[cuts]")

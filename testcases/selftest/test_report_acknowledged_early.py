"""A run in which QEMU acknowledged writes before they were flushed, on equal replicas: every page says so; recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.model import Result
from harness.report.headline import Answer, headline
from harness.report.repetitions import answer_rows, played_cells
from harness.report.summary import summarize
from harness.store import Store, judged_results

# QEMU 7.2.22 with its write-through disk on the node's DRBD device, each cell four times.
RUN = "flush-20261130T172724Z-2d9c"
EARLY = ("host-flush-probe-writethrough-flush800ms", "host-flush-probe-writethrough-iouring-flush800ms")
FLUSHED = tuple(one.replace("probe", "probe-raw-layer") for one in EARLY)


@pytest.fixture(scope="module")
def results() -> Sequence[Result]:
    return judged_results(Store.open(Path(__file__).parents[2] / "docs" / "evidence", RUN))


def once(results: Sequence[Result]) -> list[Result]:
    return [one for one in results if one.cell.repetition == 1]


def test_headline_of_equal_replicas_says_what_a_power_cut_may_lose(results: Sequence[Result]) -> None:
    said = headline(results)
    assert said.answer is Answer.YES and said.sentence.endswith(
        " In 2 cells (8 repetitions) QEMU acknowledged writes before they were flushed, which a power cut may lose."
    )
    assert " In 2 cells QEMU acknowledged writes " in headline(once(results)).sentence
    flushed = [one for one in results if one.cell.id not in EARLY]
    assert "acknowledged" not in headline(flushed).sentence


def test_cells_with_such_writes_are_none_in_which_nothing_was_found(results: Sequence[Result]) -> None:
    for some in (results, once(results)):
        assert tuple(line.cell_id for line in summarize(some).bounds) == FLUSHED


def test_heat_map_has_them_beside_the_verdict(results: Sequence[Result]) -> None:
    def texts(some: Sequence[Result]) -> dict[str, str]:
        table = summarize(some).map
        return {one.cell_id: one.text for place in table.cells.values() for one in place}

    for cell_id in EARLY:
        assert texts(results)[cell_id].endswith("0 % to 61 % (95 %), 4 of 4 with writes acknowledged too early")
        assert "\n16 writes acknowledged too early, 0 of " in texts(once(results))[cell_id]
    assert not any("acknowledged" in texts(some)[one] for one in FLUSHED for some in (results, once(results)))


def test_page_of_the_cell_has_a_row_of_them(results: Sequence[Result]) -> None:
    rows = {one.answer.cell.id: dict(answer_rows(one.answer)) for one in played_cells(results)}
    assert rows[EARLY[0]]["Acknowledged too early"] == "in 4 of 4" and not rows[FLUSHED[0]]["Acknowledged too early"]

"""What a cell's page shows of the newer evidence: written blocks, comparisons before a rejoin, read-backs by node and
after moves, pages that moved, lost events, planted changes.  On the evidence of real runs, with these facts added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from reported_results import nodes, text_of
from test_report_worth import recorded

from harness.model import (
    BlockOwner,
    Comparison,
    DelayProfile,
    DelayReading,
    Evidence,
    NodeSettings,
    ObservedAfterMove,
    PlantedChange,
    PlantedKind,
    RejoinComparison,
    ReplicationProfile,
    Result,
    Sample,
    Written,
    extents_of,
)
from harness.report.grid import Grid
from harness.report.html import evidence_html
from harness.report.planted import CHANGES_SHOWN, planted_grid
from harness.report.read_back import delay_grid, lost_rows, move_grid, moved_page_rows, node_grid
from harness.report.written import rejoin_grid, written_rows

DELAYS = DelayProfile(link_delay_ms=20)


def of_run(cell_id: str, run: str = "disturbances-drbd-8.4") -> Evidence:
    found = next(one.evidence for one in recorded(run) if one.cell.id == cell_id)
    assert found is not None
    return found


MOVED = of_run("none-swap-reclaim-link20ms-migrate2")
CRASHED = of_run("none-ext4-buffered-link20ms-crash.node")
COMPARED = Comparison(32768, extents_of([7, 8, 90]), 0.5, "here")
APART = RejoinComparison("after nodea had lost its power", "nodea", COMPARED, True, 12)


def page(evidence: Evidence, **facts: Any) -> str:
    result = next(one for one in recorded("disturbances-drbd-8.4") if one.cell.id == evidence.cell.id)
    return evidence_html(Result(evidence.cell, result.verdict, replace(evidence, **facts)))


def table(made: Grid | None) -> list[list[str]]:
    assert made is not None
    return [list(made.columns), *([slot.text for slot in row] for row in made.rows)]


def tones(made: Grid | None) -> list[list[str]]:
    assert made is not None
    return [[slot.tone for slot in row] for row in made.rows]


# --------------------------------------------------------------------------- written, and apart


def test_page_written_blocks_distinct_and_their_extents() -> None:
    written = Written("nodea", 32768, extents_of([1, 2, 3, 50]), extents_of([9]))
    rows = dict(written_rows(replace(MOVED, written=written)))
    assert rows == {
        "Distinct blocks changed on nodea": "4 blocks (16 KiB) during the work",
        "Different before the work": "1 block",
    }
    shown = page(MOVED, written=written)
    assert "4 blocks (16 KiB) during the work" in text_of(shown)
    assert "Extents that changed during the work (2), in sectors of 512 bytes" in text_of(shown)
    assert written_rows(MOVED) == [], "nobody looked"


def test_page_comparison_before_a_rejoin_blocks_and_extents() -> None:
    writing = replace(APART, when="while nodeb was without power", away="nodeb", quiet=False, out_of_sync_kib=None)
    rows = table(rejoin_grid(replace(CRASHED, rejoin_comparisons=(APART, writing))))
    assert rows[1][:6] == ["after nodea had lost its power", "nodea", "3 blocks (12 KiB)", "2", "12 KiB", "no"]
    assert rows[2][4:6] == ["", "yes: what differs may have been under way"]
    text = text_of(page(CRASHED, rejoin_comparisons=(APART,)))
    assert "Compared before the replicas rejoined" in text
    assert "Extents that differed after nodea had lost its power (2), in sectors of 512 bytes 56+16" in text
    assert rejoin_grid(CRASHED) is None and "rejoined" not in text_of(page(CRASHED)).replace("Replicas rejoined", "")


# --------------------------------------------------------------------------- read back


def test_delay_grid_each_reading_by_node_wrong_ones_marked() -> None:
    readings = (
        DelayReading("before the work", "nodea", {"nodea": DELAYS, "nodeb": DelayProfile()}),
        DelayReading("after migration 1", "nodeb", {"nodea": DELAYS, "nodeb": DelayProfile(20, 5)}),
        DelayReading("at the end", None, {"nodea": DelayProfile(), "nodeb": None}, over=True),
    )
    seen = replace(MOVED, observed=replace(MOVED.observed, delays=readings))
    made = delay_grid(seen)
    assert table(made) == [
        ["Read", "Delayed on purpose", "nodea", "nodeb"],
        ["before the work", "nodea", "link 20 ms", "none"],
        ["after migration 1", "nodeb", "link 20 ms", "link 20 ms, disk 5 ms"],
        ["at the end", "none", "none", "not read"],
    ]
    assert [row[2:] for row in tones(made)] == [["", ""], ["bad", "bad"], ["", "bad"]]
    assert "Delays by node" in text_of(page(MOVED, observed=seen.observed))
    assert delay_grid(MOVED) is None


def test_node_grid_other_replication_and_unread_nic_marked() -> None:
    settings = {
        "nodea": NodeSettings(ReplicationProfile(), "eth1", True, False),
        "nodeb": NodeSettings(ReplicationProfile(scatter_gather=False), "eth1", None, False),
    }
    seen = replace(MOVED, observed=replace(MOVED.observed, nodes=settings))
    made = node_grid(seen)
    assert [row[:4] for row in table(made)[1:]] == [
        ["nodea", "protocol C", "eth1", "on"],
        ["nodeb", "protocol C, no scatter-gather", "eth1", "not read"],
    ]
    assert [row[1:4] for row in tones(made)] == [["", "", ""], ["bad", "", "bad"]]
    assert "Settings by node" in text_of(page(MOVED, observed=seen.observed))


def test_move_grid_disk_after_each_move() -> None:
    there = replace(MOVED.observed, link_delay_ms=0)
    moves = (
        ObservedAfterMove(1, "nodeb", there),
        ObservedAfterMove(2, "nodea", replace(there, o_direct=False, qemu_aio=None)),
        ObservedAfterMove(3, "nodeb", None, "QEMU had no such disk"),
    )
    rows = [row[2] for row in table(move_grid(replace(MOVED, observed_after_moves=moves)))[1:]]
    assert rows[0] == "as requested"
    assert rows[1] == "O_DIRECT on the disk: off, on was requested and aio: not read, threads was requested"
    assert rows[2] == "could not be read: QEMU had no such disk"
    assert "The disk after each move" in text_of(page(MOVED, observed_after_moves=moves))


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"moves": 2.0, "pages_moved_checked": 512.0, "pages_moved_wrong": 0.0}, "0 wrong of 512 pages read from swap"),
        ({"moves": 1.0, "pages_moved_checked": 9.0, "pages_moved_wrong": 2.0}, "2 wrong of 9 pages read from swap"),
        ({"moves": 0.0, "pages_moved_checked": 0.0}, ""),
    ],
)
def test_page_pages_that_moved_checked_and_wrong(facts: dict[str, float], text: str) -> None:
    assert MOVED.work is not None
    work = replace(MOVED.work, facts={**MOVED.work.facts, **facts})
    assert text in text_of(page(MOVED, work=work))
    assert bool(moved_page_rows(replace(MOVED, work=work))) == bool(text)


@pytest.mark.parametrize(
    ("lost", "shown"),
    [(None, ""), ((), "none"), (("the stream ended", "17 s unseen"), "the stream ended; 17 s unseen")],
)
def test_page_lost_events_none_unknown_or_which(lost: tuple[str, ...] | None, shown: str) -> None:
    assert dict(lost_rows(replace(MOVED, events_lost=lost)))["DRBD's events lost"] == shown
    assert ("DRBD's events lost" in text_of(page(MOVED, events_lost=lost))) == bool(shown)


# --------------------------------------------------------------------------- planted


def test_planted_grid_how_where_and_who_found_it() -> None:
    planted = of_run("host-planted")
    recorded_changes = table(planted_grid(planted))[1:]
    assert len(recorded_changes) == len(planted.planted) > 0
    assert all(row[-2:] == ["yes", "yes"] for row in recorded_changes)
    assert planted.comparison is not None
    byte = PlantedChange(8 * 31000, 1, "nodea", PlantedKind.BYTE, 77)
    one = replace(planted, planted=(*planted.planted, byte))
    missed = planted_grid(one)
    last = table(missed)[-1]
    assert last[:3] == [f"{8 * 31000}+1", "nodea", "byte 77 of the sector inverted"] and last[-2:] == ["no", "no"]
    assert tones(missed)[-1][-2:] == ["bad", "bad"]
    assert "Planted below DRBD" in text_of(page(one, planted=one.planted))
    many = tuple(PlantedChange(8 * number, 8, "nodeb") for number in range(CHANGES_SHOWN + 3))
    assert table(planted_grid(replace(planted, planted=many)))[-1][0] == "3 more"


def test_planted_grid_known_owner_beside_what_the_search_says() -> None:
    planted = of_run("host-planted")
    file = PlantedChange(8 * 100, 1, "nodeb", PlantedKind.BYTE, 5, BlockOwner.ALLOCATED, "/known")
    free = PlantedChange(8 * 200, 1, "nodea", PlantedKind.BYTE, 5, BlockOwner.FREE)
    samples = tuple(
        Sample(block, 5, 1, "00", "ff", BlockOwner.ALLOCATED, detail)
        for block, detail in ((100, "/known"), (200, "/other"))
    )
    made = planted_grid(
        replace(
            planted, planted=(file, free, replace(file, start=8 * 300), replace(file, start=8 * 200)), samples=samples
        )
    )
    assert made is not None
    at = made.columns.index("Whose it is")
    assert [[slot.text for slot in row[at : at + 2]] for row in made.rows] == [
        ["allocated: /known", "allocated: /known"],
        ["free", "allocated: /other"],
        ["allocated: /known", "not asked"],
        ["allocated: /known", "allocated: /other"],
    ]
    assert [row[at + 1].tone for row in made.rows] == ["", "bad", "bad", "bad"]


def test_page_of_recorded_evidence_without_these_facts_has_no_empty_tables() -> None:
    for result in recorded("disturbances-drbd-8.4"):
        made = f"<div>{evidence_html(result)}</div>"
        assert not nodes(made, "//table[not(.//tr)]")
        text = text_of(made)
        assert not any(title in text for title in ("Delays by node", "Settings by node", "The disk after each move"))

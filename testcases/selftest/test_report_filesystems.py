"""One page: which filesystem and layout diverges under which cache mode, how often, and which files hold the blocks."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from judged_evidence import evidence, oracles
from reported_results import nodes, text_of
from rich.console import Console

from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    ClientKind,
    DelayProfile,
    FileBlocks,
    FilesystemKind,
    Ownership,
    Result,
    Run,
    Sample,
    Verdict,
    VerdictKind,
    Written,
    extents_of,
)
from harness.report.block_map import block_map
from harness.report.by_filesystem import by_filesystem, hit_grid, in_short
from harness.report.cells import anchors
from harness.report.hit_files import file_grid, hit_files
from harness.report.html import render_html
from harness.report.terminal import report_parts
from harness.store import Store, judged_run, run_ids

CHECKOUT = Path(__file__).parents[2]
STORED = [
    pytest.param(root, run_id, id=run_id)
    for root in (CHECKOUT / "docs" / "evidence", CHECKOUT / "testcases" / "selftest" / "golden")
    for run_id in run_ids(root)
]
LINK = DelayProfile(link_delay_ms=20)
TRUNCATED = Cell("truncate", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, delays=LINK)
COPIED = replace(TRUNCATED, cache=CacheMode.WRITEBACK)
SWAPPED = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=LINK)
ON_NODE = Cell("truncate", filesystem=FilesystemKind.EXT4, client=ClientKind.HOST, delays=LINK)
FILES = Ownership(
    allocated=2, free=1, names=("/cut", "free space"),
    files=(FileBlocks("/cut", BlockOwner.ALLOCATED, 2, (4096, 8192)),),
    extents={BlockOwner.ALLOCATED: extents_of([5, 6]), BlockOwner.FREE: extents_of([900])},
)  # fmt: skip


def result(cell: Cell, kind: VerdictKind, repetition: int = 1, owned: Ownership | None = None) -> Result:
    blocks = {5, 6, 900} if kind is VerdictKind.DIVERGED else set()
    played = replace(cell, repetition=repetition)
    found = replace(evidence(played, **oracles(blocks, blocks)), ownership=owned or Ownership())
    return Result(played, Verdict(kind, "seen", differing_blocks=len(blocks), exposed_blocks=100), found)


RESULTS = [
    *(result(TRUNCATED, VerdictKind.DIVERGED, number, FILES) for number in (1, 2)),
    result(TRUNCATED, VerdictKind.CLEAN, 3),
    result(COPIED, VerdictKind.CLEAN),
    result(SWAPPED, VerdictKind.DIVERGED),
    result(ON_NODE, VerdictKind.CLEAN),
    result(replace(COPIED, workload="buffered"), VerdictKind.INCONCLUSIVE),
]


def test_by_filesystem_places_with_how_often_and_exact_interval() -> None:
    table = by_filesystem(RESULTS, anchors(RESULTS))
    assert table is not None
    assert table.columns == ("none", "writeback", "the node itself")
    assert [row.name for row in table.rows] == ["swap", "ext4"], "in the order of their kinds, whatever came first"
    none, writeback, node = table.rows[1].places
    (line,) = none
    assert (line.kind, line.name, line.often, line.interval) == (
        VerdictKind.DIVERGED, "truncate", "2 of 3", "9 % to 100 %"
    )  # fmt: skip
    assert line.anchor.startswith("all-of-"), "to all repetitions"
    assert [one.name for one in writeback] == ["truncate", "buffered"] and [one.often for one in writeback] == [
        "0 of 1",
        "",
    ]
    assert node[0].often == "0 of 1" and table.rows[0].places[1] == ()
    assert table.common == "link delayed by 20 ms"
    assert (
        table.sentence
        == "With none in a guest swap and ext4 diverged; with writeback in a guest and on the node itself none did."
    )
    assert by_filesystem(list(reversed(RESULTS)), anchors(RESULTS)) is not None


def test_by_filesystem_what_a_guest_lost_is_not_called_a_difference() -> None:
    lost = [
        replace(one, verdict=replace(one.verdict, kind=VerdictKind.CORRUPT)) if one.verdict else one for one in RESULTS
    ]
    table = by_filesystem(lost, anchors(lost))
    assert table is not None and "ext4 diverged, or lost or misread data" in table.sentence


def test_by_filesystem_other_delays_stand_in_the_names() -> None:
    mixed = [*RESULTS, result(replace(SWAPPED, delays=DelayProfile()), VerdictKind.CLEAN)]
    table = by_filesystem(mixed, anchors(mixed))
    assert table is not None and table.common == ""
    assert [line.name for line in table.rows[0].places[0]] == ["reclaim-link20ms", "reclaim"]
    assert by_filesystem([], ()) is None


def test_in_short_worst_verdict_and_all_plays() -> None:
    table = by_filesystem(RESULTS, anchors(RESULTS))
    assert table is not None
    short = in_short(table.rows[1].places[1])
    assert short is not None and (short.kind, short.often) == (VerdictKind.INCONCLUSIVE, "0 of 1")
    assert in_short(()) is None


def test_hit_grid_files_owners_and_links_over_all_repetitions() -> None:
    made = hit_grid(RESULTS, anchors(RESULTS))
    assert made is not None
    swap, ext4 = made.rows
    assert [slot.text for slot in ext4] == [
        "ext4", "guest, none", "truncate-link20ms", "DIVERGED", "2 of 3", "9 % to 100 %", "6", "4 allocated, 2 free",
        "/cut: 4 blocks at byte 4 096, 8 192",
    ]  # fmt: skip
    assert ext4[0].anchor.startswith("all-of-") and swap[0].anchor and swap[-1].text == ""
    assert hit_grid(RESULTS[3:4], anchors(RESULTS[3:4])) is None


def test_hit_files_the_most_hit_first_and_what_is_hit_where_no_file_is() -> None:
    many = tuple(FileBlocks(f"/f{number}", BlockOwner.FREE, number, tuple(range(9))) for number in range(1, 8))
    text = hit_files([Ownership(files=many)])
    assert text.startswith("/f7: 7 blocks at byte 0, 1, 2, 3 and further on; /f6") and text.endswith("; 3 more files")
    assert hit_files([Ownership(names=("a", "b", "c", "d"))]) == "a; b; c; 1 more"
    assert hit_files([Ownership()]) == "" and file_grid(Ownership()) is None
    made = file_grid(FILES)
    assert made is not None and [slot.text for slot in made.rows[0]] == ["/cut", "allocated", "2", "4 096, 8 192"]
    seen = (
        Sample(5, 0, 1, "00", "01", path="/cut", looks_a="text", looks_b="zeros"),
        Sample(9, 0, 1, "", "", looks_a="x"),
    )
    shown = file_grid(FILES, seen)
    assert shown is not None and shown.rows[0][-1].text == "text and zeros"


def test_block_map_written_differing_and_classes_of_owners() -> None:
    found = replace(RESULTS[0].evidence, written=Written("nodea", 1000, extents_of([5, 6, 7, 900])), device_blocks=1000)  # type: ignore[type-var]
    drawn = block_map(found)
    assert drawn is not None
    assert [(lane.name, lane.style, lane.blocks) for lane in drawn.lanes] == [
        ("written", "written", 4),
        ("comparison", "comparison", 3),
        ("verify", "verify", 3),
        ("allocated blocks", "allocated", 2),
        ("free blocks", "free", 1),
    ]


def test_heat_map_of_too_many_columns_is_folded_and_left_out_of_a_terminal() -> None:
    few, many = ([replace(SWAPPED, workload=f"w{number}") for number in range(columns)] for columns in (24, 25))
    for cells, folded in ((few, False), (many, True)):
        results = [result(cell, VerdictKind.CLEAN) for cell in (*cells, TRUNCATED)[-len(cells) :]]
        run = Run("r", "m", "2026-11-29T00:00:00+00:00", tuple(one.cell for one in results))
        page = render_html(run, results)
        assert bool(nodes(page, "//details[@class='more']//table[@class='heat']")) == folded
        console = Console(file=io.StringIO(), width=80)
        for part in report_parts(run, results, 80):
            console.print(part)
        assert ("too many for a terminal" in console.file.getvalue()) == folded  # type: ignore[attr-defined]


@pytest.mark.parametrize(("root", "run_id"), STORED)
def test_page_of_every_stored_run_has_the_table_and_every_link_leads_somewhere(root: Path, run_id: str) -> None:
    store = Store.open(root, run_id)
    judged = judged_run(store)
    run, results, attempts = judged.run, judged.results, judged.attempts
    page = render_html(run, results, attempts=attempts)
    tested = {one.cell.id for one in results if not one.cell.tests_instrument}
    links = nodes(page, "//a[contains(@class, 'line')]/@href")
    assert len(links) == len(tested) and {link[1:] for link in links} <= {*nodes(page, "//@id")}
    assert ("By filesystem and layout" in text_of(page)) == bool(tested)
    assert render_html(run, results, attempts=attempts) == page
    assert report_parts(run, results, 100, attempts)

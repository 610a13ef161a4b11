"""The report on live migrations: a row and a bar for each, how many came through, and for how long the guest stood."""

from __future__ import annotations

from dataclasses import replace

from disturbed_results import migrated, misread, moved, shown
from reported_results import diverged, everything, nodes, run_of, text_of

from harness.model import (
    CacheMode,
    Cell,
    Evidence,
    Failure,
    FilesystemKind,
    MigrationOutcome,
    Result,
    Verdict,
    VerdictKind,
)
from harness.report.cells import anchors
from harness.report.html import evidence_html, render_html
from harness.report.migrations import migration_grid, migration_sentence, timelines
from harness.report.table import figures


def test_migration_grid_row_per_migration() -> None:
    results = [diverged(), migrated(), misread()]
    table = migration_grid(results, anchors(results))
    assert table and len(table.rows) == 6
    assert shown(table, 1) == {
        "Cell": "none-ext4-buffered-migrate3", "#": "2", "From, to": "node-b \u2192 node-a", "Outcome": "completed",
        "Duration": "2.50 s", "Downtime": "200 ms", "Iterations": "3", "Transferred": "210.0 MiB of 256",
        "Throttled by": "20 %", "Both Primary": "3.25 s", "During": "", "Message": "",
    }  # fmt: skip
    refused = shown(table, 2)
    assert (refused["Outcome"], refused["Downtime"], refused["Transferred"]) == ("refused", "", "")
    assert refused["Message"].startswith("Unsafe migration:")
    assert shown(table, 3)["During"] == "readback"
    assert table.rows[1][0].anchor == anchors(results)[1]
    chips = [row[3] for row in table.rows]
    assert {(chip.tone, chip.sign) for chip in chips} == {("clean", "\u2713"), ("refused", "/")}


def test_migration_sentence_counts_and_downtime() -> None:
    assert migration_sentence([migrated(), misread()]) == (
        "6 migrations: 5 completed, 1 refused; downtime median 200 ms, worst 400 ms."
    )
    slow = Result(misread().cell, None, Evidence(misread().cell, 1, "", migrations=(moved(1, downtime_ms=1240.0),)))
    assert migration_sentence([slow]) == "1 migration: 1 completed; downtime median 1.2 s, worst 1.2 s."
    failed = Evidence(slow.cell, 1, "", migrations=(moved(1, outcome=MigrationOutcome.FAILED),))
    assert migration_sentence([replace(slow, evidence=failed)]) == "1 migration: 1 failed."
    assert migration_sentence(everything()) == ""


def test_figures_refused_migration_or_attach() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK, migrations=1)
    found = Evidence(cell, 1, "", migrations=(moved(1, outcome=MigrationOutcome.REFUSED),))
    no = Verdict(VerdictKind.REFUSED, "libvirt would not.")
    assert figures(Result(cell, no, found)) == "1 migration"
    failure = Failure("refused", "attach", "no")
    assert figures(Result(cell, no, replace(found, failure=failure))) == "during attach"
    assert figures(Result(cell, no, Evidence(cell, 1, ""))) == "no answer"


def test_timelines_readback_migrations_listed_beside() -> None:
    results = [diverged(), migrated()]
    (one,) = timelines(results, anchors(results))
    assert one.drawing and one.anchor == anchors(results)[1]
    assert [len(lane.bars) for lane in one.drawing.lanes] == [2, 1]
    assert one.others == ("4: node-b \u2192 node-a completed, 2.50 s, downtime 400 ms (during the readback)",)


def test_page_many_migrations_folded() -> None:
    result = migrated()
    assert result.evidence
    many = tuple(moved(number) for number in range(1, 60))
    page = render_html(run_of([]), [replace(result, evidence=replace(result.evidence, migrations=many))])
    folded = "//details[starts-with(summary, 'All migrations')]"
    assert nodes(page, f"{folded}[not(@open)]")
    assert nodes(render_html(run_of([]), [result]), f"{folded}[@open]")


def test_evidence_view_migrations_and_event_log() -> None:
    fragment = evidence_html(migrated())
    text = text_of(fragment)
    for expected in (
        "Event log: what was done on purpose somebody did <script>",
        "Errors on the guest's console EXT4-fs error <script>",
        "Two read-backs Read 32 768 blocks (128 MiB) on node-a, then on node-b Result equal",
        "Lost of acknowledged, fsync 0 of 1 204",
        "Canary process ran to the end",
        "4: node-b \u2192 node-a completed",
    ):
        assert expected in text, expected
    wrapped = f"<div>{fragment}</div>"
    assert len(nodes(wrapped, "//svg[@class='timeline']")) == 1
    assert not nodes(wrapped, "//a[starts-with(@href, '#')]") and "<script" not in fragment

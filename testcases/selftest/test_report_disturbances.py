"""The report on cells in which something was done to the guest or DRBD: descriptions, the page, one cell's evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from disturbed_results import alarm_cells, crashed, sample
from reported_results import diverged, everything, nodes, run_of, terminal, text_of

from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Crash,
    DelayProfile,
    Fault,
    FilesystemKind,
    Protocol,
    ReplicationProfile,
)
from harness.report.descriptions import describe
from harness.report.formatting import milliseconds
from harness.report.grid import Slot, grid
from harness.report.html import evidence_html, render_html


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(run_of(sample()), sample(), "A run")


# --------------------------------------------------------------------------- tables


def test_grid_empty_column_dropped() -> None:
    made = grid("x", ("a", "b", "c"), [(Slot("1"), Slot(), Slot()), (Slot("2"), Slot(tone="bad"), Slot("3"))])
    assert made and made.columns == ("a", "c")
    assert [[slot.text for slot in row] for row in made.rows] == [["1", ""], ["2", "3"]]
    assert grid("x", ("a",), []) is None


def test_milliseconds_known_values() -> None:
    text = [milliseconds(ms) for ms in (0, 0.44, 9.99, 420.4, 999.6, 1240, 185_000)]
    assert text == ["0 ms", "0.4 ms", "10 ms", "420 ms", "1.0 s", "1.2 s", "3 min 05 s"]


# --------------------------------------------------------------------------- requested, described, map, headline


def test_describe_cell_all_parts() -> None:
    plain = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    assert describe(plain) == (
        "pressure on swap in a guest, cache=none, aio=threads, bus=virtio, 10 s of work, no delays"
    )
    moving = replace(
        plain,
        migrations=4,
        unsafe_migration=True,
        fault=Fault.STALL,
        replication=ReplicationProfile(Protocol.B, "sha1"),
    )
    assert describe(moving).endswith(
        ", protocol B, digest sha1, 4 live migrations of at most 60 s each, also where libvirt calls it unsafe, "
        "the migration gets too little bandwidth to end"
    )
    assert describe(replace(plain, crash=Crash.QEMU)).endswith(", QEMU is killed")
    host = replace(Cell("inflight-modify", ClientKind.HOST), delays=DelayProfile(20, 5))
    assert describe(host) == (
        "inflight-modify on the raw device on the node itself, 10 s of work, delays: link 20 ms and disk 5 ms"
    )


@pytest.mark.parametrize("crash", Crash)
@pytest.mark.parametrize("fault", Fault)
def test_describe_every_crash_and_fault_text(crash: Crash, fault: Fault) -> None:
    text = {describe(Cell("w", crash=what)) for what in (None, crash)} | {describe(Cell("w", fault=fault))}
    assert len(text) == 3


# --------------------------------------------------------------------------- the page


def test_page_with_disturbances_well_formed_links_resolve(page: str) -> None:
    anchored = set(nodes(page, "//@id"))
    assert len(anchored) == len(sample())
    links = set(nodes(page, "//a[starts-with(@href, '#')]/@href"))
    assert links and links <= {f"#{anchor}" for anchor in anchored}
    assert not nodes(page, "//script | //@src") and "<script" not in page and "\x1b" not in page


def test_page_with_disturbances_has_sections(page: str) -> None:
    text = text_of(page)
    for expected in (
        "Live migrations 6 migrations: 5 completed, 1 refused; downtime median 200 ms, worst 400 ms.",
        "All migrations (6)",
        "Durability in the guest The guest lost 16 acknowledged records",
        "Acknowledged and lost in a crash",
        "13 of 2 104 (12 fsync and 1 direct)",
        "DRBD's own alarms DRBD noticed 31 writes",
        "DIVERGED 535",
        "protocol C, no scatter-gather",
        "Unsafe migration: <script>alert('x')</script>",
    ):
        assert expected in text, expected


def test_page_without_disturbances_no_sections() -> None:
    text = text_of(render_html(run_of(everything()), everything()))
    for absent in ("Live migrations", "Durability in the guest", "DRBD's own alarms", "Replication profiles"):
        assert absent not in text, absent


def test_page_timeline_has_text(page: str) -> None:
    drawings = nodes(page, "//main/section/div[@class='scroll']/svg[@class='timeline']")
    assert len(drawings) == 2
    first = drawings[0]
    assert first.get("role") == "img" and first.get("aria-label").startswith("Work of 60.4 s. Migrations 1: node-a")
    assert len(first.xpath(".//g")) == 3 and len(first.xpath(".//g[contains(@class, 'incomplete')]")) == 1
    assert len(first.xpath(".//rect[@class='down']")) == 2 and len(first.xpath("./rect[@class='work']")) == 1
    assert [title.split(":")[0] for title in first.xpath(".//g/title/text()")] == ["1", "3", "2"]
    shares = [float(value.rstrip("%")) for value in first.xpath(".//rect/@x | .//rect/@width")]
    assert shares and all(0 <= share <= 100 for share in shares)


def test_page_wide_tables_scroll(page: str) -> None:
    tables = nodes(page, "//table[contains(@class, 'figures')]")
    assert len(tables) >= 5
    assert all(table.getparent().get("class") == "scroll" and table.getparent().get("aria-label") for table in tables)


# --------------------------------------------------------------------------- the evidence of one cell


def test_evidence_view_crash_and_alarms() -> None:
    text = text_of(evidence_html(crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"fsync": 12})))
    for expected in (
        "Crash recovery Crash the Primary loses its power, 5.10 s into the work",
        "Peer promoted 1.25 s after the crash",
        "Differing blocks at the crash 17 blocks (68 KiB)",
        "fsck clean",
        "Canary process died before the end",
    ):
        assert expected in text, expected
    text = text_of(evidence_html(alarm_cells()[0]))
    for expected in (
        "Writes noticed 31 (sender 31, receiver 2)",
        "Connection lost 14 times",
        "Split brain 12.5 s after the first failure",
        "node-b reported StandAlone",
        "Writes that the sender saw changed (31), in sectors",
        "11 more",
    ):
        assert expected in text, expected


def test_evidence_view_without_disturbances_no_rows() -> None:
    text = text_of(evidence_html(diverged()))
    for absent in ("Migrations", "Two read-backs", "canary", "Crash recovery", "alarms", "on purpose", "console"):
        assert absent not in text, absent


# --------------------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_any_width_one_line_per_disturbance(width: int) -> None:
    text = terminal(sample(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    for expected in (
        "6 migrations: 5 completed, 1 refused; downtime median 200 ms, worst 400 ms.",
        "The guest lost 16 acknowledged records",
        "DRBD noticed 31 writes that changed in flight in 1 of 1 cell",
    ):
        assert flat.index(expected) < flat.index("Controls held"), expected
    assert "Disturbances and alarms" not in terminal(everything(), width)

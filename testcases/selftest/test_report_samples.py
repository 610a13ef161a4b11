"""Differing blocks in hex: the bytes that differ are marked, on the page and as plain text."""

from __future__ import annotations

from dataclasses import replace

from reported_results import nodes, text_of
from test_report_worth import recorded

from harness.lab.backing_compare import sample
from harness.model import BLOCK_BYTES, BlockOwner, Result, Sample
from harness.report.html import evidence_html
from harness.report.samples import hex_rows, sample_lines, sample_view

OLD = Sample(1, 40, 2, "00112233", "00ff22")
LOG = (b"Nov 29 01:00:00 host kernel: <line> & more\n" * 100)[:BLOCK_BYTES]
OTHER = LOG[:1000] + b"XY" + LOG[1002:]
TEXT = replace(sample(7, LOG, OTHER), owner=BlockOwner.ALLOCATED, detail="/var/log/messages")


def test_hex_rows_differing_bytes_marked() -> None:
    (row,) = hex_rows(OLD)
    assert row.offset == 40, "older evidence begins at the first byte that differs"
    assert row.a == (("00", False), ("11", True), ("22", False), ("33", True))
    assert row.b == (("00", False), ("ff", True), ("22", False))
    assert row.text_a == ((".", False), (".", True), ('"', False), ("3", True))
    assert [row.offset for row in hex_rows(Sample(1, 0, 0, "00" * 32, "00" * 32))] == [0, 16]


def test_hex_rows_begin_where_the_piece_does() -> None:
    rows = hex_rows(TEXT)
    assert TEXT.start == 976 and [row.offset for row in rows][:3] == [976, 992, 1008]
    assert len(rows) == 16
    marked = [row.offset for row in rows if any(differs for _, differs in row.b)]
    assert marked == [992]
    assert [text for text, differs in rows[1].text_b if differs] == ["XY"]


def test_sample_view_what_it_looks_like_and_which_lines() -> None:
    shown = sample_view(TEXT)
    assert shown.looks == "Both sides look like text"
    assert (shown.lines, shown.lines_sentence) == ((1000 // 64,), "1 line of 64 bytes of 64 differ")
    zeroed = sample_view(sample(7, LOG, bytes(BLOCK_BYTES)))
    assert zeroed.looks == "The first side looks like text, the second like zeros"
    assert sample_view(OLD).looks == "" and sample_view(OLD).lines == ()
    assert sample_view(replace(OLD, lines="no number", looks_b="zeros")).looks == (
        "The first side looks like nothing known, the second like zeros"
    )


def test_sample_of_a_file_says_which_byte_of_it() -> None:
    found = sample_view(replace(TEXT, path="/var/log/messages", file_offset=8192))
    assert found.title.endswith("the first at offset 1000, which is byte 9 192 of /var/log/messages")
    assert "which is" not in sample_view(replace(TEXT, path="/var/log/messages")).title


def test_sample_lines_marks_stand_below_the_bytes_that_differ() -> None:
    title, looks, a, b, marks = sample_lines(TEXT)
    assert title.startswith("Block 7: 2 bytes of 4 096 differ, the first at offset 1000; block owner: allocated, /var")
    assert looks == "Both sides look like text"
    at = marks.index("^^ ^^")
    assert marks.strip() == "^^ ^^" and b[at : at + 5] == "58 59" and a[at : at + 5] == "30 3a"
    assert b.rstrip("|").split("|")[1][8:10] == "XY"
    assert sample_lines(OLD)[1:] == [
        f'   40  00 11 22 33{" " * 36}  |.."3|',
        f'       00 ff 22{" " * 39}  |."|'.replace('."', '.."'),
        "          ^^    ^^",
    ]


def test_page_sample_text_beside_hex_and_strip_of_the_block() -> None:
    result = next(one for one in recorded("quick-drbd-8.4") if one.evidence and one.evidence.samples)
    assert result.evidence is not None
    shown = Result(result.cell, result.verdict, replace(result.evidence, samples=(TEXT,)))
    made = f"<div>{evidence_html(shown)}</div>"
    text = text_of(made)
    assert "Both sides look like text." in text and "Block owner: allocated, /var/log/messages" in text
    assert nodes(made, "//*[name()='svg'][@class='lines']/*[name()='rect']/@x") == ["15"]
    assert nodes(made, "//table[@class='hex']//mark/text()") == ["30 3a", "0:", "58 59", "XY"]

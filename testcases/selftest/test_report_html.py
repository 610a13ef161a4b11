"""What the report says of a run: the page and the fragments of it, well-formed and with nothing from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree
from reported_results import SWAP_NONE, corrupt, diverged, everything, evidence, nodes, run_of, text_of, verdict

from harness.errors import InfrastructureError
from harness.model import CacheMode, Cell, Extent, FilesystemKind, Result, Stack, VerdictKind, Work
from harness.report.html import evidence_html, render_html, write_html
from harness.report.view import view


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(run_of(everything()), everything(), "A run")


def test_page_well_formed(page: str) -> None:
    assert nodes(page, "/html")
    anchors = nodes(page, "//@id")
    assert len(anchors) == len(set(anchors)) == len(everything())
    assert set(nodes(page, "//a[starts-with(@href, '#')]/@href")) <= {f"#{anchor}" for anchor in anchors}


def test_page_self_contained(page: str) -> None:
    assert not nodes(page, "//script | //link | //img | //iframe | //@src")
    assert not re.search(r"https?:|@import|url\(", page)


def test_page_hostile_text_escaped(page: str) -> None:
    assert "<script" not in page and "\x1b" not in page
    assert "&lt;script&gt;" in page
    page.encode("utf-8")


def test_page_has_answer_and_evidence(page: str) -> None:
    text = text_of(page)
    assert "Do the two replicas of the lab hold the same data? No." in text
    for expected in (
        "930 of 12 400 exposed",
        "930 blocks (3.6 MiB)",
        "Both looks find 930 blocks.",
        "out-of-sync 3 720 KiB",
        "freed swap slot 2048",
        "4 more",
        "Exactly the planted blocks differ.",
        "6.1.0-37-amd64",
        "< 0.025 % (95 %)",
        "QEMU refused: aio=native needs cache.direct=on",
        "BUG: soft lockup",
        "This cell did not run",
        "disconnect and connect",
    ):
        assert expected in text, expected


def test_page_links_raw_files_marks_bytes(page: str) -> None:
    links = nodes(page, "//a[not(starts-with(@href, '#'))]/@href")
    assert "cells/none-swap-pressure-link20ms/1/" in links
    assert all(link.startswith("cells/") and not re.search(r"[<> ]", link) for link in links)
    assert "ff" in nodes(page, "//mark/text()")
    assert nodes(page, "//*[local-name()='svg']//*[local-name()='rect']")


def test_page_only_unexpected_differences_unfolded(page: str) -> None:
    opened = nodes(page, "//details[@open]/@id")
    assert opened == [f"cell-{corrupt().cell.id}"]


def test_view_long_lists_cut_with_rest() -> None:
    scattered = list(range(0, 400, 2))
    result = Result(SWAP_NONE, verdict(VerdictKind.DIVERGED, "Many.", 200), evidence(SWAP_NONE, scattered, scattered))
    text = text_of(evidence_html(result))
    assert "Differing extents (200)" in text and "150 more" in text


def test_page_empty_run_rendered() -> None:
    page = render_html(run_of([], finished_at="", stack=Stack(), lab_seconds={}), [])
    assert etree.fromstring(page.encode()).tag == "html"
    assert "Not answered. Nothing ran." in text_of(page)


def test_anchors_repeated_cell_distinct() -> None:
    twice = [diverged(), diverged()]
    wrapped = render_html(run_of(twice), twice)
    anchors = nodes(wrapped, "//details[contains(@class, 'cell')]/@id")
    assert len(set(anchors)) == len(anchors) == 3, "the cell, and each of its two repetitions"
    assert nodes(wrapped, "//a[contains(@class, 'entry')]/@href") == [f"#{anchors[0]}"]


def test_write_html_failure_old_page_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    write_html(target, run_of(everything()), everything(), "First")
    before = target.read_bytes()
    assert b"First" in before

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InfrastructureError, match=r"report\.html cannot be written: no space"):
        write_html(target, run_of([]), [], "Second")
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number", range(len(everything())))
def test_evidence_html_fragment_well_formed_self_contained(number: int) -> None:
    result = everything()[number]
    fragment = evidence_html(result, base="../run/")
    wrapped = f"<div>{fragment}</div>"
    assert nodes(wrapped, "//style") and "<script" not in fragment
    assert all(link.startswith("../run/cells/") for link in nodes(wrapped, "//a/@href"))
    assert not nodes(evidence_html(result, style=False), "//style")


def test_sectors_extent_blocks_and_place() -> None:
    result = replace(diverged(), evidence=evidence(SWAP_NONE, [256], [256]))
    assert "2048+8 block 256, 1 MiB in" in text_of(evidence_html(result))
    assert Extent(2048, 8).blocks() == range(256, 257)


def test_view_opportunities_of_work_with_what_they_are() -> None:
    cell = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    counted = evidence(cell, [], [], work=Work(10.0, {}, opportunities=1289.0, opportunity="pages reclaimed"))
    shown = [view(Result(cell, None, one)).evidence for one in (counted, replace(counted, work=Work(10.0)))]
    rows = [dict(one.work) for one in shown if one]
    assert rows[0]["Opportunities"] == "1 289 pages reclaimed" and "Opportunities" not in rows[1]

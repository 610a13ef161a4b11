"""What the report says of a run: the heat map, the page, the fragments, the terminal and the phases."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from lxml import html as lxml_html
from rich.console import Console

from harness.errors import InfrastructureError
from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    ClientKind,
    Comparison,
    Control,
    DelayProfile,
    Evidence,
    Expectation,
    Extent,
    Failure,
    FilesystemKind,
    NodeSettings,
    NodeVerify,
    Observed,
    Ownership,
    PlantedChange,
    Repair,
    ReplicationProfile,
    Result,
    Run,
    Sample,
    Stack,
    State,
    Verdict,
    VerdictKind,
    Verify,
    Work,
    extents_of,
)
from harness.report import heat_map
from harness.report.block_map import block_map
from harness.report.formatting import clean, seconds, size
from harness.report.headline import Answer, headline
from harness.report.html import evidence_html, heat_map_html, render_html, write_html
from harness.report.oracles import Agreement, oracles
from harness.report.phases import as_json, phase_shares, phase_table, print_phases
from harness.report.requested_vs_observed import Match, requested_and_observed
from harness.report.summary import findings
from harness.report.table import differing_blocks, figures
from harness.report.terminal import print_report, report_parts
from harness.report.view import view
from harness.store import Store, judged_results

BLOCKS = 32768
GOLDEN = Path(__file__).parent / "golden"
HOSTILE = "<script>alert('x')</script> \x1b[31m & \"quoted\" [red]not markup[/red] \udcff"
SWAPPED = [*range(2048, 2048 + 600), *range(9000, 9300), *range(20000, 20030)]
HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")


def evidence(cell: Cell, marked: list[int], differing: list[int], **changes: object) -> Evidence:
    """Evidence of a cell that ran to its end: ``marked`` by verify and the counter, ``differing`` at the comparison."""
    extents = extents_of(marked)
    cache = cell.cache or CacheMode.NONE
    seen = Observed(
        open_flags=0o2140002 if cache.direct else 0o2100002,
        o_direct=cache.direct,
        o_sync=False,
        qemu_cache={
            "writeback": cache.guest_write_cache == "write back",
            "direct": cache.direct,
            "no-flush": cache.no_flush,
        },
        qemu_aio=cell.aio.value,
        guest_write_cache=cache.guest_write_cache,
        guest_stable_writes=False,
        drbd_stable_writes=True,
        scatter_gather=True,
        link_delay_ms=cell.delays.link_delay_ms,
    )
    made = Evidence(
        cell=cell,
        attempt=1,
        started_at="2025-03-04T10:00:00Z",
        finished_at="2025-03-04T10:00:41Z",
        lab="nested",
        device_blocks=BLOCKS,
        before=HEALTHY,
        after=HEALTHY,
        equal_before=True,
        observed=seen,
        work=Work(10.2, {"pages dirtied": 812345.0, "MiB swapped": 48.6}),
        exposed_blocks=12400,
        verify=Verify(
            NodeVerify("node-a", True, True, extents, len(marked)),
            NodeVerify("node-b", True, True, extents, None),
            9.4,
        ),
        counter_kib=4 * len(marked),
        comparison=Comparison(BLOCKS, extents_of(differing), 0.31, "on the controller"),
        repair=Repair("disconnect and connect", 1.9, 0),
        phases={"attach": 1.4, "prepare": 2.1, "work": 10.2, "verify": 9.4, "compare": 0.3, "repair": 1.9},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def verdict(kind: VerdictKind, sentence: str, blocks: int = 0, bound: float | None = None) -> Verdict:
    return Verdict(kind, sentence, ("A reason.",), blocks, 12400, bound)


def expecting(cell: Cell, *kinds: VerdictKind) -> Cell:
    return replace(cell, expected=Expectation(kinds, "by the predictions."))


SWAP_NONE = expecting(
    Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(link_delay_ms=20)),
    VerdictKind.DIVERGED,
)
PLANTED = Cell("planted", ClientKind.HOST, control=Control.PLANTED)
IN_FLIGHT = Cell("inflight-modify", ClientKind.HOST, control=Control.IN_FLIGHT)
IDLE = Cell("no-writes", ClientKind.HOST, control=Control.IDLE)


def changes(blocks: list[int]) -> tuple[PlantedChange, ...]:
    return tuple(PlantedChange(one.start, one.size, "node-b") for one in extents_of(blocks))


def planted() -> Result:
    found = evidence(PLANTED, [5, 6, 700], [5, 6, 700], planted=changes([5, 6, 700]), exposed_blocks=0)
    return Result(PLANTED, verdict(VerdictKind.DIVERGED, "Exactly the planted blocks differ.", 3), found)


def in_flight() -> Result:
    blocks = list(range(0, 16000, 2))
    return Result(IN_FLIGHT, verdict(VerdictKind.DIVERGED, "8 000 differ.", 8000), evidence(IN_FLIGHT, blocks, blocks))


def idle() -> Result:
    return Result(IDLE, verdict(VerdictKind.CLEAN, "Nobody wrote, nothing differs."), evidence(IDLE, [], []))


def diverged() -> Result:
    samples = tuple(
        Sample(block, 1024, 7, "00112233445566778899aabbccddeeff" * 2, "00112233445566ff8899aabbcc00eeff" * 2,
               BlockOwner.FREE, f"freed swap slot {block}")
        for block in SWAPPED[:20]
    )  # fmt: skip
    found = evidence(
        SWAP_NONE, SWAPPED, SWAPPED,
        ownership=Ownership(free=930, method="/proc/swaps and the swap map", names=("swap slot, freed",)),
        samples=samples,
    )  # fmt: skip
    return Result(SWAP_NONE, verdict(VerdictKind.DIVERGED, "930 blocks still differ.", 930), found)


def clean_result(cache: CacheMode = CacheMode.WRITEBACK) -> Result:
    cell = expecting(replace(SWAP_NONE, cache=cache), VerdictKind.CLEAN)
    return Result(cell, verdict(VerdictKind.CLEAN, "Nothing differs.", 0, 0.0002412), evidence(cell, [], []))


def transient() -> Result:
    cell = Cell("ext4", cache=CacheMode.NONE)
    found = evidence(cell, [10, 11, 12], [])
    return Result(cell, verdict(VerdictKind.TRANSIENT, "3 blocks were equal again."), found)


def corrupt() -> Result:
    cell = expecting(Cell("ext4", cache=CacheMode.DIRECTSYNC), VerdictKind.CLEAN)
    found = evidence(cell, [77], [77], work=Work(10.0, {}, 3), ownership=Ownership(allocated=1, names=("/mnt/a.db",)))
    return Result(cell, verdict(VerdictKind.CORRUPT, "3 reads returned something else.", 1), found)


def refused() -> Result:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITETHROUGH)
    failure = Failure("refused", "attach", "QEMU refused: aio=native needs cache.direct=on")
    return Result(cell, verdict(VerdictKind.REFUSED, "QEMU would not."), Evidence(cell, 1, "", failure=failure))


def inconclusive() -> Result:
    cell = Cell(HOSTILE, cache=CacheMode.UNSAFE)
    found = Evidence(
        cell, 2, "2025-03-04T10:00:00Z",
        failure=Failure("lost node", "work", HOSTILE),
        kernel_errors=(HOSTILE, "BUG: soft lockup"),
        ownership=Ownership(method=HOSTILE, names=(HOSTILE,)),
        work=Work(3.0, {HOSTILE: 1.0}, 0, (HOSTILE,)),
        samples=(Sample(1, 0, 1, "<b>&", "\x00", detail=HOSTILE),),
        phases={HOSTILE: 1.5},
    )  # fmt: skip
    return Result(cell, Verdict(VerdictKind.INCONCLUSIVE, HOSTILE, (HOSTILE,)), found)


def not_run() -> Result:
    return Result(Cell("ext4", ClientKind.HOST), None, None)


def everything() -> list[Result]:
    return [
        planted(), in_flight(), idle(), diverged(), clean_result(), clean_result(CacheMode.WRITETHROUGH),
        transient(), corrupt(), refused(), inconclusive(), not_run(),
    ]  # fmt: skip


def run_of(results: list[Result], **changes: object) -> Run:
    made = Run(
        id="20250304T100000Z-3f9c",
        matrix="quick",
        started_at="2025-03-04T09:58:00Z",
        finished_at="2025-03-04T10:10:00Z",
        cells=tuple(result.cell for result in results),
        stack=Stack("bookworm", "6.1.0-37-amd64", "8.4.11", "9.22.0", "7.2.17", "9.0.0", "6.1.0-37-amd64", "kvm", "x"),
        lab_seconds={"images": 3.0, "bring-up": 47.0},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def text_of(page: str) -> str:
    pieces = lxml_html.document_fromstring(page).xpath("//text()[not(parent::style)]")
    return " ".join(" ".join(cast(list[str], pieces)).split())


def nodes(page: str, path: str) -> list[Any]:
    """What ``path`` selects in ``page``, which has to be well-formed XML."""
    return cast(list[Any], etree.fromstring(page.encode()).xpath(path))


def terminal(results: list[Result], width: int = 80) -> str:
    out = io.StringIO()
    print_report(run_of(results), results, Console(file=out, width=width))
    return out.getvalue()


# --------------------------------------------------------------------------- the heat map


def test_figures_exposed_count_of_count() -> None:
    table = heat_map([diverged(), clean_result()])
    assert table.rows == ("none", "writeback")
    assert table.columns == ("swap-pressure-link20ms",)
    (found,), (none,) = table.at("none", "swap-pressure-link20ms"), table.at("writeback", "swap-pressure-link20ms")
    assert (found.text, found.detail, found.expected) == ("DIVERGED\n930 of 12 400 exposed", "930 free", True)
    assert none.text == "CLEAN\n0 of 12 400 exposed, < 0.025 % (95 %)"


def test_figures_other_verdicts_their_own() -> None:
    texts = {result.verdict.kind: heat_map([result]) for result in everything() if result.verdict}
    text = {kind: entries[0].text for kind, table in texts.items() for entries in table.cells.values()}
    assert text[VerdictKind.TRANSIENT] == "TRANSIENT\n3 of 12 400 exposed, equal again"
    assert text[VerdictKind.CORRUPT] == "CORRUPT\n3 wrong reads, 1 of 12 400 exposed"
    assert text[VerdictKind.REFUSED] == "REFUSED\nduring attach"
    assert text[VerdictKind.INCONCLUSIVE] == "INCONCLUSIVE\nduring work"


def test_figures_nothing_exposed_no_denominator() -> None:
    cell = Cell("w", cache=CacheMode.NONE)
    text = [figures(Result(cell, Verdict(kind, "", (), 3), None)) for kind in (VerdictKind.DIVERGED, VerdictKind.CLEAN)]
    assert text == ["3 blocks, none exposed", "0 blocks, none exposed"]


def test_heat_map_rows_model_order_host_last() -> None:
    cells = [Cell("w", ClientKind.HOST), *(Cell("w", cache=mode) for mode in reversed(CacheMode))]
    assert heat_map([Result(cell, None, None) for cell in cells]).rows == (*(m.value for m in CacheMode), "host")


def test_heat_map_control_in_controls_not_cells() -> None:
    broken = replace(planted(), verdict=verdict(VerdictKind.CLEAN, "Nothing was seen."))
    table = heat_map([planted(), idle(), broken, Result(IN_FLIGHT, None, None)])
    assert not table.cells
    assert [control.outcome for control in table.controls] == ["held", "held", "failed", "not run"]


def test_heat_map_planted_other_blocks_failed() -> None:
    good = planted()
    assert good.evidence
    other = replace(good, evidence=replace(good.evidence, planted=changes([5, 6, 701])))
    assert heat_map([other]).controls[0].held is False
    assert headline([other, in_flight(), idle(), clean_result()]).answer is Answer.UNKNOWN
    assert "The control failed. DIVERGED: verify on the source found" in findings([other])[0].sentence


KINDS = st.one_of(st.none(), st.sampled_from(VerdictKind))
CELLS = st.builds(
    Cell,
    workload=st.sampled_from(["swap", "ext4", "xfs"]),
    client=st.sampled_from(ClientKind),
    cache=st.one_of(st.none(), st.sampled_from(CacheMode)),
    delays=st.builds(DelayProfile, st.sampled_from([0, 20])),
    control=st.one_of(st.none(), st.sampled_from(Control)),
)
RESULTS = st.lists(
    st.builds(lambda cell, kind: Result(cell, Verdict(kind, "Said.") if kind else None, None), CELLS, KINDS)
)


@given(RESULTS)
def test_heat_map_any_results_each_once(results: list[Result]) -> None:
    table = heat_map(results)
    placed = {place: entries for place, entries in table.cells.items() if entries}
    numbers = [number for entries in placed.values() for entry in entries for number in entry.numbers]
    numbers += [control.number for control in table.controls]
    assert Counter(numbers) == Counter(range(len(results)))
    assert set(placed) <= {(row, column) for row in table.rows for column in table.columns}
    assert len(set(table.rows)) == len(table.rows) and len(set(table.columns)) == len(table.columns)
    for (row, column), entries in placed.items():
        for entry in entries:
            result = results[entry.number]
            assert (result.cell.row, result.cell.column) == (row, column)
            assert entry.kind == (result.verdict.kind if result.verdict else None)


# --------------------------------------------------------------------------- the headline


def test_headline_difference_no_with_rows() -> None:
    text = headline([planted(), diverged(), clean_result()])
    assert text.answer is Answer.NO
    assert "cache=none" in text.sentence and "930 differing blocks: 930 free" in text.sentence
    assert "None was found with cache=writeback." in text.sentence


def test_headline_no_difference_yes_only_with_controls() -> None:
    clean = clean_result()
    assert clean.evidence is not None
    # Of a schema that demands three controls.
    clean_run = [planted(), in_flight(), idle(), replace(clean, evidence=replace(clean.evidence, schema=2))]
    assert headline(clean_run).answer is Answer.YES
    assert "12 400 exposed block writes" in headline(clean_run).sentence
    broken = [replace(planted(), verdict=verdict(VerdictKind.CLEAN, "Nothing was seen.")), *clean_run[1:]]
    assert headline(broken).answer is Answer.UNKNOWN
    assert "host-planted failed" in headline(broken).sentence
    assert headline([clean_result()]).answer is Answer.UNKNOWN
    assert headline(clean_run[1:]).answer is Answer.UNKNOWN
    assert "the planted control did not run" in headline(clean_run[1:]).sentence


def test_headline_difference_control_failed_no() -> None:
    failed = replace(planted(), verdict=verdict(VerdictKind.CLEAN, "Nothing was seen."))
    assert headline([failed, diverged()]).answer is Answer.NO


def test_headline_corrupt_counts_differing_blocks() -> None:
    text = headline([replace(corrupt(), verdict=verdict(VerdictKind.CORRUPT, "Wrong data."))]).sentence
    assert "the replicas differ in 1 of 1 cell; 1 differing block: 1 allocated" in text
    assert "With cache=directsync the guest lost data or read back something else than it wrote, in 1 cell." in text


@pytest.mark.parametrize("run", sorted(path.parent.name for path in GOLDEN.glob("*/run.json")))
def test_headline_of_a_stored_run_its_figures_add_up(run: str) -> None:
    text = headline(judged_results(Store.open(GOLDEN, run))).sentence
    found = re.search(r"; ([\d ]+) differing blocks?(?:: ([^.]*))?\.", text)
    assert found is not None or "the replicas differ" not in text
    if found is not None and found[2]:
        parts = [int(one.replace(" ", "")) for one in re.findall(r"\d[\d ]*(?= )", found[2])]
        assert sum(parts) == int(found[1].replace(" ", "")), text


def test_headline_more_owners_than_blocks_that_differ_names_none() -> None:
    result = diverged()
    assert result.evidence is not None
    many = Ownership(allocated=differing_blocks(result) + 1)
    text = headline([replace(result, evidence=replace(result.evidence, ownership=many))]).sentence
    assert f"{differing_blocks(result)} differing blocks." in text


@pytest.mark.parametrize("results", [[], [planted()], [not_run()], [refused()], [inconclusive()]])
def test_headline_any_results_yes_only_with_answers(results: list[Result]) -> None:
    assert headline(results).answer is Answer.UNKNOWN


def test_headline_unanswered_cells_counted() -> None:
    text = headline(everything()).sentence
    assert "No answer from 3 cells: 1 inconclusive, 1 refused by the stack and 1 not run." in text


def test_findings_corrupt_without_expectation_is_one_and_says_so() -> None:
    cell = replace(corrupt().cell, expected=None)
    (line,) = findings(
        [replace(corrupt(), cell=cell), replace(diverged(), cell=replace(diverged().cell, expected=None))]
    )
    assert line.cell_id == cell.id
    assert "3 reads returned something else. Nothing is expected of this cell, and lost or wrong data" in line.sentence


def test_findings_unexpected_results_only() -> None:
    results = everything()
    assert [results[line.number].cell.id for line in findings(results)] == [corrupt().cell.id, inconclusive().cell.id]
    assert "Expected CLEAN: by the predictions." in findings(results)[0].sentence


# --------------------------------------------------------------------------- oracles, requested and observed, blocks


def test_oracles_each_agreement_sentence() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    same = evidence(cell, [1, 2, 9], [1, 2, 9])
    assert oracles(same).agreement is Agreement.AGREE
    assert [answer.blocks for answer in oracles(same).answers] == [3, 3, 3, 3]
    assert oracles(evidence(cell, [1, 2, 9], [1])).agreement is Agreement.HEALED
    assert oracles(evidence(cell, [1, 2, 9], [1], counter_kib=4)).agreement is Agreement.DISAGREE
    assert oracles(evidence(cell, [1, 2, 9], [1, 2, 10])).agreement is Agreement.DISAGREE
    assert oracles(replace(same, counter_kib=8)).agreement is Agreement.DISAGREE
    assert oracles(replace(same, comparison=None)).agreement is Agreement.INCOMPLETE
    assert same.verify
    skipped = replace(same.verify, skipped_blocks=4)
    assert oracles(replace(same, verify=skipped)).agreement is Agreement.INCOMPLETE
    one_sided = replace(same.verify, target=replace(same.verify.target, extents=()))
    assert oracles(replace(same, verify=one_sided)).agreement is Agreement.DISAGREE
    unfinished = replace(same.verify, source=replace(same.verify.source, finished=False))
    assert oracles(replace(same, verify=unfinished)).agreement is Agreement.INCOMPLETE


def test_requested_and_observed_notes_what_each_node_has() -> None:
    plain = ReplicationProfile()
    nodes = {"nodea": NodeSettings(plain, "repl0", True, True), "nodeb": NodeSettings(plain, "repl1")}
    rows = {row.name: row.observed for row in requested_and_observed(Cell("x"), Observed(nodes=nodes))}
    assert rows["Scatter-gather of nodea's replication NIC (repl0)"] == "on"
    assert rows["stable_writes of DRBD on nodea"] == "on"
    assert not any("nodeb" in name for name in rows), "what was not read has no row"


def test_requested_and_observed_mismatch_different() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(link_delay_ms=20))
    good = evidence(cell, [], []).observed
    assert {row.match for row in requested_and_observed(cell, good)} == {Match.SAME, Match.NOTED}
    bad = replace(good, o_direct=False, qemu_cache={"direct": False, "no_flush": True}, link_delay_ms=0, qemu_aio=None)
    found = {row.name: row.match for row in requested_and_observed(cell, bad)}
    different = {name for name, match in found.items() if match is Match.DIFFERENT}
    assert different == {"O_DIRECT on the disk", "QEMU cache.direct", "QEMU cache.no-flush", "Link delay"}
    assert found["aio"] is Match.UNREAD


def test_block_map_bars_where_blocks_are() -> None:
    found = diverged().evidence
    assert found
    drawn = block_map(found)
    assert drawn and [lane.name for lane in drawn.lanes] == ["comparison", "verify"]
    first, *_, last = drawn.lanes[0].bars
    assert first.x == 2048 * drawn.bins // BLOCKS
    assert last.x + last.width == 20029 * drawn.bins // BLOCKS + 1
    assert block_map(replace(found, comparison=None, verify=None)) is None
    full = block_map(evidence(SWAP_NONE, [0, 1, 2], [0, 1, 2], device_blocks=3))
    assert full and [(bar.x, bar.width, bar.weight) for bar in full.lanes[0].bars] == [(0, 3, 1.0)]


# --------------------------------------------------------------------------- the page


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


def test_heat_map_html_has_map_and_controls() -> None:
    fragment = heat_map_html(everything())
    wrapped = f"<div>{fragment}</div>"
    text = text_of(fragment)
    assert "DIVERGED 930 of 12 400 exposed" in text and "held" in text
    assert not nodes(wrapped, "//a")


# --------------------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", [80, 60, 200])
def test_terminal_any_width_fits_readable_without_colour(width: int) -> None:
    text = terminal(everything(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    flat = " ".join(text.split())
    for expected in (
        "# DIVERGED",
        "930 of 12 400 exposed",
        "= CLEAN",
        "X CORRUPT",
        "! unexpected",
        "held planted (host-planted)",
        "Verify (with its counter) and the comparison agree in 7 of 8 cells",
        "DRBD: 8.4.11",
        "writeback-swap-pressure-link20ms: 0 of 12 400 exposed, < 0.025 % (95 %)",
        "[red]not markup[/red]",
    ):
        assert expected in flat, expected


def test_terminal_colour_used() -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=80).print(
        *report_parts(run_of([diverged()]), [diverged()])
    )
    assert "\x1b[1;31m" in out.getvalue()


def test_terminal_empty_run_printed() -> None:
    assert "Not answered. Nothing ran." in terminal([])


def test_terminal_narrow_every_column_printed() -> None:
    results = [Result(Cell(f"workload{n}", cache=CacheMode.NONE), None, None) for n in range(20)]
    text = terminal(results, 80)
    assert all(re.search(rf"\bworkload{n}\b", text) for n in range(20))


# --------------------------------------------------------------------------- the phases


def test_phase_shares_share_and_overhead() -> None:
    results = [diverged(), clean_result()]
    shares = phase_shares(run_of(results), results)
    named = {phase.name: phase for phase in shares.phases}
    assert [phase.name for phase in shares.phases][:3] == ["images", "bring-up", "attach"]
    assert named["work"].seconds == pytest.approx(20.4) and named["work"].times == 2
    assert sum(phase.share for phase in shares.phases) == pytest.approx(1)
    assert [cell.overhead for cell in shares.cells] == pytest.approx([15.1, 15.1])
    assert shares.elapsed == 720 and shares.unaccounted == pytest.approx(720 - 50 - 2 * 25.3)


def test_phase_shares_no_results_empty() -> None:
    shares = phase_shares(run_of([], lab_seconds={}, finished_at=""), [not_run()])
    assert (shares.phases, shares.cells, shares.elapsed, shares.overhead_mean) == ((), (), None, None)
    print_phases(shares, Console(file=io.StringIO()))


def test_phase_shares_json_and_table() -> None:
    shares = phase_shares(run_of(everything()), everything())
    stored = json.loads(json.dumps(as_json(shares)))
    assert stored["overhead_worst"]["overhead"] == pytest.approx(15.1)
    assert {"bring-up", "work"} <= {phase["name"] for phase in stored["phases"]}
    assert phase_table(shares).row_count == len(shares.phases)


# --------------------------------------------------------------------------- numbers and text


def test_formatting_units_known_values() -> None:
    assert [seconds(s) for s in (0.42, 12.34, 119.96, 185)] == ["0.42 s", "12.3 s", "2 min 00 s", "3 min 05 s"]
    assert [size(b) for b in (512, 4096, 3 * 1024**2 + 1024**2 // 2)] == ["512 B", "4 KiB", "3.5 MiB"]


@given(st.text(st.characters()))
def test_clean_any_text_storable_and_parseable(text: str) -> None:
    made = clean(text)
    assert etree.fromstring(f"<a>{made.replace('&', '').replace('<', '')}</a>".encode()) is not None
    assert "\x1b" not in made


def test_sectors_extent_blocks_and_place() -> None:
    result = replace(diverged(), evidence=evidence(SWAP_NONE, [256], [256]))
    assert "2048+8 block 256, 1 MiB in" in text_of(evidence_html(result))
    assert Extent(2048, 8).blocks() == range(256, 257)


def test_headline_controls_only_no_answer() -> None:
    idle = Result(IDLE, verdict(VerdictKind.CLEAN, "Nothing was found.", 0), evidence(IDLE, [], []))
    assert "Not answered. Only cells that test the instrument itself ran." in terminal([idle])


def test_view_opportunities_of_work_with_what_they_are() -> None:
    cell = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    counted = evidence(cell, [], [], work=Work(10.0, {}, opportunities=1289.0, opportunity="pages reclaimed"))
    shown = [view(Result(cell, None, one)).evidence for one in (counted, replace(counted, work=Work(10.0)))]
    rows = [dict(one.work) for one in shown if one]
    assert rows[0]["Opportunities"] == "1 289 pages reclaimed" and "Opportunities" not in rows[1]

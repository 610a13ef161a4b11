"""What the report says of a run: the heat map and the figures in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from reported_results import (
    IN_FLIGHT,
    changes,
    clean_result,
    diverged,
    everything,
    idle,
    in_flight,
    nodes,
    planted,
    text_of,
    verdict,
)

from harness.model import CacheMode, Cell, ClientKind, Control, DelayProfile, Result, Verdict, VerdictKind
from harness.report import heat_map
from harness.report.headline import Answer, headline
from harness.report.html import heat_map_html
from harness.report.summary import findings
from harness.report.table import figures


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


def test_heat_map_html_has_map_and_controls() -> None:
    fragment = heat_map_html(everything())
    wrapped = f"<div>{fragment}</div>"
    text = text_of(fragment)
    assert "DIVERGED 930 of 12 400 exposed" in text and "held" in text
    assert not nodes(wrapped, "//a")

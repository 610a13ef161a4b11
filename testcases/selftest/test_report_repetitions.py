"""What the report shows of a cell that a run plays more than once: from evidence of real runs, repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported_results import nodes, run_of, terminal, text_of
from test_report_worth import no_answer, persisted, recorded, strong, weak

from harness.model import ReplicationProfile, Result, VerdictKind
from harness.report.alarms import alarm_grid
from harness.report.cells import anchors, cell_views
from harness.report.durability import durability_grid, durability_sentence, loss_grid
from harness.report.formatting import between
from harness.report.headline import headline
from harness.report.html import render_html
from harness.report.migrations import migration_grid, timelines, undrawn
from harness.report.page_size import alone, fitted
from harness.report.summary import findings, summarize
from harness.report.table import heat_map

HERE = Path(__file__).parent


def play(result: Result, repetition: int, of: Result | None = None) -> Result:
    """``result`` as repetition of the cell of ``of``, with a seed of its own."""
    cell = replace((of or result).cell, repetition=repetition, seed=1000 + repetition, expected=None)
    evidence = replace(result.evidence, cell=cell, attempt=repetition) if result.evidence else None
    return Result(cell, result.verdict, evidence)


def mixed() -> list[Result]:
    """Five repetitions of one cell: three diverged, one CLEAN, one without an answer."""
    seen = [persisted(), strong(), persisted(), persisted(), no_answer(persisted())]
    return [play(one, number, persisted()) for number, one in enumerate(seen, 1)]


def test_heat_map_repeated_cell_one_tile_with_rate_and_interval() -> None:
    table = heat_map([*mixed(), weak()])
    (repeated,), (single,) = (
        table.at("none", "swap-reclaim-link20ms"),
        table.at("writethrough", "swap-reclaim-link20ms"),
    )
    assert repeated.text == "DIVERGED\n3 of 4 diverged, 19 % to 100 % (95 %), 1 without an answer"
    assert repeated.numbers == (0, 1, 2, 3, 4) and repeated.disagree and repeated.detail == "repetitions disagree"
    assert not single.disagree and single.text.startswith("CLEAN (weak)\n0 of 10 295 exposed")


def test_heat_map_repetitions_agree_no_mark() -> None:
    (entry,) = heat_map([play(weak(), number) for number in range(1, 6)]).at("writethrough", "swap-reclaim-link20ms")
    assert entry.text == "CLEAN (weak)\n0 of 5 diverged, 0 % to 53 % (95 %)"
    assert not entry.disagree and entry.weak


def test_heat_map_one_weak_repetition_makes_a_clean_cell_weak() -> None:
    results = [play(strong(), 1), play(weak(), 2, strong())]
    (entry,) = heat_map(results).at("writeback", "swap-reclaim-link20ms")
    assert entry.text.startswith("CLEAN (weak)\n")


def test_page_repeated_cell_leads_to_each_repetition() -> None:
    results = [*mixed(), weak()]
    page = render_html(run_of(results), results)
    tile = next(one for one in nodes(page, "//a[contains(@class, 'entry')]") if "DIVERGED" in "".join(one.itertext()))
    (cell,) = nodes(page, f"//details[@id='{tile.get('href')[1:]}']")
    inner = cell.xpath("./div/details/@id")
    assert len(inner) == 5
    links = cell.xpath("./div/div//td/a/@href")
    assert links == [f"#{anchor}" for anchor in inner]
    text = " ".join(cell.itertext())
    for wanted in ("1001", "1005", "3 of 4 that have an answer", "repetitions disagree", "It broke."):
        assert wanted in text, wanted
    assert "6 repetitions in all" in text_of(page)


def test_page_repetitions_say_once_what_all_of_them_say() -> None:
    results = mixed()
    page = render_html(run_of(results), results)
    (cell,) = nodes(page, "//details[starts-with(@id, 'all-of-')]")
    inner = cell.xpath("./div/details")
    assert [one.xpath("string(.//*[@class='name'])") for one in inner] == [f"repetition {n}" for n in range(1, 6)]
    for one, result in zip(inner, results, strict=True):
        assert result.verdict is not None and result.verdict.sentence in "".join(one.itertext())
        assert "".join(cell.itertext()).count(result.verdict.sentence) == sum(
            one.verdict == result.verdict for one in results
        )
    same = [play(weak(), number) for number in range(1, 4)]
    (cell,) = nodes(render_html(run_of(same), same), "//details[starts-with(@id, 'all-of-')]")
    rows = ["".join(one.itertext()) for one in cell.xpath("./div/table//tr")]
    for wanted in ("What this CLEAN is worth",):
        assert sum(row.startswith(wanted) for row in rows) == 1 and "".join(cell.itertext()).count(wanted) == 1, wanted
    assert cell.xpath("./div/div//thead//th/text()")[:2] == ["Repetition", "Figures"], "one verdict: it stands above"


def test_page_shortened_play_still_leads_to_its_files() -> None:
    results = mixed()
    shown = cell_views(results)
    tight, _ = fitted(shown, lambda one: 1 if one.evidence else 0, 0)
    links = [one.link for cell in tight for one in cell.plays]
    assert all(one.startswith("cells/") for one in links) and not [one for one in alone(tight)[0].plays if one.link]


def test_page_block_rate_is_a_description_with_a_bootstrap() -> None:
    results = mixed()
    text = text_of(render_html(run_of(results), results))
    assert "Blocks, as a description 912 of 1 453 pages reclaimed differ" in text
    assert "when repetitions are drawn again (bootstrap)" in text


def test_page_single_plays_look_as_before() -> None:
    results = recorded("quick-drbd-8.4")
    page = render_html(run_of(list(results)), results)
    assert len(nodes(page, "//details[contains(@class, 'cell')]")) == len(results)
    assert "repetition" not in text_of(page).replace("What repetitions bound is how often a cell diverges", "")
    assert not nodes(page, "//*[starts-with(@id, 'all-of-')]")


def test_terminal_repeated_cell_one_row_with_mark() -> None:
    text = terminal([*mixed(), weak()], 100)
    assert "3 of 4 diverged" in text and "! repetitions disagree" in text and text.count("# DIVERGED") == 1


def test_summary_counts_cells_and_repetitions() -> None:
    summary = summarize([*mixed(), weak()])
    assert summary.counts == (("CLEAN (weak)", 1), ("DIVERGED", 1)) and summary.repetitions == 6
    assert summarize([weak()]).repetitions == 0


def test_headline_repeated_cells_counted_as_cells_and_repetitions() -> None:
    sentence = headline([*mixed(), weak()]).sentence
    assert "in 1 of 2 cells (3 of 6 repetitions)" in sentence
    assert "1 repetition of these cells left without an answer." in sentence


def test_findings_repeated_cell_one_line() -> None:
    (line,) = findings(mixed()[4:] + [replace(one, verdict=mixed()[4].verdict) for one in mixed()[:2]])
    assert line.sentence == "INCONCLUSIVE: It broke. And 2 more repetitions."
    assert VerdictKind.INCONCLUSIVE.value in line.sentence


@pytest.mark.parametrize(("low", "high", "text"), [(0.0, 0.5218, "0 % to 53 %"), (0.1466, 0.9473, "14 % to 95 %")])
def test_between_known_intervals(low: float, high: float, text: str) -> None:
    assert between(low, high) == text


@given(st.floats(0, 1), st.floats(0, 1))
def test_between_any_interval_never_narrower(one: float, other: float) -> None:
    low, high = sorted((one, other))
    bottom, top = (float(part.removesuffix(" %")) / 100 for part in between(low, high).split(" to "))
    assert bottom <= low + 1e-6 and high - 1e-6 <= top


# --------------------------------------------------------------------------- the tables of disturbances


def of_disturbances(cell_id: str) -> Result:
    return next(one for one in recorded("disturbances-drbd-8.4") if one.cell.id == cell_id)


def test_loss_grid_repetitions_summed_none_hidden_by_a_later_one() -> None:
    lost = of_disturbances("unsafe-ext4-buffered-link20ms-crash.node")
    assert lost.evidence is not None and lost.evidence.canary is not None and lost.evidence.canary.total_lost
    kept = replace(lost, evidence=replace(lost.evidence, canary=replace(lost.evidence.canary, lost={})))
    plays = [play(kept, 1), play(lost, 2), play(kept, 3)]
    made = loss_grid(plays, anchors(plays))
    assert made is not None
    (slot,) = made.rows[0][1:]
    acknowledged = sum(lost.evidence.canary.acknowledged.values())
    assert slot.text.startswith(f"{lost.evidence.canary.total_lost} of {3 * acknowledged:,} ".replace(",", " "))
    assert slot.text.endswith("in 1 of 3 plays") and (slot.tone, slot.anchor) == ("bad", anchors(plays)[1])


def test_durability_and_migrations_repetitions_named_and_counted() -> None:
    moved = of_disturbances("none-swap-reclaim-link20ms-migrate2")
    plays = [play(moved, 1), play(moved, 2)]
    names = anchors(plays)
    for made in (durability_grid(plays, names), migration_grid(plays, names)):
        assert made is not None
        assert list(dict.fromkeys(row[0].text for row in made.rows)) == [
            moved.cell.id,
            f"{moved.cell.id}, repetition 2",
        ]
    assert [one.cell_id for one in timelines(plays, names)][1].endswith(", repetition 2")
    assert "differ in 2 of 2 repetitions" in durability_sentence(plays)
    assert "differ in 1 of 1 cell:" in durability_sentence(plays[:1])


def test_alarms_repetition_beside_the_same_one_without_digest() -> None:
    results = recorded("alarms-drbd-9.3.3")
    digest = next(one for one in results if one.cell.id == "none-inflight-modify-link20ms-digest.crc32c")
    plain = replace(digest, cell=replace(digest.cell, replication=ReplicationProfile()))
    plays = [play(digest, 1), play(digest, 2), play(plain, 1), replace(play(plain, 2), verdict=None)]
    made = alarm_grid(plays, anchors(plays))
    assert made is not None
    first, second, *_ = made.rows
    assert second[0].text == f"{digest.cell.id}, repetition 2"
    assert (first[-1].text, second[-1].text) != (second[-1].text, first[-1].text) and second[-1].text == "not run"


def test_timelines_of_many_plays_one_for_each_cell_and_each_play_in_the_table() -> None:
    moved = of_disturbances("none-swap-reclaim-link20ms-migrate2")
    plays = [play(moved, number) for number in range(1, 131)]
    names = anchors(plays)
    drawn = timelines(plays, names)
    assert [one.anchor for one in drawn] == [names[0]]
    assert undrawn(plays, drawn) == 129 and undrawn(plays[:40], timelines(plays[:40], names[:40])) == 0
    page = render_html(run_of(plays), plays)
    assert "the other 129 are in the table below" in text_of(page)
    (table,) = nodes(page, "//*[@aria-label='Live migrations']/table")
    assert len(table.xpath("./tbody/tr")) == sum(len(one.evidence.migrations) for one in plays if one.evidence) > 40
    assert "folds" not in table.get("class") and not table.xpath(".//td/@data-label")

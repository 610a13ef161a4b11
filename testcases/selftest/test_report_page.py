"""The look of the page: heat maps by axis, what it costs, whose blocks, the command to play a cell again, its size."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from lxml import etree
from reported_results import diverged, everything, evidence, nodes, run_of, text_of, verdict

from harness.judgement.cost_ratios import CostRatio
from harness.model import CacheMode, Cell, ClientKind, FilesystemKind, Layout, Mitigation, Result, VerdictKind
from harness.report import html as page_of_run
from harness.report.axis_maps import axis_maps, mode_tiles
from harness.report.cells import CellView, anchors, cell_views
from harness.report.cost_chart import drawn
from harness.report.html import render_html
from harness.report.owner_bars import owner_bars
from harness.report.page_size import fitted
from harness.report.replay import replay_command
from harness.report.view import SHORTER, ResultView
from harness.store import Store, judged_results

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
CSS = (Path(page_of_run.__file__).parent / "report.css.j2").read_text()
KINDS = ("clean", "transient", "diverged", "corrupt", "refused", "inconclusive")


def ended(kind: VerdictKind, **axes: object) -> Result:
    cell = Cell(**({"workload": "truncate", "filesystem": FilesystemKind.EXT4, "cache": CacheMode.NONE} | axes))  # type: ignore[arg-type]
    marked = [5, 6] if kind is VerdictKind.DIVERGED else []
    return Result(cell, verdict(kind, "Seen.", len(marked)), evidence(cell, marked, marked))


def sample() -> list[Result]:
    return [
        ended(VerdictKind.DIVERGED),
        ended(VerdictKind.CLEAN, repetition=2),
        ended(VerdictKind.CLEAN, cache=CacheMode.WRITEBACK),
        ended(VerdictKind.CLEAN, layout=Layout.LVM),
        ended(VerdictKind.CLEAN, cache=CacheMode.NONE, mitigation=Mitigation.PROTOCOL_A),
    ]


# --------------------------------------------------------------------------- heat maps


def test_axis_maps_one_for_each_axis_with_several_values() -> None:
    maps = {one.axis: one for one in axis_maps(sample(), anchors(sample()))}
    assert set(maps) == {"Filesystem", "Layout", "Mitigation"}
    assert [row.name for row in maps["Layout"].rows] == ["raw", "lvm"]
    assert [row.name for row in maps["Mitigation"].rows] == ["none", "protocol-a"]
    assert maps["Filesystem"].columns == ("none", "writeback")
    (row,) = maps["Filesystem"].rows
    tile = row.tiles[0]
    assert tile and (tile.word, tile.often, tile.cells) == ("DIVERGED", "1 of 4 diverged", "3 cells")
    assert tile.low is None and not tile.interval, "plays of different cells are not trials of one rate"


def test_axis_maps_single_cell_has_exact_interval_and_no_such_cell_none() -> None:
    layout = next(one for one in axis_maps(sample(), anchors(sample())) if one.axis == "Layout")
    lvm = layout.rows[1].tiles
    assert lvm[0] and lvm[0].interval == "0 % to 98 %" and lvm[1] is None


def test_mode_tiles_worst_verdict_of_each_mode_and_no_controls() -> None:
    tiles = dict(mode_tiles(everything(), anchors(everything())))
    assert tiles["none"].word == "DIVERGED" and tiles["none"].harm
    assert tiles["writeback"].word == "CLEAN" and not tiles["writeback"].harm
    only_controls = [result for result in everything() if result.cell.control is not None]
    assert not mode_tiles(only_controls, anchors(only_controls)) and not axis_maps(
        only_controls, anchors(only_controls)
    )


def test_page_tiles_lead_to_cells_and_say_it_in_text() -> None:
    page = render_html(run_of(sample()), sample())
    ids = set(nodes(page, "//@id"))
    for path in ("//a[contains(@class, 'tile')]", "//a[contains(@class, 'mode')]"):
        found = nodes(page, path)
        assert found and {one.get("href")[1:] for one in found} <= ids
    assert all(one.get("title") for one in nodes(page, "//a[contains(@class, 'tile')]"))
    headings = {"".join(one.itertext()): one for one in nodes(page, "//table[@class='axis']//thead//th/span")}
    assert {"none", "writeback"} <= headings.keys() and headings["writeback"].text == "write", "where it may be broken"
    first = nodes(page, "//header//strong/text()")[0]
    assert "No" in first, "the answer about cache=none stands first"


# --------------------------------------------------------------------------- the rest of the page


def test_owner_bars_parts_add_up() -> None:
    bars = owner_bars([diverged()], anchors([diverged()]))
    assert [part.owner for part in bars[0].parts] and sum(part.width for part in bars[0].parts) == pytest.approx(100)
    assert bars[0].total == "930 blocks"


def test_cost_chart_places_on_a_logarithmic_scale() -> None:
    ratios = (
        CostRatio("writethrough", "writethrough", "4k random writes: IOPS", 5, 0.25, 0.2, 0.3125),
        CostRatio("iothread", "none", "4k random writes: IOPS", 5, 1.05, 0.9, 1.2),
        CostRatio("crypt-qemu", "none", "4k random writes: p99 latency", 5, 2.0, 1e-9, 1e9),
    )
    chart = drawn(ratios)
    assert chart and drawn(()) is None
    iops, latency = chart.measures
    slow, same = iops.bars
    assert (slow.verdict, same.verdict, latency.bars[0].verdict) == ("worse", "unclear", "unclear")
    assert 0 <= slow.left < slow.at < 50 < same.at and slow.text == "0.25 (0.2 to 0.31), n=5"
    assert latency.bars[0].cut == "left right" and latency.bars[0].left >= 0
    assert latency.bars[0].left + latency.bars[0].width <= 100.5
    assert (50.0, "1") in chart.ticks


def test_replay_command_same_matrix_cell_seed_and_repetition() -> None:
    cell = Cell("truncate", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, repetition=3, seed=9)
    words = shlex.split(replay_command(run_of([], matrix="quick", seed=77), cell))
    assert words[:6] == ["drbd-harness", "run", "--matrix", "quick", "-k", cell.id]
    assert "--seed 77 --repeat 3" in " ".join(words)
    assert "own.toml" in replay_command(run_of([], matrix="own"), cell)
    of_mine = {"suite": "trixie", "name": "", "node": {"drbd": ["/mods"]}}
    for stack, options in (
        (of_mine, "--suite trixie --drbd /mods"), (of_mine | {"name": "sid"}, "--stack sid --drbd /mods"),
        (of_mine | {"name": "/my/own.toml"}, "--stack /my/own.toml --seed"),
    ):  # fmt: skip
        run = replace(run_of([], matrix="quick", seed=77), stack_spec=stack)
        assert options in replay_command(run, cell)
    assert replay_command(run_of([], matrix=""), cell) == ""


def test_page_has_the_command_of_each_play_ready_to_copy() -> None:
    run = run_of(sample(), matrix="quick")
    copied = nodes(render_html(run, sample()), "//code[@class='copy']/text()")
    assert copied == [replay_command(run, result.cell) for result in (sample()[0], sample()[1], *sample()[2:])]
    assert ".ddh code.copy { user-select: all" in CSS


def test_page_unreadable_evidence_named_and_the_rest_shown() -> None:
    page = render_html(run_of(sample()), sample(), unreadable=("cells/none-swap/1/evidence.json is damaged: no JSON",))
    text = text_of(page)
    assert "Unreadable" in text and "cells/none-swap/1/evidence.json is damaged" in text and "DIVERGED" in text


def test_page_tables_fold_on_a_phone() -> None:
    page = render_html(run_of(everything()), everything())
    folds = nodes(page, "//table[contains(@class, 'folds')]")
    assert folds
    for cell in nodes(page, "//table[contains(@class, 'folds')]/tbody/tr/td[text() or *]"):
        assert cell.get("data-label") is not None


def test_page_folded_place_is_one_piece_beside_its_label() -> None:
    root = etree.fromstring(kept("alarms").encode())
    for place in root.xpath("//table[contains(@class, 'folds')]/tbody/tr/td"):
        pieces = [place.text, *(one for child in place for one in (child, child.tail))]
        assert len([one for one in pieces if not isinstance(one, str | None) or (one or "").strip()]) <= 1
    # A lane is its name and its count in one row, and its drawing below these.
    narrow = CSS[CSS.index("@media (max-width") :]
    assert re.search(r"\.block-map \{[^}]*grid-auto-flow: dense", narrow)
    # A heat map that is wider than the window keeps the names of its rows; folded, it has nothing to keep.
    assert "table.heat tbody th { position: sticky" in CSS and "table.heat tbody th { position: static" in narrow


# --------------------------------------------------------------------------- colours


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.search(r"\.ddh \{(.*?)\}", CSS, re.DOTALL), re.search(r"not\(\.light\) \{(.*?)\}", CSS, re.DOTALL)
    assert light and dark
    return {
        name: dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", found[1]))
        for name, found in (("light", light), ("dark", dark))
    }


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_themes_both_have_every_colour() -> None:
    light, dark = palettes().values()
    assert light.keys() == dark.keys() and len(light) > 15
    assert "prefers-color-scheme: dark" in CSS and "@media print" in CSS


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_palette_text_has_enough_contrast(theme: str) -> None:
    colours = palettes()[theme]
    pairs = [(text, under) for text in ("ink", "soft", "link") for under in ("page", "card", "wash")]
    pairs += [(kind, under) for kind in (*KINDS, "notrun") for under in ("page", "card")]
    pairs += [(text, f"{kind}-bg") for kind in KINDS for text in (kind, "ink")]
    pairs += [("soft", "diverged-bg"), ("link", "diverged-bg"), ("on-harm", "diverged"), ("on-harm", "corrupt")]
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert not {pair: value for pair, value in low.items() if value < 4.5}


# --------------------------------------------------------------------------- size


def test_page_of_200_cells_stays_small() -> None:
    # The first that was kept: its eight cells were played once.
    store = Store(min(EVIDENCE.glob("quick-*")))
    run, results = store.run(), judged_results(store)
    many = [
        replace(result, cell=replace(result.cell, workload=f"{result.cell.workload}{number}"))
        for number in range(25)
        for result in results
        if result.cell.control is None
    ]
    assert len(many) == 200
    page = render_html(run, many)
    assert len(page.encode()) <= 2_000_000
    assert len(nodes(page, "//details[contains(concat(' ', @class, ' '), ' cell ')]")) == 200, "each is there"
    assert "without some details" in text_of(page)
    assert nodes(page, "//table[@class='hex']"), "what tells most keeps its details"


def test_fitted_nothing_left_out_where_it_fits() -> None:
    cells = cell_views(everything())
    assert fitted(cells, lambda play: 10) == (cells, 0)
    tight, shortened = fitted(cells, lambda play: 100 if play.evidence else 0, 0)
    assert shortened and all(play.evidence is None for cell in tight for play in cell.plays)
    assert [play.sentence for cell in tight for play in cell.plays] == [
        play.sentence for cell in cells for play in cell.plays
    ]


def test_fitted_what_has_no_room_is_never_drawn() -> None:
    cells = cell_views(everything())
    asked = []

    def measure(play: ResultView) -> int:
        asked.append(play.evidence is not None)
        return 100 if play.evidence else 0

    tight, shortened = fitted(cells, measure, 250)
    shown = [play for cell in tight for play in cell.plays if play.evidence]
    assert shortened and len(shown) == 2 and sum(asked) <= len(shown) * SHORTER + 1
    everywhere, shortened = fitted(cells, measure, 100 * len(everything()))
    assert (everywhere, shortened) == (cells, 0)


def test_fitted_keeps_as_much_as_there_is_room_for() -> None:
    cells = cell_views([*everything(), *everything()])
    sizes = (100, 60, 30, 0)

    def size(some: tuple[CellView, ...]) -> int:
        return sum(sizes[play.detail] for cell in some for play in cell.plays if play.result.evidence)

    last = -1
    for limit in range(0, 2000, 30):
        shown, _ = fitted(cells, lambda play: sizes[play.detail] if play.evidence else 0, limit)
        assert (last <= size(shown) <= limit and limit - size(shown) < 100) or size(shown) == size(cells)
        last = size(shown)


def test_page_node_itself_has_a_column() -> None:
    result = ended(VerdictKind.CLEAN, client=ClientKind.HOST, cache=None)
    assert [name for name, _ in mode_tiles([result], anchors([result]))] == ["the node itself"]


# --------------------------------------------------------------------------- for everybody


def kept(matrix: str) -> str:
    """The page of a run that is kept beside the source."""
    store = Store(max(EVIDENCE.glob(f"{matrix}-*")))
    return render_html(store.run(), judged_results(store), attempts=list(store.every_attempt()))


@pytest.mark.parametrize("matrix", ["alarms", "failover", "figures", "migration"])
def test_page_can_be_read_without_seeing_it_and_used_without_a_mouse(matrix: str) -> None:
    root = etree.fromstring(kept(matrix).encode())
    assert root.get("lang") == "en"
    levels = [int(one.tag[1]) for one in root.iter("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    for head in root.iter("th"):
        assert head.get("scope") in ("col", "row") and "".join(head.itertext()).strip(), etree.tostring(head)
    assert all(table.find(".//th") is not None for table in root.iter("table"))
    for wide in root.xpath("//div[@class='scroll']"):
        assert (wide.get("tabindex"), wide.get("role")) == ("0", "region") and wide.get("aria-label")
    assert not root.xpath("//*[self::p or self::div or self::span][@aria-label][not(@role)]"), (
        "a name that nobody hears"
    )
    ids = root.xpath("//@id")
    assert len(ids) == len(set(ids)) and {one[1:] for one in root.xpath("//a/@href[starts-with(., '#')]")} <= {*ids}


def test_page_no_number_is_broken_at_the_end_of_a_line() -> None:
    results = [replace(diverged(), verdict=verdict(VerdictKind.DIVERGED, "Seen.", 1372080))]
    answer = nodes(
        render_html(run_of(results), results), "string(//div[contains(@class, 'second')]//p[@class='reply'])"
    )
    assert "1\u00a0372\u00a0080 differing blocks" in str(answer)
    assert page_of_run._whole("17 % of 3 of 1 204, 5 blocks, 2026") == "17\u00a0% of 3 of 1\u00a0204, 5 blocks, 2026"


def test_page_says_what_to_change_where_something_went_wrong() -> None:
    results = [*sample()[:3], ended(VerdictKind.CLEAN, cache=CacheMode.UNSAFE)]
    said = [
        " ".join(one.xpath("string()").split())
        for one in nodes(render_html(run_of(results), results), "//p[@class='next' or @class='next soft']")
    ]
    assert "no harm was seen here with cache=writeback; remedies were not played here" in said[0]
    assert "drbd-harness run --matrix mitigations" in said[0] and "cache=unsafe ignores" in said[1]
    results = [*sample()[:3], ended(VerdictKind.CLEAN, cache=CacheMode.WRITETHROUGH)]
    said = [
        " ".join(one.xpath("string()").split())
        for one in nodes(render_html(run_of(results), results), "//p[@class='next soft']")
    ]
    assert said == [
        "A tile says whether both replicas hold the same, not what a crash loses:"
        " cache=writethrough with aio=threads may lose acknowledged writes when a node loses its power"
        " (docs/qemu-missed-flush.md; the matrix cuts asks it)."
    ]
    page = render_html(run_of(sample()), sample())
    assert nodes(page, "//p[@class='next']/a/@href") == ["#remedies"] and nodes(page, "//h2[@id='remedies']")
    fine = [ended(VerdictKind.CLEAN)]
    assert not nodes(render_html(run_of(fine), fine), "//p[@class='next']")

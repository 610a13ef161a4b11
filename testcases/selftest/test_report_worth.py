"""What the report says a verdict is worth: hazard, strong or weak, opportunities, and the headline that rests on them.

From the evidence of real runs, with verdicts that say what the judge can say.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported_results import nodes, run_of, terminal, text_of

from harness.model import Hazard, Opportunities, Potency, Result, Verdict, VerdictKind
from harness.report.headline import Answer, headline
from harness.report.html import evidence_html, heat_map_html, render_html
from harness.report.table import figures
from harness.report.worth import share, worth_rows
from harness.store import Store, judged_results

GOLDEN = Path(__file__).parent / "golden"
RECLAIMED = Opportunities(526, "pages reclaimed", "the workload")


@cache
def recorded(name: str) -> tuple[Result, ...]:
    return tuple(judged_results(Store.open(GOLDEN, name)))


def said(result: Result, **changes: object) -> Result:
    """``result`` with a verdict that says something else."""
    assert result.verdict is not None
    return replace(result, verdict=replace(result.verdict, **changes))  # type: ignore[arg-type]


def of_quick(cell_id: str, **changes: object) -> Result:
    return said(next(one for one in recorded("quick-drbd-8.4") if one.cell.id == cell_id), **changes)


def controls() -> list[Result]:
    return [one for one in recorded("quick-drbd-8.4") if one.cell.control is not None]


def strong() -> Result:
    return of_quick(
        "writeback-swap-reclaim-link20ms", hazard=Hazard.NONE, potency=Potency.STRONG,
        potency_reason="the same work diverged in none-swap-reclaim-link20ms", opportunities=RECLAIMED,
        rate_upper_95=0.00568,
    )  # fmt: skip


def weak() -> Result:
    return of_quick("writethrough-swap-reclaim-link20ms", potency=Potency.WEAK, potency_reason="nothing shows it",
                    hazard=None, opportunities=None)  # fmt: skip


def healed() -> Result:
    changed = Opportunities(8903, "block writes changed in flight", "the witness")
    return of_quick("writeback-ext4-truncate-link20ms", hazard=Hazard.HEALED, potency=Potency.STRONG,
                    opportunities=changed)  # fmt: skip


def persisted() -> Result:
    return of_quick("none-swap-reclaim-link20ms", hazard=Hazard.PERSISTED, opportunities=replace(RECLAIMED, count=309))


def no_answer(result: Result) -> Result:
    return replace(result, verdict=Verdict(VerdictKind.INCONCLUSIVE, "It broke."))


# --------------------------------------------------------------------------- denominators


def test_figures_opportunities_before_exposed_writes() -> None:
    assert figures(strong()) == "0 of 526 pages reclaimed, < 0.57 % (95 %)"
    assert figures(persisted()) == "304 of 309 pages reclaimed"
    assert figures(said(strong(), opportunities=None)) == "0 of 27 071 exposed, < 0.57 % (95 %)"


def test_share_more_blocks_than_opportunities_is_no_share() -> None:
    verdict = Verdict(VerdictKind.DIVERGED, "", opportunities=replace(RECLAIMED, count=155))
    assert share(432, verdict) == "432 blocks, 155 pages reclaimed"
    assert share(3, replace(verdict, opportunities=replace(RECLAIMED, count=0), exposed_blocks=9)) == "3 of 9 exposed"


def test_worth_rows_hazard_reason_source_and_bound_of_what() -> None:
    rows = dict(worth_rows(strong()))
    assert rows["Hazard"].startswith("no hazard: ")
    assert rows["What this CLEAN is worth"] == "strong: the same work diverged in none-swap-reclaim-link20ms"
    assert rows["Opportunities"] == "526 pages reclaimed, counted by the workload"
    assert rows["95 % upper bound"] == "0.57 % of the pages reclaimed"
    assert dict(worth_rows(weak()))["95 % upper bound"].endswith("of the exposed block writes")
    assert dict(worth_rows(persisted()))["What this CLEAN is worth"] == ""


# --------------------------------------------------------------------------- page and terminal


def test_page_weak_clean_looks_different_not_by_colour_alone() -> None:
    results = [*controls(), strong(), weak()]
    page = render_html(run_of(results), results)
    tiles = {
        tuple(one.xpath(".//b//text()")): one.get("class") for one in nodes(page, "//a[contains(@class, 'entry')]")
    }
    assert {text[-1]: tile for text, tile in tiles.items()} == {
        "CLEAN (strong)": "entry v-clean",
        "CLEAN (weak)": "entry v-clean weak",
    }
    assert "CLEAN (weak): nothing found, and nothing shows that this work could have diverged" in text_of(page)
    assert "1 CLEAN (strong), 1 CLEAN (weak)" in text_of(page)


def test_page_cell_hazard_potency_and_opportunities_shown() -> None:
    for result, texts in (
        (strong(), ("no hazard", "strong: the same work diverged in", "526 pages reclaimed, counted by the workload")),
        (weak(), ("weak: nothing shows it",)),
        (healed(), ("healed: writes changed in flight", "8 903 block writes changed in flight, counted by")),
        (persisted(), ("persisted: blocks differ at the end",)),
    ):
        text = text_of(evidence_html(result))
        assert [wanted for wanted in texts if wanted not in text] == []


def test_page_control_has_no_worth() -> None:
    results = [*controls(), weak()]
    chips = nodes(render_html(run_of(results), results), "//summary/span[contains(@class, 'chip')]")
    assert ["".join(one.itertext()).split(maxsplit=1)[1] for one in chips] == [
        "DIVERGED",
        "CLEAN",
        "DIVERGED",
        "CLEAN (weak)",
    ]


def test_heat_map_hazard_in_the_tile_where_it_is_news() -> None:
    text = text_of(heat_map_html([*controls(), strong(), healed(), persisted()]))
    assert "no hazard" in text and "healed" in text and "persisted" not in text


def test_terminal_worth_in_table_and_summary() -> None:
    text = " ".join(terminal([*controls(), strong(), weak(), healed(), persisted()], 200).split())
    for wanted in ("CLEAN (strong)", "CLEAN (weak)", "healed", "304 of 309 pages reclaimed", "2 strong", "1 weak"):
        assert wanted in text, wanted


# --------------------------------------------------------------------------- the headline


def test_headline_yes_says_what_it_rests_on() -> None:
    answer = headline([*controls(), strong(), weak(), healed()])
    assert (answer.answer, answer.weak) == (Answer.YES, True)
    assert (
        "2 strong" in answer.sentence and "1 weak (nothing shows that this work could have diverged)" in answer.sentence
    )
    assert "In 1 cell writes changed in flight and no block differs at the end." in answer.sentence
    assert not headline([*controls(), strong()]).weak


def test_headline_any_cell_without_answer_is_not_answered() -> None:
    one, *others = [strong(), weak(), healed(), of_quick("writeback-inflight-modify"), said(strong())]
    answer = headline([*controls(), one, *(no_answer(other) for other in others[:3])])
    assert answer.answer is Answer.UNKNOWN
    assert answer.sentence.startswith(
        "No answer from 3 cells: 3 inconclusive. No difference was seen in the other 1 cell"
    )
    never = headline([*controls(), strong(), replace(weak(), verdict=None, evidence=None)])
    assert never.answer is Answer.UNKNOWN and "1 not run" in never.sentence


def test_headline_refused_cell_is_said_beside_the_answer() -> None:
    refused = replace(weak(), verdict=Verdict(VerdictKind.REFUSED, "QEMU would not."))
    answer = headline([*controls(), strong(), refused])
    assert answer.answer is Answer.YES and "1 refused by the stack" in answer.sentence


def test_headline_owners_add_up_to_the_blocks() -> None:
    result = persisted()
    assert result.evidence is not None
    fewer = replace(result.evidence, ownership=replace(result.evidence.ownership, free=300))
    sentence = headline([replace(result, evidence=fewer)]).sentence
    assert "304 differing blocks: 300 free, 4 whose owner nobody looked up" in sentence


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_headline_recorded_runs_yes_only_where_each_cell_has_an_answer(name: str) -> None:
    results = recorded(name)
    kinds = {one.verdict.kind if one.verdict else None for one in results if one.cell.control is None}
    if headline(results).answer is Answer.YES:
        assert kinds <= {VerdictKind.CLEAN, VerdictKind.TRANSIENT, VerdictKind.REFUSED}
    assert (headline(results).answer is Answer.NO) == bool(kinds & {VerdictKind.DIVERGED, VerdictKind.CORRUPT})


@given(st.lists(st.sampled_from([*VerdictKind, None]), max_size=5))
def test_headline_any_verdicts_yes_never_with_a_difference_or_a_gap(kinds: list[VerdictKind | None]) -> None:
    cells = [strong(), weak(), healed(), of_quick("writeback-inflight-modify"), persisted()]
    results = [
        replace(cell, verdict=None if kind is None else Verdict(kind, "Said.", differing_blocks=0))
        for cell, kind in zip(cells, kinds, strict=False)
    ]
    answer = headline([*controls(), *results]).answer
    gaps = {None, VerdictKind.INCONCLUSIVE} & set(kinds)
    differs = {VerdictKind.DIVERGED, VerdictKind.CORRUPT} & set(kinds)
    assert (answer is Answer.NO) == bool(differs)
    assert answer is not Answer.YES or not (gaps or differs)

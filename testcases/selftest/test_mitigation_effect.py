"""Whether nothing diverged any more with a mitigation, less or as much: by repetitions, never by one lucky play."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.mitigation_effect import Effect, EffectWord, effects
from harness.model import (
    Alarms,
    CacheMode,
    Cell,
    Comparison,
    Evidence,
    Extent,
    FilesystemKind,
    Mitigation,
    Result,
    Run,
    Sabotage,
    Verdict,
    VerdictKind,
    settings,
)
from harness.report.html import render_html
from harness.report.remedies import effect_grid

BASE = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
RESYNCED = Alarms(resynced_kib=400)
CURE = replace(BASE, mitigation=Mitigation.STABLE_WRITES).with_values(settings(None, Mitigation.STABLE_WRITES))


def plays(of: Cell, differing: list[int | None]) -> list[Result]:
    """A repetition for each number of differing blocks; None: it was refused."""
    found = []
    for number, blocks in enumerate(differing, 1):
        cell = replace(of, repetition=number)
        kind = VerdictKind.REFUSED if blocks is None else VerdictKind.DIVERGED if blocks else VerdictKind.CLEAN
        extents = (Extent(0, 8 * blocks),) if blocks else ()
        one = Evidence(cell, 1, "", lab="lab", comparison=Comparison(32768, extents, 1, ""), exposed_blocks=10_000)
        found.append(Result(cell, Verdict(kind, "no such bus", (), blocks or 0, 10_000), one))
    return found


def effect(base: list[int | None], cure: list[int | None]) -> Effect:
    """The only one of the two cells."""
    (one,) = effects([*plays(BASE, base), *plays(CURE, cure)])
    return one


@pytest.mark.parametrize(
    ("base", "cure", "word"),
    [
        ([500] * 5, [0] * 5, EffectWord.NOT_OBSERVED),
        ([500] * 4, [0] * 4, EffectWord.NOT_OBSERVED),
        ([500] * 3, [0] * 3, EffectWord.OPEN),
        ([500], [0], EffectWord.OPEN),
        ([500], [480], EffectWord.OPEN),
        ([500] * 5, [0, 0, 0, 0, 3], EffectWord.NARROWS),
        ([500, 510, 490, 500, 505], [50, 52, 49, 51, 50], EffectWord.NARROWS),
        ([500, 510, 490, 500, 505], [500, 480, 520, 505, 495], EffectWord.NEITHER),
        ([100, 900, 400, 300, 700], [300, 200, 900, 100, 800], EffectWord.NEITHER),
        ([0] * 5, [0] * 5, EffectWord.NO_ANSWER),
        ([500] * 5, [None], EffectWord.NO_ANSWER),
    ],
)
def test_effect_of_repetitions(base: list[int | None], cure: list[int | None], word: EffectWord) -> None:
    found = effect(base, cure)
    assert found.word is word, found
    assert bool(found.reason) == (word is EffectWord.NO_ANSWER)


def test_effect_that_was_refused_says_what_the_stack_said() -> None:
    found = effect([500] * 5, [None])
    assert found.reason == "no such bus" and (found.diverged, found.answered) == (0, 0)


@given(st.lists(st.integers(0, 900), min_size=1, max_size=6), st.lists(st.integers(0, 900), min_size=1, max_size=6))
def test_effect_not_observed_only_where_nothing_diverged_and_something_did_without(
    base: list[int], cure: list[int]
) -> None:
    found = effect(list(base), list(cure))
    if found.word is EffectWord.NOT_OBSERVED:
        assert not any(cure) and any(base) and len(cure) + len(base) >= 5
    if found.word in (EffectWord.NARROWS, EffectWord.NEITHER):
        assert any(cure) and any(base)


def test_effects_of_sabotaged_cells_are_none() -> None:
    sabotaged = [replace(one, sabotage=Sabotage.FLIP_FREE) for one in (BASE, CURE)]
    assert effects([*plays(sabotaged[0], [500] * 5), *plays(sabotaged[1], [0] * 5)]) == ()


def changed(result: Result, **changes: object) -> Result:
    """The same with other evidence."""
    assert result.evidence is not None
    return replace(result, evidence=replace(result.evidence, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"lab": "another"}, {"alarms": RESYNCED}],
    ids=["another lab", "a resync took differences away"],
)
def test_effect_narrows_only_by_pairs_that_can_be_compared(changes: dict[str, object]) -> None:
    base, cure = plays(BASE, [500, 510, 490, 500, 505]), plays(CURE, [50, 52, 49, 51, 50])
    assert effects([*base, *cure])[0].word is EffectWord.NARROWS
    assert effects([*base, *(changed(one, **changes) for one in cure)])[0].word is EffectWord.OPEN


def test_effects_without_the_baseline_are_none() -> None:
    assert effects(plays(CURE, [0] * 5)) == ()


def test_effect_grid_has_a_row_with_both_counts_and_places() -> None:
    table = effect_grid([*plays(BASE, [500] * 5), *plays(CURE, [0] * 5)], {CURE.id: "c1"})
    assert table is not None
    (row,) = table.rows
    assert [slot.text for slot in row] == [
        "stable-writes",
        "none-swap-reclaim",
        "not observed",
        "0 of 5 (up to 52 %)",
        "5 of 5",
    ]
    assert row[0].anchor == "c1"


def test_page_of_a_run_with_remedies_has_their_table_and_one_without_has_none() -> None:
    run = Run("20261129T000000Z-1", "mitigations", "2026-11-29T00:00:00Z", ())
    page = render_html(run, [*plays(BASE, [500] * 5), *plays(CURE, [0] * 5)])
    assert "Remedies</h2>" in page and "0 of 5 (up to 52 %)" in page
    assert "Remedies</h2>" not in render_html(run, plays(BASE, [500]))

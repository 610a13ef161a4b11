"""The tables of figures about remedies: each of them has its row, with what was found, or that nobody has asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_cost_ratios import cell
from test_cost_ratios import result as measured
from test_figures import CHECKOUT
from test_mitigation_effect import BASE, CURE, plays

from harness.judgement.cost_ratios import IOPS, P50
from harness.model import CacheMode, DelayProfile, Layout, Mitigation, Preset, Result, settings
from harness.report import figures
from harness.report.figure_remedies import NOT_ASKED, cost_rows, effect_rows

SWAP, EXT4 = "reclaim on swap", "truncate on ext4"


def effect(results: list[Result], name: Mitigation, work: str = SWAP) -> str:
    """What the table says of one remedy in one kind of work."""
    head, *rows = effect_rows(results, [SWAP, EXT4])
    return {row[0]: row for row in rows}[f"`{name}`"][head.index(work)]


def costs(results: list[Result]) -> dict[str, dict[str, str]]:
    """What the table says of each remedy, by heading."""
    head, *rows = cost_rows(results)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_effects_each_remedy_has_a_row_asked_or_not() -> None:
    head, *rows = effect_rows([], [SWAP, EXT4])
    assert head == ("`mitigation`", SWAP, EXT4) and [row[0] for row in rows] == [f"`{one}`" for one in Mitigation]
    assert {said for row in rows for said in row[1:]} == {NOT_ASKED}


def test_effects_word_counts_and_ratio_of_the_blocks() -> None:
    cured = [*plays(BASE, [500] * 5), *plays(CURE, [0] * 5)]
    assert effect(cured, Mitigation.STABLE_WRITES) == "**not observed** (0 of 5; up to 52 %), without it 5 of 5"
    assert effect(cured, Mitigation.STABLE_WRITES, EXT4) == NOT_ASKED
    fewer = [*plays(BASE, [500] * 5), *plays(CURE, [50, 52, 49, 51, 50])]
    told = effect(fewer, Mitigation.STABLE_WRITES)
    assert told == "narrows: 5 of 5 diverged, without it 5 of 5; of the blocks 0.1 (0.098 to 0.1)"


def test_effects_what_was_refused_says_so() -> None:
    said = effect([*plays(BASE, [500] * 5), *plays(CURE, [None])], Mitigation.STABLE_WRITES)
    assert said == "no answer: no such bus"


def test_effects_a_remedy_that_is_a_layout_stands_with_the_work_that_it_is_compared_with() -> None:
    crypt = replace(BASE, mitigation=Mitigation.CRYPT_GUEST).with_values({"layout": Layout.CRYPT})
    told = effect([*plays(BASE, [500] * 5), *plays(crypt, [0] * 5)], Mitigation.CRYPT_GUEST)
    assert told.startswith("**not observed** (0 of 5;")


def test_effects_a_cache_mode_is_the_remedy_of_that_name() -> None:
    plain = replace(BASE, cache=CacheMode.WRITEBACK)
    named = replace(plain, mitigation=Mitigation.WRITEBACK)
    results = [*plays(BASE, [500] * 5), *plays(plain, [0] * 5), *plays(named, [0] * 2)]
    assert effect(results, Mitigation.WRITEBACK) == "**not observed** (0 of 5; up to 52 %), without it 5 of 5"
    product = replace(named, preset=Preset.PROXMOX_VE).with_values(settings(Preset.PROXMOX_VE, Mitigation.WRITEBACK))
    assert effect([*results, *plays(product, [7] * 9)], Mitigation.WRITEBACK).startswith("**not observed** (0 of 5;")
    direct = [*plays(BASE, [500] * 5), *plays(replace(BASE, cache=CacheMode.DIRECTSYNC), [500] * 5)]
    assert {said for row in effect_rows(direct, [SWAP])[1:] for said in row[1:]} == {NOT_ASKED}


def test_costs_each_remedy_of_the_disk_has_a_row_asked_or_not() -> None:
    rows = costs([])
    swapping = {Mitigation.SWAP_OFF_DRBD, Mitigation.ZRAM}
    assert set(rows) == {f"`{one}`" for one in Mitigation if one not in swapping}
    assert {row["writes"] for row in rows.values()} == {NOT_ASKED}


def test_costs_ratios_with_their_interval_and_pairs() -> None:
    slow = cell(Mitigation.CRYPT_GUEST)
    pairs = [(100, 50), (200, 100), (300, 150)]
    results = [measured(cell(None), at, base) for at, (base, _) in enumerate(pairs, 1)]
    results += [measured(slow, at, mine) for at, (_, mine) in enumerate(pairs, 1)]
    row = costs(results)["`crypt-guest`"]
    assert (row["writes"], row["n"], row[IOPS]) == ("4k random writes", "3", "0.5 (0.5 to 0.5)")
    assert row[P50] == "", "fio gave none"


def test_costs_of_a_preset_and_of_slow_flushes_come_last() -> None:
    flushes = DelayProfile(flush_delay_ms=80)
    slow, base = (replace(cell(one), delays=flushes) for one in (Mitigation.WRITETHROUGH, None))
    product = cell(None, Preset.PROXMOX_VE)
    results = [measured(one, at, iops) for at in (1, 2) for one, iops in ((base, 100), (slow, 5))]
    results += [measured(one, at, 100) for at in (1, 2) for one in (cell(None), product)]
    rows = costs(results)
    others = [*rows][-2:]
    assert others == ["`writethrough`, a flush takes 80 ms more", "`proxmox-ve`"]
    assert rows[others[0]][IOPS] == "0.05 (0.05 to 0.05)" and rows["`writethrough`"]["writes"] == NOT_ASKED


@pytest.mark.parametrize(("name", "rows"), [("remedies", len(Mitigation)), ("costs", len(Mitigation) - 2)])
def test_page_of_remedies_shows_each_of_them(name: str, rows: int) -> None:
    table = figures.read_spec(CHECKOUT)[name]
    text = figures.markdown(name, table, figures.KeptRuns(CHECKOUT))
    assert sum(line.startswith("| `") for line in text.splitlines()[2:]) >= rows, text

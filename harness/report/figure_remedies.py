"""What a table of figures says of the remedies: what each does against divergence, and what it costs; pure.

Each of them has its row, asked or not, so that a page shows what nobody has asked yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.judgement.cost_ratios import BANDWIDTH, IOPS, P50, P99, CostRatio, cost_ratios
from harness.judgement.mitigation_effect import Effect, EffectWord, effects
from harness.model import SETTINGS, Mitigation, Result
from harness.report.figure_spec import work_word
from harness.report.formatting import part_of

NOT_ASKED = "not asked yet"
Row = Sequence[str]
_MEASURES = (IOPS, BANDWIDTH, P50, P99)
#: Those that only move the swap: the disk under test is as fast as before.
_WITHOUT_COSTS = frozenset(one for one in Mitigation if SETTINGS[one].keys() == {"swap_on"})


def effect_rows(results: Sequence[Result], works: Sequence[str]) -> list[Row]:
    """The heading and a row for each remedy, with a column for each of ``works``, as figures.toml calls them.

    A cache mode is the same remedy whether a matrix names it as one or not; the one with more plays is shown.
    """
    work_of = {one.cell.id: work_word(one.cell) for one in results}
    found: dict[tuple[str, str], Effect] = {}
    for one in effects(results):
        if not one.preset:
            place = one.mitigation or one.cache, work_of[one.baseline]
            found[place] = max(found.get(place, one), one, key=lambda effect: effect.answered)
    rows = [(f"`{name}`", *(_effect(found.get((name.value, work))) for work in works)) for name in Mitigation]
    return [("`mitigation`", *works), *rows]


def _effect(one: Effect | None) -> str:
    if one is None:
        return NOT_ASKED
    if one.word is EffectWord.NO_ANSWER:
        return f"no answer: {one.reason}"
    counts, without = (part_of(one.diverged, one.answered), part_of(one.baseline_diverged, one.baseline_answered))
    if one.word is EffectWord.NOT_OBSERVED:
        return f"**{one.word}** ({counts}; {one.not_ruled_out}), without it {without}"
    told = f"{one.word}: {counts} diverged, without it {without}"
    if not one.diverged or one.share is None:
        return told
    ratio, low, high = one.share
    return f"{told}; of the blocks {ratio:.2g} ({low:.2g} to {high:.2g})"


def cost_rows(results: Sequence[Result]) -> list[Row]:
    """The heading and a row for each remedy and way of writing, then one for what was compared besides."""
    ratios = cost_ratios(results)
    rows: list[Row] = [("`mitigation`", "writes", "n", *_MEASURES)]
    for name in Mitigation:
        if name in _WITHOUT_COSTS:
            continue
        mine = [one for one in ratios if one.mitigation == name and not one.preset and not one.flush_delay_ms]
        rows += _cost(f"`{name}`", mine) or [(f"`{name}`", NOT_ASKED, *[""] * (len(_MEASURES) + 1))]
    others = [one for one in ratios if one.preset or one.flush_delay_ms or not one.mitigation]
    for shown in dict.fromkeys(_other(one) for one in others):
        rows += _cost(shown, [one for one in others if _other(one) == shown])
    return rows


def _other(one: CostRatio) -> str:
    what = " with ".join(f"`{name}`" for name in (one.preset, one.mitigation) if name) or f"cache={one.cache}"
    return f"{what}, a flush takes {one.flush_delay_ms} ms more" if one.flush_delay_ms else what


def _cost(name: str, ratios: Iterable[CostRatio]) -> list[Row]:
    by_pattern: dict[str, dict[str, CostRatio]] = {}
    for one in ratios:
        pattern, _, measure = one.measure.rpartition(": ")
        by_pattern.setdefault(pattern, {})[measure] = one
    return [
        (
            name,
            pattern,
            " or ".join(dict.fromkeys(str(one.n) for one in found.values())),
            *(_ratio(found.get(measure)) for measure in _MEASURES),
        )
        for pattern, found in by_pattern.items()
    ]


def _ratio(one: CostRatio | None) -> str:
    return "" if one is None else f"{one.ratio:.2g} ({one.low:.2g} to {one.high:.2g})"

"""What each remedy does against divergence, as a table; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.judgement.mitigation_effect import Effect, EffectWord, effects
from harness.model import Result
from harness.report.grid import Grid, Slot, grid

_TONES = {
    EffectWord.NOT_OBSERVED: ("clean", "✓"), EffectWord.NARROWS: ("transient", "~"),
    EffectWord.NEITHER: ("diverged", "✗"), EffectWord.OPEN: ("inconclusive", "?"),
    EffectWord.NO_ANSWER: ("refused", "-"),
}  # fmt: skip
_COLUMNS = ("Remedy", "Asked of", "It", "Diverged", "Without it", "Blocks, as a ratio", "Why")


def effect_grid(results: Iterable[Result], anchors: dict[str, str]) -> Grid | None:
    """A row for each remedy and kind of work; ``anchors`` are the places of cells on the page by their ids.

    A cache mode that nobody called a remedy has its place among the verdicts.
    """
    named = [one for one in effects(results) if one.mitigation or one.preset]
    return grid("Remedies and what they do", _COLUMNS, [_row(one, anchors) for one in named])


def _row(one: Effect, anchors: dict[str, str]) -> Sequence[Slot]:
    tone, sign = _TONES[one.word]
    return (
        Slot(_name(one), anchor=anchors.get(one.cell, "")),
        Slot(one.baseline, anchor=anchors.get(one.baseline, "")),
        Slot(str(one.word), tone, sign),
        Slot(f"{one.diverged} of {one.answered}{f' ({bound})' if (bound := one.not_ruled_out) else ''}"),
        Slot(f"{one.baseline_diverged} of {one.baseline_answered}"),
        Slot(_ratio(one.share) if one.share is not None and one.diverged else ""),
        Slot(one.reason),
    )


def _name(one: Effect) -> str:
    """``stable-writes``, ``proxmox-ve with writeback``, ``cache=directsync``."""
    if one.preset and one.mitigation:
        return f"{one.preset} with {one.mitigation}"
    return one.mitigation or one.preset or f"cache={one.cache}"


def _ratio(interval: tuple[float, float, float]) -> str:
    ratio, low, high = interval
    return f"{ratio:.2g} ({low:.2g} to {high:.2g})"

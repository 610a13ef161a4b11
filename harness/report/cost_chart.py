"""What a mitigation costs, drawn: ratios against cache=none on a logarithmic scale, each with its interval; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.judgement.cost_ratios import CostRatio, cost_ratios
from harness.model import Result

#: The scale reaches at least from half to twice, and never further than this factor either way.
_LEAST, _MOST = 2.0, 64.0


@dataclass(frozen=True)
class CostBar:
    """One ratio: places on the scale from 0 to 100, and the same in words.

    ``cut`` says at which ends the interval goes on beyond the scale; ``verdict`` is ``better``, ``worse``, or
    ``unclear`` where the interval holds 1.
    """

    name: str
    text: str
    at: float
    left: float
    width: float
    cut: str
    verdict: str
    sign: str
    cell: str


@dataclass(frozen=True)
class CostMeasure:
    """One measure with all that was compared in it."""

    measure: str
    better: str
    bars: tuple[CostBar, ...]


@dataclass(frozen=True)
class CostChart:
    """All measures on one scale; ``ticks`` are places from 0 to 100 with their ratios."""

    measures: tuple[CostMeasure, ...]
    ticks: tuple[tuple[float, str], ...]
    one: float


def cost_chart(results: Sequence[Result]) -> CostChart | None:
    """The chart of ``results``; None where nothing was measured against a baseline."""
    return drawn(cost_ratios(results))


def drawn(ratios: Sequence[CostRatio]) -> CostChart | None:
    """The chart of ``ratios``; None without any."""
    if not ratios:
        return None
    ends = [abs(math.log(value)) for one in ratios for value in (one.ratio, one.low, one.high) if 0 < value < math.inf]
    span = math.log(min(_MOST, max([_LEAST, *(math.exp(min(end, 10.0)) for end in ends)])) * 1.05)

    def place(value: float) -> float:
        log = math.log(value) if value > 0 else -math.inf
        return round(50 + 50 * max(-1.0, min(1.0, log / span)), 2)

    factors = [2.0**power for power in range(-6, 7)]
    ticks = tuple((place(one), _ratio(one)) for one in _thinned(factors, span))
    measures: dict[str, list[CostRatio]] = {}
    for one in ratios:
        measures.setdefault(one.measure, []).append(one)
    return CostChart(
        tuple(
            CostMeasure(name, "more is better" if some[0].more_is_better else "less is better", tuple(
                _bar(one, place, span) for one in some))
            for name, some in measures.items()
        ),
        ticks,
        place(1.0),
    )  # fmt: skip


def _thinned(factors: Sequence[float], span: float) -> list[float]:
    inside = [one for one in factors if abs(math.log(one)) <= span]
    step = 1 if len(inside) <= 7 else 2
    middle = inside.index(1.0)
    return [one for at, one in enumerate(inside) if (at - middle) % step == 0]


def _bar(one: CostRatio, place, span: float) -> CostBar:  # type: ignore[no-untyped-def]
    left, right = place(one.low), place(one.high)
    beyond = [end for end, value in (("left", one.low), ("right", one.high)) if not _inside(value, span)]
    gain = one.ratio > 1 if one.more_is_better else one.ratio < 1
    verdict = "unclear" if one.low <= 1 <= one.high else "better" if gain else "worse"
    sign = {"unclear": "=", "better": "+", "worse": "\u2212"}[verdict]
    return CostBar(
        name=_name(one),
        text=f"{_ratio(one.ratio)} ({_ratio(one.low)} to {_ratio(one.high)}), n={one.n}",
        at=place(one.ratio),
        left=left,
        width=round(max(0.4, right - left), 2),
        cut=" ".join(beyond),
        verdict=verdict,
        sign=sign,
        cell=one.cell,
    )


def _inside(value: float, span: float) -> bool:
    return value > 0 and abs(math.log(value)) <= span


def _name(one: CostRatio) -> str:
    what = " + ".join(filter(None, (one.preset, one.mitigation))) or f"cache={one.cache}"
    return f"{what}, flushes {one.flush_delay_ms} ms later" if one.flush_delay_ms else what


def _ratio(value: float) -> str:
    if not math.isfinite(value) or value >= 1000:
        return "\u2265 1000"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"

"""What a mitigation or a cache mode costs: fio's figures against those of the same cell with cache=none; pure.

Under emulation the figures themselves mean nothing, and the machine is not always equally fast.  So each repetition is
compared with the repetition of the same number of its baseline, which was played in the same round on the same lab, and
what is given is the ratio: the geometric mean over the pairs, with Student's interval on the logarithms.  It is exact
where the logarithms of the ratios are normal, and of few pairs it is wide, as it should be; a bootstrap of five pairs
would be too narrow, and an interval from their order alone has no 95 % below six.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judgement.repetitions import TRIALS
from harness.judgement.stats import students_quantile
from harness.model import Cell, FioFigures, Result

CONFIDENCE = 0.95
#: The fewest pairs that have an interval.
PAIRS_FROM = 2


@dataclass(frozen=True)
class CostRatio:
    """One measure of one cell as a ratio to its baseline's: 0.5 of the IOPS is half as many, 2 of a latency twice.

    ``measure`` is what was measured, as ``4k random writes: IOPS``.  ``n`` pairs of repetitions; ``low`` to ``high`` is
    the 95 % interval of ``ratio``.  ``mitigation`` is empty for a cell without one.  ``preset``, ``flush_delay_ms``,
    ``cell`` and ``baseline`` (both ids) say which cells were compared.
    """

    mitigation: str
    cache: str
    measure: str
    n: int
    ratio: float
    low: float
    high: float
    preset: str = ""
    flush_delay_ms: int = 0
    cell: str = ""
    baseline: str = ""

    @property
    def more_is_better(self) -> bool:
        """Whether a ratio above 1 is a gain."""
        return self.measure.endswith((IOPS, BANDWIDTH))


IOPS, BANDWIDTH, P50, P99 = "IOPS", "bandwidth", "p50 latency", "p99 latency"


def cost_ratios(results: Iterable[Result]) -> tuple[CostRatio, ...]:
    """The ratios of every cell that measured performance and whose baseline did, in the order of ``results``.

    A baseline is the same cell without mitigation and preset, with cache=none.  A repetition counts where it has an
    answer: what was not in force as asked is no measurement.  Two repetitions make a pair where they have the same
    number and were played on the same lab.
    """
    played: dict[str, dict[tuple[str, int], Mapping[str, float]]] = {}
    cells: dict[str, Cell] = {}
    for result in results:
        if (found := _measures(result)) and result.evidence is not None:
            cells.setdefault(result.cell.id, result.cell)
            played.setdefault(result.cell.id, {})[result.evidence.lab, result.cell.repetition] = found
    ratios = (_of_cell(cell, played) for cell in cells.values())
    return tuple(ratio for some in ratios for ratio in some)


def _measures(result: Result) -> Mapping[str, float]:
    """What one repetition measured, by measure; empty where it has no answer, or nothing was measured."""
    verdict, work = result.verdict, result.evidence.work if result.evidence else None
    if verdict is None or verdict.kind not in TRIALS or work is None or work.performance is None:
        return {}
    return dict(measure for one in work.performance.figures for measure in _figures(one))


def _figures(one: FioFigures) -> Iterator[tuple[str, float]]:
    values = ((IOPS, one.iops), (BANDWIDTH, one.bandwidth_bytes), (P50, one.p50_ns), (P99, one.p99_ns))
    for name, value in values:
        # Of nothing there is no ratio.
        if value is not None and 0 < value < math.inf:
            yield f"{one.pattern}: {name}", float(value)


def _of_cell(cell: Cell, played: Mapping[str, Mapping[tuple[str, int], Mapping[str, float]]]) -> Iterator[CostRatio]:
    baseline = cell.without_presets().id
    if baseline == cell.id or baseline not in played:
        return
    own, other = played[cell.id], played[baseline]
    pairs = [(own[play], other[play]) for play in own if play in other]
    measures = dict.fromkeys(measure for mine, _ in pairs for measure in mine)
    for measure in measures:
        ratios = [mine[measure] / theirs[measure] for mine, theirs in pairs if measure in mine and measure in theirs]
        if (interval := ratio_interval(ratios)) is not None:
            yield CostRatio(
                mitigation=str(cell.mitigation or ""),
                cache=str(cell.cache or ""),
                measure=measure,
                n=len(ratios),
                ratio=interval[0],
                low=interval[1],
                high=interval[2],
                preset=str(cell.preset or ""),
                flush_delay_ms=cell.delays.flush_delay_ms,
                cell=cell.id,
                baseline=baseline,
            )


def ratio_interval(ratios: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float] | None:
    """The geometric mean of ``ratios`` (all above 0) and the ends of its interval; None for fewer than PAIRS_FROM."""
    if len(ratios) < PAIRS_FROM:
        return None
    logs = [math.log(ratio) for ratio in ratios]
    mean = math.fsum(logs) / len(logs)
    variance = math.fsum((one - mean) ** 2 for one in logs) / (len(logs) - 1)
    half = students_quantile((1 + confidence) / 2, len(logs) - 1) * math.sqrt(variance / len(logs))
    # Beyond this no float holds it; an interval that wide says nothing anyway.
    low, high = (math.exp(max(-700.0, min(700.0, end))) for end in (mean - half, mean + half))
    return math.exp(mean), low, high

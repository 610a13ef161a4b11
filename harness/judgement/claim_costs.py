"""Claims about how slow something is: by fio's figures against those of the same cell with cache=none; pure.

A play alone is neither slow nor fast.  The unit is the pair of a play and its baseline of the same round on the same
lab (:mod:`harness.judgement.cost_ratios`), and what is said rests on the interval of their ratio.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.judgement.claim_words import ENOUGH, Tally, Word, hardware_of
from harness.judgement.cost_ratios import IOPS, CostRatio, cost_ratios
from harness.judgement.stacks import PlayedRun, StackKey
from harness.model import Cell, Result
from harness.model.claim import Ask
from harness.util.wording import plural

#: *Catastrophically slow* is read as: at most this share of the IOPS.
SLOW_TO = 0.1


def slowest(ask: Ask, runs: Sequence[PlayedRun]) -> list[tuple[CostRatio, str]]:
    """The ratios of IOPS of the cells that decide ``ask``, the smallest first, each with its hardware.

    Runs of one stack on one kind of hardware are one: each part of a matrix may have one repetition alone.
    """
    alike: dict[tuple[StackKey, str], list[Result]] = {}
    for run in runs:
        alike.setdefault((StackKey.of(run.stack), hardware_of(run.stack)), []).extend(run.results)
    found = []
    for (_, hardware), results in alike.items():
        cells: dict[str, Cell] = {result.cell.id: result.cell for result in results}
        found += [
            (ratio, hardware)
            for ratio in cost_ratios(results)
            if ratio.measure.endswith(IOPS) and ratio.cell in cells and ask.decided_by(cells[ratio.cell])
        ]
    return sorted(found, key=lambda one: one[0].ratio)


def slow_words(ratios: Sequence[tuple[CostRatio, str]]) -> tuple[Word, str, Tally]:
    """What may be said of the slowest of ``ratios``, of which there is one at least."""
    ratio, hardware = ratios[0]
    figures = (
        f"{ratio.cell}, {ratio.measure}: {ratio.ratio:.2g} of those with cache=none,"
        f" {ratio.low:.2g} to {ratio.high:.2g} (95 %), by {plural(ratio.n, 'pair')}"
    )
    others = f"; the slowest of {len(ratios)} figures" if len(ratios) > 1 else ""
    if ratio.high <= SLOW_TO:
        strong = ratio.n >= ENOUGH and bool(hardware)
        found = Word.CONFIRMED if strong else Word.OBSERVED
        return found, f"{found} ({figures}{others}{f'; on {hardware}' if strong else ''})", Tally(ratio.n, ratio.n)
    found = Word.NOT_OBSERVED if all(one.low > SLOW_TO for one, _ in ratios) else Word.NO_ANSWER
    return found, f"{found} ({figures}{others})", Tally(0, ratio.n)

"""How long the page of a large run takes, and how large it is, as ratios within one run; pure but for the clock.

A large run is made of a stored one: its cells are repeated until there are so many plays, each with a seed and counts
of its own, so that no two say the same.  The unit of time is reading and judging as many plays, on the same machine in
the same minute; that of size is what a page may take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.model import Evidence, Result, Run
from harness.report.html import render_html
from harness.report.page_size import PAGE_BYTES
from harness.store import Store, judged_run

#: As many plays as the page is asked to show.
PLAYS = 1000
#: At most so many times what reading and judging its plays takes; it is about half of that.
SLOWEST = 2.0


@dataclass(frozen=True)
class PageRatios:
    """The page of ``plays`` plays: its ``size`` to what a page may take, and its ``time`` to that of judging them."""

    plays: int
    bytes: int
    size: float
    time: float

    @property
    def grown(self) -> bool:
        """Whether it is larger than it may be, or takes longer than it may beside what it is made from."""
        return self.size > 1 or self.time > SLOWEST

    def __str__(self) -> str:
        return (
            f"a page of {self.plays} plays: {self.bytes / 1e6:.2f} MB, {self.size:.2f} of what it may take; "
            f"drawn in {self.time:.2f} of the time that reading and judging them takes (at most 1, and {SLOWEST:.0f})"
        )


def page_ratios(store: Store, plays: int = PLAYS) -> PageRatios | None:
    """The page of ``plays`` plays like those of ``store``; None where it has none."""
    # The first time also loads what counts and what draws.
    found = judged_run(store)
    render_html(found.run, found.results[:1])
    if not found.attempts:
        return None
    began = time.process_time()
    judged_run(store)
    judged = (time.process_time() - began) / len(found.attempts)
    results, attempts = repeated(found.results, found.attempts, plays)
    run: Run = replace(found.run, cells=tuple(one.cell for one in results))
    began = time.process_time()
    page = len(render_html(run, results, attempts=attempts).encode())
    drawn = time.process_time() - began
    return PageRatios(len(results), page, page / PAGE_BYTES, drawn / (judged * len(attempts)))


def repeated(
    results: Sequence[Result], attempts: Sequence[Evidence], plays: int
) -> tuple[list[Result], list[Evidence]]:
    """``results`` again and again as further repetitions, until there are ``plays`` or more, and their attempts."""
    each: dict[str, int] = {}
    for one in results:
        each[one.cell.id] = max(each.get(one.cell.id, 0), one.cell.repetition)
    rounds = range(-(-plays // max(1, len(results))))
    return (
        [_again(one, number, each[one.cell.id]) for number in rounds for one in results],
        [
            replace(
                one,
                cell=replace(one.cell, repetition=one.cell.repetition + number * each.get(one.cell.id, 0)),
                lab=f"{one.lab}-{number}",
            )
            for number in rounds
            for one in attempts
        ],
    )


def _again(result: Result, number: int, repetitions: int) -> Result:
    cell = replace(
        result.cell, repetition=result.cell.repetition + number * repetitions, seed=result.cell.seed + number
    )
    verdict, evidence = result.verdict, result.evidence
    if verdict is not None:
        counted = verdict.opportunities
        verdict = replace(
            verdict,
            exposed_blocks=verdict.exposed_blocks + number,
            opportunities=replace(counted, count=counted.count + number) if counted else None,
        )
    return Result(cell, verdict, replace(evidence, cell=cell) if evidence else None)

"""How long the rest of a run will take: estimated from what cells cost elsewhere, corrected by what they cost here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from harness.model import Cell
from harness.report.estimate import Costs, RoundsState, Schedule, Step, about, correction, remaining, steps


class Pace:
    """Follows a run whose ``schedule`` has the cells that are to be played."""

    def __init__(self, schedule: Schedule, costs: Costs, clock: Callable[[], float] = time.monotonic) -> None:
        self._left = schedule
        self._all = len(schedule.cells)
        self._costs = costs
        self._clock = clock
        self._since: float | None = None
        self._done: list[tuple[Step, float]] = []

    def begins(self) -> None:
        """An attempt begins; what went on before the first one was the lab's."""
        if self._since is None:
            self._since = self._clock()

    def played(self, cell: Cell, rounds: RoundsState) -> str:
        """An attempt at ``cell`` ended, and the controls stand at ``rounds``: what is left, as the end of a line."""
        now = self._clock()
        took = now - (now if self._since is None else self._since)
        self._since = now
        step = Step(cell.id, self._costs.attempt(cell, self._left.mib(cell)), float(cell.seconds))
        self._done.append((step, took))
        if cell.control is None:
            self._left = replace(self._left, cells=tuple(one for one in self._left.cells if one.play != cell.play))
        seconds = remaining(steps(self._left, self._costs, rounds), correction(self._done))
        return f"{self._all - len(self._left.cells)} of {self._all} played, about {about(seconds)} left"

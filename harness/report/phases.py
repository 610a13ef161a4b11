"""Where the time of a run goes: the share of each phase, and what a cell costs beyond its work."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.model import Result, Run
from harness.report.formatting import clean, percent, seconds

WORK = "work"
ORDER = ("bring-up", "attach", "prepare", WORK, "quiesce", "detach", "verify", "compare", "repair")


@dataclass(frozen=True)
class PhaseShare:
    """One phase over all cells, or one of the lab's: its seconds, its share, and how often it came."""

    name: str
    seconds: float
    share: float
    times: int


@dataclass(frozen=True)
class CellCost:
    """One attempt: its seconds, those of its work, and the rest."""

    cell_id: str
    attempt: int
    total: float
    work: float

    @property
    def overhead(self) -> float:
        """What the cell costs beyond its work."""
        return self.total - self.work


@dataclass(frozen=True)
class PhaseShares:
    """A run's time.  ``elapsed`` is from its start to its end by the clock, None where it has no end."""

    phases: tuple[PhaseShare, ...]
    cells: tuple[CellCost, ...]
    accounted: float
    elapsed: float | None

    @property
    def unaccounted(self) -> float | None:
        """Seconds by the clock that no phase claims."""
        return None if self.elapsed is None else max(0.0, self.elapsed - self.accounted)

    @property
    def overhead_mean(self) -> float | None:
        """Mean overhead of a cell; None without cells."""
        return statistics.fmean(cell.overhead for cell in self.cells) if self.cells else None

    @property
    def overhead_worst(self) -> CellCost | None:
        """The cell with the most overhead."""
        return max(self.cells, key=lambda cell: cell.overhead, default=None)


def phase_shares(run: Run, results: Sequence[Result]) -> PhaseShares:
    """The phases of the run's lab and of every cell that has evidence, in the order they come in."""
    spent: dict[str, list[float]] = {}
    cells = []
    attempts = [result.evidence for result in results if result.evidence is not None]
    sources: list[Mapping[str, float]] = [run.lab_seconds, *(evidence.phases for evidence in attempts)]
    for phases in sources:
        for name, duration in phases.items():
            spent.setdefault(name, []).append(duration)
    for evidence in attempts:
        total = sum(evidence.phases.values())
        cells.append(CellCost(evidence.cell.id, evidence.attempt, total, evidence.phases.get(WORK, 0.0)))
    accounted = sum(sum(durations) for durations in spent.values())
    known = [name for name in ORDER if name in spent]
    names = (*(name for name in run.lab_seconds if name not in ORDER), *known)
    names = (*names, *(name for name in spent if name not in names))
    shares = tuple(_share(name, spent[name], accounted) for name in names)
    return PhaseShares(shares, tuple(cells), accounted, _elapsed(run))


def as_json(shares: PhaseShares) -> dict[str, object]:
    """``shares`` as plain JSON values, for a benchmark's file."""
    worst = shares.overhead_worst
    return {
        "phases": [asdict(phase) for phase in shares.phases],
        "cells": [asdict(cell) | {"overhead": cell.overhead} for cell in shares.cells],
        "accounted": shares.accounted,
        "elapsed": shares.elapsed,
        "unaccounted": shares.unaccounted,
        "overhead_mean": shares.overhead_mean,
        "overhead_worst": None if worst is None else asdict(worst) | {"overhead": worst.overhead},
    }


def phase_table(shares: PhaseShares) -> Table:
    """``shares`` as a table for a terminal."""
    table = Table(title="Where the time went", title_justify="left", caption=_caption(shares), caption_justify="left")
    table.add_column("Phase")
    for name in ("Times", "Time", "Share"):
        table.add_column(name, justify="right")
    table.add_column("", min_width=10)
    for phase in shares.phases:
        bar = "#" * round(phase.share * 20)
        table.add_row(Text(clean(phase.name)), str(phase.times), seconds(phase.seconds), percent(phase.share), bar)
    return table


def print_phases(shares: PhaseShares, console: Console | None = None) -> None:
    """Print :func:`phase_table`."""
    (console or Console()).print(phase_table(shares))


def _caption(shares: PhaseShares) -> Text:
    lines = [f"{seconds(shares.accounted)} accounted for"]
    if shares.unaccounted is not None:
        lines[0] += f", {seconds(shares.unaccounted)} not"
    if shares.overhead_mean is not None:
        lines.append(f"A cell costs {seconds(shares.overhead_mean)} beyond its work on average")
    if shares.overhead_worst is not None:
        lines[-1] += f", {shares.overhead_worst.cell_id} most: {seconds(shares.overhead_worst.overhead)}"
    return Text("\n".join(lines))


def _share(name: str, durations: Sequence[float], accounted: float) -> PhaseShare:
    total = sum(durations)
    return PhaseShare(name, total, total / accounted if accounted > 0 else 0.0, len(durations))


def _elapsed(run: Run) -> float | None:
    try:
        return (datetime.fromisoformat(run.finished_at) - datetime.fromisoformat(run.started_at)).total_seconds()
    except (ValueError, TypeError):
        return None

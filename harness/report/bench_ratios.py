"""What cells cost beyond their work, as ratios within one run, beside those of stored runs; pure.

The unit is one verify of 128 MiB in the same run: DRBD's own work on the same machine, which no change of the harness
makes faster or slower.  So a run is compared with stored ones of other machines without a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rich.table import Table
from rich.text import Text

from harness.report.costs import BETWEEN, OUTSIDE, KindCost, RunCosts
from harness.report.formatting import clean, seconds
from harness.report.phases import WORK

VERIFY = "verify"
UNIT_MIB = 128.0
#: What is so many times the stored ratio has grown, if that is a second or more; a run played twice differs by less.
GROWN, LEAST_SECONDS = 1.3, 1.0
#: As few attempts as that say nothing about growth.
FEWEST = 3
CONTROLS = frozenset({"planted", "steady", "no-writes", "inflight-modify"})
_NOT_OF_CELLS = frozenset({WORK, OUTSIDE, BETWEEN})


@dataclass(frozen=True)
class Ratio:
    """What ``name`` costs: seconds of an attempt, that as a ratio to the unit, and the ratio of the stored runs.

    ``baseline`` is what these kinds of cells, as often as they were played here, cost in the stored runs; None where
    these have none of them.  ``compared`` is the ratio here of those that they have.
    """

    name: str
    attempts: int
    seconds: float
    ratio: float
    baseline: float | None = None
    compared: float = 0.0

    @property
    def growth(self) -> float | None:
        """How many times the stored ratio it is; None without one."""
        return self.compared / self.baseline if self.baseline else None

    @property
    def grown(self) -> bool:
        """Whether it costs more than it did."""
        if self.growth is None or self.baseline is None or self.attempts < FEWEST or not self.ratio:
            return False
        unit = self.seconds / self.ratio
        return self.growth > GROWN and (self.compared - self.baseline) * unit >= LEAST_SECONDS


def by_filesystem(costs: RunCosts, stored: Iterable[RunCosts]) -> tuple[Ratio, ...]:
    """A row for each filesystem on its layout, for a guest and for the node; the whole of a cell beyond its work."""
    names = dict.fromkeys(kind.kind.place for kind in costs.kinds)
    kinds = {name: [kind for kind in costs.kinds if kind.kind.place == name] for name in names}
    stored = tuple(stored)
    made = (_ratio(name, kinds[name], costs, stored, _beyond_work) for name in names)
    return tuple(row for row in made if row is not None)


def by_phase(costs: RunCosts, stored: Iterable[RunCosts]) -> tuple[Ratio, ...]:
    """A row for each phase of the cells on the raw device that every run plays as controls."""
    controls = [kind for kind in costs.kinds if _is_control(kind)]
    names = {name for kind in controls for name in kind.seconds} - _NOT_OF_CELLS - {VERIFY}
    stored = tuple(stored)
    rows = [_ratio(name, controls, costs, stored, partial(_of_phase, name)) for name in names]
    return tuple(sorted((row for row in rows if row is not None), key=lambda row: (-row.seconds, row.name)))


def _is_control(kind: KindCost) -> bool:
    one = kind.kind
    return one.filesystem == one.layout == "raw" and one.workload in CONTROLS and not one.disturbance


def _of_phase(name: str, kind: KindCost) -> float:
    return kind.seconds.get(name, 0.0)


def _beyond_work(kind: KindCost) -> float:
    return sum(spent for name, spent in kind.seconds.items() if name not in _NOT_OF_CELLS)


def _unit(costs: RunCosts) -> float:
    """Seconds of one verify of ``UNIT_MIB`` in that run; 0 where it has none."""
    found = [one for one in costs.kinds if _is_control(one) and VERIFY in one.seconds and one.mib]
    attempts = sum(one.attempts for one in found)
    spent = sum(one.seconds[VERIFY] * one.attempts * UNIT_MIB / one.mib for one in found)
    return spent / attempts if attempts else 0.0


def _ratio(
    name: str,
    kinds: Sequence[KindCost],
    costs: RunCosts,
    stored: Sequence[RunCosts],
    spent: Callable[[KindCost], float],
) -> Ratio | None:
    """What ``spent`` of ``kinds`` is in the run, and in the stored ones; None where the run has no verify."""
    unit = _unit(costs)
    attempts = sum(kind.attempts for kind in kinds)
    if not unit or not attempts:
        return None
    here = sum(spent(kind) * kind.attempts for kind in kinds)
    # What is looked at costs something, and so do other versions: only runs with as much of the same are a baseline.
    same = [one for one in stored if (one.schema, one.stack) == (costs.schema, costs.stack)]
    others = [one for one in same if one.run != costs.run and _unit(one)]
    known = compared = before = 0.0
    for kind in kinds:
        found = [(one, _unit(run)) for run in others for one in run.kinds if one.kind == kind.kind]
        times = sum(one.attempts for one, _ in found)
        if times:
            known += kind.attempts
            compared += spent(kind) * kind.attempts / unit
            before += kind.attempts * sum(spent(one) * one.attempts / their for one, their in found) / times
    made = Ratio(name, attempts, here / attempts, here / attempts / unit)
    return replace(made, baseline=before / known, compared=compared / known) if known else made


def ratio_table(title: str, rows: Iterable[Ratio]) -> Table:
    """``rows`` for a terminal."""
    caption = f"ratio: to one verify of {UNIT_MIB:.0f} MiB in the same run; stored: the same ratio in the stored runs"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("")
    for name in ("Attempts", "Each", "Ratio", "Stored", ""):
        table.add_column(name, justify="right")
    for row in rows:
        stored = "none" if row.baseline is None else f"{row.baseline:.2f}"
        growth = "" if row.growth is None else f"{'grew: ' if row.grown else ''}x {row.growth:.2f}"
        style = "bold red" if row.grown else ""
        figures = (str(row.attempts), seconds(row.seconds), f"{row.ratio:.2f}", stored, growth)
        table.add_row(*(Text(clean(text), style) for text in (row.name, *figures)))
    return table

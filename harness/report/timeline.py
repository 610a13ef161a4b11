"""When the guest was moved: a cell's migrations on the axis of its work, as plain figures for an SVG; pure.

Across, everything is a percentage of the axis, so that the drawing may have any width while its text keeps its size.
Down, it is pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model import Evidence, Migration, MigrationOutcome
from harness.report.formatting import milliseconds, seconds
from harness.report.phases import WORK

SIGNS: Mapping[MigrationOutcome, str] = {
    MigrationOutcome.COMPLETED: "\u2713",
    MigrationOutcome.REFUSED: "/",
    MigrationOutcome.ABORTED: "!",
    MigrationOutcome.FAILED: "\u2715",
}
"""One sign for each outcome, so that no reader depends on colour."""

MIN_BAR = 0.8
MIN_MARK = 0.4
"""The least a bar and a downtime are wide, so that they are seen: per cent of the axis."""

_LEAST_AXIS, _MOST_SECONDS = 0.1, 1e9
_MOST_TICKS = 8
_LABEL_ROOM = 2.4
_EDGE = 4.0

WORK_HEIGHT = 26
LANE_HEIGHT = 48
AXIS_HEIGHT = 20


@dataclass(frozen=True)
class Mark:
    """From ``x`` on, ``width`` wide; both per cent of the axis."""

    x: float
    width: float

    @property
    def end(self) -> float:
        """Where it ends."""
        return self.x + self.width


@dataclass(frozen=True)
class Label:
    """Text at ``x`` (per cent); ``anchor`` is SVG's ``text-anchor``, so that no text leaves the drawing."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class MigrationBar:
    """One migration.  ``downtime`` is the last part of a completed one; ``label`` is None where it has no room."""

    mark: Mark
    downtime: Mark | None
    completed: bool
    label: Label | None
    title: str


@dataclass(frozen=True)
class TimelineLane:
    """All migrations in one direction.  ``style`` is ``outbound`` or ``inbound``; ``y`` is the lane's top in pixels."""

    name: str
    style: str
    y: int
    bars: tuple[MigrationBar, ...]


@dataclass(frozen=True)
class Timeline:
    """The drawing: how long its axis is, the work, one lane for each direction, and a sentence for everybody."""

    seconds: float
    ticks: tuple[Label, ...]
    work: Mark | None
    work_name: str
    lanes: tuple[TimelineLane, ...]
    height: int
    sentence: str


def timeline(evidence: Evidence) -> Timeline | None:
    """The timeline of the migrations during the work of ``evidence``; None where there was none.

    Those around the readback are left out: they have another clock.
    """
    moved = sorted(during_work(evidence.migrations), key=lambda one: (_span(one.began), one.number))
    if not moved:
        return None
    worked = _worked(evidence)
    axis = max(_LEAST_AXIS, worked, *(_span(one.began) + _span(one.seconds) for one in moved))
    names = tuple(dict.fromkeys((one.source, one.target) for one in moved))
    top = WORK_HEIGHT if worked else 0
    lanes = tuple(_lane(names[at], at, moved, axis, top + at * LANE_HEIGHT) for at in range(len(names)))
    return Timeline(
        seconds=axis,
        ticks=_ticks(axis),
        work=Mark(0.0, 100 * worked / axis) if worked else None,
        work_name=f"work, {seconds(worked)}" if worked else "",
        lanes=lanes,
        height=top + len(lanes) * LANE_HEIGHT + AXIS_HEIGHT,
        sentence=_sentence(moved, worked),
    )


def during_work(migrations: Sequence[Migration]) -> list[Migration]:
    """Those on the clock of the work."""
    return [one for one in migrations if one.during == WORK]


def direction(migration: Migration) -> str:
    """From where to where."""
    return f"{migration.source} \u2192 {migration.target}"


def description(migration: Migration) -> str:
    """One migration in a line: its number, direction, outcome, length and downtime."""
    down = "" if migration.downtime_ms is None else f", downtime {milliseconds(migration.downtime_ms)}"
    return f"{migration.number}: {direction(migration)} {migration.outcome}, {seconds(migration.seconds)}{down}"


def _lane(nodes: tuple[str, str], at: int, moved: Sequence[Migration], axis: float, y: int) -> TimelineLane:
    bars: list[MigrationBar] = []
    free = -math.inf
    migrations = [one for one in moved if (one.source, one.target) == nodes]
    for one in migrations:
        bar = _bar(one, axis, free)
        free = bar.label.x + _LABEL_ROOM if bar.label else free
        bars.append(bar)
    return TimelineLane(direction(migrations[0]), "inbound" if at % 2 else "outbound", y, tuple(bars))


def _bar(one: Migration, axis: float, free: float) -> MigrationBar:
    mark = _mark(100 * _span(one.began) / axis, 100 * _span(one.seconds) / axis)
    completed = one.outcome is MigrationOutcome.COMPLETED
    downtime = None
    if completed and one.downtime_ms is not None:
        width = min(mark.width, max(MIN_MARK, _span(one.downtime_ms) / 10 / axis))
        downtime = Mark(mark.end - width, width)
    text = str(one.number) if completed else f"{one.number} {SIGNS[one.outcome]}"
    middle = mark.x + mark.width / 2
    label = _label(middle, text) if middle >= free else None
    return MigrationBar(mark, downtime, completed, label, description(one))


def _mark(x: float, width: float) -> Mark:
    """As wide as it can be seen, and moved back onto the axis where that goes beyond its end."""
    seen = min(100.0, max(MIN_BAR, width))
    return Mark(max(0.0, min(x, 100.0 - seen)), seen)


def _label(x: float, text: str) -> Label:
    return Label(x, text, "start" if x < _EDGE else "end" if x > 100 - _EDGE else "middle")


def _ticks(axis: float) -> tuple[Label, ...]:
    step = 10.0 ** math.floor(math.log10(axis / _MOST_TICKS))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if axis / (step * factor) <= _MOST_TICKS)
    times = (step * number for number in range(_MOST_TICKS + 1))
    return tuple(_label(100 * time / axis, f"{time:g} s") for time in times if time <= axis)


def _worked(evidence: Evidence) -> float:
    return _span(evidence.work.seconds if evidence.work else evidence.phases.get(WORK, 0.0))


def _span(value: float) -> float:
    """A length of time that can be drawn, whatever was stored."""
    return min(max(0.0, value), _MOST_SECONDS) if math.isfinite(value) else 0.0


def _sentence(moved: Sequence[Migration], worked: float) -> str:
    listed = "; ".join(f"{description(one)}, began at {seconds(_span(one.began))}" for one in moved[:20])
    more = f"; {len(moved) - 20} more" if len(moved) > 20 else ""
    return f"{f'Work of {seconds(worked)}. ' if worked else ''}Migrations {listed}{more}"

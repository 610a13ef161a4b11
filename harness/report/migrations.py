"""The live migrations of a run: one table over all cells, their timelines, and one sentence; pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model import Migration, MigrationOutcome, Result
from harness.report.formatting import count, milliseconds, plural, seconds
from harness.report.grid import Grid, Slot, grid
from harness.report.repetitions import play_name
from harness.report.timeline import SIGNS, Timeline, description, direction, during_work, timeline

TONES: Mapping[MigrationOutcome, str] = {
    MigrationOutcome.COMPLETED: "clean",
    MigrationOutcome.REFUSED: "refused",
    MigrationOutcome.ABORTED: "transient",
    MigrationOutcome.FAILED: "diverged",
}

COLUMNS = (
    "#", "From, to", "Outcome", "Duration", "Downtime", "Iterations", "Transferred", "Throttled by", "Both Primary",
    "During", "Message",
)  # fmt: skip

#: As many drawings as a page begins with; of more than that it is one for each cell.
MOST_DRAWN = 40

_MIB = 1024 * 1024


@dataclass(frozen=True)
class CellTimeline:
    """One cell's drawing, and as text what it leaves out: the migrations on another clock."""

    cell_id: str
    anchor: str
    drawing: Timeline | None
    others: tuple[str, ...]


def migration_grid(results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    """Every migration of every cell; ``names`` are the anchors of ``results``.  None: nothing was moved."""
    rows = [
        (Slot(play_name(result.cell), anchor=name), *_row(migration))
        for result, name in zip(results, names, strict=True)
        for migration in _migrations(result)
    ]
    return grid("Live migrations", ("Cell", *COLUMNS), rows)


def migrations_of(result: Result) -> Grid | None:
    """The migrations of one cell."""
    return grid("Live migrations of this cell", COLUMNS, [_row(migration) for migration in _migrations(result)])


def timelines(results: Sequence[Result], names: Sequence[str]) -> tuple[CellTimeline, ...]:
    """A timeline for each play with migrations; of many plays only for the first of each cell."""
    moved = [(result, name) for result, name in zip(results, names, strict=True) if _migrations(result)]
    if len(moved) > MOST_DRAWN:
        moved = list({result.cell.id: (result, name) for result, name in reversed(moved)}.values())[::-1]
    found = (cell_timeline(result, name) for result, name in moved)
    return tuple(one for one in found if one is not None)


def undrawn(results: Sequence[Result], drawn: Sequence[CellTimeline]) -> int:
    """How many plays with migrations have no timeline among ``drawn``."""
    return sum(bool(_migrations(result)) for result in results) - len(drawn)


def cell_timeline(result: Result, name: str = "") -> CellTimeline | None:
    """The timeline of one cell; None where nothing was moved."""
    moved = _migrations(result)
    if result.evidence is None or not moved:
        return None
    drawn = during_work(moved)
    others = tuple(f"{description(one)} (during the {one.during})" for one in moved if one not in drawn)
    return CellTimeline(play_name(result.cell), name, timeline(result.evidence), others)


def migration_sentence(results: Sequence[Result]) -> str:
    """How many there were, how they ended, and how long the guest was paused; empty where there was none."""
    moved = [migration for result in results for migration in _migrations(result)]
    if not moved:
        return ""
    ended = [one.outcome for one in moved]
    counts = [f"{count(ended.count(outcome))} {outcome}" for outcome in MigrationOutcome if outcome in ended]
    done = (one for one in moved if one.outcome is MigrationOutcome.COMPLETED)
    down = [one.downtime_ms for one in done if one.downtime_ms is not None]
    downtimes = ""
    if down:
        downtimes = f"; downtime median {milliseconds(statistics.median(down))}, worst {milliseconds(max(down))}"
    return f"{plural(len(moved), 'migration')}: {', '.join(counts)}{downtimes}."


def migrations_in_short(result: Result) -> str:
    """``4 migrations``, or how many of them were completed; empty where none was requested."""
    moved = _migrations(result)
    if not moved:
        return f"none of {plural(result.cell.migrations, 'migration')}" if result.cell.migrations else ""
    done = sum(one.outcome is MigrationOutcome.COMPLETED for one in moved)
    what = plural(len(moved), "migration")
    return what if done == len(moved) else f"{count(done)} of {what}"


def _migrations(result: Result) -> tuple[Migration, ...]:
    return result.evidence.migrations if result.evidence else ()


def _row(one: Migration) -> tuple[Slot, ...]:
    share = ""
    if one.transferred_bytes is not None:
        share = f"{one.transferred_bytes / _MIB:.1f} MiB"
        if one.memory_bytes:
            share += f" of {one.memory_bytes / _MIB:.0f}"
    return (
        Slot(str(one.number)),
        Slot(direction(one)),
        Slot(one.outcome, TONES[one.outcome], SIGNS[one.outcome]),
        Slot(seconds(one.seconds)),
        Slot("" if one.downtime_ms is None else milliseconds(one.downtime_ms)),
        Slot("" if one.iterations is None else count(one.iterations)),
        Slot(share),
        Slot(f"{one.throttle_percent} %" if one.throttle_percent else ""),
        Slot(seconds(one.two_primaries_seconds) if one.two_primaries_seconds else ""),
        Slot("" if one.during == "work" else one.during),
        Slot(one.message, "text"),
    )

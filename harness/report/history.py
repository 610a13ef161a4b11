"""The history of a cell as a strip, on a terminal and for a program; reads what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from harness.errors import HarnessError
from harness.judgement.history import Judged, Point, history
from harness.judgement.stack_changes import ComponentChange
from harness.judgement.standing import Level
from harness.model import VerdictKind
from harness.report.formatting import clean
from harness.report.summary import stack_rows
from harness.report.table import LETTERS
from harness.report.terminal import STYLES
from harness.store import Store, judged_cells, read_lock, run_ids

JSON_SCHEMA = 1
ANOTHER_STACK = "|"
ANOTHER_QUESTION = ":"
EARLY = "!"
#: A strip in a table has no room for more runs.
NEWEST = 30
# With fewer runs a strip says no more than its row.
_FEWEST = 3
_LEGEND = ", ".join(f"{sign} {kind}" for kind, sign in LETTERS.items() if kind is not None)

Warn = Callable[[str], None]


def read_history(cell_ids: Iterable[str], stores: Iterable[Store], warn: Warn) -> dict[str, tuple[Point, ...]]:
    """By the cell's id, its history in ``stores``; a run that cannot be read is said and hides no other."""
    cell_ids = tuple(cell_ids)
    judged: list[Judged] = []
    for store in stores:
        try:
            name = store.directory.resolve().name
            judged.append(Judged(name, store.run(), tuple(judged_cells(store, cell_ids)), read_lock(store)))
        except HarnessError as error:
            warn(f"{store.directory.name}: {error}")
    return {cell_id: history(cell_id, judged) for cell_id in cell_ids}


def stores_below(runs: Path, also: Iterable[Store] = ()) -> list[Store]:
    """The runs below a folder, oldest first, and ``also`` where they are somewhere else."""
    found = {(runs / name).resolve(): Store(runs / name) for name in run_ids(runs)}
    return [*found.values(), *(one for one in also if one.directory.resolve() not in found)]


def strips(cell_ids: Iterable[str], runs: Path, also: Sequence[Store], warn: Warn) -> dict[str, str]:
    """A strip for each cell that more runs have than two, of the newest ones."""
    stores = stores_below(runs, also)[-NEWEST:]
    found = read_history(cell_ids, stores, warn)
    return {cell_id: strip(points) for cell_id, points in found.items() if len(points) >= _FEWEST}


def strip(points: Sequence[Point]) -> str:
    """One sign for each run, of its worst play, oldest first; a line between two where the stack is another.

    A colon where they cannot be compared: something else was asked, or on another kind of lab.
    """
    return "".join(f"{_between(one)}{sign(one)}" for one in points)


def _between(one: Point) -> str:
    return f"{ANOTHER_STACK if one.changes else ''}{ANOTHER_QUESTION if one.otherwise else ''}"


def sign(point: Point) -> str:
    """Of the worst play; a write that was acknowledged too early is worse than a CLEAN, which its verdict is."""
    return EARLY if point.standing.worst is Level.EARLY else LETTERS[worst_kind(point)]


def worst_kind(point: Point) -> VerdictKind | None:
    """The verdict of the worst play; INCONCLUSIVE where there is no answer, None where nothing was played."""
    level, kinds = point.standing.worst, point.standing.kinds
    if level is None:
        return next(iter(kinds), None)
    play = point.standing.first(level)
    return play.verdict.kind if play is not None and play.verdict is not None else None


# --------------------------------------------------------------------------- a terminal


def history_text(cell_id: str, points: Sequence[Point]) -> Iterator[RenderableType]:
    """The strip, and a line for each run."""
    yield Text.assemble((clean(cell_id), "bold"), "  ", *_coloured(points))
    legend = f"{_LEGEND}, {EARLY} acknowledged too early, - not played; {ANOTHER_STACK} another stack"
    yield Text(f"  oldest first; {legend}, {ANOTHER_QUESTION} not comparable", style="dim")
    if points:
        first = points[0]
        known = ", ".join(f"{name} {value}" for name, value in stack_rows(first.run.stack) if name in _TOLD)
        yield Text(clean(f"  {known}"))
    for one in points:
        yield from (Text(clean(f"  {_changed(change)}"), style="bold") for change in one.changes)
        if one.otherwise:
            yield Text(clean(f"  not comparable with the run before: {', '.join(one.otherwise)}"), style="bold")
        yield Text.assemble("  ", (sign(one), STYLES[worst_kind(one)]), f" {_line(one)}")


_TOLD = ("Kernel", "DRBD", "QEMU", "libvirt", "Guest kernel")


def _coloured(points: Sequence[Point]) -> Iterator[tuple[str, str]]:
    for one in points:
        if between := _between(one):
            yield between, "bold"
        yield sign(one), STYLES[worst_kind(one)]


def _line(one: Point) -> str:
    harmed, answered = one.harmed
    kinds = ", ".join(f"{number} {kind}" for kind, number in one.standing.kinds.items()) or "not played"
    kinds += f", {one.early} acknowledged too early" if one.early else ""
    when = one.run.started_at[:16].replace("T", " ")
    return clean(f"{when}  {one.name}  {harmed}/{answered} harmed  {kinds}")


def _changed(change: ComponentChange) -> str:
    return f"{change.name}: {change.old} \u2192 {change.new}"


# --------------------------------------------------------------------------- JSON


def history_json(cell_id: str, points: Sequence[Point]) -> str:
    """All of it for a program; ``schema`` is raised where a key changes what it means."""
    return json.dumps(
        {"schema": JSON_SCHEMA, "cell": cell_id, "strip": strip(points), "runs": [_point_json(one) for one in points]},
        indent=1,
        ensure_ascii=False,
    )


def _point_json(one: Point) -> Mapping[str, object]:
    harmed, answered = one.harmed
    worst = worst_kind(one)
    return {
        "run": one.name,
        "started_at": one.run.started_at,
        "verdict": worst.value if worst is not None else None,
        "harmed": harmed,
        "acknowledged_early": one.early,
        "answered": answered,
        "plays": one.standing.planned,
        "verdicts": {kind.value: number for kind, number in one.standing.kinds.items()},
        "stack": dict(stack_rows(one.run.stack)),
        "changes": [{"name": change.name, "old": change.old, "new": change.new} for change in one.changes],
        "not_comparable": list(one.otherwise),
    }

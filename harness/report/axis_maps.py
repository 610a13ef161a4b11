"""Heat maps of one axis against the cache modes: how many plays in each place diverged, and how sure that is; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.judgement.stats import rate_interval
from harness.model import CacheMode, Cell, ClientKind, FilesystemKind, Layout, Potency, Result, VerdictKind
from harness.report.by_filesystem import NODE, severity
from harness.report.cells import cell_anchor
from harness.report.descriptions import CRASHES, FAULTS
from harness.report.formatting import between, part_of, plural
from harness.report.repetitions import PlayedCell, answer_potency, played_cells
from harness.report.table import SIGNS, style_of

#: A map with more rows than this starts folded: it is no overview any more.  The remedies are as many.
ROWS_OPEN = 20


@dataclass(frozen=True)
class Tile:
    """All cells of one place: the worst verdict, and how many of their plays diverged.

    ``rate``, ``low`` and ``high`` go from 0 to 1 and are None where no play has an answer; an interval is there only
    where a single cell is, for different cells have different rates.  ``anchor`` is that of the worst cell, ``label``
    says it all to those who do not see the tile.
    """

    anchor: str
    style: str
    sign: str
    word: str
    weak: bool
    harm: bool
    often: str
    short: str
    interval: str
    cells: str
    label: str
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AxisRow:
    """One value of the axis, with a tile for each column; None where the matrix has no such cell."""

    name: str
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True)
class AxisMap:
    """A heat map: cache modes across, the values of ``axis`` down."""

    axis: str
    columns: tuple[str, ...]
    rows: tuple[AxisRow, ...]

    @property
    def open(self) -> bool:
        """Whether it is short enough to be shown unfolded."""
        return len(self.rows) <= ROWS_OPEN


def axis_maps(results: Sequence[Result], names: Sequence[str]) -> tuple[AxisMap, ...]:
    """The heat maps of ``results``, whose anchors are ``names``: those of axes that have more than one value.

    The first, by filesystem, is there as soon as anything but a control is.
    """
    played = _tested(results)
    columns = _columns(played)
    found = []
    for axis, value, order in _AXES:
        rows = sorted({value(one.answer.cell) for one in played}, key=order)
        if len(rows) > 1 or (axis == "Filesystem" and rows):
            places = [
                _row(row, [one for one in played if value(one.answer.cell) == row], columns, names) for row in rows
            ]
            found.append(AxisMap(axis, columns, tuple(places)))
    return tuple(found)


def mode_tiles(results: Sequence[Result], names: Sequence[str]) -> tuple[tuple[str, Tile], ...]:
    """One tile for each cache mode, and for writers on the node itself: the first thing to look at."""
    played = _tested(results)
    columns = _columns(played)
    tiles = _row("", played, columns, names).tiles
    return tuple((name, tile) for name, tile in zip(columns, tiles, strict=True) if tile is not None)


# --------------------------------------------------------------------------- parts


def _tested(results: Sequence[Result]) -> list[PlayedCell]:
    return [one for one in played_cells(results) if not one.answer.cell.tests_instrument]


def _column(cell: Cell) -> str:
    return NODE if cell.client is ClientKind.HOST else str(cell.cache)


def _columns(played: Sequence[PlayedCell]) -> tuple[str, ...]:
    used = {_column(one.answer.cell) for one in played}
    return tuple(name for name in (*map(str, CacheMode), NODE) if name in used)


def _row(name: str, played: Sequence[PlayedCell], columns: Sequence[str], names: Sequence[str]) -> AxisRow:
    def at(column: str) -> Tile | None:
        return _tile([one for one in played if _column(one.answer.cell) == column], names, f"{name} {column}".strip())

    return AxisRow(name, tuple(at(column) for column in columns))


def _tile(played: Sequence[PlayedCell], names: Sequence[str], place: str) -> Tile | None:
    if not played:
        return None
    worst = min(played, key=lambda one: severity(_kind(one)))
    kind = _kind(worst)
    diverged, answered = sum(one.answer.diverged for one in played), sum(one.answer.answered for one in played)
    # Plays of different cells are not trials of one rate.
    found = rate_interval(diverged, answered) if len(played) == 1 else None
    clean = [one for one in played if _kind(one) is VerdictKind.CLEAN]
    weak = kind is VerdictKind.CLEAN and all(answer_potency(one.answer) is Potency.WEAK for one in clean)
    word = kind.value if kind else "not run"
    corrupt = any(VerdictKind.CORRUPT in one.answer.kinds for one in played)
    often = f"{part_of(diverged, answered)} {'went wrong' if corrupt else 'diverged'}" if answered else ""
    some = sum(answer_potency(one.answer) is Potency.WEAK for one in clean)
    cells = plural(len(played), "cell") + (f", {some} weak" if some and not weak else "")
    first = names[worst.numbers[0]]
    interval = between(found.low, found.high) if found else ""
    parts = (
        f"{place}: {word}{' (weak)' if weak else ''}",
        cells,
        often,
        f"95 % interval {interval}" if interval else "",
    )
    return Tile(
        anchor=cell_anchor(first) if worst.repeated else first,
        style=style_of(kind),
        sign=SIGNS[kind],
        word=word,
        weak=weak,
        harm=kind is not None and kind.finds_harm,
        often=often,
        short=f"{diverged}/{answered}" if answered else "",
        interval=interval,
        cells=cells,
        label=", ".join(part for part in parts if part),
        rate=diverged / answered if answered else None,
        low=found.low if found else None,
        high=found.high if found else None,
    )


def _kind(one: PlayedCell) -> VerdictKind | None:
    verdict = one.answer.worst.verdict
    return verdict.kind if verdict else None


def _mitigation(cell: Cell) -> str:
    return " + ".join(str(one) for one in (cell.preset, cell.mitigation) if one is not None) or "none"


def _workload(cell: Cell) -> str:
    return f"{cell.workload} ({cell.user_file.name})" if cell.user_file else cell.workload


def _disturbance(cell: Cell) -> str:
    parts = [f"{plural(cell.migrations, 'live migration')}" if cell.migrations else ""]
    parts += [CRASHES[cell.crash] if cell.crash else "", FAULTS[cell.fault] if cell.fault else ""]
    return ", ".join(filter(None, parts)) or "nothing"


def _in(kinds: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    return lambda name: (kinds.index(name) if name in kinds else len(kinds), name)


_AXES: tuple[tuple[str, Callable[[Cell], str], Callable[[str], tuple[int, str]]], ...] = (
    ("Filesystem", lambda cell: str(cell.filesystem), _in([str(kind) for kind in FilesystemKind])),
    ("Layout", lambda cell: str(cell.layout), _in([str(layout) for layout in Layout])),
    ("Workload", _workload, _in(())),
    ("Mitigation", _mitigation, _in(("none",))),
    ("What happens meanwhile", _disturbance, _in(("nothing",))),
    ("Replication", lambda cell: str(cell.replication), _in(("protocol C",))),
)

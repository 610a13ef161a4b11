"""Which filesystem and layout diverges under which cache mode, how often, and which files hold the blocks; pure.

Rows are filesystems on layouts, columns cache modes of a guest and the node itself; in each place one line for each
cell, with all of its repetitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.judgement.repetitions import CellAnswer
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    DelayProfile,
    FilesystemKind,
    Layout,
    Potency,
    Result,
    VerdictKind,
)
from harness.report.cells import cell_anchor
from harness.report.formatting import between, count, joined, part_of
from harness.report.grid import Grid, Slot, grid
from harness.report.hit_files import hit_files, owner_counts
from harness.report.repetitions import PlayedCell, answer_potency, played_cells
from harness.report.table import LETTERS, SIGNS, differing_blocks, style_of

NODE = "the node itself"
# The worst first; what did not run says nothing beside what did.
_SEVERITY = (
    VerdictKind.CORRUPT,
    VerdictKind.DIVERGED,
    VerdictKind.INCONCLUSIVE,
    VerdictKind.TRANSIENT,
    VerdictKind.CLEAN,
    VerdictKind.REFUSED,
    None,
)


@dataclass(frozen=True)
class Line:
    """One cell in its place: ``name`` is its workload and whatever is not common to all.

    ``diverged`` of ``answered`` plays did; ``interval`` is the exact one of that, empty where none has an answer.
    """

    anchor: str
    kind: VerdictKind | None
    weak: bool
    name: str
    diverged: int
    answered: int
    interval: str

    @property
    def often(self) -> str:
        """``3 of 5``; empty where none has an answer."""
        return part_of(self.diverged, self.answered) if self.answered else ""

    @property
    def sign(self) -> str:
        """The verdict's sign on a page."""
        return SIGNS[self.kind]

    @property
    def letter(self) -> str:
        """The verdict's sign on a terminal."""
        return LETTERS[self.kind]

    @property
    def style(self) -> str:
        """The verdict's colours."""
        return style_of(self.kind)


@dataclass(frozen=True)
class FilesystemRow:
    """One filesystem on one layout, with the lines of each column."""

    name: str
    places: tuple[tuple[Line, ...], ...]


@dataclass(frozen=True)
class ByFilesystem:
    """The page's table; ``common`` says what all cells have in common that is not in their names."""

    columns: tuple[str, ...]
    rows: tuple[FilesystemRow, ...]
    common: str
    sentence: str


def by_filesystem(results: Sequence[Result], names: Sequence[str]) -> ByFilesystem | None:
    """The table of ``results``, whose anchors are ``names``; None where only controls ran."""
    played = [cell for cell in played_cells(results) if not cell.answer.cell.tests_instrument]
    if not played:
        return None
    common = _common_suffix([cell.answer.cell for cell in played])
    cells: dict[tuple[str, str], list[Line]] = {}
    for cell in played:
        place = (filesystem_name(cell.answer.cell), _column(cell.answer.cell))
        cells.setdefault(place, []).append(_line(cell, names, common))
    columns = tuple(name for name in (*map(str, CacheMode), NODE) if any(column == name for _, column in cells))
    rows = dict.fromkeys(filesystem_name(cell) for cell in _in_order(one.answer.cell for one in played))
    return ByFilesystem(
        columns,
        tuple(FilesystemRow(row, tuple(tuple(cells.get((row, name), ())) for name in columns)) for row in rows),
        _delay_words(played[0].answer.cell.delays) if common else "",
        _sentence(played),
    )


def filesystem_name(cell: Cell) -> str:
    """``ext4``, ``ext4 on lvm``."""
    return str(cell.filesystem) if cell.layout is Layout.RAW else f"{cell.filesystem} on {cell.layout}"


def hit_grid(results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    """Every cell in which blocks differ: how often, how many, allocated or free, and which files; None without any."""
    rows = []
    played = {id(cell.answer.cell): cell for cell in played_cells(results) if not cell.answer.cell.tests_instrument}
    for cell in _in_order(one.answer.cell for one in played.values()):
        one = played[id(cell)]
        hit = [play for play in one.answer.plays if differing_blocks(play)]
        if not hit:
            continue
        owned = [play.evidence.ownership for play in hit if play.evidence is not None]
        answer = one.answer
        kind = answer.worst.verdict.kind if answer.worst.verdict else None
        rows.append(
            (
                Slot(filesystem_name(cell), anchor=_anchor(one, names)),
                Slot(NODE if cell.client is ClientKind.HOST else f"guest, {cell.cache}"),
                Slot(_label(cell)),
                Slot(str(kind or ""), style_of(kind), SIGNS[kind]),
                Slot(_often(answer)),
                Slot(_interval(answer)),
                Slot(count(sum(differing_blocks(play) for play in hit))),
                Slot(owner_counts(owned)),
                Slot(hit_files(owned), "text"),
            )
        )
    columns = (
        "Filesystem", "Client", "Workload", "Verdict", "Diverged", "95 % interval", "Blocks", "Whose", "Files hit",
    )  # fmt: skip
    return grid("Where the differing blocks are", columns, rows)


def severity(kind: VerdictKind | None) -> int:
    """The worse, the lower."""
    return _SEVERITY.index(kind)


def in_short(lines: Sequence[Line]) -> Line | None:
    """All lines of a place as one: the worst verdict, and how many plays of all of them diverged; None without any."""
    if not lines:
        return None
    worst = min(lines, key=lambda line: severity(line.kind))
    diverged, answered = sum(line.diverged for line in lines), sum(line.answered for line in lines)
    return replace(worst, weak=all(line.weak for line in lines), diverged=diverged, answered=answered, interval="")


# --------------------------------------------------------------------------- parts


def _line(cell: PlayedCell, names: Sequence[str], common: str) -> Line:
    answer = cell.answer
    verdict = answer.worst.verdict
    return Line(
        _anchor(cell, names),
        verdict.kind if verdict else None,
        answer_potency(answer) is Potency.WEAK,
        _label(answer.cell).removesuffix(common),
        answer.diverged,
        answer.answered,
        _interval(answer),
    )


def _anchor(cell: PlayedCell, names: Sequence[str]) -> str:
    first = names[cell.numbers[0]]
    return cell_anchor(first) if cell.repeated else first


def _often(answer: CellAnswer) -> str:
    return part_of(answer.diverged, answer.answered) if answer.answered else ""


def _interval(answer: CellAnswer) -> str:
    interval = answer.interval
    return "" if interval is None else between(interval.low, interval.high)


def _column(cell: Cell) -> str:
    return NODE if cell.client is ClientKind.HOST else str(cell.cache)


def _label(cell: Cell) -> str:
    """The workload and what else is not the default."""
    return cell.column.removeprefix(f"{cell.layout.prefix}{cell.filesystem.prefix}")


def _common_suffix(cells: Sequence[Cell]) -> str:
    """The delays, where they are the same in every cell and nothing stands behind them."""
    suffixes = {cell.delays.suffix() for cell in cells}
    one = suffixes.pop() if len(suffixes) == 1 else ""
    return one if one and all(_label(cell).endswith(one) for cell in cells) else ""


def _delay_words(delays: DelayProfile) -> str:
    parts = (("link", delays.link_delay_ms), ("the Primary's disk", delays.disk_delay_ms))
    return joined(f"{what} delayed by {ms} ms" for what, ms in parts if ms)


def _in_order(cells: Iterable[Cell]) -> list[Cell]:
    """By filesystem and layout, raw first, in the order of their kinds; else as they come."""
    kinds, layouts = list(FilesystemKind), list(Layout)
    return sorted(cells, key=lambda cell: (kinds.index(cell.filesystem), layouts.index(cell.layout)))


def _sentence(played: Sequence[PlayedCell]) -> str:
    """Which filesystems diverged with which cache modes, in words."""
    diverged: dict[str, tuple[str, ...]] = {}
    for column in (*map(str, CacheMode), NODE):
        answered = [one for one in played if one.answer.answered and _column(one.answer.cell) == column]
        cells = _in_order(one.answer.cell for one in answered if one.answer.diverged)
        if answered:
            diverged[column] = tuple(dict.fromkeys(map(filesystem_name, cells)))
    parts = []
    for hit in dict.fromkeys(diverged.values()):
        guests = [column for column, found in diverged.items() if found == hit and column != NODE]
        where = [f"with {joined(guests)} in a guest"] if guests else []
        where += ["on the node itself"] if diverged.get(NODE) == hit else []
        # What a guest lost or misread is no difference between the replicas.
        harmed = [one for one in played if one.answer.diverged and diverged.get(_column(one.answer.cell)) == hit]
        corrupt = any(VerdictKind.CORRUPT in one.answer.kinds for one in harmed)
        word = "diverged, or lost or misread data" if corrupt else "diverged"
        parts.append(f"{joined(where)} {f'{joined(hit)} {word}' if hit else 'none did'}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else "No cell has an answer."

"""The comparison of two runs on a terminal, as Markdown of at most 1 MiB, and as JSON; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from harness.judgement.compare_runs import FLIPS, CellComparison, Change
from harness.judgement.stack_changes import PackageChange
from harness.judgement.standing import Standing
from harness.report.compare import (
    Comparison,
    Row,
    components_sentence,
    section_title,
    shown_sections,
)
from harness.report.compare_notes import ARROW, probability
from harness.report.formatting import clean, plural

JSON_SCHEMA = 1
#: GitHub drops a larger summary of a job whole.
MOST_BYTES = 1024 * 1024
_ROOM_FOR_THE_REST = 2048
_PACKAGES_SHOWN = 12
# Packages that are under test come first; the others change with every update of a suite.
_TELLING = ("linux-image", "drbd", "qemu", "libvirt", "systemd", "e2fsprogs", "xfsprogs", "btrfs-progs", "lvm2")
_STYLES = {
    Change.NEWLY_FAILING: "bold red", Change.FIXED: "bold green", Change.LOST: "bold yellow",
    Change.NOT_COMPARABLE: "yellow", Change.GONE: "yellow",
}  # fmt: skip
#: By the cell's id: a strip of its history.
Strips = Mapping[str, str]


# --------------------------------------------------------------------------- a terminal


def compare_text(comparison: Comparison) -> Iterator[RenderableType]:
    """What changed in the components, then the cells by what became of them, then the answer."""
    yield Text(clean(comparison.title), style="bold")
    yield Text("\nComponents", style="bold")
    for one in comparison.components:
        yield _indented(f"{one.name}: {one.old} {ARROW} {one.new}")
    for line in _package_lines(comparison):
        yield _indented(line)
    if remark := components_sentence(comparison):
        yield _indented(remark)
    for change, cells in shown_sections(comparison):
        yield Text(f"\n{section_title(change, len(cells))}", style=_STYLES.get(change, "bold"))
        for cell in cells:
            yield from _row_text(comparison.row(cell))
    yield Text(clean(f"\n{comparison.headline}"), style="bold")


def _row_text(row: Row) -> Iterator[RenderableType]:
    cell = row.cell
    name = f"{cell.cell_id}: {row.figures[0]} {ARROW} {row.figures[1]}"
    yield _indented(f"{name}{f'; {_count(row)}' if row.counts else ''}")
    if cell.change in FLIPS or cell.rose:
        lines = (row.said, row.evidence, row.play)
        yield from (_indented(line, 4) for line in lines if line)
    yield from (_indented(note, 4) for note in row.notes)


def _count(row: Row) -> str:
    p = f" ({probability(row.cell.p)})" if row.cell.p is not None else ""
    return f"{row.counted} {row.counts}{p}"


def _indented(text: str, by: int = 2) -> Text:
    # Lines as long as they are: a command is to be copied.
    return Text(f"{' ' * by}{clean(text)}")


def _package_lines(comparison: Comparison) -> list[str]:
    changed = comparison.packages
    if not changed:
        return []
    ordered = sorted(changed, key=lambda one: (_place(one), one.role, one.name))
    shown = [
        f"{one.role}: {one.name} {one.old or 'not there'} {ARROW} {one.new or 'not there'}"
        for one in ordered[:_PACKAGES_SHOWN]
    ]
    rest = len(changed) - len(shown)
    return [f"{plural(len(changed), 'package')} of the images:", *shown, *([f"and {rest} more"] if rest else [])]


def _place(one: PackageChange) -> int:
    return next((at for at, name in enumerate(_TELLING) if one.name.startswith(name)), len(_TELLING))


# --------------------------------------------------------------------------- Markdown


def compare_markdown(comparison: Comparison, strips: Strips | None = None, most_bytes: int = MOST_BYTES) -> str:
    """The same to be pasted or for the summary of a job, the flips first; what has no room is counted.

    ``most_bytes`` of UTF-8 are never passed, however many cells flipped.
    """
    head = f"### {_escaped(comparison.title)}\n\n"
    head += f"**{_escaped(comparison.headline)}**\n\n"
    page = _Page(most_bytes - _ROOM_FOR_THE_REST)
    page.add(head)
    page.add(_components_markdown(comparison))
    for change, cells in shown_sections(comparison):
        columns = _columns(change, strips or {})
        title = f"\n#### {section_title(change, len(cells))}\n\n"
        page.add(title + _line(columns) + _line(("---",) * len(columns)), table=True)
        for cell in cells:
            if page.left_out:
                # Of thousands of rows few have room: what is not shown need not be made.
                page.left_out += 1
            else:
                page.add(_line(_cells_of(comparison.row(cell), change, strips or {})), table=True)
    left_out = f"\n{plural(page.left_out, 'row')} had no room here.\n" if page.left_out else ""
    return page.text + left_out


class _Page:
    """Text that takes no more than it has room for; what comes later has no room either, so that no table is torn."""

    def __init__(self, room: int) -> None:
        self.text = ""
        self.left_out = 0
        self._room = room

    def add(self, text: str, *, table: bool = False) -> None:
        size = len(text.encode())
        if size > self._room or self.left_out:
            self.left_out += 1 if table else 0
            return
        self._room -= size
        self.text += text


def _components_markdown(comparison: Comparison) -> str:
    rows = [(one.name, one.old, one.new) for one in comparison.components]
    table = "".join(_line(row) for row in [("component", "old", "new"), ("---",) * 3, *rows]) if rows else ""
    packages = "".join(f"- {_escaped(line)}\n" for line in _package_lines(comparison))
    if packages:
        packages = f"\n<details><summary>Packages</summary>\n\n{packages}\n</details>\n"
    remark = components_sentence(comparison)
    return f"{table}{packages}{f'{chr(10)}{_escaped(remark)}{chr(10)}' if remark else ''}"


def _columns(change: Change, strips: Strips) -> tuple[str, ...]:
    if change not in FLIPS:
        return ("cell", "old", "new", "failing", "remarks")
    return (
        "cell",
        "old",
        "new",
        "failing",
        "first evidence",
        "play it again",
        *(("history",) if strips else ()),
        "remarks",
    )


def _cells_of(row: Row, change: Change, strips: Strips) -> tuple[str, ...]:
    name, notes = f"`{row.cell.cell_id}`", " ".join(row.notes)
    count = _count(row) if row.counts else ""
    if change not in FLIPS:
        return (name, *row.figures, count, notes)
    evidence = f"`{row.evidence}`: {row.said}" if row.evidence else row.said
    play = f"`{row.play}`" if row.play else ""
    strip = strips.get(row.cell.cell_id, "")
    history = ((f"`{strip}`" if strip else ""),) if strips else ()
    return (name, *row.figures, count, evidence, play, *history, notes)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |\n"


def _escaped(text: str) -> str:
    return clean(text).replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


# --------------------------------------------------------------------------- JSON


def compare_json(comparison: Comparison) -> str:
    """All of it for a program; ``schema`` is raised where a key changes what it means."""
    sides = {"old": comparison.old, "new": comparison.new}
    return json.dumps(
        {
            "schema": JSON_SCHEMA,
            **{name: {"run": one.name, "matrix": one.run.matrix} for name, one in sides.items()},
            "exit_code": comparison.exit_code,
            "headline": comparison.headline,
            "counts": {change.value: len(comparison.sections.get(change, ())) for change in Change},
            "components": [{"name": one.name, "old": one.old, "new": one.new} for one in comparison.components],
            "packages": [
                {"role": one.role, "name": one.name, "old": one.old, "new": one.new} for one in comparison.packages
            ],
            "cells": [
                _cell_json(comparison.row(cell)) | _rerun_json(comparison, cell) | _known_json(comparison, cell)
                for _, cells in comparison.sections.items()
                for cell in cells
            ],
        },
        indent=1,
        ensure_ascii=False,
    )


def _cell_json(row: Row) -> dict[str, Any]:
    cell: CellComparison = row.cell
    shown = cell.shows
    return {
        "cell": cell.cell_id,
        "change": cell.change.value,
        "regressed": cell.regressed,
        "old": _side_json(cell.old, 0, cell),
        "new": _side_json(cell.new, 1, cell),
        "failing_is": row.counted,
        "p_one_sided": cell.p,
        "significant": cell.significant,
        "plays_wanted": cell.trials_wanted,
        "other_verdicts": cell.other_kinds,
        "evidence": {"run": shown[0], "folder": row.evidence, "sentence": row.said} if shown else None,
        "play": row.play,
        "notes": list(row.notes),
    }


def _rerun_json(comparison: Comparison, cell: CellComparison) -> dict[str, Any]:
    again = comparison.replayed.get(cell.cell_id)
    if again is None:
        return {"rerun": None}
    return {"rerun": {"old": again.old, "new": again.new, "p_one_sided": again.p, "outcome": again.outcome.value}}


def _known_json(comparison: Comparison, cell: CellComparison) -> dict[str, Any]:
    entry = comparison.known.get(cell.cell_id)
    return {"known": None if entry is None else {"reason": entry.reason, "until": str(entry.until)}}


def _side_json(standing: Standing | None, side: int, cell: CellComparison) -> dict[str, Any] | None:
    if standing is None:
        return None
    failing = cell.counts[side][0] if cell.counts is not None else 0
    return {
        "plays": standing.planned,
        "answered": standing.answered,
        "failing": failing,
        "verdicts": {kind.value: number for kind, number in standing.kinds.items()},
    }

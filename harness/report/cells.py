"""Cells as the page shows them: one that is repeated is one line, with each of its repetitions inside; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from harness.model import Potency, Result, Run
from harness.report import formatting
from harness.report.grid import Grid, Slot, grid
from harness.report.repetitions import (
    DISAGREE,
    PlayedCell,
    answer_label,
    answer_potency,
    answer_rows,
    played_cells,
    rate_text,
)
from harness.report.replay import replay_command
from harness.report.table import SIGNS, Entry, figures, style_of
from harness.report.view import ResultView, Row, view
from harness.report.worth import label


@dataclass(frozen=True)
class CellView:
    """One cell with its repetitions; ``rows`` and ``overview`` are of all of them, empty where there is only one.

    What each of the repetitions would say is said once: ``worth`` and ``expectation``.  ``strip``: each by its sign, in
    their order, where they differ.
    """

    anchor: str
    cell_id: str
    kind: str
    style: str
    weak: bool
    sign: str
    figures: str
    disagree: bool
    rows: tuple[Row, ...]
    overview: Grid | None
    plays: tuple[ResultView, ...]
    strip: tuple[Slot, ...] = ()
    worth: tuple[Row, ...] = ()
    expectation: str = ""

    @property
    def repeated(self) -> bool:
        """Whether the run plays the cell more than once."""
        return len(self.plays) > 1

    @property
    def open(self) -> bool:
        """Whether the page shows it unfolded: differences that nobody expected."""
        return any(play.open for play in self.plays)


def anchors(results: Sequence[Result]) -> tuple[str, ...]:
    """The names by which a page's links reach each result: readable, and no two alike."""
    taken: dict[str, None] = {}
    again: dict[str, int] = {}
    for result in results:
        anchor = base = f"cell-{_name(result)}"
        while anchor in taken:
            again[base] = again.get(base, 1) + 1
            anchor = f"{base}.{again[base]}"
        taken[anchor] = None
    return tuple(taken)


def entry_anchor(entry: Entry, names: Sequence[str]) -> str:
    """Where an entry of the heat map leads: to its result, or to the cell with all of its repetitions."""
    return cell_anchor(names[entry.numbers[0]]) if len(entry.numbers) > 1 else names[entry.number]


def cell_views(results: Sequence[Result], run: Run | None = None) -> tuple[CellView, ...]:
    """Every cell with a view of each of its results; those of a ``run`` say how they are played again."""
    names = anchors(results)
    return tuple(_cell_view(cell, results, names, run) for cell in played_cells(results))


def _cell_view(cell: PlayedCell, results: Sequence[Result], names: Sequence[str], run: Run | None) -> CellView:
    answer, stands = cell.answer, results[cell.stands]
    kind = stands.verdict.kind if stands.verdict else None
    plays = tuple(
        view(results[number], names[number], replay_command(run, results[number].cell) if run else "")
        for number in cell.numbers
    )
    made = CellView(
        anchor=cell_anchor(names[cell.numbers[0]]),
        cell_id=stands.cell.id,
        kind=answer_label(answer),
        style=style_of(kind),
        weak=answer_potency(answer) is Potency.WEAK,
        sign=SIGNS[kind],
        figures=f"{rate_text(answer)}{f'; {DISAGREE}' if answer.disagree else ''}",
        disagree=answer.disagree,
        rows=tuple((name, value) for name, value in answer_rows(answer) if value) if cell.repeated else (),
        overview=_overview(cell, results, names) if cell.repeated else None,
        plays=plays,
        strip=_strip([results[number] for number in cell.numbers]),
    )
    return _said_once(made) if cell.repeated else made


def _said_once(cell: CellView) -> CellView:
    """``cell`` with what all of its repetitions say taken from each of them: a page of thousands repeats it else."""
    plays = cell.plays
    worth = tuple(row for row in plays[0].worth if all(row in play.worth for play in plays))
    alike = len({play.expectation for play in plays}) == 1
    shorter = (
        replace(
            play,
            name=f"repetition {play.result.cell.repetition}",
            # It stands in the table of all repetitions, just above.
            figures="",
            worth=tuple(row for row in play.worth if row not in worth),
            expectation="" if alike else play.expectation,
        )
        for play in plays
    )
    return replace(cell, plays=tuple(shorter), worth=worth, expectation=plays[0].expectation if alike else "")


def _strip(plays: Sequence[Result]) -> tuple[Slot, ...]:
    """Each repetition by its sign; nothing where all of them ended alike, which is said in words."""
    signs = tuple(_sign(play) for play in plays)
    return signs if len(set(signs)) > 1 else ()


def _sign(result: Result) -> Slot:
    kind = result.verdict.kind if result.verdict else None
    return Slot(label(result), style_of(kind), SIGNS[kind])


def _overview(cell: PlayedCell, results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    rows = []
    for number in cell.numbers:
        result = results[number]
        verdict = result.verdict
        kind = verdict.kind if verdict else None
        rows.append(
            (
                Slot(str(result.cell.repetition), anchor=names[number]),
                Slot(label(result), style_of(kind), SIGNS[kind]),
                Slot(figures(result)),
                Slot(str(result.cell.seed) if result.cell.seed else ""),
            )
        )
    if len({row[1].text for row in rows}) == 1:
        # How often which verdict came stands above, and it was this one each time.
        rows = [(row[0], Slot(), *row[2:]) for row in rows]
    return grid(f"Repetitions of {cell.answer.cell_id}", ("Repetition", "Verdict", "Figures", "Seed"), rows)


def cell_anchor(name: str) -> str:
    """Where the link to a cell with all of its repetitions leads, the first of which has the anchor ``name``."""
    return f"all-of-{name}"


def first_anchors(results: Sequence[Result], names: Sequence[str]) -> dict[str, str]:
    """Where the link to a cell leads by its id: to its result, or to the place of all its repetitions."""
    first: dict[str, str] = {}
    places: dict[str, str] = {}
    for result, name in zip(results, names, strict=True):
        places[result.cell.id] = cell_anchor(first[result.cell.id]) if result.cell.id in first else name
        first.setdefault(result.cell.id, name)
    return places


def _name(result: Result) -> str:
    return quote(formatting.clean(result.cell.id), safe="").replace("%", "_")

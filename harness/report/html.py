"""The page ``report.html`` and the fragments for pytest-html: self-contained, static, no script."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.judgement.controls import demanded_controls
from harness.judgement.known_faults import known_faults
from harness.judgement.questions_harm import CURES
from harness.model import Evidence, Result, Run, VerdictKind
from harness.report import formatting
from harness.report.alarms import alarm_grid, alarm_sentence, replication_grid
from harness.report.axis_maps import axis_maps, mode_tiles
from harness.report.by_filesystem import by_filesystem, hit_grid
from harness.report.cells import CellView, anchors, cell_views, entry_anchor, first_anchors
from harness.report.claims import claim_page
from harness.report.control_rounds import control_rounds, doubted_numbers, evidence_of, failures, round_grid
from harness.report.cost_chart import cost_chart
from harness.report.durability import durability_grid, durability_sentence, loss_grid
from harness.report.headline import Answer, Headline, headline
from harness.report.migrations import migration_grid, migration_sentence, timelines, undrawn
from harness.report.owner_bars import owner_bars
from harness.report.page_size import PAGE_BYTES, alone, fitted
from harness.report.phases import PhaseShare, phase_shares
from harness.report.questions import question_page
from harness.report.remedies import effect_grid
from harness.report.repetitions import play_name
from harness.report.summary import provenance_rows, stack_rows, summarize, title_of
from harness.report.table import SIGNS, WIDEST, Entry, HeatMap, heat_map, style_of
from harness.report.view import PhaseBar, ResultView, sectors, view
from harness.report.without_data import on_hardware, without_data
from harness.util.atomic_file import write_atomic

MEANINGS = {
    VerdictKind.CLEAN: "nothing found, and the lab could have seen it",
    VerdictKind.TRANSIENT: "out of sync for a while, equal again at the end",
    VerdictKind.DIVERGED: "blocks still differ after everything was written",
    VerdictKind.CORRUPT: "the guest lost data or read back something else than it wrote",
    VerdictKind.REFUSED: "the stack would not do it",
    VerdictKind.INCONCLUSIVE: "no answer",
    None: "no attempt was made",
}

_TONES = {Answer.YES: "clean", Answer.NO: "diverged", Answer.UNKNOWN: "inconclusive"}

WEAK = "nothing found, and nothing shows that this work could have diverged"

# Between the thousands of a number, and before its per cent.
_GAP = re.compile(r"(?<=\d) (?=\d{3}(?!\d)|%)")

LegendLine = tuple[str, str, str, str]


@dataclass(frozen=True)
class MapEntry:
    """An entry of the heat map, ready for the template."""

    kind: str
    style: str
    sign: str
    weak: bool
    lines: tuple[str, ...]
    detail: str
    unexpected: bool
    disagree: bool
    anchor: str


@dataclass(frozen=True)
class MapRow:
    """A row of the heat map with one tuple of entries for each column."""

    name: str
    cells: tuple[tuple[MapEntry, ...], ...]


@dataclass(frozen=True)
class MapView:
    """The heat map, ready for the template, with the legend of what occurs in it."""

    columns: tuple[str, ...]
    rows: tuple[MapRow, ...]
    legend: tuple[LegendLine, ...]


def render_html(
    run: Run,
    results: Sequence[Result],
    title: str = "",
    attempts: Sequence[Evidence] = (),
    unreadable: Sequence[str] = (),
    raw: bool = True,
) -> str:
    """The page as text; it is well-formed XML too.

    ``attempts``: all that the run has, for its controls were played more often than its results show; else only these
    are known.  ``unreadable``: a sentence for each evidence that is there and cannot be read.  ``raw``:
    whether the files of the attempts lie beside the page, which then leads to them.
    """
    summary = summarize(results)
    names = anchors(results)
    moved = timelines(results, names)
    rounds = control_rounds(attempts or evidence_of(results))
    return _small_page(
        cell_views(results, run) if raw else alone(cell_views(results, run)),
        raw=raw,
        title=title or title_of(run),
        run=run,
        summary=summary,
        tone=_tone(summary.headline),
        map=_map_view(summary.map, names),
        widest=WIDEST,
        modes=mode_tiles(results, names),
        maps=axis_maps(results, names),
        owned=owner_bars(results, names),
        costs=cost_chart(results),
        effects=effect_grid(results, first_anchors(results, names)),
        emulated=run.stack.accelerator == "tcg",
        places=first_anchors(results, names),
        unreadable=unreadable,
        filesystems=by_filesystem(results, names),
        hits=hit_grid(results, names),
        migrations=migration_grid(results, names),
        migration_sentence=migration_sentence(results),
        timelines=moved,
        undrawn=undrawn(results, moved),
        durability=durability_grid(results, names),
        durability_sentence=durability_sentence(results),
        losses=loss_grid(results, names),
        alarms=alarm_grid(results, names),
        alarm_sentence=alarm_sentence(results),
        replication=replication_grid(results, names),
        claims=claim_page(run, results, names),
        questions=question_page(run, results, names),
        cures=CURES,
        missing_controls=_missing(summary.map, results),
        stack=(*stack_rows(run.stack), *provenance_rows(run)),
        faults=known_faults(run.stack),
        phases=[_phase_bar(phase) for phase in phase_shares(run, results).phases],
        rounds=round_grid(rounds),
        failures=failures(rounds),
        doubted=[(results[number].cell, names[number]) for number in doubted_numbers(rounds, results)],
        names=names,
        plays=len(results),
    )


def _small_page(cells: Sequence[CellView], **values: object) -> str:
    """The page, with less evidence of dull plays the more there are."""
    environment = _environment()
    template = environment.get_template("report.html.j2")
    draw = environment.get_template("parts.html.j2").module.evidence  # type: ignore[attr-defined]
    drawings: dict[tuple[str, int], Markup] = {}

    def drawn(play: ResultView) -> Markup:
        """The evidence of ``play``, drawn once however often the page is made: that is most of the work."""
        place = (play.anchor, play.detail)
        if place not in drawings:
            drawings[place] = draw(play.evidence, "") if play.evidence else Markup("")
        return drawings[place]

    def measure(play: ResultView) -> int:
        return len(drawn(play).encode())

    def page(limit: int) -> str:
        shown, shortened = fitted(cells, measure, limit)
        return template.render(cells=shown, shortened=shortened, drawn=drawn, **values)

    # What all the rest takes, with a note for each play of what is left out of it; evidence has the room beside that.
    rest = page(0)
    return page(max(0, PAGE_BYTES - len(rest.encode())))


def write_html(
    path: Path,
    run: Run,
    results: Sequence[Result],
    title: str = "",
    attempts: Sequence[Evidence] = (),
    unreadable: Sequence[str] = (),
) -> None:
    """Write the page to ``path``: complete and synced; :class:`~harness.errors.StoreError` leaves the old file.

    That of a run on machines of somebody's holds nothing of theirs; ``report --with-data`` makes the other.
    """
    raw = not on_hardware(run)
    if not raw:
        own = platform.node()
        run, results, attempts, anonymous = without_data(run, results, attempts, [own, own.split(".")[0]])
        title, unreadable = anonymous(title), [anonymous(one) for one in unreadable]
    write_atomic(path, render_html(run, results, title, attempts, unreadable, raw).encode())


def heat_map_html(results: Sequence[Result]) -> str:
    """The headline, the heat map and the controls, with their style, for another page's summary."""
    return _fragment(results, headline(results))


def evidence_html(result: Result, *, base: str = "", style: bool = True) -> str:
    """One result's verdict and evidence for another page.

    ``base`` leads from that page to the run's directory; ``style`` may be False where the page has a heat map already.
    """
    return _render_fragment(cell=view(result), base=base, style=style)


def _tone(answer: Headline) -> str:
    """The look of the short answer: a "yes" that rests on weak cells is no green one."""
    return "transient" if answer.weak else _TONES[answer.answer]


def _fragment(results: Sequence[Result], answer: Headline) -> str:
    table = heat_map(results)
    return _render_fragment(
        map=_map_view(table, anchors(results)),
        headline=answer,
        tone=_tone(answer),
        controls=table.controls,
        missing_controls=_missing(table, results),
    )


def _render_fragment(**values: object) -> str:
    defaults: dict[str, object] = {"map": None, "cell": None, "style": True, "base": ""}
    return _environment().get_template("fragment.html.j2").render(defaults | values)


def _map_view(table: HeatMap, names: Sequence[str]) -> MapView:
    rows = tuple(
        MapRow(
            "the node itself" if row == "host" else row,
            tuple(tuple(_map_entry(entry, names) for entry in table.at(row, column)) for column in table.columns),
        )
        for row in table.rows
    )
    return MapView(table.columns, rows, _legend([one for entries in table.cells.values() for one in entries]))


def _legend(entries: Sequence[Entry]) -> tuple[LegendLine, ...]:
    lines = []
    for kind, meaning in MEANINGS.items():
        for weak in (False, True):
            if any(entry.kind is kind and entry.weak is weak for entry in entries):
                name = kind.value if kind else "not run"
                style = f"{style_of(kind)}{' weak' if weak else ''}"
                lines.append((f"{name} (weak)" if weak else name, SIGNS[kind], style, WEAK if weak else meaning))
    return tuple(lines)


def _map_entry(entry: Entry, names: Sequence[str]) -> MapEntry:
    first, *lines = entry.text.split("\n")
    return MapEntry(
        kind=first,
        style=style_of(entry.kind),
        sign=SIGNS[entry.kind],
        weak=entry.weak,
        lines=tuple(part for line in lines for part in line.split(", ")),
        detail=entry.detail,
        unexpected=entry.expected is False,
        disagree=entry.disagree,
        anchor=entry_anchor(entry, names),
    )


def _missing(table: HeatMap, results: Sequence[Result]) -> tuple[str, ...]:
    present = {entry.control for entry in table.controls}
    return tuple(control.value for control in demanded_controls(results) if control not in present)


def _phase_bar(phase: PhaseShare) -> PhaseBar:
    spent = f"{formatting.seconds(phase.seconds)}, {formatting.percent(phase.share)}"
    return PhaseBar(phase.name, spent, round(100 * phase.share, 1))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=formatting.count, sectors=sectors, across=_across, play=play_name, whole=_whole)
    return environment


def _across(share: float) -> str:
    """A position in a drawing, as SVG wants it."""
    return f"{share:.3f}%"


def _whole(text: str) -> str:
    """``text`` in which no number is broken at the end of a line: ``1 372 080``, ``95 %``."""
    return _GAP.sub("\u00a0", text)


def _printable(value: object) -> object:
    return value if isinstance(value, Markup) else formatting.clean(str(value))

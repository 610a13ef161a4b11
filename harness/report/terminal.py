"""The report on a terminal: a heat map that is readable without colour, and the summary below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from harness.judgement.claim_words import cell_words
from harness.judgement.known_faults import known_faults
from harness.judgement.repetitions import answers
from harness.model import Evidence, Result, Run, VerdictKind
from harness.report.alarms import alarm_sentence
from harness.report.by_filesystem import by_filesystem, in_short
from harness.report.cells import anchors
from harness.report.claims import claim_line
from harness.report.control_rounds import ControlRound, control_rounds, evidence_of, round_lines
from harness.report.durability import durability_sentence
from harness.report.formatting import clean
from harness.report.headline import Answer, Headline
from harness.report.migrations import migration_sentence
from harness.report.repetitions import play_name
from harness.report.samples import sample_lines
from harness.report.summary import Line, Summary, stack_rows, summarize, title_of
from harness.report.table import WIDEST, Entry, HeatMap

STYLES: dict[VerdictKind | None, str] = {
    VerdictKind.CLEAN: "green",
    VerdictKind.TRANSIENT: "yellow",
    VerdictKind.DIVERGED: "bold red",
    VerdictKind.CORRUPT: "bold magenta",
    VerdictKind.REFUSED: "blue",
    VerdictKind.INCONCLUSIVE: "cyan",
    None: "dim",
}

_ANSWERS = {Answer.YES: "bold green", Answer.NO: "bold red", Answer.UNKNOWN: "bold yellow"}
_WEAK = "bold yellow"
_ROW_WIDTH = 12
_HELD = {True: "green", False: "bold red", None: "dim"}


def print_report(
    run: Run, results: Sequence[Result], console: Console | None = None, attempts: Sequence[Evidence] = ()
) -> None:
    """Print the heat map of ``results`` and the summary below it; ``attempts`` are all that the run has."""
    console = console or Console(highlight=False)
    for part in report_parts(run, results, console.width, attempts):
        console.print(part, highlight=False)


def print_samples(results: Sequence[Result], most: int, console: Console) -> None:
    """Print the first ``most`` differing blocks of each result in hex, the bytes that differ marked."""
    for result in results:
        for sample in result.evidence.samples[:most] if result.evidence else ():
            console.print(Text(clean(f"\n{play_name(result.cell)}"), style="bold"))
            for line in sample_lines(sample):
                console.print(Text(clean(line)), soft_wrap=True)


def report_parts(
    run: Run, results: Sequence[Result], width: int = 80, attempts: Sequence[Evidence] = ()
) -> tuple[RenderableType, ...]:
    """What :func:`print_report` prints, in order, for a terminal ``width`` columns wide."""
    summary = summarize(results)
    rounds = control_rounds(attempts or evidence_of(results))
    title = Text(clean(f"{title_of(run)}, run {run.id}"), style="bold")
    return (
        title,
        *_heat_map(summary.map, width),
        *_filesystems(results),
        *_disturbances(results),
        *_summary(run, results, summary, rounds),
    )


def _heat_map(table: HeatMap, width: int) -> Iterable[RenderableType]:
    if len(table.columns) > WIDEST:
        yield Text(f"{len(table.columns)} columns are too many for a terminal: cell by cell in report.html")
    else:
        yield from heat_map_tables(table, width)


def heat_map_tables(table: HeatMap, width: int = 80) -> tuple[Table, ...]:
    """The heat map as one table, or as several with some of the columns each where ``width`` is too small for one."""
    return tuple(_table(table, columns) for columns in _fitting(table, width))


def _table(table: HeatMap, columns: Sequence[str]) -> Table:
    drawn = Table(show_lines=True, title_justify="left")
    drawn.add_column("cache", overflow="fold", max_width=_ROW_WIDTH)
    for column in columns:
        drawn.add_column(Text(clean(column)), overflow="fold")
    for row in table.rows:
        if not any(table.at(row, column) for column in columns):
            continue
        drawn.add_row(Text(clean(row)), *(_place(table.at(row, column)) for column in columns))
    return drawn


def _place(entries: Sequence[Entry]) -> Text:
    return Text("\n").join(_entry(entry) for entry in entries)


def _entry(entry: Entry) -> Text:
    return Text("\n".join(_lines(entry)), style=f"dim {STYLES[entry.kind]}" if entry.weak else STYLES[entry.kind])


def _lines(entry: Entry) -> list[str]:
    kind, *rest = entry.text.split("\n")
    attempt = f", attempt {entry.attempt}" if entry.attempt and entry.attempt > 1 else ""
    lines = [f"{entry.letter} {kind}{attempt}", *(part for line in rest for part in line.split(", "))]
    if entry.detail:
        lines.append(f"! {entry.detail}" if entry.disagree else entry.detail)
    if entry.expected is False:
        lines.append("! unexpected")
    return [clean(line) for line in lines]


def _fitting(table: HeatMap, width: int) -> Iterable[tuple[str, ...]]:
    group: tuple[str, ...] = ()
    used = start = _ROW_WIDTH + 4
    for column in table.columns:
        entries = [entry for row in table.rows for entry in table.at(row, column)]
        wanted = max((len(line) for entry in entries for line in _lines(entry)), default=0)
        needed = max(wanted, min(len(column), 24)) + 3
        if group and used + needed > width:
            yield group
            group, used = (), start
        group, used = (*group, column), used + needed
    if group:
        yield group


def _filesystems(results: Sequence[Result]) -> Iterable[RenderableType]:
    table = by_filesystem(results, anchors(results))
    # One row says no more than the heat map.
    if table is None or len(table.rows) < 2:
        return
    drawn = Table(Column("filesystem", min_width=15, overflow="fold"), *table.columns, box=SIMPLE, padding=(0, 1, 0, 0))
    for row in table.rows:
        places = [in_short(lines) for lines in row.places]
        drawn.add_row(
            Text(clean(row.name)),
            # In 80 columns there is no room for words.
            *(_count(one.letter, one.often, STYLES[one.kind]) if one else Text("") for one in places),
        )
    sentence = Text(clean(f"How many plays diverged, over all workloads. {table.sentence}"))
    yield Text("\nBy filesystem and layout", style="bold")
    yield drawn
    yield Padding(sentence, (0, 0, 0, 2))


def _count(letter: str, often: str, style: str) -> Text:
    return Text(f"{letter} {often.replace(' of ', '/')}", style=style)


def _disturbances(results: Sequence[Result]) -> Iterable[RenderableType]:
    sentences = (migration_sentence(results), durability_sentence(results), alarm_sentence(results))
    yield from _section("Disturbances and alarms", [Text(clean(sentence)) for sentence in sentences if sentence])


def _summary(
    run: Run, results: Sequence[Result], summary: Summary, rounds: Sequence[ControlRound]
) -> Iterable[RenderableType]:
    yield from _section("Controls", _controls(summary.map))
    # One round that held says no more than the lines above.
    if len(rounds) > 1 or any(one.doubted for one in rounds):
        yield from _section("Rounds of controls", [Text(clean(line)) for line in round_lines(rounds)])
    yield from _section("Oracles", [Text(summary.oracles), *_lines_of(summary.disagreeing)])
    yield from _section("Nothing found", _lines_of(summary.bounds))
    words = cell_words(answers(results), run.stack)
    yield from _section("What may be said", [Text(clean(claim_line(one))) for one in words])
    yield from _section("Stack", [Text(clean(f"{name}: {value}")) for name, value in stack_rows(run.stack)])
    yield from _section("Known faults of these versions", [Text(clean(str(one))) for one in known_faults(run.stack)])
    yield from _section("Notes", [Text(clean(note)) for note in run.notes])
    yield from _section("Not as expected", _lines_of(summary.findings))
    headline = summary.headline
    yield Text.assemble((f"\n{headline.answer}.", _answer_style(headline)), f" {clean(headline.sentence)}")


def _answer_style(headline: Headline) -> str:
    return _WEAK if headline.weak else _ANSWERS[headline.answer]


def _controls(table: HeatMap) -> list[Text]:
    if not table.controls:
        return [Text("none in this run")]
    return [
        Text.assemble((entry.outcome, _HELD[entry.held]), clean(f" {entry.control} ({entry.cell_id}): {entry.text}"))
        for entry in table.controls
    ]


def _lines_of(lines: Sequence[Line]) -> list[Text]:
    return [Text(clean(f"{line.cell_id}: {line.sentence}")) for line in lines]


def _section(title: str, lines: Sequence[Text]) -> Iterable[RenderableType]:
    if lines:
        yield Text(f"\n{title}", style="bold")
        yield from (Padding(line, (0, 0, 0, 2)) for line in lines)

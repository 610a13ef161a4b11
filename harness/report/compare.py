"""Two runs side by side, as rows that a terminal, a page of Markdown and a program show alike; reads what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path

from harness.judgement.baseline import known_regression
from harness.judgement.comparable import other_lab
from harness.judgement.compare_runs import (
    COVERAGE,
    FLIPS,
    CellComparison,
    Change,
    by_change,
    compare_runs,
    exit_code,
)
from harness.judgement.repetitions import answers
from harness.judgement.rerun_plan import Replayed, replayed, worth_playing
from harness.judgement.stack_changes import (
    ComponentChange,
    PackageChange,
    Packages,
    component_changes,
    package_changes,
)
from harness.judgement.standing import Standing, standings
from harness.model import Result, Run, StackLock
from harness.model.aliases import former_id
from harness.model.baseline import Baseline, KnownFailure
from harness.report.compare_notes import ARROW, COUNTED, notes_of, probability, ratio
from harness.report.formatting import plural
from harness.report.formatting import sentence as full_stop
from harness.report.repetitions import answer_potency
from harness.report.replay import replay_command
from harness.store import Store, judged_run, kept_packages, read_lock

ENDS = {
    0: "no regression",
    1: "regression",
    2: "coverage was lost, or cells could not be compared",
    3: "nothing in common",
}


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs, judged by today's judge.

    ``folders``: by the ``id()`` of an evidence, its attempt's folder.  ``directory`` is the run's own.  ``again``: the
    runs in which cells of it were played again, whose plays are among ``results``.  ``damaged``: a sentence for each
    evidence that cannot be read.
    """

    name: str
    run: Run
    results: tuple[Result, ...]
    packages: Packages = field(default_factory=dict)
    folders: Mapping[int, Path] = field(default_factory=dict)
    directory: Path | None = None
    lock: StackLock | None = None
    damaged: tuple[str, ...] = ()
    again: tuple[ComparedRun, ...] = ()

    @classmethod
    def of(cls, store: Store) -> ComparedRun:
        """A stored run; :class:`~harness.errors.UsageError` where it cannot be read."""
        judged, name = judged_run(store), store.directory.resolve().name
        packages, lock = kept_packages(store), read_lock(store)
        return cls(
            name, judged.run, tuple(judged.results), packages, judged.folders, store.directory, lock, judged.damaged
        )

    def only(self, patterns: Sequence[str]) -> ComparedRun:
        """The same with the cells alone whose ids match one of ``patterns``, in which ``*`` and ``?`` may stand.

        With all of them where there is none; an id of an earlier version is the cell of today.
        """
        named = [(one, (one.cell.id, former_id(one.cell.id))) for one in self.results]
        found = (one for one, names in named if any(fnmatchcase(name, each) for name in names for each in patterns))
        return replace(self, results=tuple(found)) if patterns else self

    def with_more(self, again: Sequence[ComparedRun]) -> ComparedRun:
        """The same with the plays of further runs, which asked the same on the same stack."""
        plays = [result for one in again for result in one.results if result.cell.control is None]
        return replace(self, results=(*self.results, *plays), again=(*self.again, *again))

    def part_of(self, result: Result) -> ComparedRun:
        """The run that ``result`` was played in: this one, or one of those that were played again."""
        return next((one for one in self.again if id(result.evidence) in one.folders), self)


@dataclass(frozen=True)
class Row:
    """One cell as it is shown.

    ``figures``: the verdicts of both runs, how many there are of each, and the blocks.  ``counts`` is ``0/5 -> 5/5``,
    empty where nothing failed; ``counted`` what that counts.  ``evidence`` is the folder of the first play that has the
    worst answer, ``said`` the sentence of its verdict, ``play`` the command that plays it again.  ``notes`` are
    sentences.
    """

    cell: CellComparison
    figures: tuple[str, str]
    counts: str
    counted: str
    evidence: str
    said: str
    play: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side, the old one and the new one.

    By a cell's id: ``replayed``, what came of a rerun alone; ``known``, by what it is known that it fails now.
    """

    old: ComparedRun
    new: ComparedRun
    components: tuple[ComponentChange, ...]
    packages: tuple[PackageChange, ...]
    cells: tuple[CellComparison, ...]
    replayed: Mapping[str, Replayed] = field(default_factory=dict)
    known: Mapping[str, KnownFailure] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """What a command ends with."""
        return exit_code(self.cells, self.known)

    def knowing(self, baseline: Baseline, today: date) -> Comparison:
        """The same with what ``baseline`` knows of it, which fails no job."""
        found = ((one.cell_id, known_regression(baseline, one, today)) for one in self.cells)
        return replace(self, known={cell_id: entry for cell_id, entry in found if entry is not None})

    @property
    def sections(self) -> Mapping[Change, tuple[CellComparison, ...]]:
        """The cells of each kind of change that came."""
        return by_change(self.cells)

    @property
    def headline(self) -> str:
        """``regression: 1 newly failing, 2 fixed, 3 lost, 40 passing``."""
        counts = ", ".join(f"{len(rows)} {change}" for change, rows in self.sections.items())
        rose = sum(one.rose for one in self.cells)
        more = f"; {plural(rose, 'cell')} that failed before fail{'s' if rose == 1 else ''} more often" if rose else ""
        ends = ENDS[self.exit_code]
        if self.known and not self.exit_code:
            ends = f"{ends} that is not known"
        known = f"; {plural(len(self.known), 'regression')} known by the baseline" if self.known else ""
        return f"{ends}: {counts or 'no cell'}{more}{known}"

    @property
    def title(self) -> str:
        """``old -> new``; with their days where both are called the same, as the merged runs of each night may be."""
        sides = (self.old, self.new)
        if self.old.name == self.new.name and self.old.run.started_at != self.new.run.started_at:
            names = [f"{one.name} of {one.run.started_at[:16].replace('T', ' ')}" for one in sides]
        else:
            names = [one.name for one in sides]
        return f" {ARROW} ".join(names)

    def row(self, cell: CellComparison) -> Row:
        """The row of one of the cells."""
        shown = cell.shows
        evidence = said = play = ""
        if shown is not None:
            side, result = (self.old if shown[0] == "old" else self.new).part_of(shown[1]), shown[1]
            folder = side.folders.get(id(result.evidence))
            evidence = _near(folder) if folder else ""
            said = f"{result.verdict.kind}: {result.verdict.sentence}" if result.verdict else ""
            play = replay_command(side.run, result.cell)
        counts = ratio(cell.counts) if cell.counts is not None else ""
        counted = COUNTED.get(cell.level, "") if cell.level and counts else ""
        again = self.replayed.get(cell.cell_id)
        notes = (*([replayed_sentence(again)] if again else []), *notes_of(cell, again is not None))
        if (entry := self.known.get(cell.cell_id)) is not None:
            notes = (full_stop(f"Known until {entry.until}: {entry.reason}"), *notes)
        return Row(cell, (_figures(cell.old), _figures(cell.new)), counts, counted, evidence, said, play, notes)


def unmatched(patterns: Sequence[str], runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    """Those of ``patterns`` that no cell of ``runs`` matches."""
    return tuple(one for one in patterns if not any(run.only([one]).results for run in runs))


def compare_stored(old: ComparedRun, new: ComparedRun) -> Comparison:
    """The comparison of two runs."""
    cells = compare_runs(old.results, new.results, other_lab(old.run, new.run))
    components = component_changes(old.run, new.run, old.lock, new.lock)
    return Comparison(old, new, components, package_changes(old.packages, new.packages), cells)


def with_rerun(first: Comparison, old: Sequence[ComparedRun], new: Sequence[ComparedRun]) -> Comparison:
    """The comparison with the plays of a rerun of its flips, the runs ``old`` and ``new``.

    What they say alone is beside it, for the plays that showed a flip are no proof of it.  Where a stack is not what it
    was in the first run, its plays are not counted together with that's.
    """
    again = [standings(result for one in side for result in one.results) for side in (old, new)]
    told = {
        flip.cell_id: replayed(flip, *(side.get(flip.cell_id) for side in again)) for flip in worth_playing(first.cells)
    }
    if other_stack(first, old, new):
        return replace(first, replayed=told)
    return replace(compare_stored(first.old.with_more(old), first.new.with_more(new)), replayed=told)


def other_stack(first: Comparison, old: Sequence[ComparedRun], new: Sequence[ComparedRun]) -> tuple[str, ...]:
    """What is another in the runs of a rerun than in the first ones, one sentence each."""
    found = [
        f"the {name} stack is not what it was: {what}"
        for name, side, runs in (("old", first.old, old), ("new", first.new, new))
        for one in runs
        for what in _others(side, one)
    ]
    return tuple(dict.fromkeys(found))


def _others(before: ComparedRun, after: ComparedRun) -> list[str]:
    components = component_changes(before.run, after.run, before.lock, after.lock)
    changes = (one for one in components if one.under_test and one.known)
    return [*(f"{one.name} {one.old} {ARROW} {one.new}" for one in changes), *other_lab(before.run, after.run)]


def replayed_sentence(again: Replayed) -> str:
    """What a rerun says alone of a flip."""
    if again.p is None:
        return f"Played again: {again.outcome}."
    counts = ratio((again.old, again.new))
    return f"Played again, these plays alone: {counts} ({probability(again.p)}): {again.outcome}."


def components_sentence(comparison: Comparison) -> str:
    """What to think of the components, as a sentence; empty where something under test is known to be another."""
    if any(one.known and one.under_test for one in comparison.components):
        return ""
    unknown = " that both runs recorded" if comparison.components else ""
    packages = f", but {plural(len(comparison.packages), 'package')}" if comparison.packages else ""
    flipped = any(one.change in FLIPS for one in comparison.cells)
    chance = ": what flipped may have flipped by chance" if flipped else ""
    return f"No component under test{unknown} is another{packages}{chance}."


# --------------------------------------------------------------------------- one row


def _figures(standing: Standing | None) -> str:
    """The verdicts, with their numbers where there are several, what a CLEAN is worth, the blocks of the chances."""
    if standing is None:
        return "not in this run"
    if not standing.kinds:
        return "not played"
    (answer,) = answers(standing.plays)
    several = standing.planned > 1
    parts = [f"{number} {kind}" if several else str(kind) for kind, number in standing.kinds.items()]
    if unplayed := sum(play.verdict is None for play in standing.plays):
        parts.append(f"{unplayed} not played")
    potency, rate = answer_potency(answer), answer.block_rate
    worth = f" ({potency})" if potency else ""
    blocks = f", {rate.differing}/{rate.trials} {rate.unit}" if rate is not None else ""
    return f"{', '.join(parts)}{worth}{blocks}"


def _near(path: Path) -> str:
    """The path as one can give it to a command here."""
    absolute = path.resolve()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def shown_sections(comparison: Comparison) -> Sequence[tuple[Change, tuple[CellComparison, ...]]]:
    """What is listed cell by cell: all but the cells that pass as before and have the same verdicts."""
    return [
        (change, kept)
        for change, rows in comparison.sections.items()
        if (kept := tuple(one for one in rows if change is not Change.PASSING or one.other_kinds))
    ]


def section_title(change: Change, number: int) -> str:
    """``newly failing (2)``."""
    if change is Change.PASSING:
        return f"equal as before, with another verdict ({number})"
    return f"{change} ({number})" + (": no answer" if change in COVERAGE[:1] else "")

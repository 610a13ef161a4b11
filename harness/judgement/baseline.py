"""What of a run's failures is known, and what of a baseline is over; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from harness.judgement.compare_runs import CellComparison
from harness.judgement.standing import Level, level_of
from harness.model import Result
from harness.model.baseline import Baseline, KnownFailure

Entry = tuple[Result, KnownFailure]


@dataclass(frozen=True)
class BaselineOutcome:
    """What a baseline says of a run.

    ``known`` and ``expired``: the plays that fail as an entry says, and whose entry counts or is over.  ``mended``: the
    entries of which every cell has an answer that is as expected, and is not what the entry says where nothing is
    expected.  ``unmatched``: those that no cell matches.
    """

    known: tuple[Entry, ...]
    expired: tuple[Entry, ...]
    mended: tuple[KnownFailure, ...]
    unmatched: tuple[KnownFailure, ...]


def fails(result: Result) -> bool:
    """Whether the play ended against its cell's expectation; without an answer it did not, and a control never does."""
    verdict, expected = result.verdict, result.cell.expected
    if result.cell.control is not None or verdict is None or not verdict.answers(expected):
        return False
    return not verdict.meets(expected)


def known_failure(baseline: Baseline, result: Result, today: date) -> KnownFailure | None:
    """The entry by which the failure of ``result`` is known, one that counts before one that is over; or None."""
    if not fails(result):
        return None
    return _entry_about(baseline, result, today)


def is_known(baseline: Baseline | None, result: Result, today: date) -> bool:
    """Whether the failure of ``result`` is known by an entry that counts."""
    entry = known_failure(baseline, result, today) if baseline is not None else None
    return entry is not None and not entry.expired(today)


def known_regression(baseline: Baseline, cell: CellComparison, today: date) -> KnownFailure | None:
    """The entry by which it is known that ``cell`` fails where it did not, or more often than before.

    Each play that shows it has to be known, of several entries it is the first play's.  None where it is not known.
    """
    if not cell.regressed or cell.new is None:
        return None
    before = cell.old.worst if cell.old is not None and cell.old.worst is not None else Level.EQUAL
    least = cell.rise.level if cell.rise is not None else Level(before + 1)
    shown = [play for play in cell.new.answers if (level_of(play) or Level.EQUAL) >= least]
    entries = [entry for play in shown if (entry := _entry_about(baseline, play, today)) and not entry.expired(today)]
    return entries[0] if entries and len(entries) == len(shown) else None


def _entry_about(baseline: Baseline, play: Result, today: date) -> KnownFailure | None:
    """The entry that says how ``play`` ended, one that counts before one that is over; or None."""
    kind = play.verdict.kind if play.verdict else None
    about = [one for one in baseline.known if kind in one.verdicts and one.matches(play.cell.id)]
    return min(about, key=lambda one: one.expired(today), default=None)


def assess(baseline: Baseline, results: Sequence[Result], today: date, planned: Iterable[str] = ()) -> BaselineOutcome:
    """What ``baseline`` says of ``results``; ``planned`` are ids of further cells, of other parts of it."""
    found = [(result, entry) for result in results if (entry := known_failure(baseline, result, today)) is not None]
    there = {*(result.cell.id for result in results), *planned}
    mended, unmatched = [], []
    for entry in baseline.known:
        if not any(entry.matches(cell_id) for cell_id in there):
            unmatched.append(entry)
            continue
        mine = [result for result in results if result.cell.control is None and entry.matches(result.cell.id)]
        if mine and all(_mended(result, entry) for result in mine):
            mended.append(entry)
    return BaselineOutcome(
        known=tuple((result, entry) for result, entry in found if not entry.expired(today)),
        expired=tuple((result, entry) for result, entry in found if entry.expired(today)),
        mended=tuple(mended),
        unmatched=tuple(unmatched),
    )


def _mended(result: Result, entry: KnownFailure) -> bool:
    verdict, expected = result.verdict, result.cell.expected
    if verdict is None or not verdict.meets(expected):
        return False
    # Where nothing is expected it may be what a comparison finds, and knows by this entry.
    return expected is not None or verdict.kind not in entry.verdicts

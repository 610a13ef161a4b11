"""What is known to fail: the entries of a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

from harness.model.aliases import former_id
from harness.model.axes import VerdictKind


@dataclass(frozen=True)
class KnownFailure:
    """One entry: cells whose ids match ``cell`` end as one of ``verdicts``, which somebody knows, up to a day.

    ``cell`` is an id, in which ``*`` stands for anything and ``?`` for one sign; the entry counts up to and with the
    day ``until``.  ``number`` is its place in the file, from 1.
    """

    number: int
    cell: str
    verdicts: tuple[VerdictKind, ...]
    reason: str
    until: date

    def matches(self, cell_id: str) -> bool:
        """Whether it is about that cell, which may be called by the id that it had in an earlier version."""
        return any(fnmatchcase(one, self.cell) for one in (cell_id, former_id(cell_id)))

    def expired(self, today: date) -> bool:
        """Whether its day is over."""
        return today > self.until


@dataclass(frozen=True)
class Baseline:
    """A file of what is known to fail, as a user keeps it beside their tests."""

    source: str
    known: tuple[KnownFailure, ...] = ()

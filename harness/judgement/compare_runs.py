"""Two runs side by side, cell by cell: which answers flipped, which were lost, and how sure the counts make us; pure.

The worse of two answers is decided by the worst play of each run (:class:`~harness.judgement.standing.Level`), so that
no number of plays that found nothing takes back one that found something.  Missing is never a pass, and INCONCLUSIVE is
never fixed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.judgement.comparable import other_question
from harness.judgement.standing import Level, Standing, standings
from harness.judgement.stats import at_least_so_far_apart, significant, trials_to_tell
from harness.model import Result


class Change(StrEnum):
    """What became of a cell from the old run to the new one; in the order in which a reader wants to know."""

    NEWLY_FAILING = "newly failing"
    FIXED = "fixed"
    LOST = "lost"
    NOT_COMPARABLE = "not comparable"
    UNSTABLE = "unstable"
    STILL_FAILING = "still failing"
    NEW = "new"
    GONE = "gone"
    PASSING = "passing"


#: An answer that became another one.
FLIPS = (Change.NEWLY_FAILING, Change.FIXED)
#: What was asked before and has no answer now, or none that can be compared.
COVERAGE = (Change.LOST, Change.GONE, Change.NOT_COMPARABLE)


@dataclass(frozen=True)
class Rise:
    """Answers as bad as ``level`` or worse that come more often than before by more than chance: ``counts`` and p."""

    level: Level
    counts: tuple[tuple[int, int], tuple[int, int]]
    p: float


@dataclass(frozen=True)
class CellComparison:
    """One cell in both runs, all its plays.  None: that run does not have it.

    ``direction``: 1 where the new answer is worse, -1 where it is better, 0 where neither.  ``level`` is what
    ``counts`` count: answers as bad as that or worse, of how many, in the old run and in the new one.  ``p``: how
    likely counts so far apart are by chance, in the direction in which they differ (Fisher's exact test, one sided);
    None where the rates are the same.  ``reasons`` say what is not the same, or what is missing.  ``rise``: what comes
    more often although no play is worse than the worst of before; of several the worst, which may be less bad than
    ``level``.
    """

    cell_id: str
    change: Change
    old: Standing | None
    new: Standing | None
    direction: int = 0
    level: Level | None = None
    counts: tuple[tuple[int, int], tuple[int, int]] | None = None
    p: float | None = None
    reasons: tuple[str, ...] = ()
    rise: Rise | None = None

    @property
    def flipped(self) -> bool:
        """Whether the answer became another one."""
        return self.change in FLIPS

    @property
    def fewer_chances(self) -> bool:
        """Whether it would be a flip, had both runs played it as often; that is why it cannot be compared."""
        if self.change is not Change.NOT_COMPARABLE or not self.direction or self.old is None or self.new is None:
            return False
        return _more_often(self.old, self.new) in self.reasons

    @property
    def significant(self) -> bool:
        """Whether the counts are further apart than chance puts them."""
        return self.p is not None and significant(self.p)

    @property
    def rose(self) -> bool:
        """Whether it fails more often than before, by more than chance, although it failed before too."""
        return self.rise is not None

    @property
    def fell(self) -> bool:
        """The same for less often."""
        return self.direction == 0 and self.significant and not _rises(self.counts)

    @property
    def regressed(self) -> bool:
        """Whether the new stack is worse: an answer that was not there before, or a bad one more often."""
        return self.change is Change.NEWLY_FAILING or self.rose

    @property
    def trials_wanted(self) -> int | None:
        """How many plays on each stack would tell such a flip from chance; None where it is told, or none would."""
        if self.counts is None or self.significant or not (self.flipped or self.fewer_chances):
            return None
        few, many = sorted(self.counts, key=lambda count: count[0] / count[1])
        return trials_to_tell(few, many)

    @property
    def shows(self) -> tuple[str, Result] | None:
        """``old`` or ``new`` and the first play there that has the worst answer of both; None where nothing failed.

        Where it fails more often the first play in the new run of what does.
        """
        if self.rise is not None and self.new is not None and (play := self.new.first(self.rise.level)) is not None:
            return "new", play
        sides = [(name, one) for name, one in (("new", self.new), ("old", self.old)) if one is not None]
        worst = max((one.worst for _, one in sides if one.worst is not None), default=Level.EQUAL)
        for name, one in sides:
            if worst and one.worst is worst and (play := one.first(worst)) is not None:
                return name, play
        return None

    @property
    def other_kinds(self) -> bool:
        """Whether the verdicts are other ones although the answer is as good as before: CLEAN, then TRANSIENT."""
        both = self.old is not None and self.new is not None
        return both and self.change is Change.PASSING and set(self.old.kinds) != set(self.new.kinds)  # type: ignore[union-attr]


def compare_runs(
    old: Iterable[Result], new: Iterable[Result], other_lab: tuple[str, ...] = ()
) -> tuple[CellComparison, ...]:
    """The cells of both runs, in the order of ``old``; those that only ``new`` has come behind.

    ``other_lab``: why no cell of these two runs can be compared, empty where they can.
    """
    before, after = standings(old), standings(new)
    cell_ids = dict.fromkeys([*before, *after])
    return tuple(_compared(cell_id, before.get(cell_id), after.get(cell_id), other_lab) for cell_id in cell_ids)


def exit_code(compared: Iterable[CellComparison], known: Collection[str] = ()) -> int:
    """1: a regression; 2: coverage was lost, or cells could not be compared; 3: nothing in common; 0: none of it.

    A regression of a cell whose id is ``known`` is none that counts.
    """
    compared = tuple(compared)
    if not any(one.old is not None and one.new is not None for one in compared):
        return 3
    if any(one.regressed and one.cell_id not in known for one in compared):
        return 1
    return 2 if any(one.change in COVERAGE for one in compared) else 0


def by_change(compared: Iterable[CellComparison]) -> Mapping[Change, tuple[CellComparison, ...]]:
    """The cells of each kind of change that came, the most telling kind first."""
    compared = tuple(compared)
    found = {change: tuple(one for one in compared if one.change is change) for change in Change}
    return {change: rows for change, rows in found.items() if rows}


# --------------------------------------------------------------------------- one cell


def _compared(cell_id: str, old: Standing | None, new: Standing | None, other_lab: tuple[str, ...]) -> CellComparison:
    if old is None or new is None:
        return CellComparison(cell_id, Change.NEW if old is None else Change.GONE, old, new)
    if old.worst is None:
        why = "neither run has an answer" if new.worst is None else "the old run has no answer"
        return CellComparison(cell_id, Change.NOT_COMPARABLE, old, new, reasons=(why,))
    if new.worst is None:
        return CellComparison(cell_id, Change.LOST, old, new, reasons=(_unanswered(new),))
    direction = (new.worst > old.worst) - (new.worst < old.worst)
    level = max(old.worst, new.worst)
    counts = (old.at_least(level), new.at_least(level)) if level else None
    p = _p(counts) if counts else None
    if other := (*other_lab, *other_question(old, new)):
        return CellComparison(cell_id, Change.NOT_COMPARABLE, old, new, direction, level, counts, p, other)
    told = p is not None and significant(p)
    change, reasons = _change(old, new, direction, told)
    rise = _rise(old, new) if direction <= 0 else None
    return CellComparison(cell_id, change, old, new, direction, level, counts, p, reasons, rise)


def _rise(old: Standing, new: Standing) -> Rise | None:
    # One play in ten that lost data, and then ten of ten that diverged: less bad, and far more often.
    for level in sorted(Level, reverse=True):
        counts = old.at_least(level), new.at_least(level)
        if level and _rises(counts) and (p := _p(counts)) is not None and significant(p):
            return Rise(level, counts, p)
    return None


def _change(old: Standing, new: Standing, direction: int, told: bool) -> tuple[Change, tuple[str, ...]]:
    repetitions = _more_often(old, new)
    if direction > 0:
        # Who looks more often sees what is rarer: that the old run did not see it says little.
        if new.planned > old.planned and not told:
            return Change.NOT_COMPARABLE, (repetitions, "the old run had fewer chances to fail")
        return Change.NEWLY_FAILING, ()
    if direction < 0:
        if new.worst is not Level.EQUAL:
            return Change.STILL_FAILING, ("less bad than before",)
        if new.answered < new.planned:
            return Change.LOST, (_unanswered(new),)
        if new.planned < old.planned and not told:
            return Change.NOT_COMPARABLE, (repetitions, "the new run had fewer chances to fail")
        return Change.FIXED, ()
    if new.worst is not Level.EQUAL:
        return (Change.UNSTABLE if old.mixed or new.mixed else Change.STILL_FAILING), ()
    if new.answered < new.planned and new.answered < old.answered:
        return Change.LOST, (_unanswered(new),)
    if new.planned < old.planned:
        return Change.NOT_COMPARABLE, (repetitions, "the new run had fewer chances to fail")
    return Change.PASSING, ()


def _more_often(old: Standing, new: Standing) -> str:
    return f"repetitions {old.planned} \u2192 {new.planned}"


def _unanswered(new: Standing) -> str:
    missing = [play for play in new.plays if play not in new.answers]
    inconclusive = [play for play in missing if play.verdict is not None]
    parts = [
        f"{count} of {new.planned} {what}"
        for count, what in (
            (len(inconclusive), "INCONCLUSIVE"),
            (len(missing) - len(inconclusive), "not played"),
        )
        if count
    ]
    why = next((play.verdict.sentence for play in inconclusive if play.verdict), "")
    return f"{', '.join(parts)}{f': {why}' if why else ''}"


def _rises(counts: tuple[tuple[int, int], tuple[int, int]] | None) -> bool:
    if counts is None:
        return False
    (old, of_old), (new, of_new) = counts
    return new * of_old > old * of_new


def _p(counts: tuple[tuple[int, int], tuple[int, int]]) -> float | None:
    old, new = counts
    if old[0] * new[1] == new[0] * old[1]:
        return None
    return at_least_so_far_apart(old, new) if _rises(counts) else at_least_so_far_apart(new, old)

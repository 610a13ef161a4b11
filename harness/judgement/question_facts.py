"""What the answers to a user's questions are made of: the plays of some runs, counted; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.judgement.claim_events import Aside, shown
from harness.judgement.claim_words import Tally
from harness.judgement.repetitions import HITS, TRIALS
from harness.judgement.stacks import PlayedRun
from harness.judgement.stats import rate_interval
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Evidence,
    Layout,
    Potency,
    Result,
    Stack,
    Verdict,
    VerdictKind,
    settings,
)
from harness.model.claim import ClaimEvent
from harness.util.wording import joined, part_of, plural

ENCRYPTED = tuple(one for one in Layout if one.value.startswith("crypt"))


class Tone(StrEnum):
    """How an answer looks.  There is no good one for "is it safe": what was not seen may still be."""

    BAD = "bad"
    NEUTRAL = "neutral"
    OPEN = "open"  # nothing was seen, or no play has an answer
    NOT_ASKED = "not asked"


#: Of how many kinds of work or cells a sentence has their own counts: with thirty nobody reads it.
EACH_SHOWN = 6
#: Short answers that several questions have.
YES, NO, PARTLY, NOT_SEEN = "Yes", "No", "In part", "Nothing was seen"
NO_ANSWER, NOT_ASKED = "Not answered", "Not asked in this run"


@dataclass(frozen=True)
class QuestionAnswer:
    """A user's question, the answer in a few words, and one sentence that says by what.

    ``cells`` are the ids of the cells that it rests on; ``play`` is a command that asks it, or asks it better.
    """

    question: str
    short: str
    sentence: str
    cells: tuple[str, ...] = ()
    play: str = ""
    tone: Tone = Tone.NEUTRAL


@dataclass(frozen=True)
class Play:
    """One play that has an answer, with its evidence."""

    cell: Cell
    verdict: Verdict
    evidence: Evidence
    stack: Stack

    @property
    def result(self) -> Result:
        """The same as a result."""
        return Result(self.cell, self.verdict, self.evidence)

    @property
    def harmed(self) -> bool:
        """Replicas that differ, or data that is wrong or lost."""
        return self.verdict.kind in HITS

    @property
    def weighs(self) -> bool:
        """Whether that nothing was found says something: it is no weak CLEAN."""
        return self.verdict.kind is not VerdictKind.CLEAN or self.verdict.potency is not Potency.WEAK

    @property
    def untreated(self) -> bool:
        """Whether nothing was done against it but by the cache mode, and no harm came from elsewhere.

        Protocol A loses what was on its way in a power cut, with any cache mode.
        """
        cell = self.cell
        replication = replace(cell.replication, allow_two_primaries=False)
        if cell.layout in ENCRYPTED or cell.guest_options.guest_stable_writes or cell.fault or not replication.plain:
            return False
        return settings(None, cell.mitigation).keys() <= {"cache"}


@dataclass(frozen=True)
class Facts:
    """What was played, without controls and sabotage: the ``plays`` that have an answer, and ``every`` one of them."""

    runs: tuple[PlayedRun, ...]
    plays: tuple[Play, ...]
    every: tuple[Play, ...]

    @classmethod
    def of(cls, runs: Sequence[PlayedRun]) -> Facts:
        """Those of some runs."""
        every = [
            Play(result.cell, result.verdict, result.evidence, run.stack)
            for run in runs
            for result in run.results
            if result.cell.control is None and result.cell.sabotage is None and result.verdict and result.evidence
        ]
        return cls(tuple(runs), tuple(one for one in every if one.verdict.kind in TRIALS), tuple(every))

    def where(self, of: Callable[[Play], bool]) -> list[Play]:
        """Some of the plays."""
        return [play for play in self.plays if of(play)]

    def in_guest(self, *caches: CacheMode) -> list[Play]:
        """The plays in a guest whose disk has one of ``caches``, with nothing else done about it."""
        return self.where(
            lambda play: play.cell.client is ClientKind.GUEST and play.cell.cache in caches and play.untreated
        )


def cells_of(plays: Iterable[Play]) -> tuple[str, ...]:
    """The ids of their cells, those that were harmed first."""
    return tuple(dict.fromkeys(play.cell.id for play in sorted(plays, key=lambda play: not play.harmed)))


def tally(plays: Iterable[Play]) -> Tally:
    """How many were harmed, of those that say something."""
    some = [play for play in plays if play.weighs]
    hits = [play for play in some if play.harmed]
    return Tally(len(hits), len(some), sum(play.cell.delays.undelayed for play in hits))


def counted(plays: Iterable[Play]) -> str:
    """``3 of 5 plays harmed``, or ``none of 5 plays harmed (a rate of up to 52 % is not ruled out)``."""
    found = tally(plays)
    return f"{part_of(found.hits, found.answered)} plays harmed" if found.hits else none_of(found.answered, "harmed")


def none_of(plays: int, what: str = "") -> str:
    """``none of 5 plays (a rate of up to 52 % is not ruled out)``: the bound of the exact two-sided 95 % interval."""
    bound = rate_interval(0, plays)
    still = f" (a rate of up to {bound.high * 100:.2g} % is not ruled out)" if bound else ""
    return f"none of {plural(plays, 'play')}{f' {what}' if what else ''}{still}"


def seen(event: ClaimEvent, plays: Iterable[Play]) -> tuple[list[Play], list[Play]]:
    """The plays that show ``event``, and all that tell whether they do."""
    asked = []
    for play in plays:
        found = shown(event, play.result)
        if not isinstance(found, Aside):
            asked.append((play, found))
    return [play for play, found in asked if found], [play for play, _ in asked]


def not_asked(question: str, play: str, why: str = "") -> QuestionAnswer:
    """Nothing in the runs asks it."""
    sentence = f"{why or 'No cell that was played asks it'}."
    return QuestionAnswer(question, NOT_ASKED, sentence, (), play, Tone.NOT_ASKED)


def groups(plays: Iterable[Play], name: Callable[[Play], str]) -> dict[str, list[Play]]:
    """The plays by what ``name`` calls them."""
    found: dict[str, list[Play]] = {}
    for play in plays:
        found.setdefault(name(play), []).append(play)
    return found


def each(plays: Iterable[Play], name: Callable[[Play], str], most: int = EACH_SHOWN) -> str:
    """``ext4 2 of 2, swap 3 of 3``: how many of each were harmed, of those that say something.

    Of more than ``most`` those with the most harm have their own count, and the rest one together.
    """
    found = {label: tally(some) for label, some in groups(plays, name).items()}
    told = {label: one for label, one in found.items() if one.answered}
    if len(told) <= most + 1:
        return joined(f"{label} {part_of(one.hits, one.answered)}" for label, one in told.items())
    shown = sorted(told, key=lambda label: -told[label].hits)[:most]
    rest = [one for label, one in told.items() if label not in shown]
    others = part_of(sum(one.hits for one in rest), sum(one.answered for one in rest))
    return joined(
        [
            *(f"{label} {part_of(told[label].hits, told[label].answered)}" for label in shown),
            f"{len(rest)} others {others}",
        ]
    )

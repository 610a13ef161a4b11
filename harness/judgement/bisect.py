"""Which of several versions is the first bad one: what a play says, how many are needed, what to ask next; pure.

A failure that comes now and then is shown by one play that has it; that it is not there is shown by none.  So one side
is told by a single play, and the other by so many plays without one that chance would seldom bring that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from harness.model import Result, VerdictKind

# From nothing found to the worst; REFUSED is beside them, for it says nothing about the replicas.
_ORDER = (VerdictKind.CLEAN, VerdictKind.TRANSIENT, VerdictKind.DIVERGED, VerdictKind.CORRUPT)
#: What can be called bad.
BAD_KINDS = (*_ORDER, VerdictKind.REFUSED)
#: How seldom a failure that is there is missed by all the plays.
MISSED = 0.05
# More digits than any count of plays has; Python reads no number of thousands of them.
_LONGEST = 20


class Answer(StrEnum):
    """What is said of one version."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True)
class Counts:
    """The plays of a cell on one version.

    ``telling``: those of ``answered`` that decide by themselves; ``unanswered`` have no answer that could count.
    """

    telling: int = 0
    answered: int = 0
    unanswered: int = 0


@dataclass(frozen=True)
class Question:
    """What is looked for: ``bad`` names it by the verdict; DIVERGED is that or worse, CLEAN is CLEAN or TRANSIENT.

    With DIVERGED goes a write that QEMU acknowledged before it was flushed.
    """

    bad: VerdictKind

    @property
    def telling(self) -> frozenset[VerdictKind]:
        """The verdicts of which one play decides."""
        if self.bad is VerdictKind.REFUSED:
            return frozenset({VerdictKind.REFUSED})
        # Nothing found now and then is no proof of anything; something found is.
        first = VerdictKind.DIVERGED if self.bad is VerdictKind.CLEAN else self.bad
        return frozenset(_ORDER[_ORDER.index(first) :])

    @property
    def telling_is(self) -> Answer:
        """What one such play makes of its version."""
        return Answer.GOOD if self.bad is VerdictKind.CLEAN else Answer.BAD

    @property
    def absent_is(self) -> Answer:
        """What a version is that never has such a play."""
        return Answer.BAD if self.bad is VerdictKind.CLEAN else Answer.GOOD

    def counts(self, plays: Iterable[Result]) -> Counts:
        """What ``plays`` of one cell on one version say; a refusal counts only where it is what is looked for."""
        verdicts = [play.verdict for play in plays]
        answered = [one for one in verdicts if one is not None and one.kind in {*_ORDER, *self.telling}]
        telling = sum(one.among(self.telling) for one in answered)
        return Counts(telling, len(answered), len(verdicts) - len(answered))

    def answer(self, counts: Counts, wanted: int) -> Answer:
        """What ``counts`` say where ``wanted`` plays without a telling one are asked for."""
        if counts.telling:
            return self.telling_is
        return self.absent_is if counts.answered >= max(wanted, 1) else Answer.UNKNOWN


@dataclass(frozen=True)
class Rate:
    """So many ``hits`` in so many ``plays``, both at least 1."""

    hits: int
    plays: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From ``3/10``; None for other text."""
        hits, slash, plays = text.partition("/")
        if len(text) > _LONGEST or not (slash and text.isascii() and hits.isdigit() and plays.isdigit()):
            return None
        return cls(int(hits), int(plays)) if 1 <= int(hits) <= int(plays) <= 10**6 else None

    def __str__(self) -> str:
        return f"{self.hits}/{self.plays}"

    @property
    def plays_wanted(self) -> int:
        """After so many plays without one it is not there, but for 5 in 100 times that it is.

        The rate is taken as a little less than was counted, hits of one play more: about 3n plays for 1 in n.
        """
        missed_once = 1 - self.hits / (self.plays + 1)
        return max(1, math.ceil(math.log(MISSED) / math.log(missed_once)))


def missed_rate(plays: int) -> float:
    """The rate of a failure that ``plays`` plays without one exclude, but for 5 in 100 times."""
    return 1.0 if plays < 1 else float(1 - MISSED ** (1 / plays))


# --------------------------------------------------------------------------- which to ask


@dataclass(frozen=True)
class Found:
    """Between which versions it changed, by their number in the list.

    ``unknown``: those between the two that cannot tell; where there are any the first bad one is among them or is
    ``first_bad``.
    """

    last_good: int
    first_bad: int
    unknown: tuple[int, ...] = ()


def next_version(count: int, answers: Mapping[int, Answer]) -> int | None:
    """Which of ``count`` versions, 0 the oldest, is to be asked next; None where no further answer would help.

    Both ends come first, the newest before the oldest; then what is nearest to the middle of what is left, and not yet
    known to be unable to tell.
    """
    for end in (count - 1, 0):
        if end not in answers:
            return end
    found = between(count, answers)
    if found is None:
        return None
    left = [one for one in range(found.last_good + 1, found.first_bad) if one not in answers]
    middle = (found.last_good + found.first_bad) / 2
    return min(left, key=lambda one: (abs(one - middle), one), default=None)


def between(count: int, answers: Mapping[int, Answer]) -> Found | None:
    """What ``answers`` leave: the newest good version that is older than every bad one, and the bad one behind it.

    None where the oldest is not good or the newest not bad.
    """
    if count < 2 or answers.get(0) is not Answer.GOOD or answers.get(count - 1) is not Answer.BAD:
        return None
    first_bad = min(_which(answers, Answer.BAD))
    last_good = max(one for one in _which(answers, Answer.GOOD) if one < first_bad)
    unknown = tuple(one for one in range(last_good + 1, first_bad) if answers.get(one) is Answer.UNKNOWN)
    return Found(last_good, first_bad, unknown)


def _which(answers: Mapping[int, Answer], wanted: Answer) -> Collection[int]:
    return [number for number, answer in answers.items() if answer is wanted]

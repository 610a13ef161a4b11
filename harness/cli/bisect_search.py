"""The search over a list of stacks: both ends first, then the middle of what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.cli.bisect_plays import Asked, Command, Played, Player, counted
from harness.judgement.bisect import Answer, Found, Question, Rate, between, next_version
from harness.model import VerdictKind
from harness.util import logs


class Search:
    """Over ``stacks``, old to new, each end played ``plays`` times; ``bad`` None: what the newest stack ends as."""

    def __init__(
        self, asked: Asked, stacks: Sequence[str], runs: Path, command: Command, plays: int, bad: VerdictKind | None
    ) -> None:
        self._asked = replace(asked, question=Question(bad or VerdictKind.DIVERGED))
        self._bad = bad
        self._stacks = stacks
        self._runs = runs
        self._command = command
        self._plays = plays
        self._answers: dict[int, Answer] = {}
        self._played: dict[int, Played] = {}
        #: At the end that fails; None until both ends were played.
        self.rate: Rate | None = None
        #: How many plays without a failure say that there is none.
        self.wanted = plays

    @property
    def played(self) -> dict[str, Played]:
        """What was asked, in the order of the stacks."""
        return {self._stacks[number]: self._played[number] for number in sorted(self._played)}

    @property
    def same_ends(self) -> bool:
        """Whether both ends have an answer, and it is one."""
        ends = [self._answers.get(number, Answer.UNKNOWN) for number in (0, len(self._stacks) - 1)]
        return ends[0] is ends[1] and ends[0] is not Answer.UNKNOWN

    def run(self) -> Found | None:
        """Play until it is found; None where the ends do not differ or cannot tell."""
        count = len(self._stacks)
        self._ends()
        while (number := next_version(count, self._answers)) is not None:
            self._note(number, self._player().play(self._stacks[number], self.wanted))
        return between(count, self._answers)

    def _player(self) -> Player:
        return Player(self._asked, self._runs, self._command, reuse=True)

    def _ends(self) -> None:
        """Play both ends, find out how often it fails where it does, and play the other end as often as that asks."""
        ends = (len(self._stacks) - 1, 0)
        for number in ends:
            one = self._player().play(self._stacks[number], self._plays, all_of_them=True)
            # What is bad may not be known before both were played.
            self._note(number, one, counted(one) if self._bad is None else "")
        if self._bad is None:
            newest = self._played[ends[0]].counts
            bad = VerdictKind.DIVERGED if newest.telling else VerdictKind.CLEAN
            self._asked = replace(self._asked, question=Question(bad))
            logs.progress(f"bad is what {self._stacks[-1]} ends as: {bad}{'' if newest.telling else ' or TRANSIENT'}")
        telling = [number for number in ends if self._played[number].counts.telling]
        if telling:
            counts = self._played[telling[0]].counts
            self.rate = Rate(counts.telling, counts.answered)
            self.wanted = self.rate.plays_wanted
        for number in ends:
            # Under the question that is known now; what has enough plays already is not played again.
            one = self._played[number]
            if one.answer is Answer.UNKNOWN or one.counts.telling:
                answer = one.answer if one.answer is Answer.UNKNOWN else self._asked.question.telling_is
                self._note(number, replace(one, answer=answer))
            elif len(telling) == 1:
                self._note(number, self._player().play(self._stacks[number], self.wanted))
            else:
                self._note(number, replace(one, answer=self._asked.question.absent_is))

    def _note(self, number: int, played: Played, said: str = "") -> None:
        self._answers[number], self._played[number] = played.answer, played
        logs.progress(f"{played.stack}: {said or played.answer}")

    # ----------------------------------------------------------------- what is said

    def sentence(self, found: Found | None) -> str:
        """The answer, for people."""
        ends = self._stacks[0], self._stacks[-1]
        if found is None:
            if self.same_ends:
                old, new = (counted(self._played[number]) for number in (0, len(self._stacks) - 1))
                return f"no first bad version: both ends answer alike, {ends[0]} {old} and {ends[1]} {new}"
            for one in (self._played[0], self._played[len(self._stacks) - 1]):
                if one.answer is Answer.UNKNOWN:
                    return f"no first bad version: {one.stack}, which is an end, cannot tell: {one.why}"
            return f"no first bad version: {ends[0]} is bad and {ends[1]} is good; --bad-is turns it round"
        first, last = self._stacks[found.first_bad], self._stacks[found.last_good]
        if not found.unknown:
            return f"first bad: {first} (last good: {last})"
        between_them = ", ".join(self._stacks[number] for number in found.unknown)
        return f"first bad: {first} or one of {between_them}, which cannot tell (last good: {last})"

    def as_json(self, found: Found | None) -> Mapping[str, Any]:
        """The answer, for a program: docs/bisect.md."""
        return {
            "schema": 1,
            "cell": self._asked.cell,
            "matrix": self._asked.matrix,
            "bad_is": str(self._asked.question.bad),
            "rate": None if self.rate is None else str(self.rate),
            "plays_wanted": self.wanted,
            "stacks": [
                {
                    "stack": one.stack, "answer": str(one.answer), "why": one.why, "runs": list(one.runs),
                    "verdicts": {str(kind): count for kind, count in one.kinds.items()},
                    "kernel": one.ran.kernel, "drbd": one.ran.drbd, "qemu": one.ran.qemu,
                }
                for one in self.played.values()
            ],
            "last_good": None if found is None else self._stacks[found.last_good],
            "first_bad": None if found is None else self._stacks[found.first_bad],
            "unknown": [] if found is None else [self._stacks[number] for number in found.unknown],
            "sentence": self.sentence(found),
        }  # fmt: skip

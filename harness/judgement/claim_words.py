"""The words that a claim may be given, by what was played; pure.

A claim is either that something happens (*blocks diverge*) or that it never does (*the replicas stay equal*).  One play
that shows it is an observation, and of the other kind of claim a counterexample; *confirmed* and *refuted* are for what
was repeated, also without delays, on hardware that is named.  That nothing was found confirms nothing: it has a bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.judgement.repetitions import HITS, CellAnswer
from harness.judgement.stats import rate_interval
from harness.model import Cell, DelayProfile, Stack
from harness.util.wording import joined, part_of

#: The fewest repetitions with an answer that confirm or refute anything.
ENOUGH = 10


class Claim(StrEnum):
    """What is claimed."""

    HAPPENS = "that it happens"
    NEVER = "that it never happens"


class Word(StrEnum):
    """What may be said about a claim."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    OBSERVED = "observed"
    COUNTEREXAMPLE = "counterexample found"
    NOT_OBSERVED = "not observed"
    NO_ANSWER = "asked, without an answer"
    NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Tally:
    """Of ``answered`` repetitions ``hits`` showed it; ``undelayed_hits`` of these were played without any delay."""

    hits: int = 0
    answered: int = 0
    undelayed_hits: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.undelayed_hits <= self.hits <= self.answered:
            raise ValueError(f"{self} counts what cannot be")

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.hits + other.hits, self.answered + other.answered, self.undelayed_hits + other.undelayed_hits)


def word(claim: Claim, seen: Tally, hardware: str) -> Word:
    """The word for ``claim``; ``hardware`` is what it was played on, empty where nobody knows."""
    if not seen.answered:
        return Word.NOT_ASKED
    if not seen.hits:
        return Word.NOT_OBSERVED
    strong = seen.answered >= ENOUGH and seen.undelayed_hits > 0 and bool(hardware)
    if claim is Claim.HAPPENS:
        return Word.CONFIRMED if strong else Word.OBSERVED
    return Word.REFUTED if strong else Word.COUNTEREXAMPLE


def in_words(claim: Claim, seen: Tally, hardware: str) -> str:
    """``observed (3 of 5)``, ``not observed (0 of 5; a rate of up to 52 % is not ruled out, 95 %)``, ``seen once``.

    The bound is that of the exact two-sided 95 % interval.
    """
    said = word(claim, seen, hardware)
    if said is Word.NOT_ASKED:
        return said.value
    interval = rate_interval(seen.hits, seen.answered)
    if said is Word.NOT_OBSERVED and interval is not None:
        return f"{said} (0 of {seen.answered}; a rate of up to {interval.high * 100:.2g} % is not ruled out, 95 %)"
    if seen.answered == 1:
        return "seen once" if said is Word.OBSERVED else f"{said} (seen once)"
    figures = f"{seen.hits} of {seen.answered}"
    return f"{said} ({figures}; on {hardware})" if said in (Word.CONFIRMED, Word.REFUTED) else f"{said} ({figures})"


def all_in_words(claim: Claim, every: Tally, one: Tally, hardware: str, stacks: Sequence[Stack]) -> str:
    """``confirmed by one cell (11 of 11; on x), 11 without delays; all plays: 31 of 40, on x and y``.

    ``every`` is all that was played, on ``stacks``; ``one`` what was played of one cell on ``hardware``, which alone
    earns the word.  Where that is all, and where ``hardware`` is empty, all plays are said together.
    """
    if every == one or not hardware:
        return in_words(claim, every, hardware) + _how_delayed(every)
    said = word(claim, one, hardware)
    figures = f"{said} by one cell ({part_of(one.hits, one.answered)}; on {hardware}){_how_delayed(one)}"
    named = sorted({stack.cpu for stack in stacks if stack.cpu})
    unnamed = [] if all(stack.cpu for stack in stacks) else ["others that were not recorded"]
    played_on = joined([*named, *unnamed])
    return f"{figures}; all plays: {part_of(every.hits, every.answered)}{_how_delayed(every)}, on {played_on}"


def _how_delayed(seen: Tally) -> str:
    """How many of the plays that show it were slowed down; empty where none shows it."""
    if not seen.hits:
        return ""
    if not seen.undelayed_hits:
        return ", only with delays"
    return ", without any delay" if seen.undelayed_hits == seen.hits else f", {seen.undelayed_hits} without delays"


def hardware_of(stack: Stack) -> str:
    """The processor and how its nodes were virtualized; empty where either is not known."""
    if not stack.cpu or not stack.accelerator:
        return ""
    if stack.accelerator == "hardware":
        return f"{stack.cpu}, real machines"
    if stack.accelerator == "kvm":
        return f"{stack.cpu}, hardware KVM"
    return f"{stack.cpu}, nodes emulated by QEMU ({stack.accelerator}): not representative in timing"


@dataclass(frozen=True)
class CellWords:
    """What may be said of the cells that ask the same but for their delays; ``cell_id`` is the one without any."""

    cell_id: str
    claim: Claim
    text: str


def cell_words(answers: Iterable[CellAnswer], stack: Stack) -> tuple[CellWords, ...]:
    """One for each group of cells, without controls and sabotage, whose outcome is known beforehand.

    Where a matrix expects that nothing happens, that is the claim; else that blocks diverge.
    """
    groups: dict[str, list[CellAnswer]] = {}
    for answer in answers:
        if not answer.cell.tests_instrument:
            groups.setdefault(undelayed_id(answer.cell), []).append(answer)
    hardware = hardware_of(stack)
    found = []
    for cell_id, group in groups.items():
        claim = Claim.NEVER if any(_never(one.cell) for one in group) else Claim.HAPPENS
        seen = sum((_tally(one) for one in group), Tally())
        text = in_words(claim, seen, hardware)
        if not seen.answered and any(one.kinds for one in group):
            text = Word.NO_ANSWER.value
        found.append(CellWords(cell_id, claim, text))
    return tuple(found)


def undelayed_id(cell: Cell) -> str:
    """The id of the cell that asks the same without delays."""
    return replace(cell, delays=DelayProfile()).id


def _never(cell: Cell) -> bool:
    return cell.expected is not None and not any(kind in HITS for kind in cell.expected.verdicts)


def _tally(answer: CellAnswer) -> Tally:
    undelayed = answer.diverged if answer.cell.delays == DelayProfile() else 0
    return Tally(answer.diverged, answer.answered, undelayed)

"""The repetitions of one cell as a report shows them: one place in the heat map, and how sure they make us; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.judgement.repetitions import CellAnswer, answers
from harness.model import Cell, Potency, Result
from harness.report.formatting import between, count, part_of, plural
from harness.report.worth import label, weighed

Row = tuple[str, str]

DISAGREE = "repetitions disagree"


@dataclass(frozen=True)
class PlayedCell:
    """One cell of a run.

    ``answer``: all of its repetitions; ``numbers``: their places among the run's results; ``stands``: the place of the
    one that stands for the cell.
    """

    answer: CellAnswer
    numbers: tuple[int, ...]
    stands: int

    @property
    def repeated(self) -> bool:
        """Whether the run plays the cell more than once."""
        return len(self.numbers) > 1


def played_cells(results: Sequence[Result]) -> tuple[PlayedCell, ...]:
    """The cells of ``results``, in the order in which one comes first.

    A control is no repetition of a cell that asks the same.
    """
    numbers: dict[tuple[str, bool], list[int]] = {}
    for number, result in enumerate(results):
        numbers.setdefault((result.cell.id, result.cell.control is None), []).append(number)
    found = []
    for own in numbers.values():
        (answer,) = answers(results[number] for number in own)
        stands = next(number for number in own if results[number] is answer.worst)
        found.append(PlayedCell(answer, tuple(own), stands))
    return tuple(found)


def play_name(cell: Cell) -> str:
    """A cell's id, and from the second repetition on which one it is."""
    return cell.id if cell.repetition == 1 else f"{cell.id}, repetition {cell.repetition}"


def unit(cells: Iterable[Cell]) -> str:
    """What a sentence counts that is about ``cells``: cells, or repetitions where one of them comes more than once."""
    names = [cell.id for cell in cells if cell.control is None]
    return "cell" if len(set(names)) == len(names) else "repetition"


def answer_potency(answer: CellAnswer) -> Potency | None:
    """What a cell that is CLEAN is worth: strong only where each of its repetitions is."""
    if weighed(answer.worst) is None:
        return None
    seen = {weighed(play) for play in answer.plays}
    return Potency.WEAK if Potency.WEAK in seen else Potency.STRONG


def answer_label(answer: CellAnswer) -> str:
    """The verdict that stands for the cell, with what it is worth where it is a CLEAN."""
    worst, potency = answer.worst.verdict, answer_potency(answer)
    return f"{worst.kind} ({potency})" if worst and potency else label(answer.worst)


def rate_text(answer: CellAnswer) -> str:
    """``3 of 5 diverged, 14 % to 95 % (95 %)``; how many acknowledged a write too early, how many have no answer."""
    parts = []
    if answer.answered:
        parts.append(f"{part_of(answer.diverged, answer.answered)} diverged")
    if answer.interval is not None:
        parts.append(f"{between(answer.interval.low, answer.interval.high)} (95 %)")
    if answer.early:
        parts.append(f"{part_of(answer.early, answer.answered)} with writes acknowledged too early")
    if missing := len(answer.plays) - answer.answered:
        parts.append(f"{count(missing)} without an answer")
    return ", ".join(parts)


def answer_rows(answer: CellAnswer) -> list[Row]:
    """The repetitions of one cell as rows of its page."""
    interval, rate = answer.interval, answer.block_rate
    kinds = ", ".join(f"{count(number)} {kind}" for kind, number in answer.kinds.items())
    described = varied = ""
    if rate is not None:
        described = f"{part_of(rate.differing, rate.trials)} {rate.what} differ ({rate.rate * 100:.2g} %)"
        if rate.varied is not None:
            varied = f"{between(rate.varied.low, rate.varied.high)} when repetitions are drawn again (bootstrap)"
    return [
        ("Repetitions", f"{plural(len(answer.plays), 'repetition')}: {kinds}" if kinds else "none was played"),
        ("Diverged", f"{part_of(answer.diverged, answer.answered)} that have an answer" if answer.answered else ""),
        ("Acknowledged too early", f"in {part_of(answer.early, answer.answered)}" if answer.early else ""),
        ("Exact 95 % interval", f"{between(interval.low, interval.high)} of repetitions diverge" if interval else ""),
        ("Do they agree?", "no: repetitions with an answer have different ones" if answer.disagree else "yes"),
        ("Blocks, as a description", described),
        ("How that varied", varied),
    ]

"""The short answer to "do the two replicas of the lab hold the same data?", and what it rests on; pure.

It says no more than the evidence carries.  A difference needs no control to be believed; its absence does, and a cell
without an answer is never an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.judgement.controls import demanded_controls
from harness.judgement.repetitions import HITS, TRIALS
from harness.model import BlockOwner, Hazard, Potency, Result, VerdictKind
from harness.report.formatting import count, joined, part_of, plural, row_name
from harness.report.repetitions import PlayedCell, answer_potency, played_cells
from harness.report.table import control_entries, differing_blocks


class Answer(StrEnum):
    """The short answer."""

    YES = "As far as asked, yes"
    NO = "No"
    UNKNOWN = "Not answered"


@dataclass(frozen=True)
class Headline:
    """The short answer, and the sentences that limit it.

    ``weak``: of some cells nothing shows that their work could have diverged.
    """

    answer: Answer
    sentence: str
    weak: bool = False

    def __str__(self) -> str:
        return f"{self.answer}. {self.sentence}"


def headline(results: Sequence[Result]) -> Headline:
    """Do the two replicas of the lab hold the same data?"""
    tested = [result for result in results if not result.cell.tests_instrument]
    cells = played_cells(tested)
    different = [result for result in tested if result.verdict and result.verdict.kind in HITS]
    without = _unanswered(cells)
    if different:
        found = (_difference(different, tested), _no_difference(cells), _too_early(cells))
        sentences = (*found, without, _partly_unanswered(cells))
        return Headline(Answer.NO, " ".join(filter(None, sentences)))
    answered = [cell for cell in cells if cell.answer.answered]
    if not answered:
        nothing = (
            "Only cells that test the instrument itself ran."
            if any(result.verdict for result in results)
            else "Nothing ran."
        )
        return Headline(Answer.UNKNOWN, without or nothing)
    if doubt := _controls_missing(results):
        return Headline(Answer.UNKNOWN, doubt)
    seen = f"No difference in {_cells_text(answered)}, over {plural(_exposed(answered), 'exposed block write')}"
    early = _too_early(cells)
    parts = [f"{seen}{_worth(answered)}.", early, *_equal_again(answered), without, _partly_unanswered(cells)]
    missing = [cell for cell in cells if not cell.answer.answered and not _refused(cell)]
    if missing:
        other = f"No difference was seen in the other {_cells_text(answered)}{_worth(answered)}."
        return Headline(Answer.UNKNOWN, " ".join(filter(None, (without, other, early))))
    weak = any(answer_potency(cell.answer) is Potency.WEAK for cell in answered)
    return Headline(Answer.YES, " ".join(filter(None, parts)), weak)


# --------------------------------------------------------------------------- a difference


def _difference(different: Sequence[Result], tested: Sequence[Result]) -> str:
    # The guest may have lost or misread data while the replicas are equal: that is no difference between them.
    differing = [result for result in different if differing_blocks(result)]
    corrupt = [result for result in different if result.verdict and result.verdict.kind is VerdictKind.CORRUPT]
    rows = dict.fromkeys(row_name(result.cell.row) for result in differing or different)
    where = f"in {_part_of_cells(differing or different, tested)}"
    sentence = f"With {joined(rows)} data went wrong {where}"
    if differing:
        blocks = plural(sum(differing_blocks(result) for result in differing), "differing block")
        sentence = f"With {joined(rows)} the replicas differ {where}; {blocks}{_owners(differing)}"
    wrong = ""
    if corrupt:
        rows = dict.fromkeys(row_name(result.cell.row) for result in corrupt)
        cells = plural(len({result.cell.id for result in corrupt}), "cell")
        wrong = f" With {joined(rows)} the guest lost data or read back something else than it wrote, in {cells}."
    return f"{sentence}.{wrong}"


def _part_of_cells(some: Sequence[Result], of: Sequence[Result]) -> str:
    """``4 of 8 cells``, and of how many repetitions where cells are repeated."""
    few, many = ({result.cell.id for result in results} for results in (some, of))
    text = f"{count(len(few))} of {plural(len(many), 'cell')}"
    return text if len(many) == len(of) else f"{text} ({part_of(len(some), len(of))} repetitions)"


def _owners(different: Sequence[Result]) -> str:
    owned = [result.evidence.ownership for result in different if result.evidence]
    counted = {owner: sum(getattr(one, owner.value) for one in owned) for owner in BlockOwner}
    named = [f"{count(number)} {_owner_text(owner)}" for owner, number in counted.items() if number]
    rest = sum(differing_blocks(result) for result in different) - sum(counted.values())
    if rest < 0:
        # Of more blocks than differ: the parts would not be those of this sum.
        return ""
    if named and rest:
        named.append(f"{count(rest)} whose owner nobody looked up")
    return f": {', '.join(named)}" if named else ""


def _owner_text(owner: BlockOwner) -> str:
    return "whose owner could not be found" if owner is BlockOwner.UNKNOWN else owner.value


def _no_difference(cells: Sequence[PlayedCell]) -> str:
    kinds: dict[str, set[VerdictKind | None]] = {}
    for cell in cells:
        for play in cell.answer.plays:
            row = row_name(play.cell.row)
            kinds.setdefault(row, set()).add(play.verdict.kind if play.verdict else None)
    clean = [row for row, seen in kinds.items() if seen - {VerdictKind.REFUSED} == {VerdictKind.CLEAN}]
    found = [cell for cell in cells if cell.answer.answered and row_name(cell.answer.cell.row) in clean]
    return f"None was found with {joined(clean)}{_worth(found)}." if clean else ""


# --------------------------------------------------------------------------- no difference


def _controls_missing(results: Sequence[Result]) -> str:
    """Why the absence of a difference proves nothing here; empty where it does."""
    controls = control_entries(results)
    if failed := list(dict.fromkeys(control.cell_id for control in controls if control.held is False)):
        return f"No difference was seen, but this lab could not be relied on to see one: {joined(failed)} failed."
    held = {control.control for control in controls if control.held}
    if absent := [f"the {control} control" for control in demanded_controls(results) if control not in held]:
        return f"No difference was seen, but nothing shows that it would have been: {joined(absent)} did not run."
    return ""


def _worth(cells: Sequence[PlayedCell]) -> str:
    """How many of ``cells`` are strong and how many weak, and what that means; empty where nobody judged it."""
    seen = [answer_potency(cell.answer) for cell in cells]
    strong, weak = seen.count(Potency.STRONG), seen.count(Potency.WEAK)
    parts = []
    if strong:
        parts.append(f"{count(strong)} strong (writes changed in flight there, or the same work diverged elsewhere)")
    if weak:
        parts.append(f"{count(weak)} weak (nothing shows that this work could have diverged)")
    return f": {joined(parts)}" if parts else ""


def _equal_again(cells: Sequence[PlayedCell]) -> list[str]:
    verdicts = [play.verdict for cell in cells for play in cell.answer.plays if play.verdict is not None]
    repeated = any(cell.repeated for cell in cells)
    noun = "repetition" if repeated else "cell"
    transient = sum(verdict.kind is VerdictKind.TRANSIENT for verdict in verdicts)
    healed = sum(verdict.kind is VerdictKind.CLEAN and verdict.hazard is Hazard.HEALED for verdict in verdicts)
    again = f"In {plural(transient, noun)} blocks were out of sync for a while and equal again at the end."
    changed = f"In {plural(healed, noun)} writes changed in flight and no block differs at the end."
    return [sentence for number, sentence in ((transient, again), (healed, changed)) if number]


def _too_early(cells: Sequence[PlayedCell]) -> str:
    """Equal replicas may both lack what a guest was told to be safe."""
    where = [cell for cell in cells if cell.answer.early]
    if not where:
        return ""
    many = sum(cell.answer.early for cell in where)
    often = f" ({plural(many, 'repetition')})" if any(cell.repeated for cell in where) else ""
    return (
        f"In {plural(len(where), 'cell')}{often} QEMU acknowledged writes before they were flushed, which a power cut "
        "may lose."
    )


def _exposed(cells: Sequence[PlayedCell]) -> int:
    verdicts = [play.verdict for cell in cells for play in cell.answer.plays if play.verdict is not None]
    return sum(verdict.exposed_blocks for verdict in verdicts if verdict.kind in TRIALS)


def _cells_text(cells: Sequence[PlayedCell]) -> str:
    text = plural(len(cells), "cell")
    if not any(cell.repeated for cell in cells):
        return text
    return f"{text} ({plural(sum(cell.answer.answered for cell in cells), 'repetition')})"


# --------------------------------------------------------------------------- no answer


def _refused(cell: PlayedCell) -> bool:
    return set(cell.answer.kinds) == {VerdictKind.REFUSED}


def _unanswered(cells: Sequence[PlayedCell]) -> str:
    """How many cells have no answer at all, and why."""
    missing = [cell for cell in cells if not cell.answer.answered]
    refused = sum(_refused(cell) for cell in missing)
    never = sum(not cell.answer.kinds for cell in missing)
    parts = (
        (len(missing) - refused - never, "inconclusive"),
        (refused, "refused by the stack"),
        (never, "not run"),
    )
    named = [f"{count(number)} {what}" for number, what in parts if number]
    return f"No answer from {plural(len(missing), 'cell')}: {joined(named)}." if missing else ""


def _partly_unanswered(cells: Sequence[PlayedCell]) -> str:
    """How many repetitions have no answer in cells that others answer."""
    missing = sum(len(cell.answer.plays) - cell.answer.answered for cell in cells if cell.answer.answered)
    return f"{plural(missing, 'repetition')} of these cells left without an answer." if missing else ""

"""The heat map: cache modes down, workloads across, one verdict in each place; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.judgement.controls import control_outcome
from harness.model import (
    CacheMode,
    Cell,
    Control,
    Evidence,
    Expectation,
    MigrationOutcome,
    Potency,
    Result,
    Verdict,
    VerdictKind,
    blocks_of,
)
from harness.report.formatting import owners, plural, upper_bound
from harness.report.repetitions import DISAGREE, PlayedCell, answer_label, answer_potency, played_cells, rate_text
from harness.report.worth import NOT_RUN, label, share

LETTERS: Mapping[VerdictKind | None, str] = {
    VerdictKind.CLEAN: "=",
    VerdictKind.TRANSIENT: "~",
    VerdictKind.DIVERGED: "#",
    VerdictKind.CORRUPT: "X",
    VerdictKind.REFUSED: "/",
    VerdictKind.INCONCLUSIVE: "?",
    None: "-",
}
"""One sign for each verdict, so that no reader depends on colour."""

SIGNS: Mapping[VerdictKind | None, str] = {
    VerdictKind.CLEAN: "=",
    VerdictKind.TRANSIENT: "\u2248",
    VerdictKind.DIVERGED: "\u2260",
    VerdictKind.CORRUPT: "\u2715",
    VerdictKind.REFUSED: "/",
    VerdictKind.INCONCLUSIVE: "?",
    None: "\u2013",
}
"""One sign for each verdict, as a page can show it."""

#: A heat map of more columns than that is no overview any more: the table by filesystem is.
WIDEST = 24

_ROWS = (*(str(mode) for mode in CacheMode), "host")

_CONTROL_EXPECTATIONS: Mapping[Control, Expectation] = {
    Control.PLANTED: Expectation((VerdictKind.DIVERGED,), "known sectors were changed below DRBD"),
    Control.IN_FLIGHT: Expectation((VerdictKind.DIVERGED,), "the buffer was changed in flight"),
    Control.IDLE: Expectation((VerdictKind.CLEAN,), "nobody wrote"),
    Control.STEADY: Expectation((VerdictKind.CLEAN,), "nobody changed a buffer during its write"),
    Control.IN_FLIGHT_GUEST: Expectation((VerdictKind.DIVERGED,), "a guest changed the buffer in flight"),
}


@dataclass(frozen=True)
class Entry:
    """One cell in the heat map, with all of its repetitions.

    ``numbers`` are the places of its repetitions in the sequence the map was made from, ``number`` that of the one that
    stands for it.  ``text`` is the verdict, with what it is worth, and on the next line the figures; ``detail`` are the
    owners of the blocks.  ``expected``: whether each repetition ended as expected; None where none ran.
    """

    number: int
    numbers: tuple[int, ...]
    cell_id: str
    attempt: int | None
    kind: VerdictKind | None
    potency: Potency | None
    text: str
    detail: str
    expected: bool | None
    disagree: bool = False

    @property
    def weak(self) -> bool:
        """Whether this is a CLEAN of which nothing shows that it could have been anything else."""
        return self.potency is Potency.WEAK

    @property
    def letter(self) -> str:
        """The sign that stands for the verdict."""
        return LETTERS[self.kind]


@dataclass(frozen=True)
class ControlEntry:
    """One control: whether it held (None: did not run), and what it ended as."""

    number: int
    control: Control
    cell_id: str
    kind: VerdictKind | None
    held: bool | None
    text: str

    @property
    def outcome(self) -> str:
        """``held``, ``failed`` or ``not run``."""
        return {True: "held", False: "failed", None: NOT_RUN}[self.held]


@dataclass(frozen=True)
class HeatMap:
    """Rows, columns and what stands at their crossings; a place may hold several cells, or none."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[Entry, ...]]
    controls: tuple[ControlEntry, ...]

    def at(self, row: str, column: str) -> tuple[Entry, ...]:
        """What stands at ``row`` and ``column``; empty where the matrix has no such cell."""
        return self.cells.get((row, column), ())


def control_entries(results: Sequence[Result]) -> tuple[ControlEntry, ...]:
    """The controls among ``results``."""
    return tuple(
        control_entry(number, result, result.cell.control)
        for number, result in enumerate(results)
        if result.cell.control is not None
    )


def heat_map(results: Sequence[Result]) -> HeatMap:
    """Every result in exactly one place: a control in ``controls``, any other in its cell's row and column."""
    columns: dict[str, None] = {}
    cells: dict[tuple[str, str], tuple[Entry, ...]] = {}
    tested = [number for number, result in enumerate(results) if result.cell.control is None]
    for played in played_cells([results[number] for number in tested]):
        cell = played.answer.cell
        columns.setdefault(cell.column)
        place = (cell.row, cell.column)
        cells[place] = (*cells.get(place, ()), _entry(played, tested))
    used = {row for row, _ in cells}
    rows = (*(row for row in _ROWS if row in used), *sorted(used.difference(_ROWS)))
    return HeatMap(rows, tuple(columns), cells, control_entries(results))


def style_of(kind: VerdictKind | None) -> str:
    """The name of a verdict's colours in the style sheet."""
    return kind.value.lower() if kind else "notrun"


def figures(result: Result) -> str:
    """The line below the verdict: how many blocks of how many exposed, or why there is no number."""
    verdict, evidence = result.verdict, result.evidence
    if verdict is None:
        return ""
    differing = differing_blocks(result)
    match verdict.kind:
        case VerdictKind.CLEAN:
            bound = "" if verdict.rate_upper_95 is None else f", < {upper_bound(verdict.rate_upper_95)} (95 %)"
            early = verdict.acknowledged_early
            first = f"{plural(early, 'write')} acknowledged too early, " if early else ""
            return f"{first}{share(0, verdict)}{bound}"
        case VerdictKind.DIVERGED:
            return share(differing, verdict)
        case VerdictKind.TRANSIENT:
            return f"{share(differing or verified_blocks(evidence), verdict)}, equal again"
        case VerdictKind.CORRUPT:
            wrong = (_wrong(evidence) if evidence else []) or ["wrong data read back"]
            return ", ".join([*wrong, share(differing, verdict)] if differing else wrong)
        case VerdictKind.REFUSED | VerdictKind.INCONCLUSIVE:
            failure = evidence.failure if evidence else None
            ended = [one.outcome for one in evidence.migrations] if evidence else []
            if verdict.kind is VerdictKind.REFUSED and failure is None and MigrationOutcome.REFUSED in ended:
                return plural(ended.count(MigrationOutcome.REFUSED), "migration")
            return f"during {failure.phase}" if failure else "no answer"


def _wrong(evidence: Evidence) -> list[str]:
    """All that the guest found wrong, each with its number."""
    canary, readback = evidence.canary, evidence.readback
    found = (
        (evidence.work.read_back_errors if evidence.work else 0, "wrong read", ""),
        (evidence.crash_recovery.wrong_reads if evidence.crash_recovery else 0, "wrong read", " after the crash"),
        (canary.total_lost if canary else 0, "record", " lost"),
        (canary.corrupt if canary else 0, "corrupt record", ""),
        (canary.memory_wrong if canary else 0, "record", " wrong in memory"),
        (readback.differing_blocks if readback else 0, "block", " read differently"),
    )
    return [f"{plural(number, noun)}{how}" for number, noun, how in found if number]


def differing_blocks(result: Result) -> int:
    """How many blocks differ: the verdict's count, or the comparison's where the verdict is about something worse."""
    verdict, evidence = result.verdict, result.evidence
    if verdict is not None and verdict.kind is VerdictKind.CORRUPT and evidence and evidence.comparison:
        return max(verdict.differing_blocks, evidence.comparison.differing_blocks)
    return verdict.differing_blocks if verdict else 0


def verified_blocks(evidence: Evidence | None) -> int:
    """How many blocks the two kernels' logs of the verify name."""
    if evidence is None or evidence.verify is None:
        return 0
    return len(blocks_of((*evidence.verify.source.extents, *evidence.verify.target.extents)))


def control_expectation(cell: Cell) -> Expectation | None:
    """What a control has to end as: what its cell expects, or else what its kind means.  None: no control."""
    if cell.control is None:
        return None
    return cell.expected or _CONTROL_EXPECTATIONS[cell.control]


def _entry(played: PlayedCell, numbers: Sequence[int]) -> Entry:
    answer = played.answer
    result, plays = answer.worst, answer.plays
    verdict, evidence = result.verdict, result.evidence
    met = [play.verdict.meets(play.cell.expected) for play in plays if play.verdict is not None]
    text = NOT_RUN if verdict is None else f"{label(result)}\n{figures(result)}"
    if verdict is not None and played.repeated:
        text = f"{answer_label(answer)}\n{rate_text(answer)}"
    elif verdict is not None and _hazard_is_news(verdict):
        text += f", {verdict.hazard}"
    return Entry(
        number=numbers[played.stands],
        numbers=tuple(numbers[one] for one in played.numbers),
        cell_id=result.cell.id,
        attempt=evidence.attempt if evidence and not played.repeated else None,
        kind=verdict.kind if verdict else None,
        potency=answer_potency(answer),
        text=text,
        detail=DISAGREE if answer.disagree else owners(evidence.ownership) if evidence and not played.repeated else "",
        expected=all(met) if met else None,
        disagree=answer.disagree,
    )


def _hazard_is_news(verdict: Verdict) -> bool:
    """Whether the hazard says something that the kind does not: what differs in the end has persisted."""
    return verdict.hazard is not None and verdict.kind in (VerdictKind.CLEAN, VerdictKind.TRANSIENT)


def control_entry(number: int, result: Result, control: Control) -> ControlEntry:
    """The entry of ``result``, which is of ``control`` and stands at ``number`` among the results."""
    verdict, evidence = result.verdict, result.evidence
    held, text = None, NOT_RUN
    if verdict is not None:
        # The kind alone does not say whether exactly the planted sectors came back: the judge looks.
        outcome = control_outcome(evidence) if evidence is not None else None
        held = verdict.meets(control_expectation(result.cell)) and (outcome is None or outcome.held)
        text = f"{verdict.kind}: {verdict.sentence if outcome is None or outcome.held else outcome.sentence}"
    return ControlEntry(
        number=number,
        control=control,
        cell_id=result.cell.id,
        kind=verdict.kind if verdict else None,
        held=held,
        text=text,
    )

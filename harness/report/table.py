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
    Result,
    VerdictKind,
    blocks_of,
)
from harness.report.formatting import count, owners, plural, upper_bound

NOT_RUN = "not run"

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
    """One result in the heat map.

    ``number`` is its place in the sequence the map was made from.  ``text`` is the verdict and, on the next line, the
    figures; ``detail`` are the owners of the blocks.  ``expected`` is None where it did not run.
    """

    number: int
    cell_id: str
    attempt: int | None
    kind: VerdictKind | None
    text: str
    detail: str
    expected: bool | None

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
    """Rows, columns and what stands at their crossings; a place may hold several attempts, or none."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[Entry, ...]]
    controls: tuple[ControlEntry, ...]

    def at(self, row: str, column: str) -> tuple[Entry, ...]:
        """What stands at ``row`` and ``column``; empty where the matrix has no such cell."""
        return self.cells.get((row, column), ())


def heat_map(results: Sequence[Result]) -> HeatMap:
    """Every result in exactly one place: a control in ``controls``, any other in its row and column."""
    columns: dict[str, None] = {}
    cells: dict[tuple[str, str], tuple[Entry, ...]] = {}
    controls: list[ControlEntry] = []
    for number, result in enumerate(results):
        cell = result.cell
        if cell.control is not None:
            controls.append(_control(number, result, cell.control))
            continue
        columns.setdefault(cell.column)
        place = (cell.row, cell.column)
        cells[place] = (*cells.get(place, ()), _entry(number, result))
    used = {row for row, _ in cells}
    rows = (*(row for row in _ROWS if row in used), *sorted(used.difference(_ROWS)))
    return HeatMap(rows, tuple(columns), cells, tuple(controls))


def style_of(kind: VerdictKind | None) -> str:
    """The name of a verdict's colours in the style sheet."""
    return kind.value.lower() if kind else "notrun"


def figures(result: Result) -> str:
    """The line below the verdict: how many blocks of how many exposed, or why there is no number."""
    verdict, evidence = result.verdict, result.evidence
    if verdict is None:
        return ""
    differing, exposed = differing_blocks(result), verdict.exposed_blocks
    match verdict.kind:
        case VerdictKind.CLEAN:
            bound = "" if verdict.rate_upper_95 is None else f", < {upper_bound(verdict.rate_upper_95)} (95 %)"
            return f"{_of(0, exposed)}{bound}"
        case VerdictKind.DIVERGED:
            return _of(differing, exposed)
        case VerdictKind.TRANSIENT:
            return f"{_of(differing or verified_blocks(evidence), exposed)}, equal again"
        case VerdictKind.CORRUPT:
            wrong = _wrong(evidence) if evidence else []
            return ", ".join([*(wrong or ["wrong data read back"]), *([_of(differing, exposed)] if differing else [])])
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


def _of(blocks: int, exposed: int) -> str:
    return f"{count(blocks)} of {count(exposed)} exposed" if exposed else f"{plural(blocks, 'block')}, none exposed"


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


def _entry(number: int, result: Result) -> Entry:
    verdict, evidence = result.verdict, result.evidence
    return Entry(
        number=number,
        cell_id=result.cell.id,
        attempt=evidence.attempt if evidence else None,
        kind=verdict.kind if verdict else None,
        text=f"{verdict.kind}\n{figures(result)}" if verdict else NOT_RUN,
        detail=owners(evidence.ownership) if evidence else "",
        expected=verdict.meets(result.cell.expected) if verdict else None,
    )


def _control(number: int, result: Result, control: Control) -> ControlEntry:
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

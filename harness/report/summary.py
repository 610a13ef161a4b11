"""A run as a whole: the headline, the controls, the findings, the bounds where nothing was found; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from harness.model import BlockOwner, Control, Result, Run, Stack, VerdictKind
from harness.report.formatting import count, joined, plural, row_name
from harness.report.formatting import sentence as full_stop
from harness.report.oracles import Agreement, oracles
from harness.report.table import HeatMap, differing_blocks, figures, heat_map

_DIFFERENT = (VerdictKind.DIVERGED, VerdictKind.CORRUPT)
_ANSWERS = (*_DIFFERENT, VerdictKind.CLEAN, VerdictKind.TRANSIENT)

STACK_NAMES = {
    "suite": "Distribution",
    "kernel": "Kernel",
    "drbd": "DRBD",
    "drbd_utils": "drbd-utils",
    "qemu": "QEMU",
    "libvirt": "libvirt",
    "guest_kernel": "Guest kernel",
    "accelerator": "Accelerator",
    "controller": "Controller",
    "kernel_build": "Kernel build",
    "drbd_srcversion": "DRBD source version",
    "drbd_git_hash": "DRBD git hash",
}


class Answer(StrEnum):
    """The short answer to "do my replicas still hold the same data?"."""

    YES = "Yes"
    NO = "No"
    UNKNOWN = "No answer"


@dataclass(frozen=True)
class Headline:
    """The short answer, and the sentences that limit it."""

    answer: Answer
    sentence: str

    def __str__(self) -> str:
        return f"{self.answer}. {self.sentence}"


@dataclass(frozen=True)
class Line:
    """One remark about one result: its number among the results, its cell, and the sentence."""

    number: int
    cell_id: str
    sentence: str


@dataclass(frozen=True)
class Summary:
    """Everything that a report shows before the evidence."""

    headline: Headline
    counts: tuple[tuple[VerdictKind | None, int], ...]
    map: HeatMap
    findings: tuple[Line, ...]
    bounds: tuple[Line, ...]
    oracles: str
    disagreeing: tuple[Line, ...]


def summarize(results: Sequence[Result]) -> Summary:
    """The summary of ``results``."""
    table = heat_map(results)
    sentence, disagreeing = _oracles(results)
    kinds = [result.verdict.kind if result.verdict else None for result in results if result.cell.control is None]
    order: tuple[VerdictKind | None, ...] = (*VerdictKind, None)
    return Summary(
        headline=headline(results),
        counts=tuple((kind, kinds.count(kind)) for kind in order if kind in kinds),
        map=table,
        findings=findings(results),
        bounds=tuple(_bounds(results)),
        oracles=sentence,
        disagreeing=disagreeing,
    )


def headline(results: Sequence[Result]) -> Headline:
    """Do the replicas still hold the same data?  A difference needs no control to be believed; its absence does."""
    tested = [result for result in results if result.cell.control is None]
    controls = heat_map(results).controls
    failed = [control.cell_id for control in controls if control.held is False]
    answered = [result for result in tested if result.verdict and result.verdict.kind in _ANSWERS]
    different = [result for result in answered if result.verdict and result.verdict.kind in _DIFFERENT]
    rest = _unanswered(tested)
    if different:
        sentences = (_difference(different, tested), _no_difference(tested), rest)
        return Headline(Answer.NO, " ".join(filter(None, sentences)))
    if not answered:
        nothing = "Only controls ran." if any(result.verdict for result in results) else "Nothing ran."
        return Headline(Answer.UNKNOWN, rest or nothing)
    if failed:
        sentence = f"No difference was seen, but this lab could not be relied on to see one: {joined(failed)} failed."
        return Headline(Answer.UNKNOWN, sentence)
    held = {control.control for control in controls if control.held}
    if absent := [f"the {control} control" for control in Control if control.demanded and control not in held]:
        sentence = f"No difference was seen, but nothing shows that it would have been: {joined(absent)} did not run."
        return Headline(Answer.UNKNOWN, sentence)
    exposed = sum(result.verdict.exposed_blocks for result in answered if result.verdict)
    healed = sum(result.verdict.kind is VerdictKind.TRANSIENT for result in answered if result.verdict)
    equal_again = f"In {plural(healed, 'cell')} blocks were out of sync for a while and equal again at the end."
    parts = (
        f"No difference in {plural(len(answered), 'cell')}, over {plural(exposed, 'exposed block write')}.",
        equal_again if healed else "",
        rest,
    )
    return Headline(Answer.YES, " ".join(filter(None, parts)))


def findings(results: Sequence[Result]) -> tuple[Line, ...]:
    """Every result that is not what its cell, or its kind of control, is expected to be."""
    lines = []
    controls = {control.number: control for control in heat_map(results).controls}
    for number, result in enumerate(results):
        verdict, expected = result.verdict, result.cell.expected
        held = controls[number].held if number in controls else None
        if verdict is None or held or (held is None and verdict.meets(expected)):
            continue
        sentence = f"{verdict.kind}: {full_stop(verdict.sentence)}"
        if number in controls:
            sentence = f"The control failed. {full_stop(controls[number].text)}"
        expectation = f" Expected {joined(expected.verdicts, 'or')}: {full_stop(expected.reason)}" if expected else ""
        lines.append(Line(number, result.cell.id, f"{sentence}{expectation}"))
    return tuple(lines)


def stack_rows(stack: Stack) -> tuple[tuple[str, str], ...]:
    """The versions under test, name and value; those nobody reported are left out."""
    rows = ((STACK_NAMES.get(item.name, item.name), str(getattr(stack, item.name))) for item in fields(stack))
    return tuple((name, value) for name, value in rows if value)


def title_of(run: Run) -> str:
    """What a report of ``run`` is called unless somebody names it."""
    return f"DRBD divergence: {run.matrix}" if run.matrix else "DRBD divergence"


def _difference(different: Sequence[Result], tested: Sequence[Result]) -> str:
    # The guest may have lost or misread data while the replicas are equal: that is no difference between them.
    differing = [result for result in different if differing_blocks(result)]
    corrupt = [result for result in different if result.verdict and result.verdict.kind is VerdictKind.CORRUPT]
    rows = dict.fromkeys(row_name(result.cell.row) for result in differing or different)
    where = f"in {count(len(differing or different))} of {plural(len(tested), 'cell')}"
    sentence = f"With {joined(rows)} data went wrong {where}"
    if differing:
        blocks = plural(sum(differing_blocks(result) for result in differing), "differing block")
        sentence = f"With {joined(rows)} the replicas differ {where}; {blocks}{_owners(differing)}"
    wrong = ""
    if corrupt:
        rows = dict.fromkeys(row_name(result.cell.row) for result in corrupt)
        cells = plural(len(corrupt), "cell")
        wrong = f" With {joined(rows)} the guest lost data or read back something else than it wrote, in {cells}."
    return f"{sentence}.{wrong}"


def _owners(different: Sequence[Result]) -> str:
    owned = [result.evidence.ownership for result in different if result.evidence]
    counted = {owner: sum(getattr(one, owner.value) for one in owned) for owner in BlockOwner}
    named = ", ".join(f"{count(number)} {owner}" for owner, number in counted.items() if number)
    return f": {named}" if named else ""


def _no_difference(tested: Sequence[Result]) -> str:
    kinds: dict[str, set[VerdictKind | None]] = {}
    for result in tested:
        kinds.setdefault(row_name(result.cell.row), set()).add(result.verdict.kind if result.verdict else None)
    clean = [row for row, seen in kinds.items() if seen - {VerdictKind.REFUSED} == {VerdictKind.CLEAN}]
    return f"None was found with {joined(clean)}." if clean else ""


def _unanswered(tested: Sequence[Result]) -> str:
    kinds = [result.verdict.kind if result.verdict else None for result in tested]
    parts = (
        (kinds.count(VerdictKind.INCONCLUSIVE), "inconclusive"),
        (kinds.count(VerdictKind.REFUSED), "refused by the stack"),
        (kinds.count(None), "not run"),
    )
    missing = [f"{count(number)} {what}" for number, what in parts if number]
    total = sum(number for number, _ in parts)
    return f"No answer from {plural(total, 'cell')}: {joined(missing)}." if missing else ""


def _bounds(results: Sequence[Result]) -> list[Line]:
    return [
        Line(number, result.cell.id, figures(result))
        for number, result in enumerate(results)
        if result.cell.control is None and result.verdict and result.verdict.kind is VerdictKind.CLEAN
    ]


def _oracles(results: Sequence[Result]) -> tuple[str, tuple[Line, ...]]:
    answers = [(number, r.cell.id, oracles(r.evidence)) for number, r in enumerate(results) if _read(r) and r.evidence]
    if not answers:
        return "No cell got as far as the oracles.", ()
    agreements = [three.agreement for _, _, three in answers]
    agree, healed = agreements.count(Agreement.AGREE), agreements.count(Agreement.HEALED)
    sentence = f"Verify, counter and comparison agree in {count(agree)} of {plural(len(answers), 'cell')}"
    if healed:
        sentence += f"; in {count(healed)} more the difference is blocks that healed"
    unclear = (Agreement.DISAGREE, Agreement.INCOMPLETE)
    disagreeing = (Line(number, name, three.sentence) for number, name, three in answers if three.agreement in unclear)
    return f"{sentence}.", tuple(disagreeing)


def _read(result: Result) -> bool:
    evidence = result.evidence
    return evidence is not None and not (
        evidence.verify is None and evidence.comparison is None and evidence.counter_kib is None
    )

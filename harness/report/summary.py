"""A run as a whole: the headline, the controls, the findings, the bounds where nothing was found; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from harness.model import MachineModel, Result, Run, Stack, VerdictKind
from harness.report.formatting import count, joined, part_of, plural
from harness.report.formatting import sentence as full_stop
from harness.report.headline import Headline, headline
from harness.report.oracles import Agreement, agreement_of
from harness.report.repetitions import PlayedCell, answer_label, played_cells, rate_text, unit
from harness.report.table import ControlEntry, HeatMap, control_entries, figures, heat_map
from harness.report.witness import why_not_watched

#: Why a cell without an expectation is a finding.
EXPECTED_NOTHING = "nothing is expected of this cell, and lost or wrong data is a finding all the same"

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
    "cpu": "Processor",
    "machine": "Guest's machine type",
    "drbd_protocol": "DRBD protocol version",
}

# Roles of images that are there only where the nodes differ.
_ROLES = {"node-b": "second node"}


@dataclass(frozen=True)
class Line:
    """One remark about one result: its number among the results, its cell, and the sentence."""

    number: int
    cell_id: str
    sentence: str


@dataclass(frozen=True)
class Summary:
    """Everything that a report shows before the evidence.

    ``counts``: how many cells ended as what, by the repetition that stands for each; ``repetitions``: how many were to
    be played in all, 0 where no cell is repeated.
    """

    headline: Headline
    counts: tuple[tuple[str, int], ...]
    repetitions: int
    map: HeatMap
    findings: tuple[Line, ...]
    bounds: tuple[Line, ...]
    oracles: str
    disagreeing: tuple[Line, ...]


def summarize(results: Sequence[Result]) -> Summary:
    """The summary of ``results``."""
    cells = [cell for cell in played_cells(results) if cell.answer.cell.control is None]
    repeated = any(cell.repeated for cell in cells)
    sentence, disagreeing = _oracles(results)
    table = heat_map(results)
    return Summary(
        headline=headline(results),
        counts=_counts(cells),
        repetitions=sum(len(cell.numbers) for cell in cells) if repeated else 0,
        map=table,
        findings=findings(results, table.controls),
        bounds=tuple(_bounds(cells)),
        oracles=sentence,
        disagreeing=disagreeing,
    )


def _counts(cells: Sequence[PlayedCell]) -> tuple[tuple[str, int], ...]:
    labels = sorted((_order(cell), answer_label(cell.answer)) for cell in cells)
    names = [name for _, name in labels]
    return tuple((name, names.count(name)) for name in dict.fromkeys(names))


def _order(cell: PlayedCell) -> int:
    worst = cell.answer.worst.verdict
    return list(VerdictKind).index(worst.kind) if worst else len(VerdictKind)


def findings(results: Sequence[Result], entries: Sequence[ControlEntry] | None = None) -> tuple[Line, ...]:
    """Every cell that is not what it, or its kind of control, is expected to be, by its first such repetition.

    ``entries``: those of the controls among ``results``, where somebody has them already.
    """
    lines: dict[str, Line] = {}
    more: dict[str, int] = {}
    controls = {one.number: one for one in (control_entries(results) if entries is None else entries)}
    for number, result in enumerate(results):
        verdict, expected, cell_id = result.verdict, result.cell.expected, result.cell.id
        held = controls[number].held if number in controls else None
        if verdict is None or held or (held is None and verdict.meets(expected)):
            continue
        sentence = f"{verdict.kind}: {full_stop(verdict.sentence)}"
        if number in controls:
            sentence = f"The control failed. {full_stop(controls[number].text)}"
        expectation = f" Expected {joined(expected.verdicts, 'or')}: {full_stop(expected.reason)}" if expected else ""
        if expected is None and verdict.kind is VerdictKind.CORRUPT:
            expectation = f" {EXPECTED_NOTHING.capitalize()}."
        more[cell_id] = more.get(cell_id, -1) + 1
        lines.setdefault(cell_id, Line(number, cell_id, f"{sentence}{expectation}"))
    return tuple(_with_more(line, more[line.cell_id]) for line in lines.values())


def _with_more(line: Line, more: int) -> Line:
    return Line(line.number, line.cell_id, f"{line.sentence} And {plural(more, 'more repetition')}.") if more else line


def stack_rows(stack: Stack) -> tuple[tuple[str, str], ...]:
    """The versions under test, name and value; those nobody reported are left out."""
    rows = ((STACK_NAMES.get(item.name, item.name), str(getattr(stack, item.name))) for item in fields(stack))
    return tuple((name, value) for name, value in rows if value)


def _machine(one: MachineModel) -> str:
    memory = f"{one.memory_mib} MiB" if one.memory_mib else ""
    disks = f"disks {' and '.join(one.disks)}" if one.disks else "disks that do not say their model"
    nic = f"replication by {one.nic}" if one.nic else ""
    return "; ".join(filter(None, (one.system, one.processor, memory, f"{disks} ({one.storage})", nic)))


def provenance_rows(run: Run) -> tuple[tuple[str, str], ...]:
    """What the run was made with, beside the versions under test; what is not known is left out."""
    made = run.provenance
    rows = [
        ("Processors of each node", str(made.node_vcpus) if made.node_vcpus else ""),
        *((f"Node {number}, real hardware", _machine(one)) for number, one in enumerate(made.machines, 1)),
        *((f"Recipe of the {_ROLES.get(role, role)}'s image", digest[:16]) for role, digest in made.images.items()),
        ("Packages of the images", f"packages.json, {made.packages_digest[:16]}" if made.packages_digest else ""),
        ("Harness", " ".join(filter(None, (made.harness_version, made.harness_commit[:12])))),
        ("Matrix file", run.matrix_digest[:16]),
        ("Seed of the run", str(run.seed) if run.seed else ""),
    ]
    return tuple((name, value) for name, value in rows if value)


def title_of(run: Run) -> str:
    """What a report of ``run`` is called unless somebody names it."""
    title = f"DRBD divergence: {run.matrix}" if run.matrix else "DRBD divergence"
    return f"{title}, part {run.shard}" if run.shard else title


def _bounds(cells: Sequence[PlayedCell]) -> list[Line]:
    lines = []
    for cell in cells:
        worst = cell.answer.worst
        if worst.verdict is None or worst.verdict.kind is not VerdictKind.CLEAN or cell.answer.early:
            continue
        text = rate_text(cell.answer) if cell.repeated else figures(worst)
        lines.append(Line(cell.stands, worst.cell.id, text))
    return lines


def _oracles(results: Sequence[Result]) -> tuple[str, tuple[Line, ...]]:
    answers = [
        (number, r.cell.id, *agreement_of(r.evidence)) for number, r in enumerate(results) if _read(r) and r.evidence
    ]
    if not answers:
        return "No cell got as far as the oracles.", ()
    agreements = [agreement for _, _, agreement, _ in answers]
    agree, healed = agreements.count(Agreement.AGREE), agreements.count(Agreement.HEALED)
    noun = unit(results[number].cell for number, *_ in answers)
    sentence = f"Verify (with its counter) and the comparison agree in {part_of(agree, len(answers))} {noun}s"
    if healed:
        sentence += f"; in {count(healed)} more the difference is blocks that healed"
    unclear = (Agreement.DISAGREE, Agreement.INCOMPLETE)
    disagreeing = (Line(number, name, why) for number, name, agreement, why in answers if agreement in unclear)
    return f"{sentence}.{_blind_witness(results)}", tuple(disagreeing)


def _blind_witness(results: Sequence[Result]) -> str:
    """A sentence on why nobody saw which writes changed in flight, as on a kernel that it does not know; or nothing."""
    seen = [r.evidence.witness for r in results if r.evidence is not None and r.evidence.witness is not None]
    if not seen or any(one.watched or one.block_writes for one in seen):
        return ""
    return full_stop(f" The witness watched no write of this run: {why_not_watched(seen) or 'it did not say why'}")


def _read(result: Result) -> bool:
    evidence = result.evidence
    return evidence is not None and not (
        evidence.verify is None and evidence.comparison is None and evidence.counter_kib is None
    )

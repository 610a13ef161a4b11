"""One result as the page shows it: text and rows, nothing left to decide in the template; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

from harness.model import BLOCK_BYTES, Evidence, Extent, Potency, Result
from harness.report import formatting
from harness.report.alarms import alarm_rows
from harness.report.block_map import BlockMap, block_map, shown_extents
from harness.report.descriptions import describe, state_text
from harness.report.durability import canary_rows, crash_recovery_rows, readback_rows
from harness.report.grid import Grid
from harness.report.hit_files import file_grid
from harness.report.migrations import CellTimeline, cell_timeline, migrations_of
from harness.report.oracles import Oracles, oracles
from harness.report.planted import planted_grid
from harness.report.read_back import ReadBack, lost_rows, moved_page_rows, read_back
from harness.report.repetitions import play_name
from harness.report.requested_vs_observed import Property, requested_and_observed
from harness.report.samples import SampleView, sample_view
from harness.report.table import SIGNS, control_entry, control_expectation, differing_blocks, figures, style_of
from harness.report.witness import witness_rows
from harness.report.worth import label, weighed, worth_rows
from harness.report.written import rejoin_grid, written_rows

EXTENTS_SHOWN = 50
SAMPLES_SHOWN = 16
NAMES_SHOWN = 50
MISMATCHES_SHOWN = 20

#: Steps of detail: everything; no hex, no lists of extents; no tables of settings; the verdict alone.
FULL, SHORT, SHORTER, VERDICT_ONLY = range(4)

Row = tuple[str, str]


@dataclass(frozen=True)
class PhaseBar:
    """A phase, its seconds, and its part of the cell from 0 to 100."""

    name: str
    time: str
    width: float


@dataclass(frozen=True)
class ShownExtents:
    """The first of some extents, and how many more there are."""

    title: str
    shown: tuple[Extent, ...]
    more: int

    @classmethod
    def of(cls, title: str, extents: Sequence[Extent]) -> ShownExtents:
        """As many as a page shows."""
        return cls(title, tuple(extents[:EXTENTS_SHOWN]), max(0, len(extents) - EXTENTS_SHOWN))


@dataclass(frozen=True)
class EvidenceView:
    """All that the page shows of one attempt, below its verdict."""

    link: str
    facts: tuple[Row, ...]
    requested: tuple[Property, ...]
    read_back: ReadBack
    rejoined: Grid | None
    rejoined_extents: tuple[ShownExtents, ...]
    changed: ShownExtents
    planted: Grid | None
    exposure: tuple[Row, ...]
    oracles: Oracles
    block_map: BlockMap | None
    ownership: tuple[Row, ...]
    files: Grid | None
    names: tuple[str, ...]
    names_more: int
    extents: tuple[Extent, ...]
    extents_more: int
    samples: tuple[SampleView, ...]
    samples_more: int
    work: tuple[Row, ...]
    repair: tuple[Row, ...]
    phases: tuple[PhaseBar, ...]
    kernel_errors: tuple[str, ...]
    failure: tuple[Row, ...]
    event_log: tuple[str, ...]
    console: tuple[str, ...]
    migrations: Grid | None
    timeline: CellTimeline | None
    readback: tuple[Row, ...]
    reread: tuple[Extent, ...]
    reread_more: int
    canary: tuple[Row, ...]
    canary_examples: tuple[str, ...]
    crash_recovery: tuple[Row, ...]
    alarms: tuple[Row, ...]
    mismatches: tuple[Extent, ...]
    mismatches_more: int


@dataclass(frozen=True)
class ResultView:
    """One result: its verdict, what was expected, and its evidence where there is some.

    ``detail`` is the step of detail that is shown of the evidence; ``linked``: whether that leads to its raw files.
    """

    result: Result
    anchor: str
    cell_id: str
    attempt: int | None
    control: str
    name: str
    kind: str
    style: str
    weak: bool
    sign: str
    mark: str
    sentence: str
    reasons: tuple[str, ...]
    worth: tuple[Row, ...]
    figures: str
    held: str
    expectation: str
    replay: str = ""
    detail: int = FULL
    linked: bool = True

    @cached_property
    def evidence(self) -> EvidenceView | None:
        """What is shown below the verdict; made only where it is, for of a large run most of it is left out."""
        evidence = self.result.evidence
        if evidence is None or self.detail == VERDICT_ONLY:
            return None
        made = replace(evidence_view(evidence, self.result), link=self.link)
        return replace(made, **dict(_left_out(made, self.detail)))

    @property
    def link(self) -> str:
        """Where its raw files lie beside the page; empty where they do not, or it was not played."""
        evidence = self.result.evidence
        return link_of(evidence) if evidence and self.linked else ""

    @property
    def left_out(self) -> bool:
        """Whether some of the evidence is not shown."""
        return self.detail != FULL

    @property
    def open(self) -> bool:
        """Whether the page shows it unfolded: differences that nobody expected."""
        return self.mark == "unexpected" and self.style in ("diverged", "corrupt")


def view(result: Result, anchor: str = "", replay: str = "") -> ResultView:
    """The view of one result; ``replay`` is the command that plays it again."""
    verdict, evidence, cell = result.verdict, result.evidence, result.cell
    kind = verdict.kind if verdict else None
    expected = control_expectation(cell) or cell.expected
    mark = held = ""
    if verdict is not None:
        control = control_entry(0, result, cell.control) if cell.control else None
        held = f"control {control.outcome}" if control else ""
        met = control.held if control else verdict.meets(expected)
        mark = "as expected" if met else "unexpected"
    return ResultView(
        result=result,
        anchor=anchor,
        cell_id=cell.id,
        attempt=evidence.attempt if evidence else None,
        control=cell.control.value if cell.control else "",
        name=play_name(cell),
        kind=label(result),
        style=style_of(kind),
        weak=weighed(result) is Potency.WEAK,
        sign=SIGNS[kind],
        mark=mark,
        sentence=verdict.sentence if verdict else "This cell did not run.",
        reasons=verdict.reasons if verdict else (),
        worth=_rows(worth_rows(result)),
        figures=figures(result),
        held=held,
        expectation=f"{formatting.joined(expected.verdicts, 'or')}: {expected.reason}" if expected else "",
        replay=replay,
    )


def evidence_view(evidence: Evidence, result: Result) -> EvidenceView:
    """The view of ``evidence``."""
    extents = shown_extents(evidence)
    names = evidence.ownership.names
    attempt = replace(result, evidence=evidence)
    reread = evidence.readback.differing if evidence.readback else ()
    mismatches = evidence.alarms.mismatches if evidence.alarms else ()
    return EvidenceView(
        link=link_of(evidence),
        facts=_rows(_facts(evidence)),
        requested=requested_and_observed(evidence.cell, evidence.observed),
        read_back=read_back(evidence),
        rejoined=rejoin_grid(evidence),
        rejoined_extents=tuple(
            ShownExtents.of(f"Extents that differed {one.when}", one.comparison.differing)
            for one in evidence.rejoin_comparisons
        ),
        changed=ShownExtents.of("Extents that changed during the work", _changed(evidence)),
        planted=planted_grid(evidence),
        exposure=_rows(_exposure(evidence, result)),
        oracles=oracles(evidence),
        block_map=block_map(evidence),
        ownership=_rows(
            [("Differing blocks", formatting.owners(evidence.ownership)), ("Found by", evidence.ownership.method)]
        ),
        files=file_grid(evidence.ownership, evidence.samples),
        names=names[:NAMES_SHOWN],
        names_more=max(0, len(names) - NAMES_SHOWN),
        extents=extents[:EXTENTS_SHOWN],
        extents_more=max(0, len(extents) - EXTENTS_SHOWN),
        samples=tuple(sample_view(sample) for sample in evidence.samples[:SAMPLES_SHOWN]),
        samples_more=max(0, len(evidence.samples) - SAMPLES_SHOWN),
        work=_rows(_work(evidence)),
        repair=_rows(_repair(evidence)),
        phases=_phases(evidence),
        kernel_errors=evidence.kernel_errors,
        failure=_rows(_failure(evidence)),
        event_log=evidence.event_log,
        console=evidence.console_errors,
        migrations=migrations_of(attempt),
        timeline=cell_timeline(attempt),
        readback=_rows(readback_rows(evidence)),
        reread=reread[:EXTENTS_SHOWN],
        reread_more=max(0, len(reread) - EXTENTS_SHOWN),
        canary=_rows(canary_rows(evidence)),
        canary_examples=evidence.canary.examples if evidence.canary else (),
        crash_recovery=_rows(crash_recovery_rows(evidence)),
        alarms=_rows(alarm_rows(evidence)),
        mismatches=mismatches[:MISMATCHES_SHOWN],
        mismatches_more=max(0, len(mismatches) - MISMATCHES_SHOWN),
    )


def link_of(evidence: Evidence) -> str:
    """Where the raw files of an attempt lie in its run's folder."""
    return f"cells/{quote(formatting.clean(evidence.cell.id), safe='')}/{evidence.attempt}/"


def _left_out(evidence: EvidenceView, detail: int) -> Iterator[tuple[str, Any]]:
    """What is not there any more at a step of ``detail``: its fields, and what stands for them."""
    if detail >= SHORT:
        for name in ("samples", "extents", "reread", "mismatches", "names", "rejoined_extents"):
            yield name, ()
        for name in ("samples_more", "extents_more", "reread_more", "mismatches_more", "names_more"):
            yield name, 0
        yield "changed", replace(evidence.changed, shown=(), more=0)
    if detail >= SHORTER:
        yield "requested", ()
        yield "read_back", replace(evidence.read_back, delays=None, nodes=None, moves=None)
        for name in ("phases", "event_log", "canary_examples"):
            yield name, ()
        for gone in ("files", "migrations", "timeline"):
            yield gone, None


def _rows(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple((name, value) for name, value in rows if value)


def _facts(evidence: Evidence) -> list[Row]:
    equal = {True: "equal", False: "not equal", None: ""}[evidence.equal_before]
    return [
        ("Requested", describe(evidence.cell)),
        ("Attempt", str(evidence.attempt)),
        ("Started", evidence.started_at),
        ("Finished", evidence.finished_at),
        ("Lab", evidence.lab),
        ("Device", formatting.blocks_size(evidence.device_blocks) if evidence.device_blocks else ""),
        ("DRBD before", state_text(evidence.before)),
        ("DRBD after", state_text(evidence.after)),
        ("Replicas before", equal),
        *lost_rows(evidence),
    ]


def _changed(evidence: Evidence) -> Sequence[Extent]:
    return evidence.written.changed if evidence.written else ()


def _exposure(evidence: Evidence, result: Result) -> list[Row]:
    verdict = result.verdict
    exposed = verdict.exposed_blocks if verdict else evidence.exposed_blocks
    differing = differing_blocks(result)
    per_block = f"{exposed / evidence.device_blocks:.2g} writes" if evidence.device_blocks else ""
    return [
        (
            "Block writes exposed",
            f"{formatting.blocks_size(exposed)} sent to the peer while the workload had the device",
        ),
        ("Per block of the device", per_block),
        *written_rows(evidence),
        *witness_rows(evidence),
        ("Differing", f"{formatting.blocks_size(differing)}" if verdict else ""),
        ("Rate", f"{differing / exposed * 100:.3g} % of the exposed block writes" if exposed and differing else ""),
    ]


def _work(evidence: Evidence) -> list[Row]:
    work = evidence.work
    if work is None:
        return []
    facts = [(name, formatting.figure(value)) for name, value in work.facts.items()]
    chances = "" if work.opportunities is None else f"{formatting.figure(work.opportunities)} {work.opportunity}"
    return [
        ("Duration", formatting.seconds(work.seconds)),
        *facts,
        *moved_page_rows(evidence),
        ("Opportunities", chances),
        ("Wrong reads", formatting.count(work.read_back_errors)),
        *_notes(work.notes),
    ]


def _notes(notes: Sequence[str]) -> list[Row]:
    return [("Note", note) for note in notes]


def _repair(evidence: Evidence) -> list[Row]:
    repair = evidence.repair
    if repair is None:
        return []
    after = formatting.plural(repair.differing_after, "block")
    result = "equal again by the comparison" if repair.differing_after == 0 else f"{after} still differ"
    return [("Method", repair.method), ("Duration", formatting.seconds(repair.seconds)), ("Result", result)]


def _failure(evidence: Evidence) -> list[Row]:
    failure = evidence.failure
    if failure is None:
        return []
    return [("Kind", failure.kind), ("Phase", failure.phase), ("Message", failure.message)]


def _phases(evidence: Evidence) -> tuple[PhaseBar, ...]:
    total = sum(evidence.phases.values())
    return tuple(
        PhaseBar(name, formatting.seconds(spent), round(100 * spent / total, 1) if total > 0 else 0.0)
        for name, spent in evidence.phases.items()
    )


def sectors(extent: Extent) -> Row:
    """An extent as sectors and as a place on the device."""
    blocks = extent.blocks()
    place = f"blocks {formatting.count(blocks.start)} to {formatting.count(blocks.stop - 1)}"
    if len(blocks) < 2:
        place = f"block {formatting.count(blocks.start)}"
    return f"{extent.start}+{extent.size}", f"{place}, {formatting.size(blocks.start * BLOCK_BYTES)} in"

"""Whether the controls held: the cells that prove that this lab could have seen what it did not see; pure."""

from __future__ import annotations

from collections.abc import Iterable

from harness.judgement.judge import judge
from harness.judgement.witness_coverage import control_doubt, witnessed
from harness.judgement.workload_proof import unproven_work
from harness.model import (
    SCHEMA_VERSION,
    Control,
    ControlOutcome,
    Controls,
    Evidence,
    Result,
    Verdict,
    VerdictKind,
    blocks_of,
)
from harness.model.block_runs import lowest


def control_outcome(evidence: Evidence, verdict: Verdict | None = None) -> ControlOutcome:
    """Whether the control that ``evidence`` is of held; :class:`ValueError` where its cell is no control.

    ``verdict``: what it was judged as, where that is known already; other controls change nothing that is asked of it.
    """
    control = evidence.cell.control
    if control is None:
        raise ValueError(f"{evidence.cell.id} is no control")
    if evidence.failure is not None:
        return ControlOutcome(control, False, f"{evidence.failure.phase}: {evidence.failure.message}")
    verdict = verdict or judge(evidence)
    expected = VerdictKind.CLEAN if control.clean else VerdictKind.DIVERGED
    if verdict.kind is not expected:
        return ControlOutcome(control, False, f"{expected} was expected: {verdict.sentence}")
    if control is Control.PLANTED and (missed := _planted_missed(evidence)):
        return ControlOutcome(control, False, missed)
    if control is Control.STEADY and (doubt := unproven_work(evidence) or _nothing_exposed(evidence)):
        return ControlOutcome(control, False, f"{verdict.sentence}; but {doubt}")
    if doubt := control_doubt(evidence):
        return ControlOutcome(control, False, f"{verdict.sentence}; but {doubt}")
    return ControlOutcome(control, True, verdict.sentence, witnessed(evidence))


def outcomes(attempts: Iterable[Evidence]) -> Controls:
    """The outcome of each control among ``attempts`` (oldest first) on one lab."""
    found: Controls = {}
    for one in attempts:
        if one.cell.control is not None:
            found = with_outcome(found, control_outcome(one))
    return found


def with_outcome(controls: Controls, outcome: ControlOutcome) -> Controls:
    """``controls`` with one more outcome: a control that failed is not replaced by a later one that held."""
    before = controls.get(outcome.control)
    return controls if before is not None and not before.held else {**controls, outcome.control: outcome}


def demanded_controls(results: Iterable[Result]) -> tuple[Control, ...]:
    """The controls that any cell of ``results`` needs to be CLEAN."""
    cells = [result for result in results if result.cell.control is None]
    asked = {(result.evidence.schema, result.cell.client) for result in cells if result.evidence is not None}
    # Nothing was played yet: what this version will ask for.
    asked = asked or {(SCHEMA_VERSION, result.cell.client) for result in cells}
    return tuple(one for one in Control if any(one.demanded(schema, client) for schema, client in asked))


def _nothing_exposed(evidence: Evidence) -> str | None:
    return None if evidence.exposed_blocks else "no block write was exposed"


def _planted_missed(evidence: Evidence) -> str | None:
    """Which oracle did not find exactly the blocks that were changed below DRBD; None where all did."""
    if evidence.verify is None or evidence.comparison is None:
        # A split brain is a difference too, whatever the oracles say; but none that was planted.
        return f"an oracle did not answer: {judge(evidence).sentence}"
    found = {
        "verify on the source": blocks_of(evidence.verify.source.extents),
        "verify on the target": blocks_of(evidence.verify.target.extents),
        "the comparison": blocks_of(evidence.comparison.differing),
    }
    planted = blocks_of(evidence.planted)
    for oracle, blocks in found.items():
        if blocks != planted:
            return f"{oracle} found blocks {lowest(blocks, 8)}, planted were {lowest(planted, 8)}"
    return None

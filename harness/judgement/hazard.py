"""What became of the writes that changed in flight: the hazard itself, whether or not any block differs; pure."""

from __future__ import annotations

from dataclasses import replace

from harness.judgement.witness_coverage import changed_in_flight, unproven_witness, unwatched
from harness.model import Controls, Evidence, Hazard, Verdict, VerdictKind

_EQUAL = (VerdictKind.CLEAN, VerdictKind.TRANSIENT)


def with_hazard(verdict: Verdict, evidence: Evidence, controls: Controls) -> Verdict:
    """``verdict`` with its hazard; where nobody can tell although somebody watched, a reason says why."""
    if verdict.kind.finds_harm:
        return replace(verdict, hazard=Hazard.PERSISTED if verdict.differing_blocks else None)
    if verdict.kind not in _EQUAL:
        return replace(verdict, hazard=None)
    noticed = evidence.alarms.detections if evidence.alarms is not None else 0
    if changed_in_flight(evidence) or noticed:
        return replace(verdict, hazard=Hazard.HEALED)
    if verdict.kind is not VerdictKind.CLEAN or evidence.witness is None:
        return replace(verdict, hazard=None)
    if doubt := unwatched(evidence) or unproven_witness(controls):
        reason = f"whether writes changed in flight is not known: {doubt}"
        return replace(verdict, hazard=None, reasons=(*verdict.reasons, reason))
    return replace(verdict, hazard=Hazard.NONE)

"""How much a verdict is worth, in words: the hazard, strong or weak, and of how many chances to diverge; pure."""

from __future__ import annotations

from harness.model import Hazard, Potency, Result, Verdict, VerdictKind
from harness.report.formatting import count, part_of, plural, upper_bound

Row = tuple[str, str]

NOT_RUN = "not run"

_HAZARDS = {
    Hazard.NONE: "no write changed in flight",
    Hazard.HEALED: "writes changed in flight, and at the end no block differs",
    Hazard.PERSISTED: "blocks differ at the end",
}


def label(result: Result) -> str:
    """The verdict's kind, and where it is a CLEAN of known worth ``strong`` or ``weak``."""
    if result.verdict is None:
        return NOT_RUN
    kind, potency = result.verdict.kind.value, weighed(result)
    return f"{kind} ({potency})" if potency else kind


def weighed(result: Result) -> Potency | None:
    """How much a CLEAN is worth; None for any other kind, where nobody judged it, and for a control."""
    verdict = result.verdict
    if verdict is None or verdict.kind is not VerdictKind.CLEAN or result.cell.control is not None:
        return None
    return verdict.potency


def share(blocks: int, verdict: Verdict) -> str:
    """``blocks`` of the opportunities where there were any, else of the block writes that were exposed."""
    counted = verdict.opportunities
    if counted is not None and counted.count:
        # Chance adds to what a workload did on purpose: more blocks than that are no share of it.
        beyond = f"{plural(blocks, 'block')}, {count(counted.count)} {counted.what}"
        return f"{part_of(blocks, counted.count)} {counted.what}" if blocks <= counted.count else beyond
    exposed = verdict.exposed_blocks
    return f"{part_of(blocks, exposed)} exposed" if exposed else f"{plural(blocks, 'block')}, none exposed"


def among(verdict: Verdict) -> tuple[int, str]:
    """What a rate of this verdict is a rate of: how many, and what they are in the plural."""
    counted = verdict.opportunities
    if counted is not None and counted.count:
        return counted.count, counted.what
    return verdict.exposed_blocks, "exposed block writes"


def worth_rows(result: Result) -> list[Row]:
    """What a verdict says beside its sentence; nothing of what nobody judged."""
    verdict = result.verdict
    if verdict is None:
        return []
    counted, bound, potency = verdict.opportunities, verdict.rate_upper_95, weighed(result)
    reason = f": {verdict.potency_reason}" if verdict.potency_reason else ""
    return [
        ("Hazard", f"{verdict.hazard}: {_HAZARDS[verdict.hazard]}" if verdict.hazard else ""),
        ("What this CLEAN is worth", f"{potency}{reason}" if potency else ""),
        ("Opportunities", f"{count(counted.count)} {counted.what}, counted by {counted.source}" if counted else ""),
        ("95 % upper bound", "" if bound is None else f"{upper_bound(bound)} of the {among(verdict)[1]}"),
    ]

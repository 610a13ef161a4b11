"""How much a verdict is worth, in words: the hazard, strong or weak, and of how many chances to diverge; pure."""

from __future__ import annotations

from harness.model import Hazard, Potency, Verdict, VerdictKind
from harness.report.formatting import count, part_of, plural, upper_bound

Row = tuple[str, str]

_HAZARDS = {
    Hazard.NONE: "no write is known to have changed in flight",
    Hazard.HEALED: "writes changed in flight, and at the end no block differs",
    Hazard.PERSISTED: "blocks differ at the end",
}


def label(verdict: Verdict) -> str:
    """The verdict's kind, and where it is a CLEAN of known worth ``strong`` or ``weak``."""
    return f"{verdict.kind} ({verdict.potency})" if weighed(verdict) else verdict.kind.value


def weighed(verdict: Verdict | None) -> Potency | None:
    """How much a CLEAN is worth; None for any other kind, and where nobody judged it."""
    return verdict.potency if verdict is not None and verdict.kind is VerdictKind.CLEAN else None


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


def worth_rows(verdict: Verdict | None) -> list[Row]:
    """What a verdict says beside its sentence; nothing of what nobody judged."""
    if verdict is None:
        return []
    counted, bound = verdict.opportunities, verdict.rate_upper_95
    potency = f"{verdict.potency}: {verdict.potency_reason}" if verdict.potency_reason else str(verdict.potency or "")
    chances = f"{count(counted.count)} {counted.what}, counted by {counted.source}" if counted else ""
    return [
        ("Hazard", f"{verdict.hazard}: {_HAZARDS[verdict.hazard]}" if verdict.hazard else ""),
        ("What this CLEAN is worth", potency if weighed(verdict) else ""),
        ("Opportunities", chances),
        ("95 % upper bound", "" if bound is None else f"{upper_bound(bound)} of the {among(verdict)[1]}"),
    ]

"""What differed before two replicas that were apart became one again; pure.

Nothing is subtracted: what was in flight when they lost each other differs rightly, and what a guest lost of it its
canary, fsck and read-back say.
"""

from __future__ import annotations

from harness.judgement.oracles import KIB_PER_BLOCK
from harness.model import Evidence, RejoinComparison


def rejoin_findings(evidence: Evidence) -> tuple[str, ...]:
    """A sentence for each comparison before a rejoin that found a difference, which a resync may have healed."""
    return tuple(_sentence(one) for one in evidence.rejoin_comparisons if one.comparison.differing)


def _sentence(found: RejoinComparison) -> str:
    differing = found.comparison.differing_blocks
    known = "" if found.out_of_sync_kib is None else f", DRBD knew of {found.out_of_sync_kib // KIB_PER_BLOCK}"
    writing = "" if found.quiet else ", while it may have been written to"
    blocks = "block" if differing == 1 else "blocks"
    return f"{differing} {blocks} differed {found.when}{known}{writing}; a resync of {found.away} followed"

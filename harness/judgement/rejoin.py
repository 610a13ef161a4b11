"""What differed before two replicas that were apart became one again; pure.

Nothing is subtracted: what was in flight when they lost each other differs rightly, and what a guest lost of it its
canary, fsck and read-back say.
"""

from __future__ import annotations

from harness.judgement.oracles import KIB_PER_BLOCK
from harness.model import Comparison, Evidence, RejoinComparison, blocks_of


def rejoin_findings(evidence: Evidence) -> tuple[str, ...]:
    """A sentence for each comparison before a rejoin that found a difference, and what a resync made of it."""
    return tuple(_sentence(one, evidence.comparison) for one in evidence.rejoin_comparisons if one.comparison.differing)


def _sentence(found: RejoinComparison, at_the_end: Comparison | None) -> str:
    differing = found.comparison.differing_blocks
    known = "" if found.out_of_sync_kib is None else f", DRBD knew of {found.out_of_sync_kib // KIB_PER_BLOCK}"
    writing = "" if found.quiet else ", while it may have been written to"
    blocks = "block" if differing == 1 else "blocks"
    return f"{differing} {blocks} differed {found.when}{known}{writing}; {_afterwards(found, at_the_end)}"


def _afterwards(found: RejoinComparison, at_the_end: Comparison | None) -> str:
    still = blocks_of(found.comparison.differing) & blocks_of(at_the_end.differing if at_the_end else ())
    if not still:
        return f"a resync of {found.away} followed"
    these = "they differ" if len(still) == found.comparison.differing_blocks else f"{len(still)} of them differ"
    return f"{these} still at the end: no resync of {found.away} copied them, or they came to differ again"

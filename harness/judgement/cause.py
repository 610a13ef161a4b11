"""Why blocks differ: whether those that do are those whose writes changed in flight; pure.

A buffer that changes while DRBD writes it explains its block.  A block that differs although every write of it was
watched and none changed has another cause, which is not the pitfall that the workloads are made for: a fault of DRBD,
of the machine, or of whoever wrote below DRBD.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from harness.judgement.witness_coverage import unwatched
from harness.model import Evidence, blocks_of


@dataclass(frozen=True)
class Cause:
    """The blocks that differ in the end, without those that were changed below DRBD on purpose.

    ``in_flight``: a write of it changed in flight; ``other``: none did.
    """

    in_flight: AbstractSet[int]
    other: AbstractSet[int]


def cause(evidence: Evidence) -> Cause | None:
    """Which blocks differ because their writes changed in flight; None where the witness cannot answer for all writes.

    It cannot either where it lists fewer blocks than it counts.
    """
    witness, comparison = evidence.witness, evidence.comparison
    if witness is None or comparison is None or unwatched(evidence) is not None:
        return None
    changed = blocks_of(witness.changed)
    if len(changed) != witness.changed_blocks:
        return None
    differing = blocks_of(comparison.differing) - blocks_of(evidence.planted)
    return Cause(differing & changed, differing - changed)


def cause_findings(evidence: Evidence) -> tuple[str, ...]:
    """The same as a sentence, for the reasons of a verdict; none where nothing differs or nobody can tell."""
    found = cause(evidence)
    if found is None or not (found.in_flight or found.other):
        return ()
    total = len(found.in_flight) + len(found.other)
    if not found.other:
        return (f"the witness saw a write of each of the {total} differing blocks change in flight",)
    return (
        f"the witness saw a write of {len(found.in_flight)} of the {total} differing blocks change in flight; "
        f"what made the other {len(found.other)} differ is not known",
    )

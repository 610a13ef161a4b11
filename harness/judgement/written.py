"""Whether what differs was written in the cell: the blocks that changed on one replica against those that differ; pure.

The replicas were compared when everything was prepared, so that a block that differs in the end was written on at least
one of them since.  Where ``Written.node``'s own block is what it was, only the other replica changed: it got something
that this node never kept, or kept only for a moment, as when a buffer changed in flight and was written once more.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from harness.model import Evidence, blocks_of


@dataclass(frozen=True)
class UnwrittenDifferences:
    """Blocks that differ in the end although ``node``'s replica of them did not change in the cell.

    ``before``: they differed when the work began already; ``elsewhere``: they changed on the other replica only.
    """

    node: str
    before: AbstractSet[int]
    elsewhere: AbstractSet[int]


def unwritten_differences(evidence: Evidence) -> UnwrittenDifferences | None:
    """Blocks that differ and were not written on the replica that was watched; None where that is not known."""
    written, comparison = evidence.written, evidence.comparison
    if written is None or comparison is None:
        return None
    unwritten = blocks_of(comparison.differing) - blocks_of(written.changed)
    before = unwritten & blocks_of(written.unequal_before)
    return UnwrittenDifferences(written.node, before, unwritten - before)


def unwritten_findings(evidence: Evidence) -> tuple[str, ...]:
    """The same as sentences, for the reasons of a verdict; they take nothing away from what differs."""
    found = unwritten_differences(evidence)
    if found is None:
        return ()
    sentences = []
    if found.before:
        sentences.append(f"{len(found.before)} of the blocks that differ did so before the work began")
    if found.elsewhere:
        sentences.append(
            f"{len(found.elsewhere)} of the blocks that differ did not change on {found.node} during the work"
        )
    return tuple(sentences)

"""Whether verify with its counter and the comparison agree: pure, and one place for the judge and the reports.

The kernel log may name fewer blocks than the verify marked: DRBD keeps the extent it will print next in one place, and
a differing block that does not follow it directly takes that place unprinted (``drbd_ov_out_of_sync_found`` in
drbd_worker.c, 8.4).  Replies that come out of order do that.  The bitmap's weight, DRBD's counter, is complete; so
the log may be short of it, never beyond it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from harness.model import BLOCK_BYTES, Evidence, blocks_of
from harness.model.block_runs import block_set, runs_of

KIB_PER_BLOCK = BLOCK_BYTES // 1024


@dataclass(frozen=True)
class OracleAgreement:
    """The oracles' common answer, in 4 KiB blocks.

    ``marked``: how many DRBD holds out of sync; ``named``: those that a kernel log names; ``differing``: those that the
    comparison found; ``covered``: those that DRBD marks for it, which are more where one bit of its bitmap is for more
    than one block.  ``dispute`` says in one sentence how they contradict each other, or is None.
    """

    marked: int
    named: AbstractSet[int]
    differing: AbstractSet[int]
    dispute: str | None
    covered: AbstractSet[int]

    @property
    def unnamed(self) -> int:
        """Marked blocks that no kernel log names."""
        return self.marked - len(self.named)

    @property
    def healed(self) -> int:
        """Marked blocks that were equal again when the devices were compared."""
        return self.marked - len(self.covered)


def combine(evidence: Evidence) -> OracleAgreement:
    """The common answer of verify, counter and comparison; :class:`ValueError` where one of them has none."""
    verify, comparison, counter = evidence.verify, evidence.comparison, evidence.counter_kib
    if verify is None or comparison is None or counter is None:
        raise ValueError("an oracle has no answer")
    source, target = blocks_of(verify.source.extents), blocks_of(verify.target.extents)
    named, differing = source | target, blocks_of(comparison.differing)
    covered = _covered(differing, evidence.cell.replication.bitmap_block_kib // KIB_PER_BLOCK)
    marked = counter // KIB_PER_BLOCK
    dispute = None
    if counter % KIB_PER_BLOCK:
        dispute = f"DRBD counts {counter} KiB out of sync, which is no whole number of blocks"
    elif len(named) > marked:
        dispute = f"the kernel logs of the verify name {len(named)} blocks, DRBD counts {marked} out of sync"
    elif len(named | covered) > marked:
        dispute = f"{len(named | covered) - marked} blocks differ that verify did not report"
    elif source != target and len(named) == marked:
        dispute = f"{len(source ^ target)} blocks of the same verify stand in the log of one node only"
    return OracleAgreement(marked, named, differing, dispute, covered)


def _covered(blocks: AbstractSet[int], a_bit: int) -> AbstractSet[int]:
    """All blocks of the bits that ``blocks`` are in, each for ``a_bit`` blocks of 4 KiB."""
    if a_bit <= 1:
        return blocks
    bits = block_set([range(run.start // a_bit, (run.stop - 1) // a_bit + 1) for run in runs_of(blocks)])
    return block_set([range(run.start * a_bit, run.stop * a_bit) for run in runs_of(bits)])

"""How many chances to diverge a cell had, and what its differing blocks say of their rate; pure."""

from __future__ import annotations

import math

from harness.judgement.oracles import KIB_PER_BLOCK
from harness.judgement.stats import rate_upper
from harness.judgement.witness_coverage import saw_no_write
from harness.model import Evidence, Opportunities

EXPOSED = "exposed block writes"


def opportunities(evidence: Evidence) -> Opportunities | None:
    """The larger of two counts: the workload's own, and that of the witness where it watched.

    What was not written was no chance: never more than the block writes that were exposed.  None where neither of them
    counted; a witness that saw no write of a cell that wrote counted nothing.
    """
    work, witness = evidence.work, evidence.witness
    counted = []
    if work is not None and work.opportunities is not None and 0 <= work.opportunities < math.inf:
        counted.append((int(work.opportunities), work.opportunity or "opportunities", "the workload"))
    if witness is not None and witness.watched and not saw_no_write(evidence):
        counted.append((witness.changed_block_writes, "block writes that changed in flight", "the witness"))
    if not counted:
        return None
    count, what, source = max(counted, key=lambda one: one[0])
    return Opportunities(min(count, evidence.exposed_blocks), what, source)


def trials(evidence: Evidence) -> tuple[int, str]:
    """What a rate of differing blocks is a rate of, and what that is: opportunities, or exposed blocks without any."""
    counted = opportunities(evidence)
    return (counted.count, counted.what) if counted and counted.count else (evidence.exposed_blocks, EXPOSED)


def resynced_kib(evidence: Evidence) -> int:
    """How much was copied from one replica to the other before they were compared: it may have been different.

    At least what differed before they rejoined, whatever DRBD logged.
    """
    alarms, crashed = evidence.alarms, evidence.crash_recovery
    # What a rejoin copied stands in the kernel logs that the alarms are read from too.
    logged = max(alarms.resynced_kib if alarms else 0, (crashed.resynced_kib or 0) if crashed else 0)
    apart = max((one.comparison.differing_blocks for one in evidence.rejoin_comparisons), default=0)
    return max(logged, apart * KIB_PER_BLOCK)


def rate_bound(evidence: Evidence, differing: int) -> float | None:
    """The 95 % upper bound on the rate of ``differing`` blocks; None without trials, and where a resync ran.

    It describes this one repetition, and treats each block as a trial of its own although blocks differ in bursts: how
    sure a cell makes us is said by its repetitions (:mod:`harness.judgement.repetitions`).
    """
    if resynced_kib(evidence):
        return None
    count, _ = trials(evidence)
    # A block may diverge more than once, and by chance where nobody counted, so the blocks can pass no rate on.
    return rate_upper(min(differing, count), count)


def nothing_found(evidence: Evidence) -> str:
    """What it means that no block differs, as a sentence."""
    nothing = "verify and comparison found nothing"
    if not evidence.exposed_blocks:
        return f"{nothing}; no block write was exposed"
    nothing = f"{nothing} in {evidence.exposed_blocks} {EXPOSED}"
    if mebibytes := resynced_kib(evidence) / 1024:
        return f"{nothing}: equal after a resync of {mebibytes:.1f} MiB"
    bound = rate_bound(evidence, 0)
    assert bound is not None, "exposed blocks are trials"
    count, what = trials(evidence)
    of_them = "them" if what == EXPOSED else f"the {count} {what}"
    return f"{nothing}: at most {upper_bound(bound)} of {of_them} diverge (95 %)"


def exposed_text(evidence: Evidence) -> str:
    """After how many chances something differed, as the end of a sentence; empty where nothing was exposed."""
    if not evidence.exposed_blocks:
        return ""
    count, what = trials(evidence)
    also = "" if what == EXPOSED else f" and {count} {what}"
    return f" after {evidence.exposed_blocks} {EXPOSED}{also}"


def upper_bound(rate: float) -> str:
    """An upper bound as percent, two digits, never rounded down: ``0.0002412`` as ``0.025 %``."""
    percent = rate * 100
    if not percent > 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(percent)))
    scaled = math.ceil(round(percent * 10**digits, 6))
    return f"{scaled / 10**digits:.{digits}f} %"

"""Whether a change that was planted below DRBD was found, and given to whom it belongs; pure.

Of a planted change whose owner is known the whole way is tested: the comparison has to find its block, and the search
its owner.  Any other answer, and be it a difference on which all oracles agree, shows an instrument that errs.
"""

from __future__ import annotations

from harness.model import BLOCK_BYTES, Evidence, PlantedChange, blocks_of


def misattributed(evidence: Evidence) -> str | None:
    """Which planted change with a known owner was not found, or given to somebody else; None where all are right."""
    return next((wrong for change in evidence.planted if (wrong := _wrong(evidence, change))), None)


def right_owners(evidence: Evidence) -> tuple[int, int]:
    """Of how many planted changes with a known owner block and owner were found, and how many there are."""
    known = [change for change in evidence.planted if change.owner is not None]
    return sum(_wrong(evidence, change) is None for change in known), len(known)


def _wrong(evidence: Evidence, change: PlantedChange) -> str | None:
    if change.owner is None:
        return None
    differing = blocks_of(evidence.comparison.differing) if evidence.comparison else frozenset()
    found = {sample.block: sample for sample in evidence.samples}
    for block in change.blocks():
        place = f"block {block}, which was changed on {change.node} below DRBD"
        if block not in differing:
            return f"{place}, was not found"
        if block not in found:
            return f"nobody looked for the owner of {place}"
        sample = found[block]
        owner, detail = sample.owner, sample.detail
        if owner is not change.owner:
            return f"{place}, is {change.owner} ({change.owner_detail}) and was taken for {owner} ({detail})"
        if change.owner_detail and change.owner_detail not in (detail, sample.path):
            return f"{place}, is of {change.owner_detail} and was taken for {detail}"
        if (offset := _offset(change, block)) is not None and sample.file_offset != offset:
            return f"{place}, begins at byte {offset} of {change.owner_detail} and was taken for {detail}"
    return None


def _offset(change: PlantedChange, block: int) -> int | None:
    """The byte of its file that ``block`` begins with, where that is known."""
    if change.owner_offset is None:
        return None
    return change.owner_offset + (block - change.blocks()[0]) * BLOCK_BYTES

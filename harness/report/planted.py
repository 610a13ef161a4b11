"""What was changed below DRBD on purpose, whether each look found it, and whether the search names its owner; pure."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from harness.model import BlockOwner, Evidence, PlantedChange, PlantedKind, Sample, blocks_of
from harness.report.formatting import count
from harness.report.grid import Grid, Slot, grid

CHANGES_SHOWN = 40


def planted_grid(evidence: Evidence) -> Grid | None:
    """One row for each change, the first of them; None where nothing was planted."""
    comparison, verify = evidence.comparison, evidence.verify
    compared = blocks_of(comparison.differing) if comparison else None
    verified = blocks_of((*verify.source.extents, *verify.target.extents)) if verify else None
    rows: list[tuple[Slot, ...]] = [
        (
            Slot(f"{one.start}+{one.size}"),
            Slot(one.node),
            Slot(_how(one)),
            Slot(_named(one.owner, one.owner_detail)),
            _searched(one, evidence.samples),
            _found(one, verified),
            _found(one, compared),
        )
        for one in evidence.planted[:CHANGES_SHOWN]
    ]
    if (more := len(evidence.planted) - CHANGES_SHOWN) > 0:
        rows.append((Slot(f"{count(more)} more"), *[Slot()] * 6))
    columns = ("Sectors", "On", "How", "Whose it is", "The search says", "Found by verify", "Found by the comparison")
    return grid("Planted below DRBD", columns, rows)


def _how(one: PlantedChange) -> str:
    return str(one.kind) if one.kind is PlantedKind.SECTORS else f"byte {one.byte} of the sector inverted"


def _named(owner: BlockOwner | None, detail: str) -> str:
    return "" if owner is None else f"{owner}: {detail}" if detail else str(owner)


def _searched(one: PlantedChange, samples: Sequence[Sample]) -> Slot:
    """What the search called the owner of that block, where it was asked about it."""
    found = next((sample for sample in samples if sample.block in one.blocks()), None)
    if found is None:
        return Slot("not asked", "bad") if one.owner is not None else Slot()
    other = bool(one.owner_detail) and found.detail != one.owner_detail
    wrong = one.owner is not None and (found.owner is not one.owner or other)
    return Slot(_named(found.owner, found.detail), "bad" if wrong else "")


def _found(one: PlantedChange, blocks: AbstractSet[int] | None) -> Slot:
    if blocks is None:
        return Slot("not asked")
    return Slot("yes", "good") if blocks_of([one]) <= blocks else Slot("no", "bad")

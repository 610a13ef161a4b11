"""What was changed below DRBD on purpose, and whether each look found it; pure."""

from __future__ import annotations

from harness.model import Evidence, PlantedChange, PlantedKind, blocks_of
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
            Slot(_owner(one)),
            _found(one, verified),
            _found(one, compared),
        )
        for one in evidence.planted[:CHANGES_SHOWN]
    ]
    if (more := len(evidence.planted) - CHANGES_SHOWN) > 0:
        rows.append((Slot(f"{count(more)} more"), *[Slot()] * 5))
    columns = ("Sectors", "On", "How", "Whose it is", "Found by verify", "Found by the comparison")
    return grid("Planted below DRBD", columns, rows)


def _how(one: PlantedChange) -> str:
    return str(one.kind) if one.kind is PlantedKind.SECTORS else f"byte {one.byte} of the sector inverted"


def _owner(one: PlantedChange) -> str:
    return ""


def _found(one: PlantedChange, blocks: frozenset[int] | None) -> Slot:
    if blocks is None:
        return Slot("not asked")
    return Slot("yes", "good") if blocks_of([one]) <= blocks else Slot("no", "bad")

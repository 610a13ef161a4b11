"""Whose the differing blocks are, cell by cell, as one bar each; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.model import BlockOwner, Result
from harness.report.cells import cell_anchor
from harness.report.formatting import count, plural
from harness.report.repetitions import played_cells
from harness.report.table import differing_blocks


@dataclass(frozen=True)
class OwnerPart:
    """One owner's part of a bar: where it begins and how wide it is, from 0 to 100."""

    owner: str
    text: str
    at: float
    width: float


@dataclass(frozen=True)
class OwnerBar:
    """One cell: over all its plays, whose the differing blocks are."""

    anchor: str
    cell_id: str
    total: str
    parts: tuple[OwnerPart, ...]

    @property
    def text(self) -> str:
        """The parts in words."""
        return ", ".join(part.text for part in self.parts)


def owner_bars(results: Sequence[Result], names: Sequence[str]) -> tuple[OwnerBar, ...]:
    """A bar for every cell in which blocks differ and somebody looked whose they are; ``names`` are the anchors."""
    bars = []
    for one in played_cells(results):
        if one.answer.cell.tests_instrument:
            continue
        owned = [play.evidence.ownership for play in one.answer.plays if play.evidence and differing_blocks(play)]
        counted = {owner: sum(getattr(ownership, owner.value) for ownership in owned) for owner in BlockOwner}
        total = sum(counted.values())
        if not total:
            continue
        parts, at = [], 0.0
        for owner, number in counted.items():
            if number:
                width = 100 * number / total
                parts.append(OwnerPart(owner.value, f"{count(number)} {owner}", round(at, 2), round(width, 2)))
                at += width
        first = names[one.numbers[0]]
        anchor = cell_anchor(first) if one.repeated else first
        bars.append(OwnerBar(anchor, one.answer.cell_id, plural(total, "block"), tuple(parts)))
    return tuple(bars)

"""What was written in a cell, and what differed before replicas that were apart rejoined: rows and a table; pure."""

from __future__ import annotations

from harness.model import Evidence, blocks_of
from harness.report.formatting import blocks_size, count, plural, seconds, size
from harness.report.grid import Grid, Slot, grid

Row = tuple[str, str]


def written_rows(evidence: Evidence) -> list[Row]:
    """Nothing for a cell of before this was looked at."""
    written = evidence.written
    if written is None:
        return []
    unequal = len(blocks_of(written.unequal_before))
    return [
        (f"Distinct blocks changed on {written.node}", f"{blocks_size(written.changed_blocks)} during the work"),
        ("Different before the work", plural(unequal, "block") if unequal else ""),
    ]


def rejoin_grid(evidence: Evidence) -> Grid | None:
    """Each comparison before replicas that were apart rejoined; None where they never were, or nobody looked."""
    rows = [
        (
            Slot(one.when),
            Slot(one.away),
            Slot(blocks_size(one.comparison.differing_blocks)),
            Slot(_extents(len(one.comparison.differing))),
            Slot("" if one.out_of_sync_kib is None else size(one.out_of_sync_kib * 1024)),
            Slot("no" if one.quiet else "yes: what differs may have been under way"),
            Slot(seconds(one.comparison.seconds)),
        )
        for one in evidence.rejoin_comparisons
    ]
    columns = (
        "When", "Replica to be overwritten", "Differing", "Extents", "Out of sync by DRBD", "Written to meanwhile",
        "Took",
    )  # fmt: skip
    return grid("Compared before the replicas rejoined", columns, rows)


def _extents(number: int) -> str:
    return count(number) if number else ""

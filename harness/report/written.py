"""What was written in a cell, and what differed before replicas that were apart rejoined, as rows of its page; pure."""

from __future__ import annotations

from harness.model import Evidence
from harness.report.formatting import blocks_size

Row = tuple[str, str]


def written_rows(evidence: Evidence) -> list[Row]:
    """Nothing for a cell of before this was looked at."""
    rows = [
        (
            f"Differed {one.when}",
            blocks_size(one.comparison.differing_blocks) + ("" if one.quiet else ", maybe while it was written to"),
        )
        for one in evidence.rejoin_comparisons
    ]
    written = evidence.written
    if written is None:
        return rows
    return [(f"Changed on {written.node} during the work", blocks_size(written.changed_blocks)), *rows]

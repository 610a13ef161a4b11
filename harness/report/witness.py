"""What changed in flight in a cell, as rows of its page; pure."""

from __future__ import annotations

from collections.abc import Iterable

from harness.model import Evidence, Witness, blocks_of
from harness.report.formatting import count, part_of, percent, plural, seconds

Row = tuple[str, str]

REASONS = {
    "too_long": "longer than is watched",
    "unreadable": "in memory that could not be read",
    "no_room": "more in flight than could be kept",
    "begin_unseen": "begun before it was watched",
    "end_unseen": "with an end that was not seen",
    "in_flight": "not completed yet",
}


def why_not_watched(seen: Iterable[Witness]) -> str:
    """The first reason that is told, without the words that say that there is one; empty where none is."""
    return next((one.reason.replace("not watched: ", "") for one in seen if one.reason), "")


def reasons_not_watched(witness: Witness) -> str:
    """Why writes were not watched, with how many; empty where all were."""
    return ", ".join(
        f"{count(writes)} {REASONS.get(name, name)}" for name, writes in witness.not_watched.items() if writes
    )


def witness_rows(evidence: Evidence) -> list[Row]:
    """Nothing for a cell of before there was a witness; counts also where only a part was watched."""
    witness = evidence.witness
    if witness is None:
        return []
    rows = _counts(witness, evidence) if witness.nodes else []
    return rows if witness.watched else [("Changed in flight", f"not fully watched: {witness.reason}"), *rows]


def _counts(witness: Witness, evidence: Evidence) -> list[Row]:
    seen = witness.block_writes
    share = f" ({percent(witness.changed_block_writes / seen)})" if seen else ""
    rows = [
        (
            "Changed in flight",
            f"{part_of(witness.changed_block_writes, seen)} block writes{share}, in "
            f"{plural(witness.changed_blocks, 'block')} of the device",
        ),
        ("Of those, different at the end", _persisted(witness, evidence)),
        ("Watched at", f"{' to '.join(witness.hooks)} on {' and '.join(witness.nodes)}"),
        ("Ready after", seconds(witness.attach_seconds)),
    ]
    reasons = reasons_not_watched(witness)
    return [*rows, ("Not watched", f"{plural(witness.total_not_watched, 'write')}: {reasons}" if reasons else "")]


def _persisted(witness: Witness, evidence: Evidence) -> str:
    changed = blocks_of(witness.changed)
    if evidence.comparison is None or not changed:
        return ""
    return part_of(len(changed & blocks_of(evidence.comparison.differing)), len(changed))

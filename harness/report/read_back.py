"""What was read back of both nodes and after each move, beside what the disk's first attachment showed; pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.judgement.in_force import delays_not_as
from harness.model import Cell, DelayProfile, DelayReading, Evidence
from harness.report.formatting import count, joined, plural
from harness.report.grid import Grid, Slot, grid
from harness.report.requested_vs_observed import Match, requested_and_observed

Row = tuple[str, str]

_BAD = (Match.DIFFERENT, Match.UNREAD)


@dataclass(frozen=True)
class ReadBack:
    """The tables of it, each None where nobody read that."""

    delays: Grid | None
    nodes: Grid | None
    moves: Grid | None


def read_back(evidence: Evidence) -> ReadBack:
    """All that was read back by node and after moves."""
    return ReadBack(delay_grid(evidence), node_grid(evidence), move_grid(evidence))


def delay_grid(evidence: Evidence) -> Grid | None:
    """The delays of each node, at each moment at which they were read; None where nobody read both nodes."""
    readings = evidence.observed.delays
    names = tuple(dict.fromkeys(name for reading in readings for name in reading.nodes))
    rows = [
        (
            Slot(reading.when),
            Slot(reading.delayed or "none"),
            *(_delay(evidence.cell, reading, name) for name in names),
        )
        for reading in readings
    ]
    return grid("Delays by node", ("Read", "Delayed on purpose", *names), rows)


def node_grid(evidence: Evidence) -> Grid | None:
    """What was in force on each node for the client's writes; None where nobody read it by node."""
    asked = evidence.cell.replication
    rows = [
        (
            Slot(name),
            Slot(str(node.replication), "" if node.replication == asked else "bad"),
            Slot(node.nic),
            _switch(node.scatter_gather),
            _switch(node.drbd_stable_writes),
        )
        for name, node in evidence.observed.nodes.items()
    ]
    columns = ("Node", "Replication", "Replication NIC", "Its scatter-gather", "stable_writes of DRBD")
    return grid("Settings by node", columns, rows)


def move_grid(evidence: Evidence) -> Grid | None:
    """What was in force of the disk where each move brought the guest; None where it was not read after a move."""
    rows = []
    for after in evidence.observed_after_moves:
        found = Slot(f"could not be read: {after.message}", "text bad")
        if after.observed is not None:
            read = requested_and_observed(evidence.cell, after.observed)
            # Delays are read by node, not with the disk.
            wrong = [row for row in read if row.match in _BAD and not row.name.endswith("delay")]
            texts = [f"{row.name}: {row.observed or 'not read'}, {row.requested} was requested" for row in wrong]
            found = Slot(joined(texts), "text bad") if texts else Slot("as requested", "good")
        rows.append((Slot(str(after.migration)), Slot(after.node), found))
    return grid("The disk after each move", ("Migration", "Node", "The disk there"), rows)


def moved_page_rows(evidence: Evidence) -> list[Row]:
    """Whether the swap storm met pages again that were swapped out before a move of its machine."""
    facts = evidence.work.facts if evidence.work else {}
    if not facts.get("moves"):
        return []
    checked, wrong = facts.get("pages_moved_checked", 0.0), facts.get("pages_moved_wrong", 0.0)
    return [
        ("Moves that the storm was told of", count(int(facts["moves"]))),
        (
            "Pages swapped out before a move",
            f"{count(int(wrong))} wrong of {plural(int(checked), 'page')} read from swap and checked after it",
        ),
    ]


def lost_rows(evidence: Evidence) -> list[Row]:
    """What was lost of the kernel's messages and of DRBD's events before it was read."""
    holes, events, left_out = evidence.log_holes, evidence.events_lost, evidence.events_left_out
    known = "none" if events == () else "; ".join(events or ())
    return [
        ("Kernel messages lost", count(holes) if holes else ""),
        ("Kernel messages left out, which only repeat", count(evidence.log_left_out) if evidence.log_left_out else ""),
        ("DRBD's events lost", known),
        (
            "DRBD's events left out, which change no state",
            count(left_out) if left_out else "",
        ),
    ]


def _delay(cell: Cell, reading: DelayReading, name: str) -> Slot:
    if name not in reading.nodes:
        return Slot()
    found = reading.nodes[name]
    alone = DelayReading(reading.when, reading.delayed, {name: found}, reading.over)
    wrong = any(delays_not_as(DelayProfile() if reading.over else cell.delays, alone))
    if found is None:
        return Slot("not read", "bad")
    parts = [("link", found.link_delay_ms), ("disk", found.disk_delay_ms), ("flush", found.flush_delay_ms)]
    text = ", ".join(f"{what} {delay} ms" for what, delay in parts if delay)
    return Slot(text or "none", "bad" if wrong else "")


def _switch(value: bool | None) -> Slot:
    return Slot("not read", "bad") if value is None else Slot("on" if value else "off")

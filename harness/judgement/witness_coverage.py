"""What the witness can answer for: whether it saw the writes of a cell, and whether the controls prove that it sees."""

from __future__ import annotations

from harness.model import Control, Controls, Evidence

# DRBD's counters and the witness are read one after the other, and either may have a few writes that the other has not;
# on labs they were 1 to 3 % apart in short cells, and equal in long ones.
_LEAST_SEEN = 0.95

#: The controls whose writes change in flight on purpose.
CHANGING = (Control.IN_FLIGHT, Control.IN_FLIGHT_GUEST)


def changed_in_flight(evidence: Evidence) -> int:
    """How many block writes the witness saw change, whether or not it could watch all of them."""
    return evidence.witness.changed_block_writes if evidence.witness is not None else 0


def saw_no_write(evidence: Evidence) -> bool:
    """Whether the witness watched and saw nothing of a cell that wrote: then what it did not see means nothing."""
    witness = evidence.witness
    wrote = evidence.exposed_blocks > 0 and evidence.cell.workload != "no-writes"
    return witness is not None and witness.watched and wrote and witness.block_writes == 0


def unwatched(evidence: Evidence) -> str | None:
    """Why the witness cannot say that no write changed, as the end of a sentence; None where it watched all of them."""
    witness = evidence.witness
    if witness is None:
        return "nothing watched the writes"
    if not witness.watched:
        return witness.reason or "the witness did not watch"
    if saw_no_write(evidence):
        return f"the witness saw no write, and {evidence.exposed_blocks} block writes were exposed"
    if witness.block_writes < _LEAST_SEEN * evidence.exposed_blocks:
        return f"the witness saw {witness.block_writes} of {evidence.exposed_blocks} exposed block writes"
    if missed := witness.total_not_watched:
        return f"{missed} of {missed + witness.writes} writes were not watched"
    return None


def witnessed(evidence: Evidence) -> bool:
    """Whether the witness watched and saw writes change: on this lab it is known to see them."""
    witness = evidence.witness
    return witness is not None and witness.watched and witness.changed_block_writes > 0


def unproven_witness(controls: Controls) -> str | None:
    """Why nobody knows that the witness of this lab sees changes; None where that of an in-flight control saw some."""
    seen = any(one.witnessed for one in controls.values() if one.control in CHANGING)
    return None if seen else "no in-flight control shows that the witness of this lab sees changes"


def control_doubt(evidence: Evidence) -> str | None:
    """How the witness contradicts the control that ``evidence`` is of; None where it does not, or could not watch."""
    control, witness, changed = evidence.cell.control, evidence.witness, changed_in_flight(evidence)
    if control is None or witness is None:
        return None
    if saw_no_write(evidence):
        return f"its witness saw no write, and {evidence.exposed_blocks} block writes were exposed"
    if control in CHANGING and witness.watched and not changed:
        return f"its witness saw none of {witness.block_writes} block writes change in flight"
    if control.clean and changed:
        return f"its witness saw {changed} of {witness.block_writes} block writes change in flight"
    return None

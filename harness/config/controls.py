"""The controls of a run: cells whose outcome is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.model import CacheMode, Cell, ClientKind, Control, Expectation, VerdictKind

#: In the order in which they are played.
CONTROL_CELLS = (
    Cell(
        workload="planted",
        client=ClientKind.HOST,
        control=Control.PLANTED,
        seconds=1,
        expected=Expectation((VerdictKind.DIVERGED,), "known sectors were changed below DRBD: they must be found"),
    ),
    Cell(
        workload="steady",
        client=ClientKind.HOST,
        control=Control.STEADY,
        seconds=5,
        expected=Expectation((VerdictKind.CLEAN,), "nobody changed a buffer during its write: nothing may differ"),
    ),
    Cell(
        workload="no-writes",
        client=ClientKind.HOST,
        control=Control.IDLE,
        seconds=2,
        expected=Expectation((VerdictKind.CLEAN,), "nothing was written: nothing may differ"),
    ),
    Cell(
        workload="inflight-modify",
        client=ClientKind.HOST,
        control=Control.IN_FLIGHT,
        seconds=5,
        expected=Expectation((VerdictKind.DIVERGED,), "buffers were changed in flight on purpose: that must be seen"),
    ),
    Cell(
        workload="inflight-modify",
        # As direct as cache=none, which a matrix is likelier to ask for itself: that cell then stays a cell.
        cache=CacheMode.DIRECTSYNC,
        control=Control.IN_FLIGHT_GUEST,
        seconds=5,
        expected=Expectation(
            (VerdictKind.DIVERGED,), "a guest changed buffers in flight on purpose: that must be seen through QEMU too"
        ),
    ),
)
_THROUGH_A_GUEST = CONTROL_CELLS[-1]
#: What a node that came back has to show before the next cell.
REVIVAL_CONTROLS = (Control.PLANTED, Control.IN_FLIGHT)


def with_controls(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """``cells`` with the controls of a run before them; the one through a guest only where a cell is in a guest.

    A cell that already plays a control moves to the beginning and gets the control's expectation if it has none.  A
    cell that asks just what a control asks becomes that control; of several repetitions the first does.
    """
    rest = [_in_flight_through_a_guest(cell) for cell in cells]
    in_a_guest = any(cell.client is ClientKind.GUEST for cell in rest)
    controls: list[Cell] = []
    for control in CONTROL_CELLS:
        playing = [cell for cell in rest if cell.control is control.control]
        if not playing:
            playing = [cell for cell in rest if cell.play == control.play and cell.control is None]
        if not playing and (in_a_guest or control is not _THROUGH_A_GUEST):
            controls.append(control)
        for cell in playing:
            rest.remove(cell)
            controls.append(replace(cell, control=control.control, expected=cell.expected or control.expected))
    return (*controls, *rest)


def _in_flight_through_a_guest(cell: Cell) -> Cell:
    """Before there was a control for it, a guest could play the one of the node."""
    old = cell.client is ClientKind.GUEST and cell.control is Control.IN_FLIGHT
    return replace(cell, control=Control.IN_FLIGHT_GUEST) if old else cell

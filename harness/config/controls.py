"""The controls of a run: cells whose outcome is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.model import CacheMode, Cell, ClientKind, Control, Expectation, VerdictKind

CONTROL_CELLS = (
    Cell(
        workload="planted",
        client=ClientKind.HOST,
        control=Control.PLANTED,
        seconds=1,
        expected=Expectation((VerdictKind.DIVERGED,), "known sectors were changed below DRBD: they must be found"),
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
)
#: Controls that a run does not play by itself; a matrix asks for one by its ``control``.
FURTHER_CONTROL_CELLS = (
    Cell(
        workload="steady",
        client=ClientKind.HOST,
        control=Control.STEADY,
        seconds=5,
        expected=Expectation((VerdictKind.CLEAN,), "nobody changed a buffer during its write: nothing may differ"),
    ),
    Cell(
        workload="inflight-modify",
        cache=CacheMode.NONE,
        control=Control.IN_FLIGHT_GUEST,
        seconds=5,
        expected=Expectation(
            (VerdictKind.DIVERGED,), "a guest changed buffers in flight on purpose: that must be seen through QEMU too"
        ),
    ),
)


def with_controls(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """``cells`` with the three controls of a run before them: planted, idle, in-flight.

    A cell that already plays a control, one of the further ones too, moves to the beginning and gets the control's
    expectation if it has none.  A cell that asks just what one of the three asks becomes that control.
    """
    rest = list(cells)
    controls: list[Cell] = []
    for control in (*CONTROL_CELLS, *FURTHER_CONTROL_CELLS):
        playing = [cell for cell in rest if cell.control is control.control]
        if control in CONTROL_CELLS and not playing:
            playing = [cell for cell in rest if cell.id == control.id and cell.control is None]
            controls += [] if playing else [control]
        for cell in playing:
            rest.remove(cell)
            controls.append(replace(cell, control=control.control, expected=cell.expected or control.expected))
    return (*controls, *rest)

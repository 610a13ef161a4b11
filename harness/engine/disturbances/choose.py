"""Which disturbance a cell asks for."""

from __future__ import annotations

from harness.engine.disturbances.base import Disturbance, Undisturbed
from harness.engine.disturbances.crash import CrashDisturbance
from harness.engine.disturbances.io_error import IoErrorDisturbance
from harness.engine.disturbances.migrations import MigrationDisturbance
from harness.engine.disturbances.sabotage.after_crash import DamagedAfterCrash
from harness.engine.disturbances.sabotage.disturbance import SabotageDisturbance
from harness.engine.disturbances.sabotage.owner_control import OwnerControl
from harness.model import Cell, Fault, Sabotage


def disturbance_of(cell: Cell) -> Disturbance:
    """What happens in ``cell``; where anything does, a canary lives in the guest."""
    if cell.sabotage is not None and cell.crash is not None:
        return DamagedAfterCrash(cell.crash, cell.sabotage)
    if cell.sabotage is Sabotage.FLIP_OWNERS:
        return OwnerControl()
    if cell.sabotage is not None:
        return SabotageDisturbance(cell.sabotage)
    if cell.crash is not None:
        return CrashDisturbance(cell.crash)
    if cell.fault is Fault.IO_ERROR:
        return IoErrorDisturbance()
    return MigrationDisturbance() if cell.has_canary else Undisturbed()

"""What is done while the cell is played, behind its back."""

from __future__ import annotations

from collections.abc import Callable

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.base import Undisturbed, finished, quiesce
from harness.engine.disturbances.sabotage.left_behind import leave_in_guest
from harness.engine.disturbances.sabotage.losses import lose
from harness.engine.disturbances.sabotage.one_byte import (
    block_of_known_file,
    block_of_removed_file,
    chance_of,
    hold_memory,
    invert_byte,
    used_swap_slot,
)
from harness.engine.disturbances.sabotage.programs import deceive_by_verify, idle_storm
from harness.errors import InfrastructureError
from harness.filesystems.base import WorkloadTarget
from harness.model import BlockOwner, Sabotage, Work
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline
from harness.workloads.base import Workload

_IN_MID_WORK = (
    Sabotage.STOPPED_NODE,
    Sabotage.STOPPED_GUEST,
    Sabotage.STOPPED_LIBVIRTD,
    Sabotage.KILLED_LIBVIRTD,
    Sabotage.LOST_EVENTS,
    Sabotage.LOST_KERNEL_MESSAGES,
)


class SabotageDisturbance:
    """Every sabotage but those after a crash."""

    def __init__(self, sabotage: Sabotage) -> None:
        self._sabotage = sabotage
        self._holder = ""

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """Whatever the workload has to meet."""
        if self._sabotage is Sabotage.FLIP_SWAP_SLOT:
            self._holder = hold_memory(run, target)
        elif self._sabotage is Sabotage.IDLE_WORKLOAD:
            idle_storm(run, target)

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """The work; something is lost in its middle where that is asked."""
        if self._sabotage not in _IN_MID_WORK:
            return Undisturbed().during(run, work)
        task = BackgroundTask(work, "the workload")
        if task.ended(run.cell.seconds / 2):
            task.result(Deadline.after(1, "the work"))
            raise InfrastructureError(f"the work was over before the sabotage '{self._sabotage}'")
        lose(run, self._sabotage)
        return finished(run, task)

    def after(self, run: CellRun, workload: Workload) -> None:
        """A byte is inverted below DRBD, the verify says less than it knows, or the guest is left as it is."""
        target = run.target()
        match self._sabotage:
            case Sabotage.FLIP_FILE:
                block, name = block_of_known_file(target, chance_of(run))
                quiesce(run, workload)
                invert_byte(run, block, BlockOwner.ALLOCATED, name)
            case Sabotage.FLIP_FREE:
                block = block_of_removed_file(target, chance_of(run))
                quiesce(run, workload)
                invert_byte(run, block, BlockOwner.FREE)
            case Sabotage.FLIP_SWAP_SLOT:
                # In use now.  Nobody looks before swapoff, which reads each slot on the Primary and frees it.
                invert_byte(run, used_swap_slot(target, self._holder), BlockOwner.FREE)
                quiesce(run, workload)
            case Sabotage.SILENT_VERIFY | Sabotage.PARTIAL_VERIFY | Sabotage.BLIND_VERIFY:
                quiesce(run, workload)
                deceive_by_verify(run, self._sabotage)
            case Sabotage.SWAP_LEFT_ON | Sabotage.MOUNT_LEFT:
                leave_in_guest(run)
            case _:
                quiesce(run, workload)

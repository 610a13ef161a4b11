"""Both lower devices fail in the middle of the work, and come back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from harness.drbd import faults, roles
from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.base import finished
from harness.engine.disturbances.migrations import MigrationDisturbance
from harness.engine.rejoin import compare_before_rejoin
from harness.errors import HarnessError
from harness.model import Work
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline, poll

PAUSE_SECONDS = 60.0


class IoErrorDisturbance(MigrationDisturbance):
    """The guest's QEMU stops it at the first error (``werror=stop``); with the disks back it goes on.

    The guest may move afterwards, as in any cell with ``migrations``.
    """

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """A third of the work, then the errors, then the rest and the migrations."""
        task = self.begin(work)
        _fail_both_disks(run, task)
        self.migrate_all(run)
        return finished(run, task)


def _fail_both_disks(run: CellRun, task: BackgroundTask[Work]) -> None:
    context, resource, guest = run.context, run.context.resource, run.guest_disk.present_guest
    task.ended(run.cell.seconds / 3)
    with guest.agent.held():
        run.register_fault_cleanup(lambda: faults.restore_disks(resource))
        run.exposure.pause()
        faults.break_disks(resource)
        context.log_fault("both lower devices fail from now on")
        deadline = Deadline.after(PAUSE_SECONDS, "the guest's pause by an I/O error")
        why = poll(guest.paused, deadline, every=0.2)
        states = roles.states(resource)
        reported = "; ".join(f"{name} {one.connection} {one.local_disk}" for name, one in states.items())
        context.log_event(f"the guest was paused: {why}; DRBD reported {reported}")
        compare_before_rejoin(context, roles.other(resource, guest.node), "before the disks worked again")
        run.revert_faults()
        run.exposure.resume()
        with contextlib.suppress(HarnessError):
            roles.set_single_primary(resource, guest.node)
        guest.resume()
        context.log_event("the disks work again, and the guest was resumed")
    run.delays.apply()

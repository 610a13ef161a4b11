"""What happens to the guest, or around it, while a cell's workload is at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from harness.engine.cell_steps import CellRun
from harness.errors import LostNodeError
from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.model import Work
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline
from harness.workloads.base import Workload


class Disturbance(Protocol):
    """Chosen once from the cell; every step blocks until it is done."""

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """After the workload was prepared on ``target``, before it works and before the delays are on."""
        ...

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """Let ``work`` go on with the disturbance in its middle, and say what was done."""
        ...

    def after(self, run: CellRun, workload: Workload) -> None:
        """The work is over: leave everything written, and look at what the guest kept."""
        ...


class Undisturbed:
    """Nothing happens to the client but its work."""

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """Nothing."""

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """The work alone."""
        return finished(run, BackgroundTask(work, "the workload"), None)

    def after(self, run: CellRun, workload: Workload) -> None:
        """Leave everything written."""
        quiesce(run, workload)


def quiesce(run: CellRun, workload: Workload) -> None:
    """Everything written and nothing in use; what a final reading found wrong is noted."""
    with run.context.phase("quiesce"):
        wrong = workload.quiesce(run.target())
        work = run.evidence.work
        assert work is not None
        notes = (*work.notes, *workload.findings)
        run.context.note(work=replace(work, read_back_errors=work.read_back_errors + wrong, notes=notes))


# How often a look is taken whether both nodes are there.
LOOK_SECONDS = 1.0


def finished(run: CellRun, task: BackgroundTask[Work], margin: float | None = 2 * MARGIN_SECONDS) -> Work:
    """What the work did; waits for its end, which a disturbance may have put off.

    ``margin`` is what it may take beyond the cell's seconds, None where the work has a time of its own.
    :class:`~harness.errors.LostNodeError` as soon as a node is lost, whichever of them the work is on.
    """
    # A fault, or a guest that moved slowly, may have kept the work from its answer.
    deadline = Deadline.after(run.cell.seconds + (margin or 0.0), "the end of the work")
    while not task.ended(LOOK_SECONDS):
        for node in run.context.nodes:
            if node.runner.silent is not None:
                raise LostNodeError(node.runner.silent)
        if margin is not None:
            deadline.left()
    return task.result(Deadline.after(LOOK_SECONDS, "the end of the work"))

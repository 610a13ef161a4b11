"""One cell, start to finish."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from harness.engine.cell_steps import CellRun
from harness.engine.context import unreadable_is_failure
from harness.engine.disturbances.base import Disturbance
from harness.engine.disturbances.choose import disturbance_of
from harness.engine.disturbances.sabotage.left_behind import leave_behind
from harness.errors import CommandError, HarnessError, RefusedError, WorkloadFailedError
from harness.filesystems.base import WorkloadTarget
from harness.guest.domain import Guest
from harness.model import ClientKind, Evidence
from harness.workloads.base import Workload


def play(run: CellRun, workload: Workload, guest: Callable[[], Guest]) -> Evidence:
    """One cell with one of the harness's own workloads; always ends with evidence kept.

    Only what is no :class:`HarnessError` gets out: Ctrl-C and our own bugs, after the evidence is kept; and a
    :class:`~harness.errors.StoreError` where it cannot be kept.
    """
    try:
        try:
            with unreadable_is_failure():
                run.begin()
                _work(run, workload, guest)
                run.release()
        except HarnessError as error:
            run.give_up(error)
        run.conclude(
            run.layout.owners(workload.owners),
            f"{run.layout.method}{workload.filesystem.method}",
            reads_replica=run.layout.sees_through or workload.reads_replica,
        )
    except BaseException as error:
        run.abandon(error)
        raise
    finally:
        run.finish()
    return run.evidence


def _work(run: CellRun, workload: Workload, guest: Callable[[], Guest]) -> None:
    disturbance = disturbance_of(run.cell)
    leave_behind(run)
    if (file := run.cell.user_file) is not None:
        run.context.attempt.write_raw(f"user-{file.name}", file.text)
    target = run.take_guest(guest) if run.cell.client is ClientKind.GUEST else run.take_host()
    try:
        _work_on(run, workload, disturbance, target)
    except (WorkloadFailedError, RefusedError, CommandError):
        _clean_up(run, workload)
        raise


def _clean_up(run: CellRun, workload: Workload) -> None:
    """The client is well but for its work: nothing stays mounted, and a guest gives the disk back and lives on."""
    with contextlib.suppress(HarnessError):
        workload.clean_up(run.target())
        run.guest_disk.detach()


def _work_on(run: CellRun, workload: Workload, disturbance: Disturbance, target: WorkloadTarget) -> None:
    with run.context.phase("prepare"):
        workload.prepare(target)
        if run.cell.client is ClientKind.GUEST:
            run.guest_disk.note_in_use()
    run.exposure.prepared(target, run.context.lab.a)
    with run.context.phase("prepare"):
        disturbance.before(run, target)
        run.delays.apply()
    run.witness.start()
    run.exposure.begin()
    with run.context.phase("work"):
        run.context.note(work=disturbance.during(run, lambda: workload.work(target, run.cell.seconds)))
    disturbance.after(run, workload)
    run.context.note(planted=(*run.evidence.planted, *workload.planted))

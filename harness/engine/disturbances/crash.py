"""A crash in the middle of the work, and what is there afterwards."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from harness.drbd import roles
from harness.engine.disturbances import migrations
from harness.engine.trial import Trial
from harness.errors import HarnessError, InfrastructureError
from harness.guest.domain import Guest
from harness.model import Crash, CrashRecovery, Work
from harness.parse.kernel_log import resync_kib
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline
from harness.workloads.base import Workload

# How long the work may take to notice that what it ran in is gone.
NOTICE_SECONDS = 60.0


def inject_crash(trial: Trial, task: BackgroundTask[Work], began: float) -> Work:
    """Let the work go on for half its time, then let the cell's crash happen; the work ends with it."""
    assert trial.cell.crash is not None and trial.guest is not None
    if task.ended(trial.cell.seconds / 2):
        task.result(Deadline.after(1, "the work"))
        raise InfrastructureError("the work was over before the crash")
    trial.count()
    trial.crashed = time.monotonic()
    worked = trial.crashed - began
    match trial.cell.crash:
        case Crash.NODE:
            trial.node_dies(trial.lab.a)
            trial.lab.kill(trial.lab.a)
        case Crash.QEMU:
            trial.guest.kill()
        case Crash.RESET:
            trial.guest.reset()
    trial.log_fault(f"crash '{trial.cell.crash}' {worked:.1f} s into the work")
    trial.note(crash_recovery=CrashRecovery(trial.cell.crash, worked))
    if not task.ended(NOTICE_SECONDS):
        trial.log_event("the workload did not notice the crash; it is left behind")
    return Work(worked, notes=(f"ended by the crash '{trial.cell.crash}'",))


def recover_and_check(trial: Trial, workload: Workload) -> None:
    """Bring the guest up where it would be brought up, and look at what is there."""
    assert trial.cell.crash is not None
    if trial.cell.crash is Crash.NODE:
        _fail_over(trial, workload)
        return
    # Before anybody writes again: this is what the crash left behind.
    trial.resource.sync()
    _found(trial, differing_blocks=trial.lab.compare(trial.resource.blocks).differing_blocks)
    if trial.cell.crash is Crash.QEMU:
        trial.attach_disk(Guest.start(trial.lab, trial.lab.a))
    else:
        trial.rediscover_disk()
    _check_guest_data(trial, workload)


def _fail_over(trial: Trial, workload: Workload) -> None:
    """The peer notices, is promoted and runs the guest; then the dead node comes back and is resynced."""
    resource, b = trial.resource, trial.lab.b
    trial.guest_died()
    try:
        deadline = Deadline.after(roles.LOSS_SECONDS, f"{b.name}'s notice of its peer's loss")
        resource.events(b).wait(lambda state: state.connection != "Connected", "the loss of the peer", deadline)
        roles.promote(resource, b)
        _found(trial, promoted_seconds=time.monotonic() - trial.crashed)
        _found(trial, differing_blocks=trial.lab.compare(resource.blocks).differing_blocks)
        trial.attach_disk(Guest.start(trial.lab, b))
        _check_guest_data(trial, workload)
    finally:
        # Also when the guest's data is beyond help: the next cell needs both nodes.
        _rejoin_failed_node(trial)


def _check_guest_data(trial: Trial, workload: Workload) -> None:
    """What the guest finds on its disk."""
    _found(trial, guest_seconds=time.monotonic() - trial.crashed)
    try:
        recovered = workload.recover(trial.target())
        _found(
            trial, fsck_status=recovered.fsck_status, fsck_message=recovered.message, wrong_reads=recovered.wrong_reads
        )
    finally:
        migrations.collect_canary(trial, survived=False)


def _rejoin_failed_node(trial: Trial) -> None:
    resource, a, b = trial.resource, trial.lab.a, trial.lab.b
    with contextlib.suppress(HarnessError):
        trial.detach_disk()
    # Where the disk is not let go of, the end of the guest does it.
    trial.drop_guest()
    with contextlib.suppress(HarnessError):
        resource.sync(b)
    trial.bring_back(a)
    trial.reconcile_after(a, f"at {a.name}'s return")
    rejoined = time.monotonic() - trial.crashed
    # Everything that was said before the marker has arrived with it.
    a.log.mark(f"{a.name} is back")
    _found(trial, rejoined_seconds=rejoined, resynced_kib=resync_kib(a.log.lines(0)))
    roles.set_single_primary(resource, a)


def _found(trial: Trial, **facts: object) -> None:
    so_far = trial.evidence.crash_recovery
    if so_far is None:
        raise HarnessError("there was no crash")
    trial.note(crash_recovery=replace(so_far, **facts))  # type: ignore[arg-type]

"""A crash in the middle of the work, and what is there afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from harness.drbd import roles
from harness.engine.cell_steps import CellRun
from harness.engine.context import CellContext
from harness.engine.disturbances.canary_steps import collect_canary, start_canary
from harness.engine.reconcile import bring_back, reconcile_after
from harness.engine.rejoin import compare_before_rejoin
from harness.errors import HarnessError, InfrastructureError
from harness.filesystems.base import WorkloadTarget
from harness.guest.domain import Guest
from harness.model import Crash, CrashRecovery, RejoinComparison, Work
from harness.parse.kernel_log import resync_kib
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline
from harness.workloads.base import Workload

# How long the work may take to notice that what it ran in is gone, in seconds.
NOTICE_SECONDS = 60.0


class CrashDisturbance:
    """The node loses its power, the guest's QEMU is killed, or the guest is reset."""

    def __init__(self, crash: Crash) -> None:
        self._crash = crash
        #: When it happened, by :func:`time.monotonic`.
        self._at = 0.0

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """The canary starts."""
        start_canary(run, target)

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """Let the work go on for half its time, then let the crash happen; the work ends with it."""
        began = time.monotonic()
        task = BackgroundTask(work, "the workload")
        if task.ended(run.cell.seconds / 2):
            task.result(Deadline.after(1, "the work"))
            raise InfrastructureError("the work was over before the crash")
        run.exposure.pause(drops=1)
        self._inject_crash(run)
        worked = self._at - began
        run.capture.keep_console()
        run.context.log_fault(f"crash '{self._crash}' {worked:.1f} s into the work")
        run.context.note(crash_recovery=CrashRecovery(self._crash, worked))
        if not task.ended(NOTICE_SECONDS):
            run.context.log_event("the workload did not notice the crash; it is left behind")
        return Work(worked, notes=(f"ended by the crash '{self._crash}'",))

    def _inject_crash(self, run: CellRun) -> None:
        node, guest = run.context.lab.a, run.guest_disk.present_guest
        self._at = time.monotonic()
        match self._crash:
            case Crash.NODE:
                run.node_dies(node)
                run.context.lab.power_off(node)
            case Crash.QEMU:
                guest.kill()
            case Crash.RESET:
                guest.reset()

    def after(self, run: CellRun, workload: Workload) -> None:
        """Bring the guest up where it would be brought up, and look at what is there."""
        with run.context.phase("crash recovery"):
            if self._crash is Crash.NODE:
                self._fail_over(run, workload)
            else:
                self._recover_on_the_same_node(run, workload)

    def _recover_on_the_same_node(self, run: CellRun, workload: Workload) -> None:
        # Before anybody writes again: this is what the crash left behind.
        run.context.resource.sync()
        run.exposure.end()
        _found(run, differing_blocks=run.context.differing_blocks())
        self.before_recovery(run)
        if self._crash is Crash.QEMU:
            run.guest_disk.attach(Guest.start(run.context.lab, run.context.lab.a))
        else:
            run.guest_disk.rediscover()
        self._check_guest_data(run, workload)

    def before_recovery(self, run: CellRun) -> None:
        """Nothing: the guest finds what the crash left."""

    def _fail_over(self, run: CellRun, workload: Workload) -> None:
        """The peer notices, is promoted and runs the guest; then the failed node comes back and is resynced."""
        context, resource, b = run.context, run.context.resource, run.context.lab.b
        run.guest_disk.guest_is_gone()
        try:
            deadline = Deadline.after(roles.LOSS_SECONDS, f"{b.name}'s notice of its peer's loss")
            resource.events(b).wait(lambda state: state.connection != "Connected", "the loss of the peer", deadline)
            roles.promote(resource, b)
            _found(run, promoted_seconds=self._since_crash())
            run.exposure.end()
            # Before anybody writes again: later on what the peer's guest wrote would hide it.
            compared = self._compare(context)
            _found(run, differing_blocks=compared.comparison.differing_blocks if compared is not None else None)
            run.guest_disk.attach(Guest.start(context.lab, b))
            self._check_guest_data(run, workload)
        finally:
            # Also when the guest's data is beyond help: the next cell needs both nodes.
            self._rejoin_failed_node(run)

    def _check_guest_data(self, run: CellRun, workload: Workload) -> None:
        """What the guest finds on its disk."""
        _found(run, guest_seconds=self._since_crash())
        workload.hear_console(run.capture.console_kept)
        try:
            run.layout.enter_again(run.guest_disk.part)
            recovered = workload.recover(run.guest_disk.target)
            _found(
                run, mounted=recovered.mounted, mount_message=recovered.mount_message,
                fsck_status=recovered.check.status, fsck_message=recovered.check.message,
                wrong_reads=recovered.wrong_reads, findings=recovered.findings, looked_at=recovered.looked_at,
            )  # fmt: skip
        finally:
            collect_canary(run, survived=False)

    def _rejoin_failed_node(self, run: CellRun) -> None:
        context, resource, a, b = run.context, run.context.resource, run.context.lab.a, run.context.lab.b
        with contextlib.suppress(HarnessError):
            run.guest_disk.detach()
        # Where the disk is not let go of, the end of the guest does it.
        run.guest_disk.destroy_guest()
        with contextlib.suppress(HarnessError):
            resource.sync(b)
        if not (waits := context.waits_for(a)) and not context.evidence.rejoin_comparisons:
            self._compare(context)
        bring_back(context, run.capture, a)
        if waits and context.evidence.rejoin_comparisons:
            _found(run, differing_blocks=context.evidence.rejoin_comparisons[0].comparison.differing_blocks)
        reconcile_after(context, run.capture, a, f"at {a.name}'s return")
        rejoined = self._since_crash()
        # Everything that was logged before the marker has arrived with it.
        a.log.mark(f"{a.name} is back")
        _found(run, rejoined_seconds=rejoined, resynced_kib=resync_kib(a.log.lines(0)))
        roles.set_single_primary(resource, a)

    @staticmethod
    def _compare(context: CellContext) -> RejoinComparison | None:
        away = context.lab.a
        return compare_before_rejoin(context, away, f"after {away.name} had lost its power")

    def _since_crash(self) -> float:
        return time.monotonic() - self._at


def _found(run: CellRun, **facts: object) -> None:
    so_far = run.evidence.crash_recovery
    if so_far is None:
        raise HarnessError("there was no crash")
    run.context.note(crash_recovery=replace(so_far, **facts))  # type: ignore[arg-type]

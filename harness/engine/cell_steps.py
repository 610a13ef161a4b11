"""One attempt at one cell: its parts, and the steps that it is made of.

:mod:`harness.engine.cell_run` puts the steps in order; a user's own test takes the same steps with its own work in the
middle (see :mod:`harness.pytest_plugin`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from harness.drbd import epochs, faults, replication, roles
from harness.drbd.resource import Resource
from harness.engine import oracle_run
from harness.engine.capture import LogCapture
from harness.engine.cell_delays import CellDelays
from harness.engine.cell_layout import CellLayout
from harness.engine.context import CellContext, now, unreadable_is_failure
from harness.engine.exposure import Exposure
from harness.engine.guest_disk import GuestDisk
from harness.engine.reconcile import reconcile
from harness.engine.replica_copy import BlockOwners
from harness.engine.witness_step import WitnessStep
from harness.errors import CommandError, DeadlineError, HarnessError, LostGuestError, RefusedError
from harness.filesystems.base import WorkloadTarget
from harness.guest.canary import CanaryWatch
from harness.guest.disk import observe_node
from harness.guest.domain import Guest
from harness.lab.base import FullLab
from harness.lab.node import Node
from harness.model import Cell, Evidence, Fault, Observed
from harness.store import Attempt


class CellRun:
    """One attempt at one cell over a resource that is up."""

    def __init__(self, lab: FullLab, resource: Resource, attempt: Attempt) -> None:
        self.context = CellContext(lab, resource, attempt)
        self.capture = LogCapture(self.context)
        self.layout = CellLayout(self.context)
        self.guest_disk = GuestDisk(self.context, self.capture, self.layout)
        self.delays = CellDelays(self.context, self.guest_disk)
        self.exposure = Exposure(self.context, self.capture)
        self.witness = WitnessStep(self.context)
        self.canary: CanaryWatch | None = None
        self._fault_cleanups = contextlib.ExitStack()
        #: Why something that was injected could not be ended; None where nothing of it is left on the lab.
        self.unreverted: str | None = None

    @property
    def cell(self) -> Cell:
        """What is asked."""
        return self.context.cell

    @property
    def evidence(self) -> Evidence:
        """The facts so far."""
        return self.context.evidence

    # ------------------------------------------------------------------------------------------ the steps

    def begin(self) -> None:
        """Preconditions: healthy, nothing out of sync, replicas equal; the capture of both kernel logs starts."""
        context, resource = self.context, self.context.resource
        with context.phase("begin"):
            dropped = epochs.drop_stuck(resource)
            self.capture.begin()
            if dropped:
                context.log_event(dropped)
            if self.cell.fault is Fault.STANDALONE:
                faults.stand_alone(resource)
                context.log_fault("both nodes were made StandAlone before the cell")
            settle = context.deadline.sooner(roles.SETTLE_SECONDS, "the return to the baseline")
            if restored := roles.restore_baseline(resource, settle):
                context.log_event(restored)
        with context.phase("replication"):
            replication.apply(resource, self.cell.replication)
        with context.phase("begin"):
            state, counters = resource.status()
            equal = counters.out_of_sync_kib == 0 and context.differing_blocks() == 0
            if state.healthy and not equal:
                resource.repair(context.differing_blocks)
                state, counters = resource.status()
                equal = counters.out_of_sync_kib == 0 and context.differing_blocks() == 0
            self.capture.preconditions_hold()
            context.note(before=state, equal_before=equal)

    def take_host(self) -> WorkloadTarget:
        """The node itself is the client."""
        with self.context.phase("attach"):
            self._note_observed(observe_node(self.context.lab.a, self.context.resource.device))
        with self.context.phase("prepare"):
            return self.layout.enter(oracle_run.primary_target(self.context))

    def take_guest(self, guest: Callable[[], Guest]) -> WorkloadTarget:
        """The guest is the client: attach the disk and read back what was really opened.

        Where the disk does not get into the guest, which may have been through a lot, that is tried once more in
        another one; what QEMU or libvirt refuses is an answer at once.
        """
        taken, disk = guest(), self.guest_disk
        if self.layout.on_node:
            with self.context.phase("prepare"):
                self.layout.enter(oracle_run.primary_target(self.context))
        with self.context.phase("attach"):
            self.capture.follow_consoles()
            try:
                disk.attach(taken)
            except (LostGuestError, DeadlineError, CommandError) as error:
                self.context.log_event(f"the disk was not attached, which is tried once more on another guest: {error}")
                disk.destroy_guest()
                self.context.deadline.left()
                taken = guest()
                disk.attach(taken)
            assert disk.attached is not None
            self._note_observed(disk.present_guest.observe(disk.attached, self.context.resource.device))
            self._watch_anew_if_booting_cost_the_link()
        if not self.layout.on_node:
            with self.context.phase("prepare"):
                self.layout.enter(disk.part)
        return disk.target

    def _watch_anew_if_booting_cost_the_link(self) -> None:
        """While a guest boots an emulated node may not answer DRBD's pings in time: no alarm of the work to come."""
        context, alarms = self.context, self.capture.alarms()
        if not alarms.drops or alarms.detections:
            return
        settle = context.deadline.sooner(roles.SETTLE_SECONDS, "the connection after the guest's boot")
        if not roles.wait_healthy_or_standalone(context.resource, settle):
            return
        lost = f"the connection was lost {alarms.drops} time(s) while the guest came up"
        said = f" ({'; '.join(alarms.causes)})" if alarms.causes else ""
        context.log_event(f"{lost}{said}; alarms count from here")
        self.capture.preconditions_hold()
        context.note(before=context.resource.status()[0])

    def _note_observed(self, observed: Observed) -> None:
        context = self.context
        nodes = {node.name: replication.settings(context.resource, node) for node in context.nodes}
        on_a, delays = nodes[context.lab.a.name], context.evidence.observed.delays
        context.note(observed=replace(observed, replication=on_a.replication, nodes=nodes, delays=delays))

    def target(self) -> WorkloadTarget:
        """The workload's part of the device where the client has it now."""
        if self.guest_disk.guest:
            return self.guest_disk.target
        return self.layout.seen(oracle_run.primary_target(self.context))

    def release(self) -> None:
        """Delays off, what the work exposed counted, disk detached, everything flushed, one Primary."""
        context, disk = self.context, self.guest_disk
        with context.phase("detach"):
            self.delays.clear()
        writer = disk.guest.node if disk.guest is not None else context.lab.a
        if disk.guest is None or self.layout.on_node:
            # What is closed on the node writes its last then, which counts.
            with context.phase("detach"):
                disk.detach()
                self.layout.close()
        self.witness.read(writer)
        with context.phase("exposure"):
            self.exposure.end(writer)
        with context.phase("detach"):
            disk.detach()
            if disk.guest is not None and disk.guest.node is not context.lab.a:
                context.resource.sync(disk.guest.node)
                disk.destroy_guest()
            reconcile(context, self.capture)
            context.resource.sync()

    def conclude(self, owners: BlockOwners, method: str, *, reads_replica: bool = True) -> None:
        """The oracles, whose the differing blocks are, the repair and the kernel logs, after everything was written.

        They are asked after a failure too, where that is possible: what a lost guest left behind is worth knowing, and
        the next cell needs equal replicas.  ``reads_replica``: whether ``owners`` reads the copy that it is given.
        """
        self.context.begin_oracles()
        steps: tuple[Callable[[], None], ...] = (
            lambda: oracle_run.run_verify(self.context),
            # Needs nothing of DRBD: it is made also where the verify failed.
            lambda: oracle_run.run_comparison(self.context),
            lambda: oracle_run.classify_differences(self.context, owners, method, reads_replica=reads_replica),
            lambda: oracle_run.repair(self.context),
        )
        for step in steps:
            try:
                with unreadable_is_failure():
                    step()
            except HarnessError as error:
                self.context.fail(error)
        # Where an oracle failed, the consoles and the kernel logs are what tells why.
        try:
            with unreadable_is_failure():
                self.capture.keep_console()
                self.capture.close()
        except HarnessError as error:
            self.context.fail(error)
            self.capture.keep_kernel_logs()

    def finish(self) -> Evidence:
        """Complete the evidence and keep it; what was injected and is still on ends here."""
        try:
            with unreadable_is_failure():
                self.revert_faults()
        except HarnessError as error:
            self.context.fail(error)
        if self.canary is not None:
            try:
                with unreadable_is_failure():
                    self.keep_canary()
            except HarnessError as error:
                self.context.fail(error)
            finally:
                self.canary.close()
        self.context.note(finished_at=now(), phases=self.context.phases)
        self.context.attempt.save(self.evidence)
        return self.evidence

    # ------------------------------------------------------------------------------------------ after a failure

    def give_up(self, error: HarnessError) -> None:
        """The work or a step before it failed: the reason is kept, nothing of the cell stays on."""
        self.context.fail(error)
        self.context.begin_oracles()
        if isinstance(error, RefusedError):
            # Nothing is wrong with the guest, which need not be started anew.
            with contextlib.suppress(HarnessError):
                self.guest_disk.detach()
        self.rescue()

    def abandon(self, error: BaseException) -> None:
        """Ctrl-C or a bug of ours: the reason and the logs are kept, nothing of the cell stays on."""
        self.context.fail(error)
        self.capture.keep_kernel_logs()
        self.rescue()

    def rescue(self) -> None:
        """Nothing of the cell stays on; a guest that holds the disk is ended."""
        disk = self.guest_disk
        with contextlib.suppress(HarnessError), unreadable_is_failure():
            self.revert_faults()
        self.delays.rescue()
        self.witness.abandon()
        if disk.guest is not None and (disk.attached is not None or disk.guest.node is not self.context.lab.a):
            disk.destroy_guest()
        self.unreverted = self.layout.rescue() or self.unreverted
        with contextlib.suppress(HarnessError), unreadable_is_failure():
            reconcile(self.context, self.capture)

    # ------------------------------------------------------------------------------------------ disturbances

    def register_fault_cleanup(self, undo: Callable[[], None]) -> None:
        """A fault was injected; ``undo`` ends it at the latest when the cell is over."""
        self._fault_cleanups.callback(undo)

    def revert_faults(self) -> None:
        """End what was injected, the newest first; :class:`HarnessError` where something of it stays on."""
        try:
            self._fault_cleanups.close()
        except HarnessError as error:
            self.unreverted = f"what the cell injected could not be ended: {error}"
            raise

    def node_dies(self, node: Node) -> None:
        """Keep what the node and a guest on it printed, before its power is taken away."""
        self.capture.node_dies(node)
        self.witness.node_dies(node)
        self.delays.node_dies(node)
        guest = self.guest_disk.guest
        if guest is not None and guest.node is node:
            self.capture.keep_console()
        self.capture.console_is_gone(node)

    def keep_canary(self) -> None:
        """Keep every line of the canary's that reached us."""
        if self.canary is not None:
            self.context.attempt.write_raw("canary.txt", self.canary.transcript())

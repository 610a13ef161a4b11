"""The cell's guest and the disk under test in it."""

from __future__ import annotations

import contextlib

from harness.engine.capture import LogCapture
from harness.engine.cell_layout import CellLayout
from harness.engine.context import CellContext
from harness.engine.oracle_run import primary_target
from harness.errors import HarnessError, InfrastructureError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT
from harness.guest import own_disk
from harness.guest.canary import Region
from harness.guest.disk import AttachedDisk, observe_in_use, set_stable_writes
from harness.guest.domain import Guest
from harness.model import SECTORS_PER_BLOCK, GuestOptions, ObservedAfterMove, SwapOn

ADD_PARTITIONS = "/usr/lib/drbd-harness/divide"
# An earlier cell may have left a table of partitions on the disk, from which the kernel made some when it was attached.
_FORGET_PARTITIONS = 'partx --delete "$1" 2> /dev/null || true'


class GuestDisk:
    """Which guest the cell has, and whether that guest has the disk; neither for a cell whose client is the node."""

    def __init__(self, context: CellContext, capture: LogCapture, layout: CellLayout) -> None:
        self._context = context
        self._capture = capture
        self._layout = layout
        self.guest: Guest | None = None
        self.attached: AttachedDisk | None = None

    def attach(self, guest: Guest) -> None:
        """Attach the disk to ``guest``, which from now on is the cell's.

        :class:`~harness.errors.RefusedError` with QEMU's or libvirt's message when they refuse the combination.
        """
        self.guest, self.attached = guest, None
        if not self._layout.on_node:
            # What was open of it was so in another guest.
            self._layout.gone()
        cell, source = self._context.cell, self._layout.disk(primary_target(self._context))
        if cell.bus.hot_plugged:
            self.attached = guest.attach(source, cell)
        else:
            self._context.log_event(f"another guest is started, with the disk on the bus {cell.bus}")
            self._let_go(guest)
            self.guest, self.attached = Guest.start_with(self._context.lab, guest.node, source, cell)
        self._set_up()

    def _let_go(self, guest: Guest) -> None:
        """End ``guest``, for another takes its place."""
        self.guest = None
        with contextlib.suppress(HarnessError):
            self._capture.keep_console()
        guest.destroy()

    def _set_up(self) -> None:
        """What has to be so in the guest before anybody uses the disk; after a reset again."""
        options = self._context.cell.guest_options
        if options.guest_stable_writes:
            set_stable_writes(self.present_guest.agent, self._disk)
        if options.swap_on is SwapOn.GUEST_DISK:
            own_disk.attach(self.present_guest)
        self._add_partitions()

    def note_in_use(self) -> None:
        """Read what is in force in the guest once the workload's filesystem is in use, where the cell asks for any."""
        context = self._context
        if context.cell.guest_options != GuestOptions():
            agent = self.present_guest.agent
            context.note(observed=observe_in_use(agent, self._disk, MOUNT_POINT, context.evidence.observed))

    def rediscover(self) -> None:
        """Find the disk in the guest again, after a reset."""
        assert self.guest is not None
        self.attached = self.guest.located(self._disk)
        self._set_up()

    def _add_partitions(self) -> None:
        """Where there is a canary, the kernel of the guest is told of two partitions; the disk has no table of them.

        A kernel lets nobody write to a device that it swaps to, but to the device's other partition.  The workload's
        begins where the disk does, so that its blocks have the same numbers as DRBD's.
        """
        if not self._context.cell.has_canary:
            return
        assert self.guest is not None
        region = self._region
        first, rest = (blocks * SECTORS_PER_BLOCK for blocks in (region.first_block, region.blocks))
        self.guest.agent.run(["sh", "-c", _FORGET_PARTITIONS, "sh", self._disk.path])
        self.guest.agent.run([ADD_PARTITIONS, self._disk.path, str(first), str(rest)])

    def observe_after_move(self, migration: int) -> None:
        """Read what is in force of the disk on the node that migration number ``migration`` brought the guest to."""
        if self.attached is None:
            return
        guest, context = self.present_guest, self._context
        found, why = None, ""
        try:
            # The work speaks with the agent over the same connection to libvirt: two threads might wait for ever.
            with guest.agent.held():
                found = guest.observe(self._disk, context.resource.device)
        except HarnessError as error:
            why = str(error)
        seen = ObservedAfterMove(migration, guest.node.name, found, why)
        context.note(observed_after_moves=(*context.evidence.observed_after_moves, seen))

    def detach(self) -> None:
        """Detach the disk from the guest, if it has it; nothing in there uses it any more."""
        if self.guest is not None and self.attached is not None:
            if not self._layout.on_node:
                self._layout.close()
            if self._context.cell.guest_options.swap_on is SwapOn.GUEST_DISK:
                own_disk.detach(self.guest)
            if self.attached.bus.hot_plugged:
                self.guest.detach(self.attached)
                self.attached = None
            else:
                self.destroy_guest()

    def destroy_guest(self) -> None:
        """End the guest; the session starts another one where one is needed."""
        if self.guest is not None:
            # What it printed is worth keeping, but it must not live on for that.
            with contextlib.suppress(HarnessError):
                self._capture.keep_console()
            self.guest.destroy()
        self.guest_is_gone()

    def guest_is_gone(self) -> None:
        """The guest is gone with what it ran on; so is its hold on the disk."""
        self.guest, self.attached = None, None
        if not self._layout.on_node:
            self._layout.gone()

    # ------------------------------------------------------------------------------------------ where things are

    @property
    def present_guest(self) -> Guest:
        """The guest; :class:`InfrastructureError` when the cell has none any more."""
        if self.guest is None:
            raise InfrastructureError("the cell has no guest any more")
        return self.guest

    @property
    def path(self) -> str:
        """The whole disk in the guest."""
        return self._disk.path

    @property
    def canary_device(self) -> str:
        """The canary's partition of the disk in the guest."""
        return f"{self._disk.path}2"

    @property
    def target(self) -> WorkloadTarget:
        """What the workload's filesystem sees in the guest."""
        return self._layout.seen(self.part)

    @property
    def part(self) -> WorkloadTarget:
        """The workload's part of the disk in the guest, all of it but the canary's."""
        agent, resource = self.present_guest.agent, self._context.resource
        if not self._context.cell.has_canary:
            boots = self._context.lab.guest_spec.image.boot_seconds
            return WorkloadTarget(agent, self._disk.path, resource, self._layout.disk_blocks, boot_seconds=boots)
        return WorkloadTarget(agent, f"{self._disk.path}1", resource, self._region.first_block)

    @property
    def _region(self) -> Region:
        """The end of the disk, which is the canary's in cells that have one."""
        region = self._context.region
        return Region.at_end(self._layout.disk_blocks, region.blocks) if self._layout.disk_blocks else region

    @property
    def _disk(self) -> AttachedDisk:
        assert self.attached is not None
        return self.attached

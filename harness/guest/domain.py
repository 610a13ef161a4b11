"""The guest under test: started once on node A, its DRBD disk attached and detached for each cell."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import libvirt

from harness.config.lab_spec import UserImageSpec
from harness.errors import (
    DeadlineError,
    GuestImageError,
    HarnessError,
    InfrastructureError,
    LostGuestError,
    LostNodeError,
    RefusedError,
)
from harness.guest import ending, user_guest
from harness.guest.disk import AttachedDisk, observe_guest
from harness.lab.base import GuestLab
from harness.lab.node import Node
from harness.model import Cell, DiskSource, Fault, Observed
from harness.model.changes import Change, ChangeKind
from harness.parse.guest_console import last_lines
from harness.remote.guest_agent import GuestAgent
from harness.remote.libvirt_calls import Bounded, LibvirtConnection
from harness.render.domain import GuestDomain, disk_xml, guest_xml, secret_xml
from harness.render.guest_cpu import processor
from harness.util import logs
from harness.util.deadline import Deadline, poll

AGENT_SECONDS = 120.0
HOTPLUG_SECONDS = 30.0


def _description(lab: GuestLab) -> GuestDomain:
    """The harness's own guest."""
    spec, image = lab.guest_spec, lab.guest_image
    return GuestDomain(
        name=spec.name,
        uuid=image.uuid or str(uuid.uuid4()),
        memory_mib=spec.memory_mib,
        kernel=image.kernel,
        initrd=image.initrd,
        kernel_args=image.kernel_args,
        root_device=image.root_device,
        console=spec.console,
        canary_log=spec.canary_log,
        machine=lab.lock.machine or GuestDomain.machine,
        vcpus=spec.vcpus,
        root_is_file=image.root_is_file,
        kvm=image.kvm,
        cpu=image.cpu,
    )


def _no_answer(user: UserImageSpec | None, error: HarnessError, console: str) -> HarnessError:
    """What to raise for a guest that does not come up; ``console`` is the end of what it printed."""
    if user is None:
        return LostGuestError(f"{error}; the last line of the guest's console: {console}")
    return GuestImageError(user_guest.failed(user, error, console))


class Guest:
    """A guest that is up and whose agent answers; ``ended`` when it was ended from here, ``uuid`` of its domain.

    Each call of libvirt's takes a minute at most (see :mod:`harness.remote.libvirt_calls`).  Where no other error is
    named, :class:`~harness.errors.LostNodeError` when libvirt is lost on the way, and
    :class:`~harness.errors.HungCallError` when a call does not return.
    """

    def __init__(self, lab: GuestLab, node: Node, domain: Bounded, image: UserImageSpec | None = None) -> None:
        self.spec = lab.guest_spec
        #: The user's image that it was started by; None for the harness's own.
        self.image = image
        #: What a guest of a user's image was found to be, once it answered.
        self.ready = user_guest.Ready()
        self.node = node
        self.domain = domain
        self.agent = GuestAgent(
            lambda: self.domain, lab=lab.id, lost=lambda: lab.a.runner.silent or lab.b.runner.silent
        )
        self.ended, self.uuid = False, ""
        self._lab_id = lab.id

    @classmethod
    def start(cls, lab: GuestLab, node: Node, disk: str = "", *, harness_own: bool = False) -> Guest:
        """Start the guest of ``lab`` on ``node`` and wait for its agent; an old one of its name is ended first.

        Where a user brought an image it is started by that, unless ``harness_own`` asks for the harness's own.  Takes
        up to two minutes, by a user's image as long as its ``boot_seconds``.
        ``disk`` is the description of one that it has from its start on; :class:`~harness.errors.RefusedError` where
        libvirt does not start it with that.
        :class:`~harness.errors.LostGuestError` with the last line of its console when libvirt does not start it or its
        agent does not answer; with a user's image :class:`~harness.errors.GuestImageError`;
        :class:`~harness.errors.LostNodeError`.
        """
        spec = lab.guest_spec
        ending.end(node, spec.name)
        user = None if harness_own or not spec.image.there else spec.image
        description = _description(lab) if user is None else user_guest.describe(lab, node, user)
        description = replace(description, disk=disk)
        node.note(Change(ChangeKind.DOMAIN, spec.name, (description.uuid,)))
        try:
            with logs.timed("libvirt", node.name, f"createXML {spec.name}", lab.id):
                domain = node.libvirt.createXML(guest_xml(description), 0)
        except libvirt.libvirtError as error:
            if disk:
                raise RefusedError("libvirt or QEMU", str(error)) from None
            why = f"libvirt on {node.name} did not start the guest: {error}"
            raise (LostGuestError(why) if user is None else GuestImageError(why)) from None
        guest = cls(lab, node, domain, user)
        guest.uuid = description.uuid
        try:
            if user is None:
                guest.agent.wait_ready(Deadline.after(AGENT_SECONDS, "the first answer of the guest's agent"))
            else:
                guest.ready = user_guest.make_ready(guest.agent, user)
        except LostNodeError:
            raise
        except HarnessError as error:
            failed = _no_answer(user, error, guest.console_tail())
            guest.destroy()
            raise failed from None
        return guest

    def moved(self, node: Node, domain: Bounded) -> None:
        """It runs on ``node`` now, as ``domain`` of that node's libvirt."""
        self.node = node
        self.domain = domain

    def monitor_domain(self) -> Bounded:
        """The same domain over a connection of its own: to look on while another thread's long call goes on."""
        return self._looked_up(lambda: self.node.monitor_connection)

    def found_again(self) -> None:
        """Look the domain up again, after its node's libvirtd was restarted."""
        self.domain = self._looked_up(lambda: self.node.libvirt)

    def _looked_up(self, connection: Callable[[], LibvirtConnection]) -> Bounded:
        try:
            found: Bounded = connection().lookupByName(self.spec.name)
            return found
        except libvirt.libvirtError as error:
            raise LostGuestError(f"the guest is not known to libvirt on {self.node.name} any more: {error}") from None

    def paused(self) -> str | None:
        """Why the guest is paused (``I/O error``, or libvirt's number of the reason); None when it is not."""
        try:
            state, reason = self.domain.state()
        except libvirt.libvirtError:
            return None
        if state != libvirt.VIR_DOMAIN_PAUSED:
            return None
        return "I/O error" if reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR else f"reason {reason}"

    def suspend(self) -> None:
        """Pause it; its requests that are under way are completed first.  :class:`LostGuestError`."""
        try:
            with self._timed(f"suspend {self.spec.name}"):
                self.domain.suspend()
        except libvirt.libvirtError as error:
            raise LostGuestError(f"the guest was not paused: {error}") from None

    def resume(self) -> None:
        """Let a paused guest go on; QEMU repeats the requests that failed.  :class:`LostGuestError`."""
        try:
            with self._timed(f"resume {self.spec.name}"):
                self.domain.resume()
        except libvirt.libvirtError as error:
            raise LostGuestError(f"the paused guest did not go on: {error}") from None

    def kill(self) -> None:
        """Kill its QEMU; see :func:`harness.guest.ending.kill`."""
        ending.kill(self.node, self.spec.name)

    def reset(self) -> None:
        """Reset it as its button would, and wait up to 120 s for the agent of the new boot.

        May be called while another thread waits for a command in the guest.  :class:`LostGuestError` when libvirt does
        not reset it, :class:`~harness.errors.DeadlineError` when the agent does not answer.
        """
        try:
            with self._timed(f"reset {self.spec.name}"):
                self.monitor_domain().reset()
        except libvirt.libvirtError as error:
            raise LostGuestError(f"the guest was not reset: {error}") from None
        if self.image is None:
            self.agent.wait_ready(Deadline.after(AGENT_SECONDS, "the first answer of the agent after the reset"))
        else:
            self.ready = user_guest.make_ready(self.agent, self.image)

    def console_tail(self) -> str:
        """The last line on the guest's serial console; of a user's image the last three."""
        with contextlib.suppress(HarnessError):
            lines = last_lines(self.console(), 1 if self.image is None else 3)
            return " / ".join(lines) if lines else "nothing"
        return "unreadable"

    def console(self) -> str:
        """The guest's serial console, since its start."""
        return self.node.runner.run(["cat", self.spec.console], ok=()).stdout

    def alive(self) -> bool:
        """Whether the domain runs and its agent answers within 10 s; not where libvirt does not."""
        try:
            if not self.agent.active():
                return False
            self.agent.call("guest-ping", timeout=10)
        except HarnessError:
            return False
        return True

    def destroy(self) -> None:
        """End it, whatever it is doing; returns after some two minutes at most.

        Where libvirt does not end it, its QEMU is killed.
        """
        self.ended = True
        ending.end(self.node, self.spec.name)

    def _timed(self, call: str) -> AbstractContextManager[logs.Outcome]:
        return logs.timed("libvirt", self.node.name, call, self._lab_id)

    # ------------------------------------------------------------------------------------------ the disk under test

    @classmethod
    def start_with(cls, lab: GuestLab, node: Node, source: DiskSource, cell: Cell) -> tuple[Guest, AttachedDisk]:
        """Start the guest with ``source`` in its definition, for a bus that takes no disk afterwards; as :meth:`start`.

        :class:`~harness.errors.DeadlineError` when the guest does not see it within 30 s; the guest is ended then.
        """
        with _secret(node, source) as secret:
            disk = _described(source, cell, secret)
            guest = cls.start(lab, node, disk.xml)
        try:
            return guest, guest.located(disk)
        except HarnessError:
            guest.destroy()
            raise

    def attach(self, source: DiskSource, cell: Cell) -> AttachedDisk:
        """Attach ``source`` with the cell's cache, aio and bus and wait up to 30 s until the guest sees it.

        Where it does not, the disk is detached again; a guest that does not let go of it either is ended, and so is one
        to which libvirt does not attach it in the time that a call has.
        :class:`RefusedError` with QEMU's or libvirt's message when they refuse the combination,
        :class:`LostGuestError`, :class:`~harness.errors.DeadlineError`.
        """
        try:
            with _secret(self.node, source) as secret:
                disk = _described(source, cell, secret)
                what = f"{source.path} as {disk.serial}, {cell.cache} {cell.aio} {cell.bus}{cell.disk_options.suffix()}"
                with self._timed(f"attachDeviceFlags {what}"):
                    self.domain.attachDeviceFlags(disk.xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            if not self.alive():
                raise LostGuestError(f"the guest was lost while its disk was attached: {error}") from None
            raise RefusedError("libvirt or QEMU", str(error)) from None
        except DeadlineError:
            # It may yet be attached.
            self.destroy()
            raise
        try:
            return self.located(disk)
        except HarnessError:
            try:
                self.detach(disk)
            except HarnessError:
                # DRBD's device would be held open by a disk that nobody knows of any more.
                self.destroy()
            raise

    def located(self, disk: AttachedDisk) -> AttachedDisk:
        """The disk with the path at which the guest sees it now; waits up to 30 s, then DeadlineError."""
        deadline = Deadline.after(HOTPLUG_SECONDS, "the disk's appearance in the guest")
        # In the guest nobody loads a driver for what the initrd did not expect.
        modules = () if disk.bus.hot_plugged else ("ahci", "nvme")
        system, agent = self.agent.system, self.agent
        return replace(disk, path=poll(lambda: system.locate(agent, disk.serial, modules), deadline, every=0.1))

    def detach(self, disk: AttachedDisk) -> None:
        """Detach and wait up to 30 s until QEMU released it, which it does when the guest has let go of it.

        :class:`LostGuestError`, :class:`~harness.errors.DeadlineError`: whoever gets one
        ends the guest, for it has the disk still.
        """
        try:
            with self._timed(f"detachDeviceFlags {disk.serial}"):
                self.domain.detachDeviceFlags(disk.xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise LostGuestError(f"the disk was not detached: {error}") from None
        deadline = Deadline.after(HOTPLUG_SECONDS, "the disk's removal from the guest")

        def gone() -> bool | None:
            try:
                return True if disk.serial not in self.domain.XMLDesc(0) else None
            except libvirt.libvirtError as error:
                raise LostGuestError(f"the guest was lost while its disk was detached: {error}") from None

        poll(gone, deadline, every=0.1)

    def observe(self, disk: AttachedDisk, device: str) -> Observed:
        """What is in force: QEMU's descriptors and block layer, and what the guest was told; ``device`` is DRBD's.

        :class:`LostGuestError` when QEMU does not answer, :class:`InfrastructureError` when its answer cannot be read.
        """
        try:
            return observe_guest(self.node, self.domain, self.agent, disk, device)
        except libvirt.libvirtError as error:
            raise LostGuestError(f"the guest's QEMU does not report what it opened: {error}") from None
        except ValueError as unreadable:
            raise InfrastructureError(f"what was opened could not be read back: {unreadable}") from unreadable


def processor_of(guest: Guest) -> str:
    """What processor ``guest`` was given, read back from its live description; :class:`LostGuestError`."""
    try:
        return processor(guest.domain.XMLDesc(0))
    except libvirt.libvirtError as error:
        raise LostGuestError(f"libvirt does not say which processor the guest has: {error}") from None


def _described(source: DiskSource, cell: Cell, secret: str) -> AttachedDisk:
    """``source`` as the cell wants it, with a serial number of its own; nobody has it yet."""
    assert cell.cache is not None
    serial = f"cell-{time.monotonic_ns() % 10**9}"
    xml = disk_xml(
        source,
        serial,
        cell.cache,
        cell.aio,
        cell.bus,
        options=cell.disk_options,
        secret=secret,
        # Only where the cell is about it does an error stop the guest; QEMU's default tells the guest of it.
        stop_on_error=cell.fault is Fault.IO_ERROR,
    )
    return AttachedDisk("", serial, xml, cell.cache, cell.aio, cell.bus, source)


@contextlib.contextmanager
def _secret(node: Node, source: DiskSource) -> Iterator[str]:
    """The UUID of a secret of libvirt's with the key of ``source``, or "" without a key; gone at the end: QEMU has it.

    :class:`RefusedError` with libvirt's message where it keeps no secrets.
    """
    if not source.luks_key:
        yield ""
        return
    identity = str(uuid.uuid4())
    try:
        secret = node.libvirt.secretDefineXML(secret_xml(identity), 0)
        secret.setValue(source.luks_key.encode(), 0)
    except libvirt.libvirtError as error:
        raise RefusedError(f"libvirt on {node.name}", str(error)) from None
    try:
        yield identity
    finally:
        with contextlib.suppress(libvirt.libvirtError, HarnessError):
            secret.undefine()

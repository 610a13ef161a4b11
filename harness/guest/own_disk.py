"""A disk of the guest's own beside the one under test: a file on the node, which nothing replicates."""

from __future__ import annotations

import libvirt

from harness.errors import LostGuestError, RefusedError
from harness.filesystems.swap_elsewhere import OWN_DISK_SERIAL
from harness.guest.domain import HOTPLUG_SECONDS, Guest
from harness.render.domain import own_disk_xml
from harness.util import logs
from harness.util.deadline import Deadline, poll

PATH = "/var/tmp/drbd-harness-own.img"
SIZE = "256M"
# The kernel puts no end of line behind a serial number.
_LOOK = 'for f in /sys/block/*/serial; do [ "$(cat "$f" 2>/dev/null)" = "$1" ] && echo there; done; true'


def attach(guest: Guest) -> None:
    """Make the file on the guest's node and attach it; waits up to 30 s until the guest sees it.

    :class:`~harness.errors.RefusedError` with libvirt's message, :class:`~harness.errors.DeadlineError`.
    """
    guest.node.runner.run(["truncate", "--size", "0", PATH])
    guest.node.runner.run(["truncate", "--size", SIZE, PATH])
    try:
        with logs.timed("libvirt", guest.node.name, f"attachDeviceFlags {PATH}", guest.agent.lab):
            guest.domain.attachDeviceFlags(own_disk_xml(PATH, OWN_DISK_SERIAL), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        raise RefusedError("libvirt or QEMU", str(error)) from None
    deadline = Deadline.after(HOTPLUG_SECONDS, "the appearance of the guest's own disk")
    look = ["sh", "-c", _LOOK, "sh", OWN_DISK_SERIAL]
    poll(lambda: guest.agent.run(look).stdout.strip() or None, deadline, every=0.1)


def detach(guest: Guest) -> None:
    """Detach it, wait up to 30 s until it is gone, and remove the file.

    :class:`~harness.errors.LostGuestError`, :class:`~harness.errors.DeadlineError`: whoever gets one ends the guest.
    """
    try:
        with logs.timed("libvirt", guest.node.name, f"detachDeviceFlags {PATH}", guest.agent.lab):
            guest.domain.detachDeviceFlags(own_disk_xml(PATH, OWN_DISK_SERIAL), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        deadline = Deadline.after(HOTPLUG_SECONDS, "the removal of the guest's own disk")
        poll(lambda: True if OWN_DISK_SERIAL not in guest.domain.XMLDesc(0) else None, deadline, every=0.1)
    except libvirt.libvirtError as error:
        raise LostGuestError(f"the guest's own disk was not detached: {error}") from None
    guest.node.runner.run(["rm", "-f", PATH])

"""A guest from an image that a user brings: how it is started, and what has to be so before a cell gets it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from harness.config.lab_spec import UserImageSpec
from harness.errors import CommandError, DeadlineError, GuestImageError, HarnessError
from harness.lab.base import GuestLab
from harness.lab.node import Node
from harness.parse.guest_facts import GuestFacts, forbidden, guest_facts
from harness.remote.guest_agent import GuestAgent
from harness.remote.guest_system import POSIX
from harness.remote.windows import WINDOWS
from harness.render.domain import GuestDomain
from harness.render.user_guest import PROGRAMS_SERIAL, UserGuestDisk
from harness.util.deadline import Deadline
from harness.util.logs import progress

_REPORTED_SECONDS = 60.0
# A system whose services are still starting is busy, and may have its own plans with a new disk.
_STARTED_SECONDS = 180.0
_PREPARE_SECONDS = 60.0
# Another image of the same name may have been booted from there before.
_NEW_OVERLAY = """
rm -f "$3"
qemu-img create -q -f qcow2 -F raw -b "$1" "$2"
"""
_STARTED = "command -v systemctl > /dev/null || exit 0; timeout 150 systemctl is-system-running --wait > /dev/null || :"
# Its own swap would take what a cell's is there for.  The harness's programs are static, and on a disk that is mounted
# read-only; they are put where they are in the harness's own guest.
_PREPARE = """
swapoff -a
root=
for disk in /sys/block/*; do
    [ "$(cat "$disk/serial" 2> /dev/null)" = "$1" ] && root=/dev/${disk##*/}
done
[ -n "$root" ] || { echo "it does not see the disk with the harness's programs" >&2; exit 1; }
mkdir -p /run/drbd-harness-programs /usr/lib/drbd-harness
grep -q " /run/drbd-harness-programs " /proc/mounts ||
    mount -t ext4 -o ro,noload "$root" /run/drbd-harness-programs
grep -q " /usr/lib/drbd-harness " /proc/mounts ||
    mount --bind /run/drbd-harness-programs/usr/lib/drbd-harness /usr/lib/drbd-harness
"""


@dataclass(frozen=True)
class Ready:
    """What the guest was found to be: ``own`` is what is left on in it by itself, and is nobody's leftover."""

    facts: GuestFacts | None = None
    own: tuple[str, ...] = ()


def describe(lab: GuestLab, node: Node, image: UserImageSpec) -> GuestDomain:
    """The guest of ``image`` on ``node``, with a new overlay: nothing that an earlier one wrote is there.

    :class:`~harness.errors.CommandError` where the overlay cannot be made.
    """
    spec, kernel = lab.guest_spec, lab.guest_image
    uefi = image.firmware == "uefi"
    nvram = f"/var/lib/libvirt/qemu/nvram/{spec.name}.fd"
    new = ["sh", "-ec", _NEW_OVERLAY, "sh", image.image_device, image.overlay_device, nvram]
    node.runner.run(new, timeout=_PREPARE_SECONDS)
    disk = UserGuestDisk(
        overlay=image.overlay_device,
        base=image.image_device,
        bus=image.bus,
        windows=image.windows,
        # Emulated SVM describes it wrongly, of which a kernel complains at length.
        xsave=lab.stack.accelerator != "tcg",
        firmware=kernel.firmware[0] if uefi else "",
        variables=kernel.firmware[1] if uefi else "",
        nvram=nvram if uefi else "",
    )
    return GuestDomain(
        name=spec.name,
        uuid=str(uuid.uuid4()),
        memory_mib=image.memory_mib,
        kernel="",
        initrd="",
        kernel_args="",
        root_device=kernel.root_device,
        console=spec.console,
        canary_log=spec.canary_log,
        machine=lab.lock.machine or GuestDomain.machine,
        vcpus=image.vcpus,
        user=disk,
    )


def make_ready(agent: GuestAgent, image: UserImageSpec) -> Ready:
    """Wait for the agent's first answer, find out what answers, and prepare it for cells.

    Blocks for ``boot_seconds`` at most, and some minutes more for services that are starting.
    :class:`~harness.errors.HarnessError` where it does not answer or cannot be used.
    """
    _wait(agent, image)
    agent.system = POSIX
    try:
        missing = forbidden(agent.call("guest-info"))
        if missing:
            raise GuestImageError(f"its agent does not do {', '.join(missing)}, which the harness needs")
        facts = guest_facts(agent.call("guest-get-osinfo"))
    except ValueError as error:
        raise GuestImageError(str(error)) from None
    progress(f"the guest image runs {facts}")
    if facts.windows != image.windows:
        # It has got another machine, and maybe a disk with programs that it has no use for; it may well do.
        progress("its partitions did not look like it")
    if facts.windows:
        agent.system = WINDOWS
        return Ready(facts, tuple(agent.system.left_on(agent)))
    agent.run(["sh", "-c", _STARTED], timeout=_STARTED_SECONDS, ok=())
    try:
        agent.run(["sh", "-ec", _PREPARE, "sh", PROGRAMS_SERIAL], timeout=_PREPARE_SECONDS)
    except CommandError as error:
        raise GuestImageError(f"it could not be prepared for cells: {error}") from None
    return Ready(facts, tuple(agent.system.left_on(agent)))


def failed(image: UserImageSpec, error: HarnessError, console: str) -> str:
    """The sentence on an image by which no guest comes up."""
    hint = "" if console != "nothing" else " (a Linux prints there with 'console=ttyS0' on its command line)"
    firmware = "UEFI" if image.firmware == "uefi" else "a BIOS"
    return (
        f"no guest came up by the guest image {image.name}, booted by {firmware} from a {image.bus} disk: {error}; "
        f"the end of its serial console: {console}{hint}"
    )


def _wait(agent: GuestAgent, image: UserImageSpec) -> None:
    deadline = Deadline.after(image.boot_seconds, "the first answer of its guest agent")
    began = time.monotonic()
    while True:
        try:
            agent.wait_ready(deadline.sooner(_REPORTED_SECONDS, deadline.what))
            return
        except DeadlineError:
            deadline.left()
            progress(f"waiting for the guest image's agent, {time.monotonic() - began:.0f} s so far")

"""What kind of lab is wanted: every size, name, port, address, minor and path of it that is a choice.

What differs from one lab to the next of its kind (its id, its folder, ports on the controller, keys) is made when it
comes up.  What an image decides (where it mounts its seed, what it calls its programs) stands beside the code that
uses it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from harness.config.sentences import quoted, shown
from harness.config.spec import Spec, at_least
from harness.render.drbd_conf import ResourceNode, ResourceSpec


def _matching(pattern: str, meaning: str) -> AfterValidator:
    """For a text that goes into paths and command lines as it is."""

    def check(value: str, info: ValidationInfo) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"{info.field_name} is {quoted(value)}; it has to be {meaning}")
        return value

    return AfterValidator(check)


def _pair() -> BeforeValidator:
    """For two values that are written as an array."""

    def check(value: object, info: ValidationInfo) -> object:
        if isinstance(value, list | tuple) and len(value) == 2:
            return tuple(value)
        raise ValueError(f"{info.field_name} is {shown(value)}; it has to be a list of two")

    return BeforeValidator(check)


HostName = Annotated[
    str, _matching(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a host name of small letters, digits and '-'")
]
Name = Annotated[
    str, _matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", "letters, digits, '_', '.' and '-', the first no sign")
]
#: Of a virtio disk; the kernel cuts it after 20 characters.
Serial = Annotated[str, _matching(r"[A-Za-z0-9_-]{1,20}", "up to 20 letters, digits, '_' and '-'")]
Path = Annotated[str, _matching(r"(/[A-Za-z0-9_.-]+)+", "an absolute path of letters, digits, '_', '.' and '-'")]
# What a resource is like where nothing else is asked for.
_RESOURCE = ResourceSpec()
# The least that the lower device has, in MiB: what the most demanding filesystem and layout need.  The file is sparse,
# and what a cell does not need DRBD does not see of it.
LOWER_MIB = 1024
#: The largest device that DRBD makes, 1 PiB.
MOST_MIB = 2**30
# Serial numbers of the disks that each node has anyway.
_OTHER_SERIALS = ("root", "seed")
# What a node needs beside its guest, in MiB.
_NODE_MIB = 1024


class LinkSpec(Spec):
    """The replication link: its private network, of which the nodes get the first two addresses.

    ``nic`` is what the node image calls the interface (``vm_images/files/node/usr/lib/drbd-harness/seed``).
    """

    title: ClassVar[str] = "the link of the lab spec"

    network: Annotated[IPv4Network, Field(strict=False)] = IPv4Network("192.168.77.0/24")
    nic: Literal["repl0"] = "repl0"

    @model_validator(mode="after")
    def _room_for_two(self) -> Self:
        if self.network.prefixlen > 30:
            raise ValueError(f"network is {self.network}; the smallest with room for two nodes is a /30")
        return self

    @property
    def addresses(self) -> tuple[str, str]:
        """The addresses of the two nodes."""
        return str(self.network[1]), str(self.network[2])


class DrbdSpec(Spec):
    """The DRBD resource; ``mapping`` is the device-mapper table below it, ``directory`` has the resource files."""

    title: ClassVar[str] = "the DRBD part of the lab spec"

    name: Name = _RESOURCE.name
    minor: Annotated[int, at_least(0), Field(le=1048575)] = _RESOURCE.minor
    port: Annotated[int, at_least(1), Field(le=65535)] = _RESOURCE.port
    mapping: Name = _RESOURCE.mapping
    directory: Path = _RESOURCE.directory


class UserImageSpec(Spec):
    """A guest image that a user brings, by which the cells' guest is started; the controls keep the harness's own.

    ``digest`` is the SHA-256 of its file (hex), empty: there is none.  ``bus`` is of the disk that it boots from.
    ``windows``: whether it seems to be one, which decides about the machine that it gets; what the agent says of it
    counts from then on.  ``disk_mib`` is the size of its disk, ``boot_seconds`` what the first answer of its agent may
    take.
    """

    title: ClassVar[str] = "the user's guest image of the lab spec"

    name: str = ""
    digest: Annotated[str, _matching("([0-9a-f]{64})?", "a SHA-256 in hex")] = ""
    firmware: Literal["bios", "uefi"] = "bios"
    bus: Literal["virtio", "sata", "scsi"] = "virtio"
    windows: bool = False
    disk_mib: Annotated[int, at_least(0)] = 0
    memory_mib: Annotated[int, at_least(128)] = 512
    vcpus: Annotated[int, at_least(1), Field(le=64)] = 1
    boot_seconds: Annotated[int, at_least(10)] = 900
    serial: Serial = "guestimage"
    overlay_serial: Serial = "guestoverlay"

    @property
    def there(self) -> bool:
        """Whether a user brought one."""
        return bool(self.digest)

    @property
    def image_device(self) -> str:
        """The image on a node, read-only."""
        return by_serial(self.serial)

    @property
    def overlay_device(self) -> str:
        """What takes what its guest writes, the same on both nodes."""
        return by_serial(self.overlay_serial)


class GuestSpec(Spec):
    """The guest under test and its canary, which has the last ``canary_blocks`` 4 KiB blocks of the device.

    Memory in MiB.  ``log_directory`` is on the node, ``canary_pid_file`` in the guest.  What two guests on one node
    must not share (console, log of the canary) is named after the guest.
    """

    title: ClassVar[str] = "the guest of the lab spec"

    name: Name = "drbd-harness-guest"
    # Small, so that a storm of a few seconds swaps: with 384 MiB as few as 15 blocks diverged, with 256 MiB 80 or more.
    memory_mib: Annotated[int, at_least(64)] = 256
    vcpus: Annotated[int, at_least(1)] = 1
    log_directory: Path = "/var/log"
    root_serial: Serial = "guestroot"
    canary_memory_mib: Annotated[int, at_least(1)] = 16
    canary_blocks: Annotated[int, at_least(64)] = 1536
    canary_pid_file: Path = "/run/drbd-harness-canary.pid"
    image: UserImageSpec = UserImageSpec()

    @property
    def memory_ratio(self) -> float:
        """How many times the memory of the harness's own guest a user's has; 1 at least: a migration copies it."""
        return max(1.0, self.image.memory_mib / self.memory_mib) if self.image.there else 1.0

    @property
    def console(self) -> str:
        """The file on the node that QEMU appends the guest's serial console to."""
        return f"{self.log_directory}/{self.name}.log"

    @property
    def canary_log(self) -> str:
        """The file on the node that QEMU appends the canary's messages to."""
        return f"{self.log_directory}/{self.name}-canary.log"

    @property
    def root_device(self) -> str:
        """The guest's root filesystem on a node."""
        return by_serial(self.root_serial)


class LabSpec(Spec):
    """A lab: two virtual nodes on this machine, or the two machines of an inventory.

    ``inventory`` is the absolute path of that file, empty for virtual nodes, ``inventory_group`` the group of the two
    in one of Ansible's; of the rest only the size of the device, and where minors and ports begin, are for such a lab.
    ``name`` is that of its folder in a run, another for each lab of a run.  Sizes in MiB: ``memory_mib`` of each node;
    ``device_mib`` is the least of the DRBD device, and what it has in each cell whose filesystem needs no more.
    ``vcpus`` of a node, 0 for what is best: more than one each on two cores made emulated nodes
    slower.  ``backing_serial`` is the serial number of the disk below DRBD.  ``management`` is a node's address in the
    private network of QEMU's that its ssh port is forwarded into; 10.0.2.15 is where QEMU forwards to by default.
    """

    title: ClassVar[str] = "the lab spec"

    name: Name = "lab"
    inventory: str = ""
    inventory_group: str = ""
    node_names: Annotated[tuple[HostName, HostName], _pair()] = ("nodea", "nodeb")
    memory_mib: Annotated[int, at_least(64)] = 2560
    vcpus: Annotated[int, at_least(0), Field(le=64)] = 0
    device_mib: Annotated[int, at_least(16), Field(le=MOST_MIB)] = 128
    backing_serial: Serial = "backing"
    management: Annotated[IPv4Interface, Field(strict=False)] = IPv4Interface("10.0.2.15/24")
    link: LinkSpec = LinkSpec()
    drbd: DrbdSpec = DrbdSpec()
    guest: GuestSpec = GuestSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        a, b = self.node_names
        if a == b:
            raise ValueError(f"both nodes are called '{a}'; they need different names")
        if self.link.network.overlaps(self.management.network):
            networks = f"{self.link.network} and {self.management.network}"
            raise ValueError(f"the networks of link and management overlap: {networks}")
        image = self.guest.image
        serials = (
            *_OTHER_SERIALS, self.backing_serial, self.guest.root_serial, image.serial, image.overlay_serial
        )  # fmt: skip
        if len(set(serials)) < len(serials):
            raise ValueError(f"two disks of a node have the same serial number, of {', '.join(serials)}")
        if image.there and image.memory_mib + _NODE_MIB > self.memory_mib:
            raise ValueError(
                f"a node of memory_mib {self.memory_mib} has no room for a guest of {image.memory_mib} MiB; it needs "
                f"{_NODE_MIB} MiB for itself"
            )
        return self

    @classmethod
    def node_memory_mib(cls, guest_mib: int) -> int:
        """What a node has at least where its guest has ``guest_mib``."""
        return max(cls().memory_mib, guest_mib + _NODE_MIB)

    @property
    def lower_mib(self) -> int:
        """The size of a node's disk below DRBD: no cell's device is larger."""
        return max(self.device_mib, LOWER_MIB)

    @property
    def lower_device(self) -> str:
        """The path of a node's disk below DRBD."""
        return by_serial(self.backing_serial)

    @property
    def resource(self) -> ResourceSpec:
        """The DRBD resource over the two nodes, as large as cells have it that need no more."""
        spec = ResourceSpec(**self.drbd.as_table(), size_mib=self.device_mib)
        nodes = zip(self.node_names, self.link.addresses, strict=True)
        return replace(spec, nodes=tuple(ResourceNode(name, address, spec.mapped) for name, address in nodes))


def by_serial(serial: str) -> str:
    """The path that udev gives a virtio disk."""
    return f"/dev/disk/by-id/virtio-{serial}"

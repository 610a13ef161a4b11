"""What the rest of the harness knows of a lab: two nodes, and what can be done with them, by capability.

Nothing above this package knows where the nodes come from.  None of it is for several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from harness.config.lab_spec import GuestSpec
from harness.lab.node import Node
from harness.model import Comparison, LabProvenance, Sample, Stack, StackLock
from harness.render.drbd_conf import ResourceSpec


class Lab(Protocol):
    """Two nodes and the versions that run on them.

    ``lock``: these and what the images hold, to the byte; its machine type is the one that a guest gets.  ``fresh``:
    nothing has written to the lower devices yet, so they are equal.  ``carries_guests``: whether guests run on it; else
    nobody asks the libvirt of its nodes, which is somebody's.
    """

    id: str
    a: Node
    b: Node
    stack: Stack
    lock: StackLock
    fresh: bool
    carries_guests: bool

    @property
    def resource_spec(self) -> ResourceSpec:
        """The DRBD resource that belongs on the two nodes."""
        ...

    def provenance(self) -> LabProvenance:
        """What it was made of: images, packages."""
        ...


class PowerControl(Protocol):
    """A lab that can cut a node's power and give it back, and stop its machine."""

    def power_off(self, node: Node) -> None:
        """Cut its power at once, without a warning; connections to it are let go of.

        :class:`~harness.errors.InfrastructureError` when it stays on, or is off already.
        """
        ...

    def power_on(self, node: Node) -> None:
        """Give the power back and wait until the node answers; what was set up on it by hand is gone.

        Takes as long as its boot.  :class:`~harness.errors.LostNodeError` or :class:`~harness.errors.DeadlineError`
        when it does not come up.
        """
        ...

    @property
    def boot_seconds(self) -> float:
        """What the boot of a node may take beyond what the deadline of a cell is made for."""
        ...

    def stop(self, node: Node) -> None:
        """Stop the machine where it is: it answers nothing any more, and nobody is told of it.

        It goes on when the lab is let go of.  :class:`~harness.errors.InfrastructureError` when it cannot be stopped.
        """
        ...

    def kill_libvirt(self) -> bool:
        """Kill the libvirt daemon that the machines of the nodes were started by; the machines go on.

        Only where this process started it and it has no other machines; whether it did.
        """
        ...


class ReplicaComparison(Protocol):
    """A lab that can read both lower devices outside DRBD and outside the nodes' kernels."""

    def compare(self, blocks: int) -> Comparison:
        """Compare the first ``blocks`` 4 KiB blocks of the two lower devices; takes seconds per GiB.

        :class:`~harness.errors.InfrastructureError` when one cannot be read.
        """
        ...

    def readable(self, node: Node) -> bool:
        """Whether ``node``'s lower device can be read now; not where only the node can do it, and has no power."""
        ...

    def block_digests(self, node: Node, blocks: int) -> bytes:
        """A digest of 8 bytes for each of the first ``blocks`` 4 KiB blocks of ``node``'s lower device, one behind
        the other; takes seconds per GiB.

        :class:`~harness.errors.InfrastructureError` when it cannot be read.
        """
        ...

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        """A piece of both sides of each of ``blocks`` (numbers of 4 KiB blocks), from its first difference on."""
        ...


@dataclass(frozen=True)
class GuestImage:
    """What a guest boots from: paths on a node, the same on both.

    ``firmware``: for a user's image that needs UEFI, the code and the template of its variables.  ``root_is_file``: its
    root is no block device.  ``kvm``: with KVM on both nodes, else emulated.  ``cpu`` is libvirt's description of its
    processor, empty for the nodes' own; ``uuid`` that of its domain, empty for a new one each time.
    """

    kernel: str
    initrd: str
    kernel_args: str
    root_device: str
    firmware: tuple[str, str] = ("", "")
    root_is_file: bool = False
    kvm: bool = True
    cpu: str = ""
    uuid: str = ""


class GuestImages(Protocol):
    """A lab whose nodes have what a guest boots from."""

    @property
    def guest_image(self) -> GuestImage:
        """Kernel, initrd, arguments, root device."""
        ...

    @property
    def guest_spec(self) -> GuestSpec:
        """How the guest is to be made."""
        ...


class GuestLab(Lab, GuestImages, Protocol):
    """A lab that can carry a guest."""


class FullLab(GuestLab, PowerControl, ReplicaComparison, Protocol):
    """A lab with every capability: what the cells of all matrices together need."""

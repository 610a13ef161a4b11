"""Two real machines as a lab: what they can do, and a sentence for what they cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.config.lab_spec import GuestSpec
from harness.errors import RefusedError
from harness.lab.base import GuestImage
from harness.lab.hardware.compare import DigestComparison
from harness.lab.hardware.guard import Guard
from harness.lab.hardware.guests import GuestParts
from harness.lab.hardware.lab_power import BOOT_SECONDS, LabPower
from harness.lab.hardware.lease import Lease
from harness.lab.node import Node
from harness.model import Comparison, LabProvenance, Sample, Stack, StackLock
from harness.render.drbd_conf import ResourceSpec

_WHO = "the lab of two real machines"


@dataclass
class LeasedGuard:
    """The guard of a node's lower device (:class:`~harness.lab.node.LowerGuard`) for as long as the lease is held."""

    guard: Guard
    lease: Lease

    def require(self, what: str) -> None:
        """As the guard does; and nothing is written on a machine whose lease somebody else has."""
        self.lease.require()
        self.guard.require(what)

    def create_metadata(self) -> None:
        """As the guard does."""
        self.lease.require()
        self.guard.create_metadata()


class HardwareLab:
    """Two machines of an inventory: a :class:`~harness.lab.base.FullLab` that has guests where ``guests`` were asked
    for, and a say over the power of those for which the inventory has ``power``.
    """

    boot_seconds = BOOT_SECONDS

    def __init__(
        self, name: str, nodes: tuple[Node, Node], resource: ResourceSpec, guests: GuestParts | GuestSpec, stack: Stack,
        lock: StackLock, made_of: LabProvenance, comparison: DigestComparison, power: LabPower, *, fresh: bool,
    ) -> None:  # fmt: skip
        self.id = name
        self.a, self.b = nodes
        self.stack = stack
        self.lock = lock
        self.fresh = fresh
        self._resource = resource
        self.carries_guests = isinstance(guests, GuestParts)
        self._guests = guests
        self._made_of = made_of
        self._comparison = comparison
        self.power = power

    @property
    def resource_spec(self) -> ResourceSpec:
        """The DRBD resource that belongs on its machines, beside those of their owner."""
        return self._resource

    @property
    def guest_spec(self) -> GuestSpec:
        """The guest, whose name is the lab's; without one, how much of the device a canary would have."""
        return self._guests.spec if isinstance(self._guests, GuestParts) else self._guests

    @property
    def guest_image(self) -> GuestImage:
        """What the guest boots from; :class:`~harness.errors.RefusedError` where no cell is in one."""
        if not isinstance(self._guests, GuestParts):
            raise RefusedError(_WHO, "no cell of the run is in a guest, so that none was prepared")
        return self._guests.boots

    def provenance(self) -> LabProvenance:
        """What the machines are."""
        return self._made_of

    def compare(self, blocks: int) -> Comparison:
        """Each machine reads its own lower device, around the page cache."""
        return self._comparison.compare(blocks)

    def readable(self, node: Node) -> bool:
        """Not without its power: nobody else sees its disks."""
        return not node.away

    def block_digests(self, node: Node, blocks: int) -> bytes:
        """``node`` reads its own lower device."""
        return self._comparison.block_digests(node, blocks)

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        """A piece of both sides of each of ``blocks``."""
        return self._comparison.sample(blocks)

    def power_off(self, node: Node) -> None:
        """As the inventory has it; :class:`~harness.errors.RefusedError` where it has no ``power`` for the machine."""
        self.power.off(node)

    def power_on(self, node: Node) -> None:
        """Give it back, and make anew what its boot has taken away; :class:`~harness.errors.ProtectedError` where that
        is somebody's by now.
        """
        self.power.on(node)
        self._comparison.moved(node)

    def stop(self, node: Node) -> None:
        """:class:`~harness.errors.RefusedError`."""
        raise RefusedError(_WHO, f"{node.name} is a machine that nobody can stop and let go on")

    def kill_libvirt(self) -> bool:
        """None was started by the harness."""
        return False

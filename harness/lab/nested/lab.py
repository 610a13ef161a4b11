"""A nested lab that is up, with all that a lab can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.config.lab_spec import GuestSpec
from harness.errors import HarnessError
from harness.lab import backing_compare
from harness.lab.base import GuestImage
from harness.lab.machine import guest_machine
from harness.lab.nested.domains import backing_file
from harness.lab.nested.keys import libvirt_uri
from harness.lab.nested.power import Power
from harness.lab.nested.record import LabRecord, NodeRecord
from harness.lab.nested.seed import GUEST_FIRMWARE, GUEST_INITRD, GUEST_KERNEL
from harness.lab.node import Node
from harness.lab.stack import read_software, require_as_locked, stack_of
from harness.model import Comparison, ImageLock, LabProvenance, NodeLock, Sample, Stack, StackLock
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import ResourceSpec
from harness.util.paths import cache_dir


class NestedLab:
    """Two virtual nodes that are up: every capability of :class:`~harness.lab.base.FullLab`."""

    carries_guests = True
    # What the deadlines of cells were made for.
    boot_seconds = 0.0

    def __init__(
        self,
        record: LabRecord,
        directory: Path,
        a: Node,
        b: Node,
        stack: Stack,
        power: Power,
        *,
        fresh: bool,
        lock: StackLock | None = None,
    ) -> None:
        self.id = record.id
        self.a = a
        self.b = b
        self.stack = stack
        self.lock = lock or StackLock()
        self.fresh = fresh
        self.record = record
        self.directory = directory
        self._power = power
        self._domains = {node.name: node.domain for node in record.nodes}

    # ------------------------------------------------------------------------------------------ what it was made to

    @property
    def resource_spec(self) -> ResourceSpec:
        """The DRBD resource that belongs on its nodes."""
        return self.record.spec.resource

    @property
    def guest_spec(self) -> GuestSpec:
        """The guest that belongs on its nodes."""
        return self.record.spec.guest

    @property
    def guest_image(self) -> GuestImage:
        """What a guest boots from, on either node."""
        root_device = self.record.spec.guest.root_device
        return GuestImage(GUEST_KERNEL, GUEST_INITRD, self.record.guest_kernel_args, root_device, GUEST_FIRMWARE)

    def provenance(self) -> LabProvenance:
        """What it was made of."""
        return self.record.provenance

    # ------------------------------------------------------------------------------------------ what it can do

    def compare(self, blocks: int) -> Comparison:
        """Compare the two backing files here on the controller."""
        return backing_compare.compare_files(self._image(self.a), self._image(self.b), blocks)

    def readable(self, node: Node) -> bool:
        """Always: the backing files are on the controller."""
        return True

    def block_digests(self, node: Node, blocks: int) -> bytes:
        """Read ``node``'s backing file here on the controller."""
        return backing_compare.block_digests(self._image(node), blocks)

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        """A piece of both sides of each of ``blocks``."""
        return backing_compare.sample_files(self._image(self.a), self._image(self.b), blocks)

    def power_off(self, node: Node) -> None:
        """Cut its power: nothing in it gets to finish."""
        self._power.off(self._domains[node.name])
        node.forget()

    def power_on(self, node: Node) -> None:
        """Give it back: the node boots from its own disks and is connected to."""
        self._power.on(self._domains[node.name])
        _reconnect(node)

    def stop(self, node: Node) -> None:
        """Stop the process of its QEMU with SIGSTOP, until :meth:`close`."""
        self._power.stop(self._domains[node.name])

    def kill_libvirt(self) -> bool:
        """Kill the controller's libvirtd, where it is ours alone; whether it was."""
        return self._power.kill_libvirt({*self._domains.values()})

    def close(self) -> None:
        """End the connections to the nodes; the nodes go on, those too that were stopped."""
        self._power.go_on()
        for node in (self.a, self.b):
            with contextlib.suppress(HarnessError, OSError):
                node.close()

    @staticmethod
    def _image(node: Node) -> Path:
        assert node.image is not None
        return node.image


def attach(record: LabRecord, directory: Path, power: Power, *, fresh: bool = False) -> NestedLab:
    """Connect to a lab whose nodes are up; ``fresh``: nothing has touched its disks yet.

    :class:`~harness.errors.LostNodeError` when a node does not let anybody in within a minute;
    :class:`~harness.errors.StackError` where a node does not run what its image holds.
    """
    with contextlib.ExitStack() as undo:
        a, b = (_connect(record, node, directory, undo) for node in record.nodes)
        lock = _lock(record, a, b)
        stack = stack_of(lock.a.runs, lock.b.runs, record.stack.suite, record.accelerator, lock.machine)
        undo.pop_all()
    return NestedLab(record, directory, a, b, stack, power, fresh=fresh, lock=lock)


def _lock(record: LabRecord, a: Node, b: Node) -> StackLock:
    """What the images of the lab hold and what runs on its nodes, which is the same."""
    on = read_software(a, b)
    images = [record.images.get(node.side, ImageLock()) for node in record.nodes]
    one, other = (NodeLock(*parts) for parts in zip((a.name, b.name), images, on, strict=True))
    lock = StackLock(record.stack.suite, one, other, record.images.get("guest", ImageLock()))
    require_as_locked(lock, a, b)
    return replace(lock, machine=guest_machine([(a, on[0]), (b, on[1])], record.stack.machine, cache_dir()))


def _connect(record: LabRecord, known: NodeRecord, directory: Path, undo: contextlib.ExitStack) -> Node:
    key, pinned = directory / "user_key", directory / "known_hosts"
    node = Node(
        name=known.name,
        runner=SshRunner("127.0.0.1", known.ssh_port, key=key, known_hosts=pinned, name=known.name, lab=record.id),
        link=record.spec.link.nic,
        address=known.address,
        lower=record.spec.lower_device,
        libvirt_uri=libvirt_uri(known.name, directory / "ssh"),
        image=backing_file(directory, known.side),
    )
    undo.callback(node.close)
    _reconnect(node)
    return node


def _reconnect(node: Node) -> None:
    node.reconnect()
    # Hundreds of out-of-sync lines on an emulated serial line take longer than the verify; an oops still gets there.
    node.runner.run(["dmesg", "--console-level", "2"])

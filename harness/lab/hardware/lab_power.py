"""The power of a lab's machines: cut, given back, and all that a boot has taken away made anew.

A boot of a machine ends its lease, and takes mappings, loop devices, qdiscs, modules and what lies in /run; its journal
stays.  So the lease is taken anew first, and what is made again is noted again where the boot has undone it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.errors import HarnessError, InfrastructureError, LostNodeError
from harness.lab.hardware.lease import Lease
from harness.lab.node import Node
from harness.util.deadline import Deadline, patience
from harness.util.logs import progress

#: What the boot of a server may take: its firmware alone needs minutes.
BOOT_SECONDS = 900.0
_AGAIN_SECONDS = 5.0
_BOOT = "/proc/sys/kernel/random/boot_id"
# Not for ever: a service that waits for its peer is nothing to wait for.  An older systemctl does not know the option.
_SERVICES_SECONDS = 180.0
_WAIT_FOR_SERVICES = ["systemctl", "is-system-running", "--wait"]


class Switched(Protocol):
    """What switches the power of machines by their names (:class:`~harness.lab.hardware.power.MachinePower`)."""

    def require(self, *names: str) -> None:
        """:class:`~harness.errors.RefusedError` where one of them has none that can be switched."""
        ...

    def status(self, name: str) -> bool:
        """Whether it has power."""
        ...

    def off(self, name: str) -> None:
        """Cut it."""
        ...

    def on(self, name: str) -> None:
        """Give it back."""
        ...


@dataclass
class LabPower:
    """Cuts the power of a lab's nodes and gives it back.

    ``restore`` makes anew on a node what its boot has taken away, the lease being held; ``require_alone`` is asked
    before its power is cut, and raises where that is somebody else's too; ``boots`` has the boot id of each node whose
    power was cut.
    """

    power: Switched
    lease: Lease
    restore: Callable[[Node], None]
    require_alone: Callable[[Node], None]
    boots: dict[str, str] = field(default_factory=dict)

    def off(self, node: Node) -> None:
        """Cut the node's power, and let go of its connections.

        :class:`~harness.errors.RefusedError` where the inventory has no ``power`` for it, or somebody else's resource
        or guest would lose it too;
        :class:`~harness.errors.InfrastructureError` where it stays on, or is said to be off while the node answers.
        """
        self.power.require(node.name)
        self.lease.require()
        self.require_alone(node)
        boot = _boot_of(node)
        if not self.power.status(node.name):
            raise InfrastructureError(
                f"{node.name} answers, and it is said to have no power: 'power' in the inventory is that of another "
                "machine; nothing was cut"
            )
        self.boots[node.name] = boot
        self.lease.away(node.name)
        try:
            self.power.off(node.name)
        finally:
            node.forget()

    def on(self, node: Node) -> None:
        """Give it back, wait until the node has booted, and make anew what it has lost by that.

        Blocks for as long as its boot takes, at most ``BOOT_SECONDS`` and some minutes.
        :class:`~harness.errors.LostNodeError` where it does not come up, and
        :class:`~harness.errors.InfrastructureError` where it has not booted: then something else lost its power.
        :class:`~harness.errors.ProtectedError` where somebody else took its lease meanwhile.
        """
        self.power.on(node.name)
        _connect(node)
        boot = self.boots.get(node.name)
        if boot is not None and _boot_of(node) == boot:
            raise InfrastructureError(
                f"{node.name} has not booted since its power was cut: its 'power' in the inventory is that of another "
                "machine"
            )
        self.boots.pop(node.name, None)
        self.lease.take_again(node.name)
        with contextlib.suppress(HarnessError):
            # What its services do to DRBD and to disks as it boots is over then.
            node.runner.run(_WAIT_FOR_SERVICES, timeout=_SERVICES_SECONDS, ok=())
        self.restore(node)

    def give_back(self, nodes: Sequence[Node]) -> None:
        """Give back what was cut and not given back; what cannot be is said.  Blocks as :meth:`on`."""
        for node in nodes:
            if node.name not in self.boots:
                continue
            progress(f"{node.name} gets its power back")
            try:
                self.power.on(node.name)
                _connect(node)
                self.boots.pop(node.name)
                self.lease.take_again(node.name)
            except HarnessError as error:
                progress(f"{node.name}: {error}")


def _boot_of(node: Node) -> str:
    return node.runner.run(["cat", _BOOT]).stdout.strip()


def _connect(node: Node) -> None:
    """Connect to a node that boots; :class:`~harness.errors.LostNodeError` with the last reason after a while."""
    deadline = Deadline.after(BOOT_SECONDS, f"the boot of {node.name}")
    progress(f"waiting for {node.name} to boot, {BOOT_SECONDS * patience():.0f} s at most")
    while True:
        try:
            # An ordinary user is refused for as long as it boots.
            node.reconnect()
            return
        except LostNodeError as error:
            if time.monotonic() + _AGAIN_SECONDS > deadline.at:
                raise LostNodeError(
                    f"{node.name} has its power again and does not come up within {deadline.seconds:.0f} s: {error}"
                ) from None
        time.sleep(_AGAIN_SECONDS)

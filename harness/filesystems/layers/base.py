"""What lies between DRBD's device and a cell's filesystem: made, opened, closed, and seen through in a copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar

from harness.errors import HarnessError, InfrastructureError
from harness.filesystems.base import WorkloadTarget, require_tools
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, DiskSource, FilesystemKind, Layout
from harness.remote.base import Runner

#: The name of whatever a layer makes that has to have one: a volume group, a device of device-mapper.
NAME = "drbd-harness"
LAYER_SECONDS = 60.0
LOOP_SECONDS = 20.0

#: Where a block of the outer device is: its number in what the filesystem sees, or whose it is instead.
Place = int | OwnedBlock


@dataclass(frozen=True)
class Inner:
    """What a layer holds in a copy of a replica: ``view`` is what the filesystem sees.

    ``places`` tells of each of the given 4 KiB blocks of the outer copy where it is in there, or whose it is instead:
    the layer's own, nobody's, or unknown.
    """

    view: ReplicaView
    places: Callable[[Sequence[int]], Mapping[int, Place]]

    def locate(self, block: int) -> Place:
        """The place of one block; :attr:`places` knows many in one go."""
        return self.places([block])[block]


class Layer:
    """The base; one object for each cell.  Every step runs where ``target.runner`` runs and blocks until it is done.

    In the client, ``target`` is the disk in the guest, or DRBD's device on the node that is the client.  A layer
    ``on_node`` lies between DRBD and QEMU: ``target`` is DRBD's device on the node, and the guest gets :meth:`disk`.
    """

    layout: ClassVar[Layout]
    #: How the owner of a block is found through it; "" where there is nothing to see through.
    method: ClassVar[str] = ""
    #: Kernel modules and programs that it needs where it is made.
    modules: ClassVar[tuple[str, ...]] = ()
    programs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, filesystem: FilesystemKind = FilesystemKind.RAW) -> None:
        self.filesystem = filesystem

    @property
    def on_node(self) -> bool:
        """Whether it lies above DRBD on the node, below QEMU; else it is in the client."""
        return self.layout.on_node

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """How large a device it needs for a filesystem that needs ``inner_mib``, both in MiB."""
        return inner_mib

    def make(self, target: WorkloadTarget) -> None:
        """Make it on the device, over whatever was there."""

    def require(self, target: WorkloadTarget) -> None:
        """:class:`~harness.errors.RefusedError` where kernel or image lack what it needs; asked where a step failed."""
        require_tools(target, self.modules, self.programs, f"the layout {self.layout}")

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """Bring it into use, also after a crash, and say what the filesystem sees."""
        return target

    def close(self, target: WorkloadTarget) -> None:
        """Take it out of use, everything written; nothing where it is not in use, or only half."""

    def settled(self, target: WorkloadTarget) -> AbstractContextManager[None]:
        """While it lasts everything that the layer holds is on the device, in its place; nobody may write meanwhile."""
        return contextlib.nullcontext()

    def disk(self, target: WorkloadTarget) -> DiskSource:
        """What QEMU is given, of a layer on the node that was opened as ``target``."""
        return DiskSource(target.device)

    def inner(self, view: ReplicaView) -> AbstractContextManager[Inner]:
        """What the filesystem sees in a copy; whatever was set up for it on the node is gone at the end.

        A :class:`~harness.errors.HarnessError` or :class:`ValueError` where that cannot be seen.
        """
        return contextlib.nullcontext(Inner(view, lambda blocks: {block: block for block in blocks}))


def opened(target: WorkloadTarget, device: str, size: int) -> WorkloadTarget:
    """``device`` of ``size`` bytes, where ``target`` is; :class:`InfrastructureError` where it has no block."""
    blocks = size // BLOCK_BYTES
    if blocks <= 0:
        raise InfrastructureError(f"{device} on {target.runner.host} has {size} bytes, which is not a block")
    return replace(target, device=device, blocks=blocks)


@contextlib.contextmanager
def loop(runner: Runner, path: str, offset: int = 0, size: int = 0) -> Iterator[str]:
    """A read-only loop device over ``size`` bytes of the file ``path`` from byte ``offset`` on; all of it for 0.

    It goes at the end; on a node that does not answer any more it stays.
    """
    argv = ["losetup", "--read-only", "--offset", str(offset), *(["--sizelimit", str(size)] if size else [])]
    device = runner.run([*argv, "--find", "--show", path], timeout=LOOP_SECONDS).stdout.strip()
    try:
        yield device
    finally:
        with contextlib.suppress(HarnessError):
            runner.run(["losetup", "--detach", device], timeout=LOOP_SECONDS)

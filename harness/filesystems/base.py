"""What is made on the device before a workload writes: make, mount, unmount, check, and who owns a block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from harness.drbd.resource import Resource
from harness.errors import RefusedError
from harness.filesystems.owned import OwnedBlock, summary, unknown
from harness.filesystems.view import ReplicaView
from harness.lab.node import Node
from harness.model import BLOCK_BYTES, FilesystemCheck, FilesystemKind
from harness.model.changes import Change
from harness.parse.fsck import fsck_meaning
from harness.remote.base import Runner

# Start-up and tear-down of a program on an emulated machine, in seconds, on top of the time it works.
MARGIN_SECONDS = 90.0

# A kernel that has a filesystem, built in or as a module that was loaded, lists it; loading one is tried.
_MISSING = """
for module in $1; do
    awk '{ print $NF }' /proc/filesystems | grep -qx "$module" && continue
    [ -d "/sys/module/$(echo "$module" | tr - _)" ] || modprobe -q "$module" || echo "module $module"
done
for program in $2; do
    command -v "$program" >/dev/null || echo "program $program"
done
"""


@dataclass(frozen=True)
class WorkloadTarget:
    """Where a workload runs: ``device`` as ``runner`` sees it; ``resource`` is the DRBD resource below.

    ``blocks``: how many 4 KiB blocks from its beginning are the workload's; 0 for all.  ``node``: the one that it is;
    None in a guest, which may take ``boot_seconds`` to boot again.
    """

    runner: Runner
    device: str
    resource: Resource
    blocks: int = 0
    node: Node | None = None
    boot_seconds: float = 0.0

    @property
    def own_blocks(self) -> int:
        """The number of 4 KiB blocks that are the workload's."""
        return self.blocks or self.resource.blocks

    def note(self, *changes: Change) -> None:
        """Before ``changes`` are made there: :meth:`harness.lab.node.Node.note`."""
        if self.node is not None:
            self.node.note(*changes)

    def require_swap(self) -> None:
        """:class:`~harness.errors.RefusedError` where all programs of somebody's machine would swap."""
        if self.node is not None and self.node.journal is not None:
            raise RefusedError(
                f"the harness on {self.node.name}", "swap there would be that of all the machine's programs"
            )

    def sh(self, script: str, *arguments: str, timeout: float = 60) -> str:
        """Run a shell script with positional ``arguments`` there and return what it printed.

        Blocks for at most ``timeout`` seconds; :class:`~harness.errors.CommandError` when its status is not 0.
        """
        return self.runner.run(["sh", "-ec", script, "sh", *arguments], timeout=timeout).stdout


@dataclass(frozen=True)
class CheckResult:
    """What fsck reported of the unmounted filesystem.

    ``status`` is its exit status, None where there is nothing to check; ``message`` its last line.
    """

    status: int | None = None
    message: str = ""

    @property
    def found(self) -> FilesystemCheck | None:
        """What that means; None where there is nothing to check."""
        return None if self.status is None else fsck_meaning(self.status)[0]


def require_tools(target: WorkloadTarget, modules: Iterable[str], programs: Iterable[str], whose: str) -> None:
    """:class:`~harness.errors.RefusedError` where the kernel or the image of ``target`` lacks what ``whose`` needs.

    One round trip, none where nothing is needed.
    """
    modules, programs = " ".join(modules), " ".join(programs)
    if not modules and not programs:
        return
    missing = target.sh(_MISSING, modules, programs).splitlines()
    if missing:
        kind, _, name = missing[0].partition(" ")
        what = f"its kernel has no {name}" if kind == "module" else f"it has no program '{name}'"
        raise RefusedError(target.runner.host, f"{what}, which {whose} needs")


class Offers(StrEnum):
    """What a workload finds once the filesystem is there."""

    DEVICE = "device"  # the device itself
    SWAP = "swap"  # swap space in use
    FILES = "files"  # a mounted filesystem


class Filesystem:
    """The base.  Every step runs where ``target.runner`` runs and blocks until it is done."""

    kind: FilesystemKind
    offers: Offers
    #: By what reasoning :meth:`owners` knows; it stands beside the counts in the evidence.
    method: str
    #: Whether :meth:`owners` reads the replica; else it knows without one, and none is copied.
    reads_replica: ClassVar[bool] = True
    #: The Debian package whose programs :meth:`owners` runs on node a; empty where it runs none.
    owner_package: ClassVar[str] = ""
    #: The smallest device that it can be made on with room for the workloads, in MiB; 0 where any does.
    needs_mib: ClassVar[int] = 0
    #: In which systems it can be made: in Linux, in Windows.
    linux: ClassVar[bool] = True
    windows: ClassVar[bool] = False
    #: Kernel modules, or names of filesystems built in, and programs that the client has to have.
    modules: ClassVar[tuple[str, ...]] = ()
    programs: ClassVar[tuple[str, ...]] = ()
    #: Whether what is swapped out stays in memory.
    in_memory: ClassVar[bool] = False

    def __init__(self, *, online_discard: bool = False) -> None:
        #: Whether what is freed is discarded at once.
        self.online_discard = online_discard

    def require_room(self, target: WorkloadTarget) -> None:
        """:class:`~harness.errors.RefusedError` where the device is too small for it; asks no machine."""
        if not self.needs_mib:
            return
        mebibytes = target.own_blocks * BLOCK_BYTES // 2**20
        if mebibytes < self.needs_mib:
            message = f"it needs a device of {self.needs_mib} MiB, and there are {mebibytes} MiB"
            raise RefusedError(f"the filesystem {self.kind}", message)

    def require(self, target: WorkloadTarget) -> None:
        """:class:`~harness.errors.RefusedError` where the client's kernel or image lacks what it needs.

        One round trip.  Asked where a step failed: what can be made and mounted lacks nothing.
        """
        require_tools(target, self.modules, self.programs, f"the filesystem {self.kind}")

    def make(self, target: WorkloadTarget) -> None:
        """Make it on the device."""

    def mount(self, target: WorkloadTarget) -> None:
        """Bring it into use; :class:`~harness.errors.CommandError` with the program's message when that fails."""

    def unmount(self, target: WorkloadTarget) -> None:
        """Write everything and take it out of use."""

    def check(self, target: WorkloadTarget) -> CheckResult:
        """Check it while it is not in use, changing nothing."""
        return CheckResult()

    def file(self, target: WorkloadTarget, name: str) -> str:
        """Where a workload's data file ``name`` is: on a raw device that is the device itself."""
        return target.device

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """Who each of ``blocks`` (4 KiB block numbers) belongs to; ``view`` holds all that was written.

        A :class:`~harness.errors.HarnessError`, :class:`OSError` or :class:`ValueError` makes all of them unknown.
        """
        raise NotImplementedError


__all__ = [
    "MARGIN_SECONDS",
    "CheckResult",
    "Filesystem",
    "Offers",
    "OwnedBlock",
    "ReplicaView",
    "WorkloadTarget",
    "require_tools",
    "summary",
    "unknown",
]

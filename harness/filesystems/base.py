"""What is made on the device before a workload writes: make, mount, unmount, check, and who owns a block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.drbd.resource import Resource
from harness.model import BlockOwner, FilesystemCheck, FilesystemKind, Ownership
from harness.parse.fsck import fsck_meaning
from harness.remote.base import Runner

# Start-up and tear-down of a program on an emulated machine, in seconds, on top of the time it works.
MARGIN_SECONDS = 90.0


@dataclass(frozen=True)
class WorkloadTarget:
    """Where a workload runs: ``device`` as ``runner`` sees it; ``resource`` is the DRBD resource below.

    ``blocks``: how many 4 KiB blocks from its beginning are the workload's; 0 for all.
    """

    runner: Runner
    device: str
    resource: Resource
    blocks: int = 0

    @property
    def own_blocks(self) -> int:
        """The number of 4 KiB blocks that are the workload's."""
        return self.blocks or self.resource.blocks

    def sh(self, script: str, *arguments: str, timeout: float = 60) -> str:
        """Run a shell script with positional ``arguments`` there and return what it printed.

        Blocks for at most ``timeout`` seconds; :class:`~harness.errors.CommandError` when its status is not 0.
        """
        return self.runner.run(["sh", "-ec", script, "sh", *arguments], timeout=timeout).stdout


@dataclass(frozen=True)
class OwnedBlock:
    """One block's owner, and what it is called there."""

    owner: BlockOwner
    detail: str


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

    def owners(self, target: WorkloadTarget, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """Who each of ``blocks`` (4 KiB block numbers) belongs to; ``target`` is the Primary, all is written."""
        raise NotImplementedError


def unknown(blocks: Iterable[int], why: str) -> Mapping[int, OwnedBlock]:
    """Nobody can say."""
    return {block: OwnedBlock(BlockOwner.UNKNOWN, why) for block in blocks}


def summary(owned: Mapping[int, OwnedBlock], method: str) -> Ownership:
    """``owned`` counted, with at most 50 of the distinct names of what is hit."""
    count = {owner.value: sum(1 for one in owned.values() if one.owner is owner) for owner in BlockOwner}
    names = tuple(sorted({one.detail for one in owned.values()}))[:50]
    return Ownership(**count, method=method, names=names)

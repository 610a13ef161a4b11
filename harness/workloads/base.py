"""What a client does to the device: each workload prepares, works, and leaves everything written.

It runs on a :class:`~harness.filesystems.base.WorkloadTarget`: the guest with the attached disk, or the node itself on
/dev/drbdN.  The filesystem below it is the cell's other half; a workload says which kinds it can use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from harness.errors import CommandError, RefusedError
from harness.filesystems.base import (
    MARGIN_SECONDS,
    CheckResult,
    Filesystem,
    Offers,
    OwnedBlock,
    ReplicaView,
    WorkloadTarget,
)
from harness.filesystems.mounted import Mounted
from harness.model import Cell, PlantedChange, Work
from harness.remote.guest_system import system_of

# What mount(8) ends with when the filesystem could not be mounted; its other statuses say that it was not tried.
_MOUNT_FAILED = 32


@dataclass(frozen=True)
class Recovered:
    """What a workload finds when its device comes back after a crash.

    ``mounted``: whether the filesystem could be mounted, None where there is none; ``mount_message``: why not.
    ``check``: fsck's result, once mounting replayed the journal.  ``wrong_reads`` counts wrong data that was read back,
    ``findings`` say what it was.  ``looked_at``: what was looked for, where the workload can say.
    """

    mounted: bool | None = None
    mount_message: str = ""
    check: CheckResult = field(default_factory=CheckResult)
    wrong_reads: int = 0
    findings: tuple[str, ...] = ()
    looked_at: str = ""


class Workload:
    """The base; one object for each cell, over the cell's filesystem."""

    name: ClassVar[str]
    #: Which kinds of filesystem it can use.
    needs: ClassVar[frozenset[Offers]]
    #: Whether it can also be played in Windows.
    windows: ClassVar[bool] = False

    def __init__(self, filesystem: Filesystem, seed: int = 0) -> None:
        self.filesystem = filesystem
        #: What decides whatever it chooses at random, 1 to 2**31 - 1; 0 where it may choose as it likes.
        self.seed = seed
        #: What it changed below DRBD on purpose.
        self.planted: tuple[PlantedChange, ...] = ()
        #: What was wrong with what it read back when the work was over, one sentence each.
        self.findings: list[str] = []
        #: What it looked for when it read back, where it can say.
        self.looked_at = ""

    @classmethod
    def of(cls, filesystem: Filesystem, cell: Cell) -> Workload:
        """That of ``cell``, over its filesystem."""
        return cls(filesystem, cell.seed)

    def prepare(self, target: WorkloadTarget) -> None:
        """Make and mount the filesystem, and lay out what the work needs.

        :class:`~harness.errors.RefusedError` where the client lacks something that the filesystem needs.
        """
        self.require_system(target)
        self.filesystem.require_room(target)
        try:
            self.filesystem.make(target)
            self.filesystem.mount(target)
        except CommandError:
            self.filesystem.require(target)
            raise

    def require_system(self, target: WorkloadTarget) -> None:
        """:class:`~harness.errors.RefusedError` where workload or filesystem are not for the client's system."""
        host, kind = target.runner.host, self.filesystem.kind
        if not system_of(target.runner).windows:
            if not self.filesystem.linux:
                raise RefusedError(host, f"the filesystem {kind} is made by Windows, and it runs none (--guest-image)")
        elif not self.filesystem.windows:
            raise RefusedError(host, f"it runs Windows, in which there is no filesystem {kind}; there is ntfs")
        elif not self.windows:
            raise RefusedError(host, f"it runs Windows, in which the workload '{self.name}' cannot be played")

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Work for ``seconds`` and say what was done; blocks for that long and at most ``MARGIN_SECONDS`` more."""
        raise NotImplementedError

    def quiesce(self, target: WorkloadTarget) -> int:
        """Leave everything written and nothing in use; returns how many wrong data a final reading found."""
        self.filesystem.unmount(target)
        return 0

    def recover(self, target: WorkloadTarget) -> Recovered:
        """After a crash, instead of :meth:`quiesce`: bring the data up again as its owner would, and look at it.

        On a filesystem: mount, which replays the journal; read back; unmount; fsck, which then has nothing to find.
        :class:`~harness.errors.CommandError` when a step could not be done at all.
        """
        if not isinstance(self.filesystem, Mounted):
            return Recovered()
        try:
            self.filesystem.mount(target)
        except CommandError as error:
            if error.status != _MOUNT_FAILED:
                raise
            return Recovered(False, " ".join(error.stderr.split()), self.filesystem.check(target))
        wrong = self.read_back(target)
        self.filesystem.unmount(target)
        check = self.filesystem.check(target)
        return Recovered(True, "", check, wrong, tuple(self.findings), self.looked_at)

    def hear_console(self, printed: str) -> None:
        """What the guest's console printed in this cell until the crash; asked before :meth:`recover`."""

    def clean_up(self, target: WorkloadTarget) -> None:
        """After a failure: take the filesystem out of use; :class:`~harness.errors.HarnessError` where that fails."""
        self.filesystem.unmount(target)

    def read_back(self, target: WorkloadTarget) -> int:
        """How much of the mounted filesystem's checksummed data is wrong; 0 where the workload keeps no checksums."""
        return 0

    @property
    def reads_replica(self) -> bool:
        """Whether :meth:`owners` reads the replica."""
        return self.filesystem.reads_replica

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """Who each of ``blocks`` belongs to now; ``view`` is of the replica after everything was written."""
        return self.filesystem.owners(view, blocks)


def numbers(text: str) -> dict[str, float]:
    """The numbers of a one-line JSON object, by name; :class:`ValueError` for other text."""
    return {key: float(value) for key, value in json.loads(text).items() if isinstance(value, int | float)}


__all__ = ["MARGIN_SECONDS", "Recovered", "Workload", "WorkloadTarget", "numbers"]

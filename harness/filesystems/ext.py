"""What ext3 and ext4 have in common: made, mounted, checked, and whose a block is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from harness.filesystems.base import (
    MARGIN_SECONDS,
    CheckResult,
    OwnedBlock,
    ReplicaView,
    WorkloadTarget,
)
from harness.filesystems.ext_owners import ext_owners
from harness.filesystems.mounted import Mounted
from harness.model import BLOCK_BYTES, FilesystemCheck


class Ext(Mounted):
    """A filesystem of the ext family with mkfs's defaults; all of them are the kernel's ext4 driver."""

    needs_mib = 8
    modules = ("ext4",)
    programs: ClassVar[tuple[str, ...]] = ("e2fsck",)
    method = "the filesystem's own maps, by dumpe2fs and debugfs"
    owner_package = "e2fsprogs"
    #: Of mkfs, on top of the block size.
    make_options: ClassVar[str] = ""

    def make(self, target: WorkloadTarget) -> None:
        """Make it, with 4 KiB blocks, so that its blocks and DRBD's have the same numbers."""
        script = f'mkfs.{self.mount_type} -q -F -b {BLOCK_BYTES} {self.make_options} "$1"'
        target.sh(script, target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """e2fsck without a change."""
        checked = target.runner.run(["e2fsck", "-fn", target.device], timeout=MARGIN_SECONDS, ok=())
        printed = CheckResult(checked.status, _last_line(checked.stdout))
        # Why it could not check is in its errors; otherwise those are its name and version.
        if printed.found is FilesystemCheck.UNCHECKED:
            return replace(printed, message=_last_line(checked.stderr) or printed.message)
        return printed

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """What the maps of the filesystem say of each block: :func:`~harness.filesystems.ext_owners.ext_owners`."""
        return ext_owners(view, blocks)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()

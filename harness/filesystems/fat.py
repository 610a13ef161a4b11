"""FAT with long names (vfat) and exFAT, with clusters of 4 KiB so that they lie as DRBD's blocks do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.filesystems.base import MARGIN_SECONDS, CheckResult, OwnedBlock, ReplicaView, WorkloadTarget
from harness.filesystems.fat_owners import exfat_owners, fat_owners
from harness.filesystems.mounted import Mounted
from harness.model import BLOCK_BYTES, FilesystemKind
from harness.parse.fsck_others import FSCK_EXFAT, FSCK_FAT, Checker, checked

# FAT16 has room for 65,524 clusters, and FAT32 must have more.
_MAKE_FAT = f"""
blocks=$(($(blockdev --getsize64 "$1") / {BLOCK_BYTES}))
bits=32
[ "$blocks" -gt 65560 ] || bits=16
mkfs.vfat -F "$bits" -s {BLOCK_BYTES // 512} -S 512 "$1" >/dev/null
"""


class Vfat(Mounted):
    """FAT16 or FAT32, by the size of the device."""

    kind = FilesystemKind.VFAT
    mount_type = "vfat"
    # Fewer clusters would make it a FAT12.
    needs_mib = 20
    modules = ("vfat",)
    programs = ("mkfs.vfat", "fsck.fat")
    method = "its file allocation table and directories, by The Sleuth Kit"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        target.sh(_MAKE_FAT, target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """fsck.fat without a change."""
        return _check(target, "fsck.fat", FSCK_FAT)

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """Who owns each block; see :mod:`harness.filesystems.fat_owners`."""
        return fat_owners(view, blocks)


class Exfat(Mounted):
    """exFAT."""

    kind = FilesystemKind.EXFAT
    mount_type = "exfat"
    needs_mib = 16
    modules = ("exfat",)
    programs = ("mkfs.exfat", "fsck.exfat")
    method = "its allocation bitmap and directories, by The Sleuth Kit"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        target.sh(f'mkfs.exfat -c {BLOCK_BYTES // 1024}K "$1" >/dev/null', target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """fsck.exfat without a change; it does not look for clusters that are in use by nobody."""
        return _check(target, "fsck.exfat", FSCK_EXFAT)

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """Who owns each block; see :mod:`harness.filesystems.fat_owners`."""
        return exfat_owners(view, blocks)


def _check(target: WorkloadTarget, program: str, checker: Checker) -> CheckResult:
    ran = target.runner.run(["env", "LC_ALL=C", program, "-n", target.device], timeout=MARGIN_SECONDS, ok=())
    return CheckResult(*checked(checker, ran.status, f"{ran.stderr}\n{ran.stdout}"))

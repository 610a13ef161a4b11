"""Btrfs on one device, as mkfs.btrfs makes it; with checksums and copy on write for data, and without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.filesystems.base import MARGIN_SECONDS, CheckResult, OwnedBlock, ReplicaView, WorkloadTarget
from harness.filesystems.btrfs_owners import btrfs_owners
from harness.filesystems.mounted import Mounted
from harness.model import FilesystemKind
from harness.parse.repair_tools import btrfs_check_status


class Btrfs(Mounted):
    """Btrfs with its defaults: data is checksummed and never overwritten, metadata is there twice."""

    kind = FilesystemKind.BTRFS
    # Made on 128 MiB it has no 10 MiB left for data: its metadata is there twice, in chunks.
    needs_mib = 300
    modules = ("btrfs",)
    programs = ("mkfs.btrfs", "btrfs")
    mount_type = "btrfs"
    method = "the filesystem's own trees, by btrfs inspect-internal"
    owner_package = "btrfs-progs"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        target.sh('mkfs.btrfs -q -f "$1"', target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """``btrfs check`` without a change."""
        checked = target.runner.run(["btrfs", "check", "--readonly", target.device], timeout=MARGIN_SECONDS, ok=())
        status = btrfs_check_status(checked.status, f"{checked.stdout}\n{checked.stderr}")
        if status == 0:
            return CheckResult(0, "btrfs check found no error")
        # What it says of an error stands among its progress on the standard error.
        lines = [line.strip() for line in checked.stderr.splitlines() if not line.startswith(("[", "Opening"))]
        said = next((line for line in lines if line), "nothing")
        return CheckResult(status, f"btrfs check ended with status {checked.status}: {said}")

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """What the trees say of each block: :func:`~harness.filesystems.btrfs_owners.btrfs_owners`."""
        return btrfs_owners(view, blocks)


class BtrfsNoDataCow(Btrfs):
    """Mounted with ``nodatacow``: data is overwritten in place, and has no checksums."""

    kind = FilesystemKind.BTRFS_NODATACOW
    mount_options = "nodatacow"

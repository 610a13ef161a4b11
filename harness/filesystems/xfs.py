"""XFS, with 4 KiB blocks so that its blocks and DRBD's have the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.filesystems.base import MARGIN_SECONDS, CheckResult, OwnedBlock, ReplicaView, WorkloadTarget
from harness.filesystems.mounted import Mounted
from harness.filesystems.xfs_owners import xfs_owners
from harness.model import BLOCK_BYTES, FilesystemKind
from harness.parse.repair_tools import xfs_repair_status


class Xfs(Mounted):
    """XFS with its defaults."""

    kind = FilesystemKind.XFS
    # What mkfs.xfs makes no smaller since xfsprogs 5.19.
    needs_mib = 300
    modules = ("xfs",)
    programs = ("mkfs.xfs", "xfs_repair")
    mount_type = "xfs"
    method = "the filesystem's own maps, by xfs_db"
    owner_package = "xfsprogs"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        target.sh(f'mkfs.xfs -q -f -b size={BLOCK_BYTES} "$1"', target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """xfs_repair without a change; what it says of a log that was not replayed is no damage."""
        checked = target.runner.run(["xfs_repair", "-n", target.device], timeout=MARGIN_SECONDS, ok=())
        printed = f"{checked.stdout}\n{checked.stderr}"
        status = xfs_repair_status(checked.status, printed)
        if status == 0:
            return CheckResult(0, "xfs_repair -n found nothing")
        lines = [line.strip() for line in printed.splitlines() if not line.startswith((" ", "Phase", "No modify"))]
        said = next((line for line in lines if line), "nothing")
        return CheckResult(status, f"xfs_repair -n ended with status {checked.status}: {said}")

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """What the maps of the filesystem say of each block: :func:`~harness.filesystems.xfs_owners.xfs_owners`."""
        return xfs_owners(view, blocks)

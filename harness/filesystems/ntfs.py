"""NTFS, by the kernel's ntfs3 or by ntfs-3g, with clusters of 4 KiB so that they lie as DRBD's blocks do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.filesystems.base import MARGIN_SECONDS, CheckResult, OwnedBlock, ReplicaView, WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT, Mounted
from harness.filesystems.ntfs_owners import ntfs_owners
from harness.model import BLOCK_BYTES, FilesystemKind
from harness.parse.fsck_others import NTFSRESIZE, checked

# The process that holds the filesystem writes on after umount is back; it is waited for, 30 s at most.
_UNMOUNT_FUSE = """
served=$(pidof mount.ntfs-3g ntfs-3g || true)
sync
umount "$1"
for process in $served; do
    waited=0
    while [ -d "/proc/$process" ]; do
        [ "$waited" -lt 300 ] || { echo "ntfs-3g (process $process) has not ended 30 s after umount" >&2; exit 1; }
        waited=$((waited + 1))
        sleep 0.1
    done
done
sync
"""


class _Ntfs(Mounted):
    """What is the same by either driver."""

    needs_mib = 16
    method = "its bitmap, master file table and directories, by The Sleuth Kit"

    def make(self, target: WorkloadTarget) -> None:
        """Make it, without writing every cluster."""
        target.sh(f'mkntfs -Q -F -q -c {BLOCK_BYTES} "$1"', target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """ntfsresize without a change: it reads all records and compares what files have with $Bitmap.

        It is the only program of ntfs-3g's that does; ntfsfix looks at little more than the boot sector, and calls that
        a check.  Names and the contents of directories are looked at by none.
        """
        argv = ["env", "LC_ALL=C", "ntfsresize", "--info", "--force", "--no-progress-bar", target.device]
        ran = target.runner.run(argv, timeout=MARGIN_SECONDS, ok=())
        return CheckResult(*checked(NTFSRESIZE, ran.status, f"{ran.stderr}\n{ran.stdout}"))

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """Who owns each block; see :mod:`harness.filesystems.ntfs_owners`."""
        return ntfs_owners(view, blocks)


class Ntfs3(_Ntfs):
    """By the kernel's own driver, which writes no journal."""

    kind = FilesystemKind.NTFS3
    mount_type = "ntfs3"
    modules = ("ntfs3",)
    programs = ("mkntfs", "ntfsresize")


class Ntfs3g(_Ntfs):
    """By ntfs-3g, a process that writes to the device through the page cache."""

    kind = FilesystemKind.NTFS_3G
    mount_type = "ntfs-3g"
    modules = ("fuse",)
    programs = ("mkntfs", "ntfsresize", "ntfs-3g")

    def unmount(self, target: WorkloadTarget) -> None:
        """Unmount and wait until ntfs-3g has ended: only then is everything written."""
        target.sh(_UNMOUNT_FUSE, MOUNT_POINT, timeout=MARGIN_SECONDS)

"""NTFS as Windows makes it: on the one partition of an MBR, mounted in a folder, taken offline before the disk goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.filesystems.base import MARGIN_SECONDS, CheckResult, Filesystem, Offers, OwnedBlock, WorkloadTarget
from harness.filesystems.ntfs_owners import ntfs_owners
from harness.filesystems.owned import ByteMap
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, SECTOR_BYTES, BlockOwner, FilesystemKind
from harness.remote.windows import disk_number, powershell

FOLDER = r"C:\drbd-harness"
_NTFS_IN_MBR = 0x07

# A GPT would come with a partition of 16 MiB that Windows keeps for itself.
_MAKE = """
$n = [int]$a[0]
Set-Disk -Number $n -IsOffline $false
Set-Disk -Number $n -IsReadOnly $false
if ((Get-Disk -Number $n).PartitionStyle -ne 'RAW') { Clear-Disk -Number $n -RemoveData -RemoveOEM -Confirm:$false }
if ((Get-Disk -Number $n).PartitionStyle -eq 'RAW') { Initialize-Disk -Number $n -PartitionStyle MBR }
$partition = New-Partition -DiskNumber $n -UseMaximumSize -Offset 1MB
Format-Volume -Partition $partition -FileSystem NTFS -AllocationUnitSize 4096 -Confirm:$false -Force | Out-Null
"""
_MOUNT = """
$n = [int]$a[0]
Set-Disk -Number $n -IsOffline $false
New-Item -ItemType Directory -Force -Path $a[1] | Out-Null
Add-PartitionAccessPath -DiskNumber $n -PartitionNumber 1 -AccessPath $a[1]
"""
_UNMOUNT = """
$n = [int]$a[0]
Get-Partition -DiskNumber $n -PartitionNumber 1 | Get-Volume | Write-VolumeCache
Remove-PartitionAccessPath -DiskNumber $n -PartitionNumber 1 -AccessPath $a[1]
Set-Disk -Number $n -IsOffline $true
"""
# Read-only: 0 is sound, 2 sound but for what only /f tidies up; 3 is either damage or that it could not look.
_CHECK = """
$volume = (Get-Partition -DiskNumber ([int]$a[0]) -PartitionNumber 1 | Get-Volume).Path
chkdsk.exe $volume.TrimEnd('\\')
exit $LASTEXITCODE
"""
_MEANING = {0: 0, 2: 0}
_UNCHECKED = 8


@dataclass(frozen=True)
class PartitionView(ReplicaView):
    """What the bytes from ``start`` on of another view hold."""

    outer: ReplicaView | None = None
    start: int = 0

    def read(self, offset: int, size: int) -> bytes:
        """As the base's."""
        assert self.outer is not None
        if offset < 0 or size < 0:
            raise ValueError(f"no place of a partition: {size} bytes at {offset}")
        end = min(offset + size, self.blocks * BLOCK_BYTES)
        return self.outer.read(self.start + offset, end - offset) if end > offset else b""


class WindowsNtfs(Filesystem):
    """Made and written by Windows itself, in a guest of a user's image."""

    kind = FilesystemKind.NTFS
    offers = Offers.FILES
    windows = True
    linux = False
    needs_mib = 64
    method = "the partition table; and in there its bitmap, master file table and directories, by The Sleuth Kit"

    def require(self, target: WorkloadTarget) -> None:
        """Nothing: all of it comes with Windows."""

    def make(self, target: WorkloadTarget) -> None:
        """A new partition table with one partition, formatted with clusters of 4 KiB."""
        self._run(target, _MAKE)

    def mount(self, target: WorkloadTarget) -> None:
        """Put it into a folder: a drive letter might be another's."""
        self._run(target, _MOUNT, FOLDER)

    def unmount(self, target: WorkloadTarget) -> None:
        """Write everything, and take the disk offline, so that nobody in there writes to it any more."""
        self._run(target, _UNMOUNT, FOLDER)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """chkdsk without a change, in the words of fsck's status; its last line."""
        ran = target.runner.run(powershell(_CHECK, disk_number(target.device)), timeout=MARGIN_SECONDS, ok=())
        lines = [line.strip() for line in ran.stdout.splitlines() if line.strip()]
        return CheckResult(_MEANING.get(ran.status, _UNCHECKED), lines[-1] if lines else ran.message)

    def file(self, target: WorkloadTarget, name: str) -> str:
        """In the folder."""
        return rf"{FOLDER}\{name}"

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """The partition table, and what NTFS says of the blocks in the partition."""
        start, size = partition(view.read(0, SECTOR_BYTES))
        first, count = start // BLOCK_BYTES, size // BLOCK_BYTES
        around = ByteMap()
        # Windows keeps nothing else of its own in the table's block.
        around.paint(0, BLOCK_BYTES, BlockOwner.METADATA, "the partition table")
        around.paint(BLOCK_BYTES, view.blocks * BLOCK_BYTES, BlockOwner.FREE, "in no partition")
        asked = sorted({*blocks})
        found = dict(around.blocks(asked))
        inside = [block - first for block in asked if first <= block < first + count]
        if inside:
            part = PartitionView(view.runner, view.path, count, outer=view, start=start)
            found |= {block + first: owned for block, owned in ntfs_owners(part, inside).items()}
        return found

    @staticmethod
    def _run(target: WorkloadTarget, script: str, *arguments: str) -> None:
        target.runner.run(powershell(script, disk_number(target.device), *arguments), timeout=MARGIN_SECONDS)


def partition(sector: bytes) -> tuple[int, int]:
    """Where the one partition of an MBR begins and its size, in bytes; :class:`ValueError` where it is another."""
    entries = [sector[at : at + 16] for at in range(446, 510, 16) if sector[at + 4 : at + 5] not in (b"", b"\0")]
    if sector[510:512] != b"\x55\xaa" or len(entries) != 1 or entries[0][4] != _NTFS_IN_MBR:
        raise ValueError("there is no partition table with one partition of Windows' NTFS")
    start, size = (int.from_bytes(entries[0][at : at + 4], "little") * SECTOR_BYTES for at in (8, 12))
    if start % BLOCK_BYTES:
        raise ValueError(f"the partition begins at byte {start}, in the middle of a block")
    return start, size

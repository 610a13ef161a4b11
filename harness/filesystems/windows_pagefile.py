"""Windows' pagefile on the device, the only one that it has: which file it pages to is decided while it boots."""

from __future__ import annotations

from harness.errors import InfrastructureError
from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.filesystems.windows_ntfs import WindowsNtfs
from harness.model import FilesystemKind
from harness.remote.windows import disk_number, powershell, reboot

LETTER = "P:"
FILE = rf"{LETTER}\pagefile.sys"
# The rest is NTFS's own.
_SHARE = 0.6

_MOUNT = """
$n = [int]$a[0]
Set-Disk -Number $n -IsOffline $false
Set-Partition -DiskNumber $n -PartitionNumber 1 -NewDriveLetter $a[1].Substring(0, 1)
[int]((Get-Partition -DiskNumber $n -PartitionNumber 1).Size / 1MB)
"""
# Which files it pages to, with their least and most size in MiB, read while it boots.
_PAGE_TO = """
$key = 'HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Memory Management'
[Microsoft.Win32.Registry]::SetValue($key, 'PagingFiles', [string[]]@($a | Where-Object { $_ }), 'MultiString')
"""
_IN_USE = "Get-CimInstance Win32_PageFileUsage | ForEach-Object { $_.Name }"
_UNMOUNT = """
$n = [int]$a[0]
Remove-Item -Force -ErrorAction SilentlyContinue -Path $a[2]
Get-Partition -DiskNumber $n -PartitionNumber 1 | Get-Volume | Write-VolumeCache
Remove-PartitionAccessPath -DiskNumber $n -PartitionNumber 1 -AccessPath ($a[1] + '\\')
Set-Disk -Number $n -IsOffline $true
"""


class WindowsPagefile(WindowsNtfs):
    """A pagefile on an NTFS made by Windows, in a guest of a user's image.

    To use it takes a boot, and to stop another.  What was in it is read by nobody after that: the file
    is deleted, and its blocks are free.
    """

    kind = FilesystemKind.PAGEFILE
    offers = Offers.SWAP
    needs_mib = 96

    def mount(self, target: WorkloadTarget) -> None:
        """Page to it and nowhere else; blocks for a boot of Windows."""
        size = target.runner.run(powershell(_MOUNT, disk_number(target.device), LETTER), timeout=MARGIN_SECONDS).stdout
        mebibytes = int(int(size) * _SHARE)
        self._page_to(target, f"{FILE} {mebibytes} {mebibytes}")

    def unmount(self, target: WorkloadTarget) -> None:
        """Page nowhere, delete the file, and take the disk offline; blocks for a boot of Windows."""
        self._page_to(target, "")
        self._run(target, _UNMOUNT, LETTER, FILE)

    @staticmethod
    def _page_to(target: WorkloadTarget, setting: str) -> None:
        target.runner.run(powershell(_PAGE_TO, setting), timeout=MARGIN_SECONDS)
        reboot(target.runner, target.boot_seconds)
        used = target.runner.run(powershell(_IN_USE), timeout=MARGIN_SECONDS).stdout.split()
        wanted = [FILE] if setting else []
        if [one.lower() for one in used] != [one.lower() for one in wanted]:
            there, asked = " and ".join(used) or "no file", " and ".join(wanted) or "none"
            raise InfrastructureError(f"after another boot Windows pages to {there}, and was told to page to {asked}")

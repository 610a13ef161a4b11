"""Filesystems, by the names that a matrix gives them."""

from collections.abc import Mapping

from harness.filesystems.base import Filesystem
from harness.filesystems.btrfs import Btrfs, BtrfsNoDataCow
from harness.filesystems.ext3 import Ext3
from harness.filesystems.ext4 import Ext4, Ext4Journal, Ext4NoBarrier
from harness.filesystems.f2fs import F2fs
from harness.filesystems.fat import Exfat, Vfat
from harness.filesystems.ntfs import Ntfs3, Ntfs3g
from harness.filesystems.raw import Raw
from harness.filesystems.swap import Swap
from harness.filesystems.swap_elsewhere import GuestDiskSwap, ZramSwap
from harness.filesystems.swapfile import SwapFile
from harness.filesystems.windows_ntfs import WindowsNtfs
from harness.filesystems.windows_pagefile import WindowsPagefile
from harness.filesystems.xfs import Xfs
from harness.model import Cell, FilesystemKind, SwapOn

_ALL: tuple[Filesystem, ...] = (
    Raw(), Swap(), SwapFile(), Ext4(), Ext4NoBarrier(), Ext4Journal(), Ext3(), Xfs(), Btrfs(),
    BtrfsNoDataCow(), Ntfs3(), Ntfs3g(), Vfat(), Exfat(), F2fs(), WindowsNtfs(), WindowsPagefile(),
)  # fmt: skip
FILESYSTEMS: Mapping[FilesystemKind, Filesystem] = {one.kind: one for one in _ALL}


def filesystem_of(cell: Cell) -> Filesystem:
    """That of ``cell``, as the cell's options of a guest want it."""
    options = cell.guest_options
    if options.swap_on is SwapOn.GUEST_DISK:
        return GuestDiskSwap()
    if options.swap_on is SwapOn.ZRAM:
        return ZramSwap()
    plain = FILESYSTEMS[cell.filesystem]
    return type(plain)(online_discard=True) if options.online_discard else plain


__all__ = ["FILESYSTEMS", "Filesystem", "filesystem_of"]

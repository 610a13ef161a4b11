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
from harness.filesystems.swapfile import SwapFile
from harness.filesystems.xfs import Xfs
from harness.model import FilesystemKind

_ALL: tuple[Filesystem, ...] = (
    Raw(), Swap(), SwapFile(), Ext4(), Ext4NoBarrier(), Ext4Journal(), Ext3(), Xfs(), Btrfs(),
    BtrfsNoDataCow(), Ntfs3(), Ntfs3g(), Vfat(), Exfat(), F2fs(),
)  # fmt: skip
FILESYSTEMS: Mapping[FilesystemKind, Filesystem] = {one.kind: one for one in _ALL}


__all__ = ["FILESYSTEMS", "Filesystem"]

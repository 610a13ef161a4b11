"""Filesystems, by the names that a matrix gives them."""

from collections.abc import Mapping

from harness.filesystems.base import Filesystem
from harness.filesystems.ext4 import Ext4
from harness.filesystems.raw import Raw
from harness.filesystems.swap import Swap
from harness.model import FilesystemKind

FILESYSTEMS: Mapping[FilesystemKind, Filesystem] = {one.kind: one for one in (Raw(), Swap(), Ext4())}

__all__ = ["FILESYSTEMS", "Filesystem"]

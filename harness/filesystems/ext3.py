"""ext3: blocks by indirect blocks instead of extents, no delayed allocation."""

from __future__ import annotations

from harness.filesystems.ext import Ext
from harness.model import FilesystemKind


class Ext3(Ext):
    """ext3 with its defaults."""

    kind = FilesystemKind.EXT3
    programs = ("mkfs.ext3", "e2fsck")
    mount_type = "ext3"

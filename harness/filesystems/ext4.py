"""ext4 with its defaults, with barriers off, and with its data in the journal."""

from __future__ import annotations

from typing import ClassVar

from harness.filesystems.ext import Ext
from harness.model import FilesystemKind


class Ext4(Ext):
    """ext4 with its defaults."""

    kind = FilesystemKind.EXT4
    mount_type = "ext4"
    # All of it is initialized when it is made, nothing while it is in use.
    make_options = "-E lazy_itable_init=0,lazy_journal_init=0"
    programs: ClassVar[tuple[str, ...]] = ("mkfs.ext4", "e2fsck")


class Ext4NoBarrier(Ext4):
    """ext4 that sends no flushes: some say that it is the barriers which keep replicas equal."""

    kind = FilesystemKind.EXT4_NOBARRIER
    mount_options = "nobarrier"


class Ext4Journal(Ext4):
    """ext4 that writes data to its journal first, from a copy when it is changed meanwhile."""

    kind = FilesystemKind.EXT4_JOURNAL
    mount_options = "data=journal"

"""Filesystems that are mounted and then hold files: what they have in common."""

from __future__ import annotations

from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, WorkloadTarget
from harness.model.changes import Change, ChangeKind

MOUNT_POINT = "/mnt/drbd-harness"


class Mounted(Filesystem):
    """The base of those that hold files; a subclass makes and checks one, and knows its owners."""

    offers = Offers.FILES
    #: What mount(8) calls it, and the options that it is mounted with, divided by commas.
    mount_type: ClassVar[str]
    mount_options: ClassVar[str] = ""

    def mount(self, target: WorkloadTarget) -> None:
        """Mount it, which replays its journal if it has one."""
        wanted = ",".join(filter(None, (self.mount_options, "discard" if self.online_discard else "")))
        options = f"-o {wanted} " if wanted else ""
        # To mount(8) a device that is not there is no other failure than a filesystem that is broken.
        script = f"""
        test -b "$1" || {{ echo "there is no block device $1" >&2; exit 2; }}
        mkdir -p "$2"
        mount -t {self.mount_type} {options}"$1" "$2"
        """
        target.note(Change(ChangeKind.DIRECTORY, MOUNT_POINT), Change(ChangeKind.MOUNT, MOUNT_POINT, (target.device,)))
        target.sh(script, target.device, MOUNT_POINT, timeout=MARGIN_SECONDS)

    def unmount(self, target: WorkloadTarget) -> None:
        """Unmount; whatever was dirty is written."""
        target.sh('sync; umount "$1"; sync', MOUNT_POINT, timeout=MARGIN_SECONDS)

    def file(self, target: WorkloadTarget, name: str) -> str:
        """Below its mount point."""
        return f"{MOUNT_POINT}/{name}"

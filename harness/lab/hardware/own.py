"""What of a machine's disks is the harness's own: found anew in each look, by tags, labels and names of its own."""

from __future__ import annotations

import getpass
import os
import platform
import re

from harness.config.inventory import DISK, LOOP, ZFS, StorageEntry
from harness.judgement import zfs_guard
from harness.judgement.disk_guard import label_of
from harness.judgement.volume_guard import group_of, is_own, volume_of
from harness.model.disks import BlockDevice, DiskLook, FileLook, MachineDisks, WantedDisk
from harness.render.disk_label import DiskLabel, read_label

_PREFIX = "drbd-harness-"
#: What the UUID of a mapping of the harness's begins with; its label's id is behind it.
UUID = "DRBD-HARNESS-"


def this_user() -> str:
    """Who runs the harness: a name, or in a container that knows none the number of the user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def this_owner() -> str:
    """Who runs the harness, and where."""
    return f"{this_user()}@{platform.node()}"


class OwnStorage:
    """The storage of one machine; ``size`` of the replica's lower device in bytes (of a whole disk: what it has).

    ``owner`` is written on what is made, since a lab of somebody else's may have the same name.
    """

    def __init__(self, storage: StorageEntry, lab: str, size: int, owner: str | None = None) -> None:
        self.owner = owner or this_owner()
        self.storage = storage
        self.lab = lab
        self.size = size
        #: The name of the volume, of the mapping, and, with an ending, of the file.
        self.name = f"{_PREFIX}{lab}"

    @property
    def subject(self) -> str:
        """The storage as a sentence names it."""
        storage = self.storage
        if storage.kind == DISK:
            return str(storage.disk)
        if storage.kind == LOOP:
            return f"{storage.directory}/{self.name}.img"
        return f"the volume {self.volume}"

    @property
    def volume(self) -> str:
        """The whole name of the volume: its volume group's or its dataset's, and its own."""
        return f"{self.storage.volume_group or self.storage.dataset}/{self.name}"

    @property
    def wanted(self) -> WantedDisk:
        """The disk as the inventory names it."""
        entry = self.storage
        return WantedDisk(str(entry.disk), entry.size_bytes or 0, entry.serial or "", entry.wwn or "")

    @property
    def file_name(self) -> str:
        """The name of the file in the inventory's directory."""
        return f"{self.name}.img"

    def lower_device(self, disks: MachineDisks) -> BlockDevice | None:
        """The replica's lower device as the kernel has it; None where it is not there (yet)."""
        if self.storage.kind == DISK:
            return self.mapping_device(disks)
        if self.storage.kind == LOOP:
            return self.loop(disks) if self.file(disks) is not None else None
        if self.storage.kind == ZFS:
            # The kernel itself has said that the device of this number is the volume of this name.
            return disks.devices.get(disks.zfs.number) if disks.zfs and self.own_volume(disks) else None
        group = group_of(disks, str(self.storage.volume_group))
        found = volume_of(disks, str(self.storage.volume_group), self.name)
        if group is None or found is None or not is_own(found, self.lab, self.owner):
            return None
        # A name and a number can be another volume's a moment later; what LVM has device-mapper call it never is.
        uuid = f"LVM-{group.uuid}{found.uuid}".replace("-", "")
        device = disks.devices.get(found.number)
        return device if device is not None and device.dm_uuid.replace("-", "") == uuid else None

    def models(self, disks: MachineDisks) -> tuple[str, ...]:
        """The models of the disks below the replica, as far as the kernel has them; none for a file."""
        if self.storage.kind == DISK:
            names = [self.disk(disks).number]
        elif self.storage.kind == ZFS:
            names = _below_pool(disks, str(self.storage.dataset).partition("/")[0])
        else:
            group = str(self.storage.volume_group)
            below = [
                disks.named(one.device.removeprefix("/dev/")) for one in disks.physical or () if one.group == group
            ]
            names = [one.number for one in below if one is not None]
        found = [disks.devices[number] for number in names if number in disks.devices]
        return tuple(dict.fromkeys(filter(None, (disks.devices.get(one.parent, one).model for one in found))))

    def disk(self, disks: MachineDisks) -> DiskLook:
        (look,) = disks.disks
        return look

    def label(self, disks: MachineDisks) -> DiskLabel | None:
        try:
            return label_of(self.disk(disks))
        except ValueError:
            return None

    def mapping_device(self, disks: MachineDisks) -> BlockDevice | None:
        label = self.label(disks)
        uuid = f"{UUID}{label.id}" if label else ""
        found = [one for one in disks.devices.values() if one.dm_name == self.name and one.dm_uuid == uuid]
        return found[0] if uuid and len(found) == 1 else None

    def is_named_mapping(self, device: BlockDevice) -> bool:
        """Whether it has the name and the kind of UUID of the harness's mapping; of which disk is not said."""
        return device.dm_name == self.name and device.dm_uuid.startswith(UUID)

    def is_gone(self, disks: MachineDisks) -> bool:
        """Whether nothing of its name is there any more.

        Not where the machine does not say what there is, and not where it is somebody else's by now.
        """
        storage = self.storage
        if storage.kind == DISK:
            look = self.disk(disks)
            return not look.error and look.head != "label"
        if storage.kind == LOOP:
            (directory,) = disks.directories
            return not directory.error and self.file_name not in directory.files
        if storage.kind == ZFS:
            return zfs_guard.is_gone(disks, self.volume)
        group = str(storage.volume_group)
        known = disks.volumes is not None and group_of(disks, group) is not None
        return known and volume_of(disks, group, self.name) is None

    def own_volume(self, disks: MachineDisks) -> bool:
        if self.storage.kind == ZFS:
            dataset = zfs_guard.volume_of(disks, self.volume)
            return dataset is not None and zfs_guard.is_own(dataset, self.lab, self.owner)
        found = volume_of(disks, str(self.storage.volume_group), self.name)
        return found is not None and is_own(found, self.lab, self.owner)

    def file(self, disks: MachineDisks) -> FileLook | None:
        (directory,) = disks.directories
        file = directory.files.get(self.file_name)
        try:
            label = read_label(file.label, file.head_sha256) if file is not None and file.plain else None
        except ValueError:
            label = None
        is_ours = label is not None and label.lab == self.lab and label.owner in ("", self.owner)
        return file if is_ours else None

    def loop(self, disks: MachineDisks) -> BlockDevice | None:
        return next((one for one in disks.devices.values() if one.backing == self.subject), None)


def _below_pool(disks: MachineDisks, pool: str) -> list[str]:
    """The numbers of the devices that ``zpool status -L -P`` names below a pool."""
    _, _, behind = disks.zpool.partition(f"  pool: {pool}\n")
    paths = re.findall(r"^\s+/dev/(\S+)\s", behind.partition("  pool: ")[0], re.MULTILINE)
    return [one.number for one in map(disks.named, paths) if one is not None]

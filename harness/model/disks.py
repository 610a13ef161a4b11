"""What a machine says of its disks: plain facts, no opinion of whether one may be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.zfs import ZfsLook

MIB = 2**20


@dataclass(frozen=True)
class BlockDevice:
    """A block device as the kernel describes it in /sys; ``number`` is ``major:minor``, ``size`` in bytes.

    ``parent`` is the number of the disk that a partition is of, "" for a whole disk.  ``holders``, ``slaves`` and
    ``partitions`` are names; ``backing`` is the file of a loop device; ``passthrough`` the numbers of character devices
    that lead to the same disk.  ``sequence`` is the kernel's number of this disk, which no other gets until
    a boot ("" before Linux 5.15).
    """

    number: str
    name: str
    size: int
    read_only: bool = False
    parent: str = ""
    partitions: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    slaves: tuple[str, ...] = ()
    dm_name: str = ""
    dm_uuid: str = ""
    md_level: str = ""
    backing: str = ""
    serial: str = ""
    vpd_serial: str = ""
    wwid: str = ""
    model: str = ""
    passthrough: tuple[str, ...] = ()
    sequence: str = ""


@dataclass(frozen=True)
class Mounted:
    """A mount in any mount namespace: the device's number, where, and what was given as its source."""

    number: str
    where: str
    kind: str
    source: str


@dataclass(frozen=True)
class Opened:
    """A block (``b``) or character (``c``) device that a process has open."""

    kind: str
    number: str
    process: int
    program: str


@dataclass(frozen=True)
class Signature:
    """Something that libblkid knows: the type's name, and its offset on the disk in bytes."""

    kind: str
    offset: int


@dataclass(frozen=True)
class Listed:
    """A device in the tree of lsblk: where it is mounted, what udev knows on it, and what is above it, recursively."""

    number: str
    name: str
    kind: str
    filesystem: str = ""
    mount_points: tuple[str, ...] = ()
    children: tuple[Listed, ...] = ()


@dataclass(frozen=True)
class DiskLook:
    """One disk that was asked about by ``path``; ``error`` says why it could not be looked at.

    ``exclusive`` is ``yes`` where it could be opened with O_EXCL, else the name of the error.  ``head`` and ``tail``
    are of the first and the last MiB: ``zero``, ``label`` (the harness's, or what looks like it) or ``data``.
    ``signatures`` is None where they could not be read.
    """

    path: str
    real: str = ""
    number: str = ""
    error: str = ""
    exclusive: str = ""
    size: int = 0
    head: str = ""
    tail: str = ""
    label: str = ""
    head_sha256: str = ""
    tail_sha256: str = ""
    signatures: tuple[Signature, ...] | None = None
    udev: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PhysicalVolume:
    """A physical volume of LVM's: the device as LVM calls it, its group ("" for none), its number ("" if not known)."""

    device: str
    group: str
    missing: bool = False
    duplicate: bool = False
    number: str = ""


@dataclass(frozen=True)
class VolumeGroup:
    """A volume group; ``attributes`` as vgs prints them, sizes in bytes."""

    name: str
    uuid: str
    attributes: str
    free: int
    extent: int
    missing: int


@dataclass(frozen=True)
class LogicalVolume:
    """A logical volume; ``attributes`` as lvs prints them, ``used`` and ``metadata_used`` (of a pool) in percent."""

    group: str
    name: str
    uuid: str
    attributes: str
    size: int
    tags: tuple[str, ...]
    pool: str = ""
    used: float | None = None
    metadata_used: float | None = None
    number: str = ""


@dataclass(frozen=True)
class FileLook:
    """A file with a name of the harness's: whether it is a plain one of root's alone, its size, label and digest."""

    plain: bool
    size: int
    label: str
    head_sha256: str


@dataclass(frozen=True)
class DirectoryLook:
    """A directory that was asked about; ``kind`` of its filesystem, ``free`` bytes, ``files`` with our names in it.

    ``above``: path, owner and mode of each directory above it.
    """

    path: str
    real: str = ""
    error: str = ""
    owner: int = -1
    mode: int = 0
    is_directory: bool = False
    kind: str = ""
    free: int = 0
    files: Mapping[str, FileLook] = field(default_factory=dict)
    above: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class AllowFile:
    """The file on a machine in which root allows disks: who owns and may write it, and its lines."""

    path: str
    error: str = ""
    owner: int = -1
    mode: int = 0
    regular: bool = False
    above_owner: int = -1
    above_mode: int = 0
    above_is_directory: bool = False
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineDisks:
    """All of it for one machine at one moment.  ``groups`` and ``volumes`` are None where LVM is not there, ``zfs``
    where it was not asked.

    ``loops``: loop device to the number of the block device that is its file.  ``zpool``: the text of ``zpool status``.
    """

    devices: Mapping[str, BlockDevice]
    tree: tuple[Listed, ...]
    links: Mapping[str, str]
    mounts: tuple[Mounted, ...]
    swaps: tuple[str, ...]
    mdstat: str
    loops: Mapping[str, str]
    exported: Mapping[str, str]
    opened: tuple[Opened, ...]
    physical: tuple[PhysicalVolume, ...] | None
    groups: tuple[VolumeGroup, ...] | None
    volumes: tuple[LogicalVolume, ...] | None
    zpool: str
    disks: tuple[DiskLook, ...]
    directories: tuple[DirectoryLook, ...]
    allow: AllowFile | None
    lvm_error: str = ""
    zfs: ZfsLook | None = None

    def named(self, name: str) -> BlockDevice | None:
        """The device that the kernel calls ``name``."""
        return next((one for one in self.devices.values() if one.name == name), None)


@dataclass(frozen=True)
class WantedDisk:
    """A disk that an inventory names: its name below /dev/disk/by-id, serial number or WWN, exact size in bytes."""

    path: str
    size: int
    serial: str = ""
    wwn: str = ""

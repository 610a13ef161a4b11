"""May a volume be made here, or this one removed?  Every reason against it, one sentence each.

Of a volume group only free room is used, for volumes that carry the harness's tags; of a directory, a file of the
harness's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.model.disks import DirectoryLook, LogicalVolume, MachineDisks, VolumeGroup

#: What every volume of the harness's is tagged with, and what tells whose lab's it is.
TAG = "drbd-harness"
_LOCAL_FILESYSTEMS = ("ext2/ext3", "xfs", "btrfs", "f2fs", "zfs")
_COPY_ON_WRITE = ("btrfs", "zfs")
_OTHERS = 0o022
# What stays free in somebody's thin pool, and beside a file, in parts of the whole and in bytes.
_POOL_RESERVE, _POOL_METADATA_PERCENT, _DISK_RESERVE = 0.1, 80, 2**30


def lab_tag(lab: str) -> str:
    """The tag of the volumes of one lab."""
    return f"{TAG}.lab={lab}"


def owner_tag(owner: str) -> str:
    """The tag that tells the owner of a lab, with the signs that LVM allows in it."""
    return f"{TAG}.owner={re.sub(r'[^A-Za-z0-9_.+-]', ':', owner)}"


def group_of(machine: MachineDisks, group: str) -> VolumeGroup | None:
    """The volume group of that name; None where there is none, or more than one."""
    found = [one for one in machine.groups or () if one.name == group]
    return found[0] if len(found) == 1 else None


def volume_of(machine: MachineDisks, group: str, name: str) -> LogicalVolume | None:
    """The logical volume of that name."""
    return next((one for one in machine.volumes or () if (one.group, one.name) == (group, name)), None)


def making_refusals(
    machine: MachineDisks, group: str, name: str, size: int, lab: str, owner: str, pool: str | None = None
) -> tuple[str, ...]:
    """Every reason not to make the volume ``name`` of ``size`` bytes in ``group``, or in its thin pool ``pool``."""
    return tuple(_against_making(machine, group, name, size, lab, owner, pool))


def removing_refusals(machine: MachineDisks, group: str, name: str, lab: str, owner: str) -> tuple[str, ...]:
    """Every reason not to remove the volume ``name`` of ``lab``, ``owner``'s, from ``group``."""
    return tuple(_against_removing(machine, group, name, lab, owner))


def growth_refusals(machine: MachineDisks, group: str, name: str, pool: str) -> tuple[str, ...]:
    """Every reason not to write all of the thin volume ``name``, which is there: somebody's ``pool`` would get full."""
    volume = volume_of(machine, group, name)
    if volume is None:
        return (f"there is no volume {group}/{name}",)
    missing = volume.size if volume.used is None else int(volume.size * (1 - volume.used / 100))
    return tuple(_against_pool(volume_of(machine, group, pool), f"{group}/{pool}", missing)) if missing else ()


def room_refusals(look: DirectoryLook, size: int) -> tuple[str, ...]:
    """Every reason not to write all of a file of ``size`` bytes that is there, where its filesystem writes elsewhere
    what is written again.
    """
    needed = _DISK_RESERVE + (size if look.kind in _COPY_ON_WRITE else 0)
    if look.error or look.free >= needed:
        return ()
    return (f"it has {look.free >> 20} MiB free, and {needed >> 20} MiB are to be free while it is written to",)


def directory_refusals(look: DirectoryLook, name: str, size: int) -> tuple[str, ...]:
    """Every reason not to make the file ``name`` of ``size`` bytes in a directory."""
    return (*place_refusals(look), *_against_file(look, name, size))


def place_refusals(look: DirectoryLook) -> tuple[str, ...]:
    """Every reason not to touch a file in a directory: somebody else could put another one in its place."""
    return tuple(_against_place(look))


def shared_group(one: tuple[MachineDisks, str], other: tuple[MachineDisks, str]) -> str | None:
    """Why the two machines' groups may be one and the same group on shared disks; None where they are two.

    Machines that were copied have groups of the same UUID on disks of their own, which the disks' names tell.
    """
    group, its = group_of(*one), group_of(*other)
    if group is None or its is None or group.uuid != its.uuid:
        return None
    names, its_names = _disk_names(one[0], group.name), _disk_names(other[0], its.name)
    if names and its_names and not names & its_names:
        return None
    return (
        f"the group {group.name} has the same UUID on both machines, {group.uuid}, and their disks' serial numbers do "
        "not tell that it is on different ones"
    )


def _against_making(
    machine: MachineDisks, group: str, name: str, size: int, lab: str, owner: str, pool: str | None
) -> Iterator[str]:
    yield from (reasons := tuple(_against_group(machine, group)))
    found = group_of(machine, group)
    if reasons or found is None:
        return
    taken = volume_of(machine, group, name)
    if taken is not None and is_own(taken, lab, owner):
        yield f"the volume {group}/{name} of the lab '{lab}' is there already"
    elif taken is not None and is_of_lab(taken, lab):
        yield _of_somebody_else(f"{group}/{name}", lab, owner)
    elif taken is not None:
        yield f"the volume {group}/{name} is there and is none of the harness's"
    if pool is None:
        needed = -(-size // found.extent) * found.extent
        if needed > found.free:
            yield f"the volume group {group} has {found.free >> 20} MiB free and {needed >> 20} MiB are needed"
    else:
        yield from _against_pool(volume_of(machine, group, pool), f"{group}/{pool}", size)


def _against_group(machine: MachineDisks, group: str) -> Iterator[str]:
    if machine.groups is None or machine.volumes is None or machine.physical is None:
        yield f"LVM does not say what volume groups there are ({machine.lvm_error})"
        return
    found = [one for one in machine.groups if one.name == group]
    if len(found) != 1:
        yield _not_one(machine.groups, group)
        return
    attributes = found[0].attributes
    if len(attributes) < 6:
        yield f"the attributes of {group} are '{attributes}', which is not what vgs prints"
        return
    for at, sign, what in (
        (0, "r", "read-only"), (2, "x", "exported"), (3, "p", "partial"), (5, "c", "clustered"), (5, "s", "shared"),
    ):  # fmt: skip
        if attributes[at] == sign:
            yield f"the volume group {group} is {what}"
    if attributes[0] not in "wr" or attributes[1] != "z":
        yield f"the volume group {group} cannot be resized"
    if found[0].missing or any(one.missing for one in machine.physical if one.group == group):
        yield f"a physical volume of {group} is missing"
    if any(one.duplicate for one in machine.physical if one.group == group):
        yield f"a physical volume of {group} is seen twice"


def _not_one(groups: Sequence[VolumeGroup], group: str) -> str:
    others = ", ".join(sorted({one.name for one in groups})) or "none"
    if number := sum(one.name == group for one in groups):
        return f"{number} volume groups have the name {group} (there is {others})"
    return f"there is no volume group {group}; there is {others}"


def _against_pool(pool: LogicalVolume | None, name: str, size: int) -> Iterator[str]:
    if pool is None or not pool.attributes.startswith("t"):
        yield f"there is no thin pool {name}"
        return
    if pool.used is None or pool.metadata_used is None:
        yield f"LVM does not say how full the thin pool {name} is"
        return
    free = int(pool.size * (1 - pool.used / 100))
    needed = size + int(pool.size * _POOL_RESERVE)
    if free < needed:
        yield f"the thin pool {name} has {free >> 20} MiB free and {needed >> 20} MiB are needed, with a tenth to spare"
    if pool.metadata_used > _POOL_METADATA_PERCENT:
        yield f"the metadata of the thin pool {name} is {pool.metadata_used:.0f} % full"


def is_of_lab(volume: LogicalVolume, lab: str) -> bool:
    """Whether it carries the tags of a lab of the harness's with the name ``lab``, whoever's that is."""
    return {TAG, lab_tag(lab)} <= set(volume.tags)


def is_own(volume: LogicalVolume, lab: str, owner: str) -> bool:
    """Whether it carries the tags of the harness's lab ``lab``, and no tag of another owner of a lab of that name."""
    owners = {tag for tag in volume.tags if tag.startswith(owner_tag(""))}
    return is_of_lab(volume, lab) and owners <= {owner_tag(owner)}


def _of_somebody_else(volume: str, lab: str, owner: str) -> str:
    return f"the volume {volume} is of a lab of somebody else's that has the same name '{lab}'; this one is {owner}'s"


def _against_removing(machine: MachineDisks, group: str, name: str, lab: str, owner: str) -> Iterator[str]:
    if machine.volumes is None or machine.groups is None:
        yield f"LVM does not say which volumes there are ({machine.lvm_error})"
        return
    if group_of(machine, group) is None:
        yield _not_one(machine.groups, group)
        return
    volume = volume_of(machine, group, name)
    if volume is None:
        yield f"there is no volume {group}/{name}"
    elif is_of_lab(volume, lab) and not is_own(volume, lab, owner):
        yield _of_somebody_else(f"{group}/{name}", lab, owner)
    elif not is_own(volume, lab, owner):
        yield f"the volume {group}/{name} does not carry the tags of the harness's lab '{lab}'"
    elif len(volume.attributes) < 6 or volume.attributes[5] == "o":
        yield f"the volume {group}/{name} is in use"
    elif volume.attributes[0] not in "-V":
        yield f"the volume {group}/{name} is of a type that the harness does not make"


def _against_place(look: DirectoryLook) -> Iterator[str]:
    if look.error:
        yield f"it cannot be looked at: {look.error}"
        return
    if not look.is_directory or look.real != look.path:
        yield "it is no plain directory: a symbolic link is on the way" if look.real != look.path else "it is none"
    if look.owner or look.mode & _OTHERS:
        yield "others than root can write to it"
    for path, owner, mode in look.above:
        if owner or mode & _OTHERS:
            yield f"others than root can write to {path}, and so exchange what is below it"
    if not look.above:
        yield "who can write to the directories above it is not known"


def _against_file(look: DirectoryLook, name: str, size: int) -> Iterator[str]:
    if look.error:
        return
    if look.kind not in _LOCAL_FILESYSTEMS:
        yield f"it is on {look.kind or 'an unknown filesystem'}, not on one of {', '.join(_LOCAL_FILESYSTEMS)}"
    if look.free < size + _DISK_RESERVE:
        yield f"it has {look.free >> 20} MiB free; {size >> 20} MiB are needed, and 1 GiB stays free"
    if name in look.files:
        yield f"the file {name} is there already"


def _disk_names(machine: MachineDisks, group: str) -> set[str]:
    """Serial numbers and WWNs of the disks below a group; empty where one of them has none."""
    found: set[str] = set()
    for physical in machine.physical or ():
        if physical.group != group:
            continue
        device = machine.named(physical.device.removeprefix("/dev/"))
        disk = machine.devices.get(device.parent, device) if device is not None else None
        name = (disk.wwid or disk.serial or disk.vpd_serial) if disk is not None else ""
        if not name:
            return set()
        found.add(name)
    return found

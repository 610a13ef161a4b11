"""May this disk be written?  Every reason against it, one sentence each; no reason is the only yes.

The conditions are independent views of the same disk (udev's links, the kernel's own /sys, lsblk, libblkid, LVM, md,
ZFS, mounts of every namespace, open files, an exclusive open), so that one that is wrong or old is not believed alone.
What could not be read is a reason too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.model.disks import MIB, BlockDevice, DiskLook, Listed, MachineDisks, WantedDisk
from harness.render.disk_label import DiskLabel, read_label

# Kernel names of what is no disk: memory, files, other machines' disks, mapped devices.
_NO_DISK = re.compile(r"(loop|ram|zram|fd|sr|nbd|rbd|drbd|zd|dm-|bcache|pmem|mtd|ubi)", re.ASCII)
_OTHERS = 0o022


class Stage(StrEnum):
    """How far a disk is in the harness's hands, and so what has to be on it and above it."""

    #: Before the label is written: nothing at all, or a label of the harness's.
    UNLABELLED = "unlabelled"
    #: Labelled, and nothing above it.
    LABELLED = "labelled"
    #: Labelled, and the one holder is the harness's own mapping.
    MAPPED = "mapped"


@dataclass(frozen=True)
class OwnMapping:
    """The device-mapper device of the harness's above a labelled disk."""

    name: str
    uuid: str


def disk_refusals(
    machine: MachineDisks, look: DiskLook, wanted: WantedDisk, stage: Stage, mapping: OwnMapping, lab: str, owner: str
) -> tuple[str, ...]:
    """Every reason not to write the disk ``wanted`` of ``owner``'s ``lab``, in the order of a person who looks."""
    if look.error:
        return (f"it cannot be looked at: {look.error}",)
    device = machine.devices.get(look.number)
    if device is None:
        return ("the kernel has no such block device in /sys",)
    return tuple(dict.fromkeys(_reasons(machine, look, device, wanted, stage, mapping, lab, owner)))


def label_of(look: DiskLook) -> DiskLabel:
    """The label on the disk; :class:`ValueError` where there is none or it is not whole."""
    if look.head != "label":
        raise ValueError("there is none")
    return read_label(look.label, look.head_sha256)


def _reasons(
    machine: MachineDisks, look: DiskLook, device: BlockDevice, wanted: WantedDisk, stage: Stage, mapping: OwnMapping,
    lab: str, owner: str,
) -> Iterator[str]:  # fmt: skip
    yield from _allowed(machine, wanted)
    yield from _identity(machine, look, device, wanted)
    own = machine.named(device.holders[0]) if stage is Stage.MAPPED and len(device.holders) == 1 else None
    if own is not None and (own.dm_name, own.dm_uuid) != (mapping.name, mapping.uuid):
        own = None
    if stage is Stage.MAPPED and own is None:
        yield f"its one holder is not the harness's mapping {mapping.name}, but {_listed(device.holders)}"
    yield from _users(machine, look, device, own)
    yield from _content(look, wanted, stage, lab, owner)
    yield from _lsblk(machine, device, own)
    if own is None and look.exclusive != "yes":
        yield f"it could not be opened for the harness alone ({look.exclusive}): somebody has a claim on it"


# --------------------------------------------------------------------------- named twice, and is it the one


def _allowed(machine: MachineDisks, wanted: WantedDisk) -> Iterator[str]:
    allow = machine.allow
    if allow is None:
        yield "nobody asked the machine whether root allows it"
        return
    if allow.error:
        yield f"{allow.path} on the machine, in which root allows a disk, cannot be read: {allow.error}"
    elif not allow.regular or not allow.above_is_directory:
        yield f"{allow.path} on the machine is no plain file in a plain directory"
    elif allow.owner or allow.above_owner or (allow.mode | allow.above_mode) & _OTHERS:
        yield f"{allow.path} on the machine, or its directory, can be written by others than root"
    elif wanted.path not in allow.lines:
        yield f"{allow.path} on the machine does not allow it: it has no line {wanted.path}"


def _identity(machine: MachineDisks, look: DiskLook, device: BlockDevice, wanted: WantedDisk) -> Iterator[str]:
    if machine.links.get(wanted.path) != look.number:
        yield f"udev knows no link {wanted.path} to {device.name}"
    if device.dm_name or _NO_DISK.match(device.name):
        yield f"{device.name} is no disk, partition or md array of its own"
    if wanted.serial and wanted.serial not in (serials := _serials(machine, look, device)):
        yield f"its serial number is {_listed(serials)}, not {wanted.serial} as in the inventory"
    elif wanted.serial and not wanted.wwn:
        # As namespaces of one NVMe controller, or units of one RAID controller; udev's name may lead to either.
        for other in machine.devices.values():
            is_whole = not other.parent and not other.dm_name and other.number not in (device.number, device.parent)
            if is_whole and wanted.serial in (other.serial, other.vpd_serial):
                yield f"{other.name} has the same serial number: its WWN has to be in the inventory too"
    if wanted.wwn and _hex(wanted.wwn) not in (wwns := _wwns(look, device)):
        yield f"its WWN is {_listed(wwns)}, not {wanted.wwn} as in the inventory"
    if not wanted.serial and not wanted.wwn:
        yield "the inventory names neither its serial number nor its WWN"
    if not look.size == device.size == wanted.size:
        sizes = _listed(tuple(dict.fromkeys((str(look.size), str(device.size)))))
        yield f"its size is {sizes} bytes, not {wanted.size} as in the inventory"
    if wanted.size < 8 * MIB:
        yield "it is too small for a label and a replica"
    if device.read_only:
        yield "it is read-only"
    whole = machine.devices.get(device.parent, device)
    for other in machine.devices.values():
        if other.number != whole.number and _is_same_disk(whole, other):
            yield f"{other.name} is the same disk by another path"


def _serials(machine: MachineDisks, look: DiskLook, device: BlockDevice) -> tuple[str, ...]:
    """Its serial numbers: the kernel's own, and only where it has none those that udev keeps."""
    own = [one for one in (device.serial, device.vpd_serial) if one]
    if not own:
        own = [look.udev[name] for name in ("ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "MD_UUID") if look.udev.get(name)]
    return tuple(dict.fromkeys(own))


def _wwns(look: DiskLook, device: BlockDevice) -> tuple[str, ...]:
    own = [device.wwid] if device.wwid else []
    # What the kernel has is another kind of name where it does not know a WWN, such as "t10.ATA ...".
    if not any(one.startswith(("naa.", "eui.", "0x", "nvme.", "uuid.")) for one in own):
        own = [look.udev[name] for name in ("ID_WWN_WITH_EXTENSION", "ID_WWN") if look.udev.get(name)]
    return tuple(dict.fromkeys(_hex(one) for one in own))


def _hex(wwn: str) -> str:
    return re.sub(r"^(0x|naa\.)", "", wwn.lower())


def _is_same_disk(one: BlockDevice, other: BlockDevice) -> bool:
    """Whether two whole devices are paths to one disk."""
    if other.parent or other.dm_name or not other.size:
        return False
    if one.wwid or other.wwid:
        return one.wwid == other.wwid
    serial = one.serial or one.vpd_serial
    return bool(serial) and (serial, one.model) == (other.serial or other.vpd_serial, other.model)


def shared_disk(one: tuple[MachineDisks, DiskLook], other: tuple[MachineDisks, DiskLook]) -> str | None:
    """Why the two machines' disks may be one and the same; None where they are two."""
    (machine, look), (its_machine, its_look) = one, other
    device, its = machine.devices.get(look.number), its_machine.devices.get(its_look.number)
    if device is None or its is None:
        return None
    if same := set(_wwns(look, device)) & set(_wwns(its_look, its)):
        return f"both machines' disks have the WWN {min(same)}: they may be one disk"
    known = _wwns(look, device) and _wwns(its_look, its)
    same = set(_serials(machine, look, device)) & set(_serials(its_machine, its_look, its))
    if same and not known:
        return f"both machines' disks have the serial number {min(same)}: they may be one disk"
    return None


# --------------------------------------------------------------------------- does anybody use it


def _users(machine: MachineDisks, look: DiskLook, device: BlockDevice, own: BlockDevice | None) -> Iterator[str]:
    """Whoever uses it, a partition of it, or something that is made of it; not what lies above ``own``."""
    if device.partitions:
        yield f"it has partitions: {_listed(device.partitions)}"
    tree = _above(machine, device, own)
    # Who has the whole disk has its partitions.
    tree += tuple(filter(None, [machine.devices.get(device.parent)]))
    yield from _users_of(machine, tree, device, own)
    if look.udev.get("DM_MULTIPATH_DEVICE_PATH") == "1":
        yield "it is a path of a multipath device"


def mapping_refusals(machine: MachineDisks, own: BlockDevice) -> tuple[str, ...]:
    """Everything that uses the harness's own mapping, each as the end of a sentence about the mapping."""
    return tuple(dict.fromkeys(_users_of(machine, _above(machine, own, None), own, None)))


def _users_of(
    machine: MachineDisks, tree: Sequence[BlockDevice], device: BlockDevice, own: BlockDevice | None
) -> Iterator[str]:
    """Whoever uses one of ``tree``, which belongs to ``device``; ``own`` is no user."""
    for one in tree:
        for name in one.holders:
            holder = machine.named(name)
            if own is None or name != own.name:
                yield f"{_it(one, device)} is held by {_holder(name, holder)}"
    numbers = {one.number: one for one in tree}
    # The kernel writes '!' in a name where the path has '/'.
    paths = {f"/dev/{one.name.replace('!', '/')}": one for one in tree} | {
        f"/dev/mapper/{one.dm_name}": one for one in tree if one.dm_name
    }
    for mount in machine.mounts:
        if used := numbers.get(mount.number) or paths.get(mount.source):
            yield f"{_it(used, device)} is mounted at {mount.where}"
    for swap in machine.swaps:
        if used := paths.get(swap):
            yield f"{_it(used, device)} is in use as swap"
    for one in tree:
        if re.search(rf"(?<!\S){re.escape(one.name)}\[\d+\]", machine.mdstat):
            yield f"{_it(one, device)} belongs to an md array"
        if re.search(rf"/dev/{re.escape(one.name)}(p?\d+)?(?!\S)", machine.zpool):
            yield f"{_it(one, device)} belongs to a ZFS pool"
    yield from _lvm(machine, paths, numbers, device)
    for name, number in machine.loops.items():
        if used := numbers.get(number):
            yield f"{_it(used, device)} is the file of {name}"
        elif number == "unknown":
            yield f"what is behind {name} could not be read"
    for path, number in machine.exported.items():
        if used := numbers.get(number):
            yield f"{_it(used, device)} is handed to other machines by {path}"
    ways = {number for one in tree for number in one.passthrough}
    for use in machine.opened:
        if (use.kind == "b" and use.number in numbers) or (use.kind == "c" and use.number in ways):
            yield f"{_it(numbers.get(use.number, device), device)} is open in process {use.process} ({use.program})"


def _lvm(
    machine: MachineDisks, paths: dict[str, BlockDevice], numbers: dict[str, BlockDevice], device: BlockDevice
) -> Iterator[str]:
    if machine.physical is None:
        if machine.lvm_error != "LVM is not installed":
            yield f"LVM does not say which disks it has ({machine.lvm_error})"
        return
    for one in machine.physical:
        if used := paths.get(one.device) or numbers.get(one.number):
            group = f" of the group {one.group}" if one.group else " of no group"
            yield f"{_it(used, device)} is a physical volume{group}"


def _above(machine: MachineDisks, device: BlockDevice, own: BlockDevice | None) -> tuple[BlockDevice, ...]:
    """The device, its partitions and whatever is made of them, without what lies in and above ``own``."""
    found: dict[str, BlockDevice] = {}
    waiting = [device]
    while waiting:
        one = waiting.pop()
        if one.number in found or (own is not None and one.number == own.number):
            continue
        found[one.number] = one
        waiting += [other for name in (*one.partitions, *one.holders) if (other := machine.named(name))]
    return tuple(found.values())


def _holder(name: str, holder: BlockDevice | None) -> str:
    uuid, dm_name = (holder.dm_uuid, holder.dm_name) if holder else ("", "")
    kinds = {"CRYPT-": "dm-crypt", "LVM-": "LVM", "mpath-": "multipath", "part": "a partition mapping"}
    kind = next((word for prefix, word in kinds.items() if uuid.startswith(prefix)), "")
    if kind:
        return f"{kind} ({dm_name})"
    return f"the mapped device {dm_name}" if dm_name else "the md array " + name if name.startswith("md") else name


def _it(used: BlockDevice, device: BlockDevice) -> str:
    if used.number == device.parent:
        return f"{used.name}, of which it is a part,"
    return "it" if used.number == device.number else f"{used.dm_name or used.name} above it"


# --------------------------------------------------------------------------- what is on it


def _content(look: DiskLook, wanted: WantedDisk, stage: Stage, lab: str, owner: str) -> Iterator[str]:
    label: DiskLabel | None = None
    if look.head == "label":
        try:
            label = label_of(look)
        except ValueError as error:
            yield f"it has a label of the harness's that is not whole: {error}"
        else:
            yield from _foreign_label(label, wanted, lab, owner)
    elif stage is not Stage.UNLABELLED:
        yield "the harness's label is not on it any more"
    if look.signatures is None:
        yield "wipefs does not say which signatures are on it"
    for one in look.signatures or ():
        if label is None or not MIB <= one.offset < look.size - MIB:
            yield f"it has a signature of {one.kind} at byte {one.offset}"
    if stage is Stage.UNLABELLED:
        for where, what in (("first", "zero" if label is not None else look.head), ("last", look.tail)):
            if what != "zero":
                yield f"its {where} MiB holds data, though no signature says whose; zero it yourself if it may be lost"


def _foreign_label(label: DiskLabel, wanted: WantedDisk, lab: str, owner: str) -> Iterator[str]:
    if label.lab != lab:
        yield f"it has the label of another lab, '{label.lab}'"
    elif label.owner not in ("", owner):
        yield f"it has the label of a lab of {label.owner}'s that has the same name '{lab}'; this one is {owner}'s"
    if label.size != wanted.size or (label.serial, label.wwn) != (wanted.serial, wanted.wwn):
        which = label.serial or label.wwn
        yield f"its label was written for another disk ({which}, {label.size} bytes)"


def _lsblk(machine: MachineDisks, device: BlockDevice, own: BlockDevice | None) -> Iterator[str]:
    """The same once more as lsblk sees it."""
    listed = _find(machine.tree, device.number)
    if listed is None:
        yield "lsblk does not list it"
        return
    if listed.filesystem:
        yield f"udev knows {listed.filesystem} on it"
    for child in listed.children:
        if own is None or child.number != own.number:
            yield f"lsblk lists {child.name} ({child.kind}) above it"
    for point in listed.mount_points:
        yield f"lsblk says that it is mounted at {point}"


def _find(tree: Sequence[Listed], number: str) -> Listed | None:
    for one in tree:
        if one.number == number:
            return one
        if found := _find(one.children, number):
            return found
    return None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "not known"

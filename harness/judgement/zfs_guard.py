"""May a volume be made below this dataset of ZFS, or this one removed?  Every reason against it, one sentence each.

Only free room is used, for volumes on which the harness has written its own properties.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.judgement.lower_guard import users
from harness.model.disks import MachineDisks
from harness.model.zfs import Dataset, ZfsLook, ZfsPool

# What stays free below the dataset, and what a volume needs beside its size, in parts of the whole.
_RESERVE, _OVERHEAD = 0.1, 0.1


def volume_of(machine: MachineDisks, name: str) -> Dataset | None:
    """The volume of that whole name; None where there is none."""
    found = machine.zfs.datasets.get(name) if machine.zfs else None
    return found if found is not None and found.kind == "volume" else None


def is_own(volume: Dataset, lab: str, owner: str) -> bool:
    """Whether the harness made it for ``lab`` of ``owner``."""
    return volume.lab == lab and volume.owner == owner


def is_gone(machine: MachineDisks, name: str) -> bool:
    """Whether nothing has that whole name; not where ZFS does not say, or has not imported its pool."""
    look = machine.zfs
    return look is not None and not look.error and _pool(look, name) is not None and name not in look.datasets


def shared_pool(one: tuple[MachineDisks, str], other: tuple[MachineDisks, str]) -> str | None:
    """Why the pools of two datasets may be one and the same on shared disks; None where they are two."""
    pool, its = _pool(one[0].zfs, one[1]), _pool(other[0].zfs, other[1])
    if pool is None or its is None or pool.guid != its.guid:
        return None
    return (
        f"the pool {pool.name} has the same GUID on both machines, {pool.guid}, so it may be one pool on shared disks; "
        f"of machines that were copied, 'zpool reguid {pool.name}' on one gives it another one"
    )


def making_refusals(machine: MachineDisks, dataset: str, name: str, size: int, lab: str, owner: str) -> tuple[str, ...]:
    """Every reason not to make the volume ``name`` of ``size`` bytes below ``dataset``."""
    return tuple(_against_making(machine, dataset, name, size, lab, owner))


def removing_refusals(machine: MachineDisks, name: str, lab: str, owner: str) -> tuple[str, ...]:
    """Every reason not to remove the volume of the whole name ``name``."""
    return tuple(_against_removing(machine, name, lab, owner))


def _pool(look: ZfsLook | None, dataset: str) -> ZfsPool | None:
    name = dataset.partition("/")[0]
    return next((one for one in look.pools if one.name == name), None) if look else None


def _against_making(machine: MachineDisks, dataset: str, name: str, size: int, lab: str, owner: str) -> Iterator[str]:
    look = machine.zfs
    if look is None or look.error:
        yield f"ZFS does not say which datasets there are ({look.error if look else 'it was not asked'})"
        return
    pool, parent = _pool(look, dataset), look.datasets.get(dataset)
    if pool is None:
        yield _no_pool(look, dataset)
        return
    if pool.health != "ONLINE":
        yield f"the ZFS pool {pool.name} is {pool.health}"
    if parent is None:
        yield f"there is no dataset {dataset}"
        return
    if parent.kind != "filesystem":
        yield f"{dataset} is a {parent.kind}, below which there are no volumes"
        return
    if pool.read_only or parent.read_only:
        yield f"{dataset} is read-only"
    if (taken := look.datasets.get(name)) is not None:
        yield _taken(taken, lab, owner)
    needed = int(size * (1 + _OVERHEAD) + parent.available * _RESERVE)
    if needed > parent.available:
        yield (
            f"{dataset} has {parent.available >> 20} MiB free and {needed >> 20} MiB are needed, with a tenth to spare"
        )


def _no_pool(look: ZfsLook, dataset: str) -> str:
    others = ", ".join(sorted(one.name for one in look.pools)) or "none"
    return f"there is no ZFS pool {dataset.partition('/')[0]}; there is {others}"


def _taken(taken: Dataset, lab: str, owner: str) -> str:
    if is_own(taken, lab, owner):
        return f"the volume {taken.name} of the lab '{lab}' is there already"
    if taken.lab == lab:
        return _of_somebody_else(taken, owner)
    return f"the {taken.kind} {taken.name} is there and is none of the harness's"


def _of_somebody_else(volume: Dataset, owner: str) -> str:
    return (
        f"the volume {volume.name} is of a lab of somebody else's that has the same name '{volume.lab}'; this one is "
        f"{owner}'s"
    )


def _against_removing(machine: MachineDisks, name: str, lab: str, owner: str) -> Iterator[str]:
    look = machine.zfs
    if look is None or look.error:
        yield f"ZFS does not say which volumes there are ({look.error if look else 'it was not asked'})"
        return
    volume = volume_of(machine, name)
    if _pool(look, name) is None:
        yield _no_pool(look, name)
    elif volume is None:
        yield f"there is no volume {name}"
    elif volume.lab == lab and volume.owner != owner:
        yield _of_somebody_else(volume, owner)
    elif not is_own(volume, lab, owner):
        yield f"the volume {name} does not have the properties of the harness's lab '{lab}'"
    elif (device := machine.devices.get(look.number)) is not None:
        yield from (f"it is held by {one}" for one in device.holders)
        yield from users(machine, device)

"""What ``look.py`` and ``look_zfs.py`` of the hardware lab printed on a machine: JSON around other programs' text.

:class:`ValueError` with one sentence for whatever is not understood: what was not read is no fact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.model.disks import (
    AllowFile,
    BlockDevice,
    DirectoryLook,
    DiskLook,
    FileLook,
    Listed,
    LogicalVolume,
    MachineDisks,
    Mounted,
    Opened,
    PhysicalVolume,
    Signature,
    VolumeGroup,
)
from harness.parse.zfs import zfs_look

# What zpool says, with a status, where ZFS has no pool (libzfs_error_init of OpenZFS for the modules).
_NO_POOLS = ("no pools", "not be loaded", "modules are not loaded", "modules cannot be auto-loaded")


def machine_disks(text: str) -> MachineDisks:
    """All that was printed."""
    try:
        found = json.loads(text)
        return _machine(found)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"what the machine printed of its disks lacks something: {error!r}") from None


def signatures(wipefs_json: str) -> tuple[Signature, ...]:
    """What ``wipefs --no-act -J`` found; it prints nothing at all where there is nothing."""
    if not wipefs_json.strip():
        return ()
    found = json.loads(wipefs_json)["signatures"]
    return tuple(Signature(str(one["type"]), int(str(one["offset"]), 0)) for one in found)


def lsblk_tree(lsblk_json: str) -> tuple[Listed, ...]:
    """The devices of ``lsblk -J`` with the columns maj:min, name, type, fstype and mountpoint or mountpoints."""
    return tuple(_listed(one) for one in json.loads(lsblk_json)["blockdevices"])


def swap_devices(proc_swaps: str) -> tuple[str, ...]:
    """The paths in ``/proc/swaps``."""
    return tuple(line.split()[0] for line in proc_swaps.splitlines()[1:] if line.strip())


def _machine(found: Mapping[str, Any]) -> MachineDisks:
    commands = found["commands"]
    lsblk = commands["lsblk"]
    if lsblk["status"] != 0:
        raise ValueError(f"lsblk says nothing of the machine's disks: {_why(lsblk)}")
    physical, groups, volumes, lvm_error = _lvm(commands, found.get("physical", {}))
    zpool = commands.get("zpool")
    return MachineDisks(
        devices={number: _device(number, one) for number, one in found["sysfs"].items()},
        tree=lsblk_tree(lsblk["out"]),
        links=dict(found["links"]),
        mounts=tuple(Mounted(*map(str, one)) for one in found["mounts"]),
        swaps=swap_devices(found["swaps"]),
        mdstat=found["mdstat"],
        loops=dict(found["loops"]),
        exported=dict(found["exported"]),
        opened=tuple(Opened(str(kind), str(number), int(pid), str(by)) for kind, number, pid, by in found["opened"]),
        physical=physical, groups=groups, volumes=volumes, lvm_error=lvm_error,
        zpool=_zpool(zpool) if zpool else "",
        disks=tuple(_disk(one) for one in found["disks"]),
        directories=tuple(_directory(one) for one in found["directories"]),
        allow=_allow(found["allow"]) if "allow" in found else None,
        zfs=zfs_look(found["zfs"]) if "zfs" in found else None,
    )  # fmt: skip


def _why(command: Mapping[str, Any]) -> str:
    return " ".join(str(command["err"] or command["out"]).split()) or f"status {command['status']}"


def _zpool(command: Mapping[str, Any]) -> str:
    # Without its module no pool is in use; a disk of one that was exported has its signature.
    if command["status"] != 0 and not any(one in command["err"] for one in _NO_POOLS):
        raise ValueError(f"zpool does not say which disks ZFS has: {_why(command)}")
    return str(command["out"])


def _device(number: str, one: Mapping[str, Any]) -> BlockDevice:
    return BlockDevice(
        number=number, name=one["name"], size=int(one["bytes"]), read_only=one["read_only"] != "0",
        parent=one["parent"], partitions=tuple(one["partitions"]), holders=tuple(one["holders"]),
        slaves=tuple(one["slaves"]), dm_name=one["dm_name"], dm_uuid=one["dm_uuid"], md_level=one["md_level"],
        backing=one["loop"], serial=one["serial"], vpd_serial=one["vpd_serial"], wwid=one["wwid"], model=one["model"],
        passthrough=tuple(one["passthrough"]), sequence=one.get("sequence", ""),
    )  # fmt: skip


def _listed(one: Mapping[str, Any]) -> Listed:
    points = one["mountpoints"] if "mountpoints" in one else [one["mountpoint"]]
    return Listed(
        number=one["maj:min"].strip(), name=one["name"], kind=one["type"] or "", filesystem=one["fstype"] or "",
        mount_points=tuple(point for point in points if point),
        children=tuple(_listed(child) for child in one.get("children", [])),
    )  # fmt: skip


def _disk(one: Mapping[str, Any]) -> DiskLook:
    udev = dict(line.split("=", 1) for line in one["udev"].splitlines() if "=" in line)
    basis = DiskLook(path=one["path"], real=one["real"], udev=udev, number=one.get("number", ""))
    if one.get("error"):
        return DiskLook(**{**vars(basis), "error": one["error"]})
    wipefs = one["wipefs"]
    try:
        found = signatures(wipefs["out"]) if wipefs["status"] == 0 else None
    except (ValueError, KeyError, TypeError):
        found = None
    return DiskLook(
        **{
            **vars(basis), "exclusive": one["exclusive"], "size": int(one["bytes"]), "head": one["head"],
            "tail": one["tail"], "label": one["label"], "head_sha256": one["label_sha256"],
            "tail_sha256": one.get("tail_sha256", ""), "signatures": found,
        }
    )  # fmt: skip


def _directory(one: Mapping[str, Any]) -> DirectoryLook:
    if one.get("error"):
        return DirectoryLook(path=one["path"], real=one["real"], error=one["error"])
    return DirectoryLook(
        path=one["path"], real=one["real"], owner=one["uid"], mode=one["mode"], is_directory=one["directory"],
        kind=one["kind"], free=one["free"], above=tuple((path, uid, mode) for path, uid, mode in one.get("above", ())),
        files={
            name: FileLook(file["plain"], int(file["bytes"]), file["label"], file["sha256"])
            for name, file in one["files"].items()
        },
    )  # fmt: skip


def _allow(one: Mapping[str, Any]) -> AllowFile:
    if one.get("error"):
        return AllowFile(path=one["path"], error=one["error"])
    lines = (line.partition("#")[0].strip() for line in one["text"].splitlines())
    return AllowFile(
        path=one["path"], owner=one["uid"], mode=one["mode"], regular=one["regular"], above_owner=one["above_uid"],
        above_mode=one["above_mode"], above_is_directory=one["above_directory"],
        lines=tuple(line for line in lines if line),
    )  # fmt: skip


def _lvm(
    commands: Mapping[str, Any], numbers: Mapping[str, str]
) -> tuple[tuple[PhysicalVolume, ...] | None, tuple[VolumeGroup, ...] | None, tuple[LogicalVolume, ...] | None, str]:
    """Physical volumes, groups, logical volumes, and why LVM does not say; all None where it is not there."""
    if "pvs" not in commands:
        return None, None, None, "LVM is not installed"
    for name in ("pvs", "vgs", "lvs"):
        if commands[name]["status"] != 0:
            return None, None, None, f"{name}: {_why(commands[name])}"
    physical = tuple(
        PhysicalVolume(
            one["pv_name"], one["vg_name"], bool(one["pv_missing"]), bool(one["pv_duplicate"]),
            numbers.get(one["pv_name"], ""),
        )
        for one in _rows(commands["pvs"]["out"], "pv")
    )  # fmt: skip
    groups = tuple(
        VolumeGroup(
            one["vg_name"], one["vg_uuid"], one["vg_attr"], int(one["vg_free"]), int(one["vg_extent_size"]),
            int(one["vg_missing_pv_count"]),
        )
        for one in _rows(commands["vgs"]["out"], "vg")
    )  # fmt: skip
    volumes = tuple(
        LogicalVolume(
            group=one["vg_name"], name=one["lv_name"].strip("[]"), uuid=one["lv_uuid"], attributes=one["lv_attr"],
            size=int(one["lv_size"]), tags=tuple(tag for tag in one["lv_tags"].split(",") if tag), pool=one["pool_lv"],
            used=_percent(one["data_percent"]), metadata_used=_percent(one["metadata_percent"]),
            number=f"{one['lv_kernel_major']}:{one['lv_kernel_minor']}",
        )
        for one in _rows(commands["lvs"]["out"], "lv")
    )  # fmt: skip
    return physical, groups, volumes, ""


def _rows(text: str, key: str) -> Sequence[Mapping[str, str]]:
    (report,) = json.loads(text)["report"]
    rows: Sequence[Mapping[str, str]] = report[key]
    return rows


def _percent(text: str) -> float | None:
    return float(text) if text else None

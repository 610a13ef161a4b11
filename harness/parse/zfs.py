"""What ``look_zfs.py`` of the hardware lab found on a machine: the text of zfs and zpool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.model.zfs import LAB_PROPERTY, OWNER_PROPERTY, Dataset, ZfsLook, ZfsPool


def zfs_look(found: Mapping[str, Any]) -> ZfsLook:
    """All that was printed; :class:`ValueError`, KeyError or TypeError for what is not understood."""
    pools, below, properties = found["pools"], found["below"], found["properties"]
    if pools["status"] != 0:
        return ZfsLook(error=_why("zpool", pools))
    listed = tuple(_pool(line) for line in pools["out"].splitlines())
    if properties is None:
        # A dataset that is not there, or an error that says why; which of both, the pools and this text tell.
        return ZfsLook(listed, error="" if "does not exist" in below["err"] else _why("zfs", below))
    if properties["status"] != 0:
        return ZfsLook(listed, error=_why("zfs", properties))
    return ZfsLook(listed, _datasets(properties["out"]), str(found["number"]))


def _pool(line: str) -> ZfsPool:
    name, guid, health, read_only = line.split("\t")
    return ZfsPool(name, guid, health, read_only != "off")


def _datasets(text: str) -> dict[str, Dataset]:
    values: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        name, what, value, source = line.split("\t")
        # A child inherits what somebody has written on its parent.
        if ":" not in what or source == "local":
            values.setdefault(name, {})[what] = value
    return {
        name: Dataset(
            name=name, kind=one["type"], guid=one["guid"], available=_bytes(one["available"]),
            size=_bytes(one["volsize"]), read_only=one["readonly"] != "off", lab=one.get(LAB_PROPERTY, ""),
            owner=one.get(OWNER_PROPERTY, ""),
        )
        for name, one in values.items()
    }  # fmt: skip


def _bytes(text: str) -> int:
    return 0 if text == "-" else int(text)


def _why(program: str, command: Mapping[str, Any]) -> str:
    return f"{program}: {' '.join(str(command['err'] or command['out']).split()) or command['status']}"

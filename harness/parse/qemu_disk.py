"""The disks of a QEMU that runs, by its command line and by what libvirt keeps of its domain; nothing is asked.

Both forms of a command line are read: ``-blockdev`` in JSON or as ``key=value``, and ``-drive`` as Proxmox VE up to 8
and people write it.  What QEMU was told later over its monitor is in neither; libvirt's definition has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lxml import etree

#: A cache mode as QEMU's three flags: direct, writeback, no-flush.
MODES: Mapping[str, tuple[bool, bool, bool]] = {
    "none": (True, True, False), "directsync": (True, False, False), "writeback": (False, True, False),
    "writethrough": (False, False, False), "unsafe": (False, True, True),
}  # fmt: skip
# Drivers of block nodes that are no format.
_NO_FORMAT = (None, "throttle", "host_device", "file", "copy-on-read")
_MOST_NODES = 50
_YES, _NO = ("on", "yes", "true", True), ("off", "no", "false", False)
_BUSES = (("virtio-blk", "virtio"), ("vhost-user-blk", "virtio"), ("scsi-", "scsi"), ("ide-", "ide"),
          ("nvme", "nvme"), ("usb-", "usb"))  # fmt: skip


@dataclass(frozen=True)
class DiskTold:
    """A disk as it was asked for; None and empty where nobody told."""

    direct: bool | None = None
    writeback: bool | None = None
    no_flush: bool | None = None
    aio: str = ""
    bus: str = ""
    discard: str = ""
    detect_zeroes: str = ""
    format: str = ""


def cache_mode(direct: bool | None, writeback: bool | None, no_flush: bool | None) -> str:
    """The cache mode by its usual name, with "or" between all that it may be; empty where nothing is known."""
    if direct is None and writeback is None and no_flush is None:
        return ""
    fitting = [
        name
        for name, flags in MODES.items()
        if all(told in (None, flag) for told, flag in zip((direct, writeback, no_flush), flags, strict=True))
    ]
    # No usual name: O_DIRECT that also ignores flushes.
    return " or ".join(fitting) or "none that ignores flushes"


def disks_of_libvirt(disks: Iterable[str]) -> Mapping[str, DiskTold]:
    """By the path of a disk or of a file below it; ``disks`` are elements ``<disk>`` of a domain."""
    found: dict[str, DiskTold] = {}
    for text in disks:
        disk = etree.fromstring(text.encode())
        driver, target = disk.find("driver"), disk.find("target")
        has = {str(key): str(value) for key, value in driver.attrib.items()} if driver is not None else {}
        # Without a word from libvirt QEMU's own default is writeback.
        direct, writeback, no_flush = MODES.get(has.get("cache", ""), MODES["writeback"])
        told = DiskTold(
            direct, writeback, no_flush, has.get("io", ""),
            str(target.get("bus", "")) if target is not None else "",
            has.get("discard", "ignore"), has.get("detect_zeroes", "off"), has.get("type", ""),
        )  # fmt: skip
        for source in disk.iter("source"):
            path = source.get("dev") or source.get("file")
            if path:
                found.setdefault(str(path), told)
    return found


def disks_of_options(options: Iterable[Sequence[str]]) -> Mapping[str, DiskTold]:
    """By the path of what is below, from pairs of an option of QEMU's and its value."""
    nodes: dict[str, Mapping[str, Any]] = {}
    drives: dict[str, DiskTold] = {}
    paths: dict[str, str] = {}
    devices = []
    for number, (option, value) in enumerate(options):
        fields = _fields(value, "file" if option == "-drive" else "driver")
        if option == "-blockdev":
            nodes[str(fields.get("node-name", number))] = fields
        elif option == "-drive" and (path := _plain(str(fields.get("file", "")))):
            name = str(fields.get("id", f"drive {number}"))
            drives[name], paths[name] = _of_drive(fields), path
        elif option == "-device" and "drive" in fields:
            devices.append(fields)
    found = {paths[name]: told for name, told in drives.items()}
    inner = {fields["file"] for fields in nodes.values() if isinstance(fields.get("file"), str)}
    for name, fields in nodes.items():
        if name not in inner:
            found |= dict(_of_node(fields, nodes))
    for device in devices:
        name = str(device["drive"])
        below = [paths[name]] if name in paths else [path for path, _ in _of_node(nodes.get(name, {}), nodes)]
        cached = str(device.get("write-cache", "auto"))
        for path in below:
            told = replace(found.get(path, DiskTold()), bus=_bus(str(device.get("driver", ""))))
            if name in nodes:
                # Of a block node the device alone knows it; QEMU's default is on.
                told = replace(told, writeback=cached not in _NO)
            found[path] = told
    return found


def domain_name(options: Iterable[Sequence[str]]) -> str:
    """What the QEMU calls its guest; empty where it has no name."""
    for option, value in options:
        if option == "-name":
            fields = _fields(value, "guest")
            return str(fields.get("guest", ""))
    return ""


# --------------------------------------------------------------------------- options


def _fields(text: str, first: str) -> Mapping[str, Any]:
    """The fields of one option's value; a first one without a name is ``first``."""
    if text.lstrip().startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    fields: dict[str, Any] = {}
    for number, part in enumerate(re.split(r"(?<!,),(?!,)", text)):
        name, equals, value = part.replace(",,", ",").partition("=")
        if equals and not (number == 0 and "/" in name):
            fields[name] = value
        elif number == 0:
            fields[first] = part.replace(",,", ",")
        else:
            fields[name] = "on"
    return fields


def _of_drive(fields: Mapping[str, Any]) -> DiskTold:
    direct, writeback, no_flush = MODES.get(str(fields.get("cache", "")), MODES["writeback"])
    parts = [_flag(fields.get(f"cache.{name}")) for name in ("direct", "writeback", "no-flush")]
    kind = str(fields.get("if", ""))
    return DiskTold(
        direct if parts[0] is None else parts[0],
        writeback if parts[1] is None else parts[1],
        no_flush if parts[2] is None else parts[2],
        str(fields.get("aio", "threads")), "" if kind == "none" else kind, _discard(fields),
        str(fields.get("detect-zeroes", "off")), str(fields.get("format", "")),
    )  # fmt: skip


def _of_node(fields: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, DiskTold]]:
    """The path at the bottom of a chain of block nodes, with what all of them say together; nothing without a path."""
    chain: list[Mapping[str, Any]] = []
    node: Any = fields
    while isinstance(node, Mapping) and node and len(chain) < _MOST_NODES:
        chain.append(node)
        below = node.get("file")
        node = nodes.get(below) if isinstance(below, str) else below
    bottom = chain[-1] if chain else {}
    if path := bottom.get("filename") or bottom.get("file.filename"):
        # What lies at the bottom opens the file.
        directs = [flag for one in chain if (flag := _cache(one, "direct")) is not None]
        yield (
            str(path),
            DiskTold(
                direct=directs[-1] if directs else False,
                no_flush=any(_cache(one, "no-flush") for one in chain),
                aio=str(bottom.get("aio") or bottom.get("file.aio") or "threads"),
                discard=_discard(chain[0]),
                detect_zeroes=next((str(one["detect-zeroes"]) for one in chain if "detect-zeroes" in one), "off"),
                format=next((str(one["driver"]) for one in chain if one.get("driver") not in _NO_FORMAT), "raw"),
            ),
        )


def _cache(node: Mapping[str, Any], name: str) -> bool | None:
    cache = node.get("cache")
    return _flag(cache.get(name) if isinstance(cache, dict) else node.get(f"cache.{name}"))


def _discard(fields: Mapping[str, Any]) -> str:
    asked = fields.get("discard", "ignore")
    return "unmap" if asked in ("unmap", *_YES) else "ignore"


def _flag(value: object) -> bool | None:
    return True if value in _YES else False if value in _NO else None


def _plain(file: str) -> str:
    """The path in QEMU's name of a file, which may have a protocol in front, or be options in JSON."""
    if file.startswith("json:"):
        try:
            node = json.loads(file.removeprefix("json:"))
        except ValueError:
            return ""
        while isinstance(node, dict) and isinstance(node.get("file"), dict):
            node = node["file"]
        return str(node.get("filename", "")) if isinstance(node, dict) else ""
    for protocol in ("file:", "host_device:"):
        file = file.removeprefix(protocol)
    return file if file.startswith("/") else ""


def _bus(driver: str) -> str:
    return next((bus for begins, bus in _BUSES if driver.startswith(begins)), driver)

"""What a Linux system and QEMU print about themselves: open flags, offloads, packages, memory, paging, block nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_FLAGS = re.compile(r"^flags:\s*([0-7]+)\s*$", re.ASCII | re.MULTILINE)
_OFFLOAD = re.compile(r"^\s*([a-z0-9-]+): (on|off)\b", re.ASCII | re.MULTILINE)
_MEMORY = re.compile(r"^([^\s:]+):\s*(\d+)( kB)?\s*$", re.ASCII | re.MULTILINE)
_VMSTAT = re.compile(r"^(\w+) (\d+)$", re.ASCII | re.MULTILINE)

# The values of x86; other architectures number O_DIRECT differently.
_O_DIRECT = 0o40000
_O_SYNC = 0o4010000


def open_flags(fdinfo: str) -> int:
    """The flags of an open descriptor from ``/proc/PID/fdinfo/FD``; :class:`ValueError` if there are none."""
    found = _FLAGS.search(fdinfo)
    if not found:
        raise ValueError("this is not a file of /proc/PID/fdinfo: it has no line 'flags:'")
    return int(found[1], 8)


def o_direct(flags: int) -> bool:
    """Whether the descriptor bypasses the page cache (x86)."""
    return bool(flags & _O_DIRECT)


def o_sync(flags: int) -> bool:
    """Whether the descriptor makes every write wait for the medium: O_SYNC or O_DSYNC (x86).

    QEMU asks for neither in any cache mode; for writethrough and directsync it flushes after each write instead.
    """
    return bool(flags & _O_SYNC)


def offloads(ethtool: str) -> Mapping[str, bool]:
    """The features that ``ethtool -k`` lists, such as ``scatter-gather``; ``[fixed]`` makes no difference."""
    return {name: value == "on" for name, value in _OFFLOAD.findall(ethtool)}


def packages(dpkg_query: str) -> Mapping[str, str]:
    """Package to version from ``dpkg-query -W`` (name, tab, version); lines without a version are left out."""
    pairs = (line.partition("\t") for line in dpkg_query.splitlines())
    return {name.strip(): version.strip() for name, _, version in pairs if name.strip() and version.strip()}


def meminfo(text: str) -> Mapping[str, int]:
    """``/proc/meminfo`` in bytes; the few entries without a unit are plain counts."""
    return {name: int(value) * (1024 if unit else 1) for name, value, unit in _MEMORY.findall(text)}


def vmstat(text: str) -> Mapping[str, int]:
    """The counters of ``/proc/vmstat``, such as ``pswpout``: pages that were written to swap since the boot."""
    return {name: int(value) for name, value in _VMSTAT.findall(text)}


def qmp_block(reply: str, source: str) -> tuple[Mapping[str, bool], str | None]:
    """The cache flags (``direct``, ``writeback``, ``no-flush``) and the aio mode of the disk on ``source``.

    ``reply`` is QEMU's answer to ``query-block``.  The answer to ``query-named-block-nodes`` is understood too, but
    its ``writeback`` is always true: only the device knows its write cache.  QEMU tells the aio mode in neither,
    except in a file name of the form ``json:``; None otherwise.  :class:`ValueError` if no disk is on ``source``.
    """
    for node in _nodes(json.loads(reply)):
        name, aio = _file(node)
        cache = node.get("cache")
        if name == source and isinstance(cache, dict):
            return {str(flag): bool(value) for flag, value in cache.items()}, aio
    raise ValueError(f"QEMU's reply names no disk on '{source}'")


def qmp_disk(reply: str, source: str) -> tuple[str | None, str | None]:
    """What ``query-block`` says of the disk on ``source``: its driver (``raw``, ``luks``) and its detect-zeroes.

    None for what is not in it; :class:`ValueError` if no disk is on ``source``.
    """
    for node in _nodes(json.loads(reply)):
        if _file(node)[0] == source:
            driver, zeroes = node.get("drv"), node.get("detect_zeroes")
            return (
                driver if isinstance(driver, str) else None,
                zeroes if isinstance(zeroes, str) else None,
            )
    raise ValueError(f"QEMU's reply names no disk on '{source}'")


def qmp_link(reply: str) -> bool | None:
    """Whether the property that ``qom-get`` was asked for is a link to something; None where QEMU knows none such."""
    found = json.loads(reply)
    linked = found.get("return") if isinstance(found, dict) else None
    return bool(linked) if isinstance(linked, str) else None


def _nodes(reply: Any) -> Iterator[Mapping[str, Any]]:
    found = reply.get("return") if isinstance(reply, dict) else reply
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict):
            inserted = item.get("inserted", item)
            if isinstance(inserted, dict):
                yield inserted


def _file(node: Mapping[str, Any]) -> tuple[str, str | None]:
    """A node's path and, if QEMU had to describe the file by its options, the aio mode in them."""
    name = str(node.get("file", ""))
    if not name.startswith("json:"):
        return name, None
    try:
        options = json.loads(name.removeprefix("json:"))
    except ValueError:
        return name, None
    while isinstance(options, dict) and isinstance(options.get("file"), dict):
        options = options["file"]
    if not isinstance(options, dict):
        return name, None
    aio = options.get("aio")
    return str(options.get("filename", name)), aio if isinstance(aio, str) else None

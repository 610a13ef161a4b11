"""The disk under test as the guest has it, and what is really in force of it, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lxml import etree

from harness.lab.node import Node
from harness.model import AioMode, CacheMode, DiskBus, DiskSource, Observed
from harness.parse.system import o_direct, o_sync, offloads, open_flags, qmp_block
from harness.remote.guest_agent import GuestAgent
from harness.remote.libvirt_calls import Bounded
from harness.util import logs


@dataclass(frozen=True)
class AttachedDisk:
    """The disk under test in the guest, which sees it at ``path``; ``source`` is what QEMU opened for it."""

    path: str
    serial: str
    xml: str
    cache: CacheMode
    aio: AioMode
    bus: DiskBus
    source: DiskSource


def observe_node(node: Node, device: str) -> Observed:
    """What there is to read back when the node itself is the client."""
    minor = device.rsplit("/", 1)[-1]
    named = dict(_sections(node.runner.run(["sh", "-c", _OBSERVE, "sh", device, minor, node.link]).stdout))
    return Observed(
        drbd_stable_writes=_flag(named.get("stable_writes", "")),
        scatter_gather=offloads(named.get("offloads", "")).get("scatter-gather"),
    )


# One round trip for everything the node knows: the descriptors of its QEMU on the device, or on the file on it, the
# flag, the link.  A descriptor has the path behind a symbolic link, as /dev/mapper is full of.
_OBSERVE = """
opened=$(readlink -f "$1")
for fd in $(ls -l /proc/[0-9]*/fd/* 2>/dev/null | awk -v d="$opened" '$NF == d { print $(NF - 2) }'); do
    process=${fd%/fd/*}
    grep -q qemu "$process/comm" || continue
    echo "== fdinfo $fd"; cat "$process/fdinfo/${fd##*/}"
done
echo "== stable_writes"; cat "/sys/block/$2/queue/stable_writes" 2>/dev/null
echo "== offloads"; ethtool -k "$3" 2>/dev/null
"""


def _sections(text: str) -> list[tuple[str, str]]:
    found = []
    for part in text.split("== ")[1:]:
        name, _, body = part.partition("\n")
        found.append((name.strip(), body))
    return found


def _flag(text: str) -> bool | None:
    return text.strip() == "1" if text.strip() else None


def _aio_in_force(xml: str, serial: str) -> str | None:
    for disk in etree.fromstring(xml.encode()).iterfind("devices/disk"):
        if disk.findtext("serial") == serial:
            driver = disk.find("driver")
            return None if driver is None else driver.get("io")
    return None


def observe_guest(node: Node, domain: Bounded, agent: GuestAgent, disk: AttachedDisk, device: str) -> Observed:
    """What is in force of ``disk``: QEMU's descriptors on it and its block layer, and what the guest was told.

    ``device`` is DRBD's, on which the disk lies.

    ``libvirt.libvirtError`` when QEMU does not answer, :class:`ValueError` when its answer cannot be read.
    """
    minor = device.rsplit("/", 1)[-1]
    observe = ["sh", "-c", _OBSERVE, "sh", disk.source.path, minor, node.link]
    node_side = _sections(node.runner.run(observe).stdout)
    flags = [open_flags(text) for name, text in node_side if name.startswith("fdinfo")]
    with logs.timed("libvirt", node.name, "qemuMonitorCommand query-block", agent.lab):
        block = domain.qemuMonitorCommand(json.dumps({"execute": "query-block"}), 0)
    cache, _ = qmp_block(block, disk.source.path)
    name = disk.path.rsplit("/", 1)[-1]
    queue = f"/sys/block/{name}/queue"
    lines = agent.run(["cat", f"{queue}/write_cache", f"{queue}/stable_writes"], ok=()).stdout.splitlines()
    named = dict(node_side)
    return Observed(
        open_flags=flags[0] if flags else None,
        # Every descriptor has to be as asked; QEMU may hold more than one.
        o_direct=None if not flags else (all if disk.cache.direct else any)(o_direct(flag) for flag in flags),
        o_sync=any(o_sync(flag) for flag in flags) if flags else None,
        qemu_cache=cache or None,
        qemu_aio=_aio_in_force(domain.XMLDesc(0), disk.serial),
        guest_write_cache=lines[0].strip() if lines else None,
        guest_stable_writes=lines[1].strip() == "1" if len(lines) > 1 else None,
        drbd_stable_writes=_flag(named.get("stable_writes", "")),
        scatter_gather=offloads(named.get("offloads", "")).get("scatter-gather"),
    )

"""The disk under test as the guest has it, and what is really in force of it, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from lxml import etree

from harness.errors import RefusedError
from harness.lab.node import Node
from harness.model import DISK_UNDER_TEST, AioMode, CacheMode, Discard, DiskBus, DiskSource, Observed
from harness.parse.system import o_direct, o_sync, offloads, open_flags, qmp_block, qmp_disk, qmp_link
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


@dataclass(frozen=True)
class _Defined:
    """The disk in the domain's live definition; ``server`` is the alias of the device whose thread serves it."""

    bus: str | None = None
    aio: str | None = None
    discard: str | None = None
    server: str = ""


def _defined(xml: str, serial: str) -> _Defined:
    devices = etree.fromstring(xml.encode()).find("devices")
    for disk in () if devices is None else devices.iterfind("disk"):
        if disk.findtext("serial") != serial:
            continue
        driver, target, address, alias = (disk.find(name) for name in ("driver", "target", "address", "alias"))
        bus = None if target is None else target.get("bus")
        if bus == DiskBus.SCSI and devices is not None and address is not None:
            index = address.get("controller", "0")
            alias = devices.find(f"controller[@type='scsi'][@index='{index}']/alias")
        return _Defined(
            bus=bus,
            aio=None if driver is None else driver.get("io"),
            # What libvirt leaves out is QEMU's default.
            discard=None if driver is None else driver.get("discard", Discard.IGNORE.value),
            server="" if alias is None else alias.get("name", ""),
        )
    return _Defined()


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
    driver, zeroes = qmp_disk(block, disk.source.path)
    defined = _defined(domain.XMLDesc(0), disk.serial)
    asked = {"path": f"/machine/peripheral/{defined.server}", "property": "iothread"}
    with logs.timed("libvirt", node.name, f"qemuMonitorCommand qom-get {defined.server}", agent.lab):
        thread = domain.qemuMonitorCommand(json.dumps({"execute": "qom-get", "arguments": asked}), 0)
    queue = agent.system.queue(agent, disk.path)
    named = dict(node_side)
    return Observed(
        open_flags=flags[0] if flags else None,
        # Every descriptor has to be as asked; QEMU may hold more than one.
        o_direct=None if not flags else (all if disk.cache.direct else any)(o_direct(flag) for flag in flags),
        o_sync=any(o_sync(flag) for flag in flags) if flags else None,
        qemu_cache=cache or None,
        qemu_aio=defined.aio,
        qemu_bus=defined.bus,
        qemu_format=driver,
        qemu_iothread=qmp_link(thread),
        qemu_detect_zeroes=zeroes,
        qemu_discard=defined.discard,
        guest_write_cache=queue.write_cache,
        guest_stable_writes=queue.stable_writes,
        drbd_stable_writes=_flag(named.get("stable_writes", "")),
        scatter_gather=offloads(named.get("offloads", "")).get("scatter-gather"),
    )


# Refused by a kernel or a driver that has no such flag: it says so.
_SET_STABLE_WRITES = 'echo 1 > "/sys/block/${1##*/}/queue/stable_writes"'
_IN_USE = """
cat "/sys/block/${1##*/}/queue/stable_writes"
echo "== swaps"; tail -n +2 /proc/swaps
echo "== mounts"; awk -v p="$2" '$2 == p { print $4 }' /proc/mounts
"""


def set_stable_writes(agent: GuestAgent, disk: AttachedDisk) -> None:
    """Make the guest's kernel hold pages still while they are written to ``disk``; before anybody uses it.

    It holds for whoever opens it from then on: a filesystem looks when it is mounted, swap when it is switched on.
    :class:`~harness.errors.RefusedError` with the guest's message where the kernel does not take it.
    """
    done = agent.run(["sh", "-c", _SET_STABLE_WRITES, "sh", disk.path], ok=())
    if done.status:
        raise RefusedError("the guest's kernel", f"stable_writes was not set: {done.stderr.strip()}")


def observe_in_use(agent: GuestAgent, disk: AttachedDisk, mount_point: str, seen: Observed) -> Observed:
    """``seen``, and what is in force in the guest once the workload's filesystem is in use."""
    text = agent.run(["sh", "-c", _IN_USE, "sh", disk.path, mount_point], ok=()).stdout
    flag, _, rest = text.partition("== swaps\n")
    swaps, _, mounts = rest.partition("== mounts\n")
    return replace(
        seen,
        stable_writes_in_use=_flag(flag),
        guest_swaps=tuple(
            DISK_UNDER_TEST if words[0].startswith(disk.path) else words[0]
            for words in map(str.split, swaps.splitlines())
        ),
        guest_mount_options=tuple(mounts.strip().split(",")) if mounts.strip() else (),
    )

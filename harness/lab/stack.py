"""The versions under test, read from the nodes, and held against what their images hold."""

from __future__ import annotations

import platform
import re
import textwrap
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

from harness.errors import HarnessError, StackError
from harness.lab.node import Node
from harness.model import ImageLock, NodeLock, Software, Stack, StackLock
from harness.model.stack_lock import not_as_before, not_as_its_image
from harness.parse.software import protocols

# Fields of Software, and the shell command that prints each on a node.
_COMMANDS = {
    "kernel": "uname -r",
    "kernel_build": "uname -v",
    "drbd": r"sed -n 's/^version: \([^ ]*\).*/\1/p' /proc/drbd",
    "drbd_srcversion": "cat /sys/module/drbd/srcversion",
    "drbd_git_hash": r"sed -n 's/^GIT-hash: \([^ ]*\).*/\1/p' /proc/drbd",
    "drbd_protocols": r"sed -n 's/^version: .*[/(]proto:\([0-9,-]*\).*/\1/p' /proc/drbd",
    "drbd_utils": "dpkg-query -W -f '${Version}' drbd-utils 2>/dev/null || rpm -q --qf '%{version}' drbd-utils",
    "qemu": r""" "$qemu" --version | sed -n 's/.*version \([^ ]*\).*/\1/p'""",
    "qemu_path": 'readlink -f "$(command -v "$qemu")"',
    "qemu_sha256": """sha256sum "$(command -v "$qemu")" | cut -d ' ' -f 1""",
    "libvirt": """ "$daemon" --version | sed 's/.* //'""",
}
# Other distributions have it elsewhere, and a daemon for each of its drivers.
_NAMES = """
modprobe drbd 2>/dev/null
qemu=qemu-system-x86_64 daemon=/usr/sbin/libvirtd
command -v $qemu >/dev/null || qemu=$(command -v qemu-kvm || echo /usr/libexec/qemu-kvm)
[ -x $daemon ] || daemon=/usr/sbin/virtqemud
"""
# What takes a node seconds to say, and what nothing is held against.
_SLOW = ("qemu_sha256", "drbd_protocols", "drbd_utils", "libvirt")
# Why a module cannot be loaded is in the kernel's log; modprobe has only the number of its error in words.
_WHY_NO_MODULE = "modprobe drbd 2>&1 | tail -n 1; dmesg | grep -w 'drbd: ' | tail -n 1"
_WHY_NO_QEMU = "qemu-system-x86_64 --version 2>&1 | tail -n 1"
_MOST_TEXT = 300


def read_software(a: Node, b: Node) -> tuple[Software, Software]:
    """What runs on each of the two nodes.

    Each is asked once, both at the same time, within 60 s.  DRBD's module is loaded where it is not yet; a version that
    a node does not report is empty.
    """
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(_read, a), pool.submit(_read, b)
    return one.result(), other.result()


def stack_of(on_a: Software, on_b: Software, suite: str, accelerator: str, machine: str = "") -> Stack:
    """Both as the versions under test; where they differ, both versions with a slash between them."""
    named = [item.name for item in fields(Stack) if item.name in _COMMANDS]
    pairs = {name: (getattr(on_a, name), getattr(on_b, name)) for name in named}
    both = {name: one if one == other else f"{one} / {other}" for name, (one, other) in pairs.items()}
    controller = f"{platform.system()} {platform.release()}"
    return Stack(
        suite=suite, accelerator=accelerator, controller=controller, cpu=_processor(), machine=machine, **both
    )  # fmt: skip


def require_unchanged(lock: StackLock, *nodes: Node) -> None:
    """:class:`~harness.errors.StackError` where one of ``nodes`` does not run what it ran when its lab came up: after a
    boot it may have another kernel, DRBD or QEMU, or none that can be used.

    One round trip of at most 60 s each; the digest of QEMU is not taken again, its version is read.
    """
    for node in nodes:
        locked = next((one for one in lock.nodes if one.name == node.name), None)
        if locked is None:
            continue
        now = _read(node, without=_SLOW)
        if why := _missing(replace(locked, image=ImageLock(holds=locked.runs), runs=now), node):
            raise StackError(f"since it has booted: {why}")
        if (other := not_as_before(locked, now)) is not None:
            raise StackError(other)


def require_as_locked(lock: StackLock, a: Node, b: Node) -> None:
    """:class:`~harness.errors.StackError` where a node does not run what its image holds, or has no DRBD or QEMU at
    all, or where the two DRBDs have no network protocol in common.

    The nodes are asked only where something is missing on them, to say why.
    """
    for locked, node in zip(lock.nodes, (a, b), strict=True):
        if why := _missing(locked, node) or not_as_its_image(locked) or _too_old(locked):
            raise StackError(why)
    one, other = (locked.runs for locked in lock.nodes)
    if len({runs.drbd.split(".")[0] for runs in (one, other) if runs.drbd}) > 1:
        raise StackError(
            f"DRBD {one.drbd} on {a.name} and {other.drbd} on {b.name} are set up in different ways, and the harness "
            "sets both nodes of a resource up in one: take two versions of DRBD 8.4, or two of DRBD 9"
        )
    # Of one generation: what /proc/drbd lists of DRBD 9 leaves out that it speaks to 8.4 too.
    known = [protocols(runs.drbd_protocols) for runs in (one, other)]
    if all(known) and not known[0] & known[1]:
        raise StackError(
            f"the two nodes cannot speak to each other: DRBD {one.drbd} on {a.name} has the network protocols "
            f"{one.drbd_protocols}, and DRBD {other.drbd} on {b.name} has {other.drbd_protocols}"
        )


def _missing(locked: NodeLock, node: Node) -> str:
    """That DRBD or QEMU is in the image and does not run, in the words of who refused; empty where both run."""
    image, runs = locked.image.holds, locked.runs
    if image.drbd and not (runs.drbd or runs.drbd_srcversion):
        return f"DRBD {image.drbd} of its image does not load on {node.name}: {_said(node, _WHY_NO_MODULE)}"
    if image.qemu_path and not runs.qemu:
        return f"the QEMU of its image, {image.qemu_path}, does not start on {node.name}: {_said(node, _WHY_NO_QEMU)}"
    return ""


# From when on drbdadm has the repair of what a verify found on DRBD 9, ``invalidate-remote --reset-bitmap=no``.
_UTILS_FOR_9 = (9, 17)


def _too_old(locked: NodeLock) -> str:
    runs = locked.runs
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", runs.drbd_utils)
    if not runs.drbd.startswith("9.") or found is None or (int(found[1]), int(found[2])) >= _UTILS_FOR_9:
        return ""
    return (
        f"the drbd-utils {runs.drbd_utils} of {locked.name} are too old for DRBD {runs.drbd}: it takes"
        f" {'.'.join(map(str, _UTILS_FOR_9))} or newer, with 'drbd_utils' in the stack's file"
    )


def _said(node: Node, script: str) -> str:
    try:
        said = node.runner.run(["sh", "-c", script], ok=()).stdout
    except HarnessError as error:
        said = str(error)
    return textwrap.shorten("; ".join(said.split("\n")).strip("; "), _MOST_TEXT, placeholder=" ...") or "no message"


def _processor() -> str:
    """What the controller's kernel calls its first processor; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _read(node: Node, without: Collection[str] = ()) -> Software:
    # One round trip: each costs a third of a second under emulation.
    asked = [f'echo "{name}=$({command})"\n' for name, command in _COMMANDS.items() if name not in without]
    lines = node.runner.run(["sh", "-c", _NAMES + "".join(asked)]).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return replace(Software(), **{name: found.get(name, "") for name in _COMMANDS})

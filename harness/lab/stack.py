"""The versions under test, read from the nodes."""

from __future__ import annotations

import platform
from pathlib import Path

from harness.lab.node import Node
from harness.model import Stack

# Fields of Stack, and the shell command that prints each on a node.
_COMMANDS = {
    "kernel": "uname -r",
    "kernel_build": "uname -v",
    "drbd": r"sed -n 's/^version: \([^ ]*\).*/\1/p' /proc/drbd",
    "drbd_srcversion": "cat /sys/module/drbd/srcversion",
    "drbd_git_hash": r"sed -n 's/^GIT-hash: \([^ ]*\).*/\1/p' /proc/drbd",
    "drbd_utils": "dpkg-query -W -f '${Version}' drbd-utils 2>/dev/null || rpm -q --qf '%{version}' drbd-utils",
    "qemu": r"qemu-system-x86_64 --version | sed -n 's/.*version \([^ ]*\).*/\1/p'",
    "libvirt": "/usr/sbin/libvirtd --version | sed 's/.* //'",
}
# One round trip: each costs a third of a second under emulation.
_SCRIPT = "modprobe drbd 2>/dev/null\n" + "".join(
    f'echo "{name}=$({command})"\n' for name, command in _COMMANDS.items()
)


def read_stack(a: Node, b: Node, suite: str, accelerator: str) -> Stack:
    """What runs on the nodes; where they differ, both versions with a slash between them.

    Each node is asked once, within 60 s.  DRBD's module is loaded where it is not yet; a version that a node does not
    report is empty.
    """
    on_a, on_b = _read(a), _read(b)
    both = {name: value if value == on_b[name] else f"{value} / {on_b[name]}" for name, value in on_a.items()}
    controller = f"{platform.system()} {platform.release()}"
    return Stack(suite=suite, accelerator=accelerator, controller=controller, cpu=_processor(), **both)


def _processor() -> str:
    """What the controller's kernel calls its first processor; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _read(node: Node) -> dict[str, str]:
    lines = node.runner.run(["sh", "-c", _SCRIPT]).stdout.splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return {name: found.get(name, "") for name in _COMMANDS}

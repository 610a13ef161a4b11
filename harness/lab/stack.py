"""The versions under test, read from the nodes."""

from __future__ import annotations

import platform

from harness.lab.node import Node
from harness.model import Stack

# One round trip: each costs a third of a second under emulation.
_SCRIPT = """
echo "kernel=$(uname -r)"
modprobe drbd 2>/dev/null
echo "drbd=$(sed -n 's/^version: \\([^ ]*\\).*/\\1/p' /proc/drbd)"
echo "drbd_utils=$(dpkg-query -W -f '${Version}' drbd-utils 2>/dev/null || rpm -q --qf '%{version}' drbd-utils)"
echo "qemu=$(qemu-system-x86_64 --version | sed -n 's/.*version \\([^ ]*\\).*/\\1/p')"
echo "libvirt=$(/usr/sbin/libvirtd --version | sed 's/.* //')"
"""


def read_stack(a: Node, b: Node, suite: str, accelerator: str) -> Stack:
    """What runs on the nodes; where the two differ both are said."""
    seen = [_read(node) for node in (a, b)]
    both = {
        key: value if value == seen[1].get(key) else f"{value} / {seen[1].get(key)}" for key, value in seen[0].items()
    }
    controller = f"{platform.system()} {platform.release()}"
    return Stack(suite=suite, accelerator=accelerator, controller=controller, **both)


def _read(node: Node) -> dict[str, str]:
    lines = node.runner.run(["sh", "-c", _SCRIPT]).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)

"""The guest's serial console, a file on each node that it was on."""

from __future__ import annotations

from harness.config.lab_spec import GuestSpec
from harness.lab.node import Node


def console_size(node: Node, spec: GuestSpec) -> int:
    """How many bytes the guest's console on ``node`` has; 0 where there was none yet."""
    size = node.runner.run(["stat", "-c", "%s", spec.console], ok=()).stdout.strip()
    return int(size) if size.isdigit() else 0


def console_since(node: Node, spec: GuestSpec, begins: int) -> str:
    """The guest's console on ``node`` from the byte ``begins`` on."""
    script = '[ ! -e "$1" ] || tail -c "+$2" "$1"'
    return node.runner.run(["sh", "-c", script, "sh", spec.console, str(begins + 1)]).stdout

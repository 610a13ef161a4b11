"""The guest's machine type: a versioned one, so that a guest can move between two QEMUs that are not the same.

A bare ``q35`` is another machine with each version of QEMU, and a migration to an older or newer one is refused or
worse.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from harness.errors import StackError
from harness.lab.node import Node
from harness.model import Software
from harness.parse.software import machine_order, machine_types
from harness.util.atomic_file import write_atomic
from harness.util.paths import make

# A new process of QEMU's, emulated.
_ASK_SECONDS = 60.0


def guest_machine(nodes: Sequence[tuple[Node, Software]], asked: str, cache: Path) -> str:
    """The machine type for a guest of ``nodes``: ``asked``, else the newest versioned one that their QEMUs all know.

    Empty where both are one QEMU that names none of Debian's: then a bare q35 is the same machine on both.
    :class:`~harness.errors.StackError` where one of them does not know it, or they have none in common.  Which ones a
    QEMU knows is kept in ``cache`` by the digest of its program, and asked only once.
    """
    known = {node.name: (software, _known(node, software, cache)) for node, software in nodes}
    common = set.intersection(*(set(types) for _, types in known.values()))
    newest = max(common, key=machine_order, default="")
    if asked and asked not in common:
        lacks = " and ".join(f"QEMU {one.qemu} on {name}" for name, (one, types) in known.items() if asked not in types)
        other = f"; the newest that all nodes know is {newest}" if newest else ""
        raise StackError(f"the machine type {asked} is not known to {lacks}{other}")
    if not newest:
        if not asked and len({(one.qemu, one.qemu_sha256, types) for one, types in known.values()}) == 1:
            return ""
        named = "; ".join(
            f"QEMU {one.qemu or '(unknown)'} on {name} knows {types[-1] if types else 'none'} and older"
            for name, (one, types) in known.items()
        )
        raise StackError(f"the nodes' QEMUs have no machine type in common: {named}")
    return asked or newest


def _known(node: Node, software: Software, cache: Path) -> tuple[str, ...]:
    """The versioned machine types that the QEMU of ``node`` knows, the oldest first."""
    kept = cache / "machine-types" / f"{software.qemu_sha256}.json" if software.qemu_sha256 else None
    if kept is not None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple(map(str, json.loads(kept.read_bytes())))
    program = software.qemu_path if software.qemu_path.endswith("/qemu-kvm") else "qemu-system-x86_64"
    printed = node.runner.run([program, "-machine", "help"], timeout=_ASK_SECONDS).stdout
    found = machine_types(printed)
    if kept is not None and found:
        # It is asked again where it cannot be kept.
        with contextlib.suppress(OSError):
            make(kept.parent)
            write_atomic(kept, json.dumps(found).encode())
    return found

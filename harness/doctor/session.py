"""What an ordinary user's own libvirt needs: a short way to the sockets of its QEMUs' monitors."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST_SOCKET = 107
"""Bytes in the path of a Unix socket (``sun_path`` without the closing zero)."""

# libvirt: below its own configuration, by the domain's number and the first 20 letters of its name.
_BELOW = "libvirt/qemu/lib/domain-100-drbd-harness-000000-/monitor.sock"


def monitor_socket(environment: dict[str, str] | None = None) -> Path:
    """Where a node's monitor will be, by ``XDG_CONFIG_HOME`` and ``HOME``."""
    named = os.environ if environment is None else environment
    return Path(named.get("XDG_CONFIG_HOME") or Path(named.get("HOME") or Path.home(), ".config")) / _BELOW


def why_too_long(socket: Path) -> str | None:
    """Why QEMU could not be given the monitor ``socket``; None where it can."""
    size = len(os.fsencode(socket))
    if size <= LONGEST_SOCKET:
        return None
    configuration = str(socket).removesuffix(f"/{_BELOW}")
    return (
        f"the sockets of its QEMUs below {configuration} would have paths of {size} bytes, and {LONGEST_SOCKET} are "
        "the most there can be; name a shorter folder, and give the libvirt that runs two minutes to end by itself"
    )


def remedy(user: str) -> str:
    """The command that names a shorter folder."""
    folder = f"/var/tmp/{user}-config"
    return f"mkdir -p -m 0700 {folder} && export XDG_CONFIG_HOME={folder}"

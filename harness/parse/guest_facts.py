"""What a guest's agent tells of itself and of the system that it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What the harness asks an agent for.  An administrator can forbid any of them.
NEEDED = (
    "guest-exec", "guest-exec-status", "guest-get-osinfo", "guest-file-open", "guest-file-write", "guest-file-close",
)  # fmt: skip


@dataclass(frozen=True)
class GuestFacts:
    """The system in a guest: ``release`` is its kernel's, or Windows' build; ``name`` what it calls itself."""

    windows: bool
    release: str
    name: str

    def __str__(self) -> str:
        return f"{self.release} ({self.name})" if self.name else self.release


def forbidden(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of :data:`NEEDED` the agent does not do, by its answer to ``guest-info``; :class:`ValueError`."""
    try:
        enabled = {one["name"] for one in info["supported_commands"] if one["enabled"]}
    except (TypeError, KeyError) as error:
        raise ValueError(f"this is not what an agent answers to guest-info: {error}") from None
    return tuple(command for command in NEEDED if command not in enabled)


def guest_facts(osinfo: Mapping[str, Any]) -> GuestFacts:
    """By its answer to ``guest-get-osinfo``, of which every member may be missing."""
    windows = osinfo.get("id") == "mswindows"
    release = str(osinfo.get("kernel-release") or osinfo.get("kernel-version") or "unknown")
    if windows:
        # The build alone, 20348 say, is not told from a version of Linux.
        release = f"Windows {osinfo.get('kernel-version', '')} build {release}".replace("  ", " ")
    return GuestFacts(windows, release, str(osinfo.get("pretty-name") or osinfo.get("name") or ""))

"""Waiting for nodes to boot, by what they print on their serial consoles."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import libvirt

from harness.errors import DeadlineError, LostNodeError
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util.deadline import Deadline, poll
from harness.util.logs import progress

READY = b"DRBD-HARNESS-NODE-READY"
# After one of these a node will not become ready any more.
FAILED = (b"Kernel panic - not syncing", b"DRBD-HARNESS-NODE-FAILED")
BOOT_SECONDS = 300.0


def wait(connection: LibvirtConnection, consoles: Mapping[str, Path]) -> None:
    """Wait until every domain of ``consoles`` (its name to its console's file) prints that it is ready, at most 300 s.

    :class:`LostNodeError` with the last line of its console when one ends or fails to boot, and when the controller's
    libvirt goes away; :class:`DeadlineError`.
    """
    began = time.monotonic()
    deadline = Deadline.after(BOOT_SECONDS, "the boot of the nodes")
    waiting = dict(consoles)
    reported = 0.0

    def look() -> bool | None:
        nonlocal reported
        for name, console in list(waiting.items()):
            text = _read(console)
            if READY in text:
                progress(f"{name} is up after {time.monotonic() - began:.0f} s")
                del waiting[name]
            elif any(sign in text for sign in FAILED):
                raise LostNodeError(f"{name} failed to boot: {last_message(text)}")
            elif not is_running(connection, name):
                raise LostNodeError(f"{name} ended while it was booting: {last_message(text)}")
        if waiting and time.monotonic() - reported > 10:
            reported = time.monotonic()
            progress(f"waiting for {', '.join(sorted(waiting))} to boot, {reported - began:.0f} s so far")
        return True if not waiting else None

    try:
        poll(look, deadline, every=0.3)
    except DeadlineError as late:
        name, console = next(iter(waiting.items()))
        raise DeadlineError(f"{late}; {name}: {last_message(_read(console))}") from None


def last_message(console: bytes) -> str:
    """The line of a node's console that says why it failed to boot, or else the last one."""
    lines = console.decode(errors="replace").strip().splitlines()
    reasons = [line for line in lines if any(sign.decode() in line for sign in FAILED)]
    return (reasons or lines or ["its console is empty"])[0 if reasons else -1].strip()


def is_running(connection: LibvirtConnection, name: str) -> bool:
    """Whether a domain of that name runs."""
    try:
        return bool(connection.lookupByName(name).isActive())
    except libvirt.libvirtError:
        return False


def _read(console: Path) -> bytes:
    return console.read_bytes() if console.exists() else b""

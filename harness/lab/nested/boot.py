"""Waiting for nodes to boot, by what they say on their serial consoles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import libvirt

from harness.errors import DeadlineError, LostNodeError
from harness.util.deadline import Deadline, poll

READY = b"DRBD-HARNESS-NODE-READY"
# What a node says when waiting for it is of no use any more.
GIVEN_UP = (b"Kernel panic - not syncing", b"DRBD-HARNESS-NODE-FAILED")
BOOT_SECONDS = 300.0


def wait(connection: libvirt.virConnect, consoles: Mapping[str, Path], progress: Callable[[str], None]) -> None:
    """Wait until every domain of ``consoles`` (its name to its console's file) says that it is ready.

    Raises :class:`LostNodeError` when one ends or gives its boot up, with the reason it gave.
    """
    began = time.monotonic()
    deadline = Deadline.after(BOOT_SECONDS, "the boot of the nodes")
    waiting = dict(consoles)
    said = 0.0

    def look() -> bool | None:
        nonlocal said
        for name, console in list(waiting.items()):
            text = _read(console)
            if READY in text:
                progress(f"{name} is up after {time.monotonic() - began:.0f} s")
                del waiting[name]
            elif any(sign in text for sign in GIVEN_UP):
                raise LostNodeError(f"{name} gave its boot up: {last_message(text)}")
            elif not alive(connection, name):
                raise LostNodeError(f"{name} ended while it was booting: {last_message(text)}")
        if waiting and time.monotonic() - said > 10:
            said = time.monotonic()
            progress(f"waiting for {', '.join(sorted(waiting))} to boot, {said - began:.0f} s so far")
        return True if not waiting else None

    try:
        poll(look, deadline, every=0.3)
    except DeadlineError as late:
        name, console = next(iter(waiting.items()))
        raise DeadlineError(f"{late}; {name}: {last_message(_read(console))}") from None


def last_message(console: bytes) -> str:
    """Why a node's console says that it gave up, or else what it said last."""
    lines = console.decode(errors="replace").strip().splitlines()
    reasons = [line for line in lines if any(sign.decode() in line for sign in GIVEN_UP)]
    return (reasons or lines or ["its console is empty"])[0 if reasons else -1].strip()


def alive(connection: libvirt.virConnect, name: str) -> bool:
    """Whether a domain of that name runs."""
    try:
        return bool(connection.lookupByName(name).isActive())
    except libvirt.libvirtError:
        return False


def _read(console: Path) -> bytes:
    return console.read_bytes() if console.exists() else b""

"""What a cell asked for against what was read back from the running machine; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.model import CacheMode, Cell, ClientKind, Observed, ReplicationProfile


class Match(StrEnum):
    """How what was read back stands to what was asked."""

    SAME = "as asked"
    DIFFERENT = "not as asked"
    UNREAD = "not read"
    NOTED = ""


@dataclass(frozen=True)
class Requested:
    """One property: what was asked, what was seen, and how they match.  ``meaning`` says why it matters."""

    what: str
    asked: str
    seen: str
    match: Match
    meaning: str = ""


def requested_and_observed(cell: Cell, seen: Observed) -> tuple[Requested, ...]:
    """Every property of ``cell`` that can be read back, then those that are only noted."""
    guest = _guest(cell.cache, cell, seen) if cell.client is ClientKind.GUEST and cell.cache else ()
    return (*guest, *_delays(cell, seen), *_replication(cell.replication, seen.replication), *_noted(seen))


def _guest(cache: CacheMode, cell: Cell, seen: Observed) -> tuple[Requested, ...]:
    flags = seen.qemu_cache or {}
    wanted = {
        "direct": cache.direct,
        "writeback": cache.guest_write_cache == "write back",
        "no-flush": cache.no_flush,
    }
    names = {name.replace("_", "-"): name for name in flags}
    qemu = [
        _same(f"QEMU cache.{name}", value, flags.get(names.get(name, name)))
        for name, value in wanted.items()
        if seen.qemu_cache is None or name in names
    ]
    others = tuple(
        Requested(f"QEMU cache.{name}", "", _word(flags[own]), Match.NOTED)
        for name, own in names.items()
        if name not in wanted
    )
    return (
        _same("O_DIRECT on the disk", cache.direct, seen.o_direct, "DRBD reads the guest's own pages"),
        *qemu,
        *others,
        _same("aio", cell.aio.value, seen.qemu_aio),
        _same("write_cache in the guest", cache.guest_write_cache, seen.guest_write_cache),
    )


def _delays(cell: Cell, seen: Observed) -> tuple[Requested, ...]:
    delays = (
        ("Link delay", cell.delays.link_delay_ms, seen.link_delay_ms),
        ("Disk delay", cell.delays.disk_delay_ms, seen.disk_delay_ms),
    )
    return tuple(_same(what, f"{wanted} ms", f"{got} ms") for what, wanted, got in delays if wanted or got)


def _replication(wanted: ReplicationProfile, seen: ReplicationProfile | None) -> tuple[Requested, ...]:
    if seen is None:
        return ()
    return (
        _same("Protocol", wanted.protocol, seen.protocol),
        _same("data-integrity-alg", wanted.integrity or "none", seen.integrity or "none"),
        _same(
            "disable_sendpage of DRBD",
            wanted.disable_sendpage,
            seen.disable_sendpage,
            "on: the socket copies each page",
        ),
        _same("Scatter-gather of both NICs", wanted.scatter_gather, seen.scatter_gather),
        _same("Both Primary all the time", wanted.two_primaries, seen.two_primaries),
    )


def _noted(seen: Observed) -> tuple[Requested, ...]:
    flags = "" if seen.open_flags is None else f"0{seen.open_flags:o}"
    rows = (
        ("Open flags (octal)", flags, "of the descriptor in /proc/PID/fdinfo"),
        ("O_SYNC on the disk", _word(seen.o_sync), ""),
        ("stable_writes of DRBD", _word(seen.drbd_stable_writes), "the node holds its own pages still"),
        ("stable_writes in the guest", _word(seen.guest_stable_writes), "the guest holds its pages still"),
        ("Scatter-gather on the link", _word(seen.scatter_gather), "off: the network copies, the window is narrower"),
    )
    return tuple(Requested(what, "", got, Match.NOTED, meaning) for what, got, meaning in rows if got)


def _same(what: str, wanted: bool | str, got: bool | str | None, meaning: str = "") -> Requested:
    match = Match.UNREAD if got is None else Match.SAME if got == wanted else Match.DIFFERENT
    return Requested(what, _word(wanted), _word(got), match, meaning)


def _word(value: bool | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else "on" if value else "off"

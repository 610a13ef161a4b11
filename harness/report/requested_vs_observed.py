"""What a cell requested against name was read back from the running machine; pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.model import CacheMode, Cell, ClientKind, Observed, ReplicationProfile, SwapOn


class Match(StrEnum):
    """Whether name was read back is name was requested."""

    SAME = "as requested"
    DIFFERENT = "not as requested"
    UNREAD = "not read"
    NOTED = ""


@dataclass(frozen=True)
class Property:
    """One property: what was requested, what was observed, whether they match.  ``meaning`` says why it matters."""

    name: str
    requested: str
    observed: str
    match: Match
    meaning: str = ""


def requested_and_observed(cell: Cell, observed: Observed) -> tuple[Property, ...]:
    """Every property of ``cell`` that can be read back, then those that are only noted."""
    guest = _guest(cell.cache, cell, observed) if cell.client is ClientKind.GUEST and cell.cache else ()
    return (*guest, *_delays(cell, observed), *_replication(cell.replication, observed.replication), *_noted(observed))


def _guest(cache: CacheMode, cell: Cell, observed: Observed) -> tuple[Property, ...]:
    flags = observed.qemu_cache or {}
    requested = {
        "direct": cache.direct,
        "writeback": cache.guest_write_cache == "write back",
        "no-flush": cache.no_flush,
    }
    names = {name.replace("_", "-"): name for name in flags}
    qemu = [
        _same(f"QEMU cache.{name}", value, flags.get(names.get(name, name)))
        for name, value in requested.items()
        if observed.qemu_cache is None or name in names
    ]
    others = tuple(
        Property(f"QEMU cache.{name}", "", _text(flags[own]), Match.NOTED)
        for name, own in names.items()
        if name not in requested
    )
    return (
        _same("O_DIRECT on the disk", cache.direct, observed.o_direct, "DRBD reads the guest's own pages"),
        *qemu,
        *others,
        _same("aio", cell.aio.value, observed.qemu_aio),
        _same("write_cache in the guest", cache.guest_write_cache, observed.guest_write_cache),
        *_options(cell, observed),
    )


def _options(cell: Cell, observed: Observed) -> tuple[Property, ...]:
    """What evidence of before it was read does not have is left out, unless it was asked for."""
    disk, guest = cell.disk_options, cell.guest_options
    rows: tuple[tuple[str, bool | str, bool | str | None, bool], ...] = (
        ("Bus", cell.bus.value, observed.qemu_bus, False),
        ("iothread", disk.iothread, observed.qemu_iothread, disk.iothread),
        ("detect-zeroes", disk.detect_zeroes.value, observed.qemu_detect_zeroes, False),
        ("discard", disk.discard.value, observed.qemu_discard, False),
        ("stable_writes in the guest, in use", True, observed.stable_writes_in_use, guest.guest_stable_writes),
    )
    found = [
        _same(name, asked, seen)
        for name, asked, seen, wanted in rows
        if wanted or (seen is not None and name != "stable_writes in the guest, in use")
    ]
    if guest.swap_on is not SwapOn.DRBD:
        swaps = None if observed.guest_swaps is None else ", ".join(observed.guest_swaps)
        found.append(Property("The guest swaps to", guest.swap_on.value, swaps or "", Match.NOTED))
    return tuple(found)


def _delays(cell: Cell, observed: Observed) -> tuple[Property, ...]:
    delays = (
        ("Link delay", cell.delays.link_delay_ms, observed.link_delay_ms),
        ("Disk delay", cell.delays.disk_delay_ms, observed.disk_delay_ms),
        ("Flush delay", cell.delays.flush_delay_ms, observed.flush_delay_ms),
    )
    return tuple(
        _same(name, f"{requested} ms", None if in_force is None else f"{in_force} ms")
        for name, requested, in_force in delays
        if requested or in_force != 0
    )


def _replication(requested: ReplicationProfile, observed: ReplicationProfile | None) -> tuple[Property, ...]:
    if observed is None:
        return ()
    plain = ReplicationProfile()
    return (
        _same("Protocol", requested.protocol, observed.protocol),
        _same("data-integrity-alg", requested.integrity or "none", observed.integrity or "none"),
        _same(
            "disable_sendpage of DRBD",
            requested.disable_sendpage,
            observed.disable_sendpage,
            "on: the socket copies each page",
        ),
        _same("Scatter-gather of both NICs", requested.scatter_gather, observed.scatter_gather),
        _same("Two Primaries allowed", requested.permits_two_primaries, observed.two_primaries),
        *(
            _same(name, one, other)
            for name, one, other, default in (
                ("Transport", requested.transport, observed.transport, plain.transport),
                ("TLS", requested.tls, observed.tls, plain.tls),
                ("Quorum", requested.quorum, observed.quorum, plain.quorum),
                ("auto-promote", requested.auto_promote, observed.auto_promote, plain.auto_promote),
                ("Bitmap blocks", requested.bitmap_block_size, observed.bitmap_block_size, plain.bitmap_block_size),
            )
            # Which only DRBD 9 has.
            if (one, other) != (default, default)
        ),
    )


def _noted(observed: Observed) -> tuple[Property, ...]:
    flags = "" if observed.open_flags is None else f"0{observed.open_flags:o}"
    rows: tuple[tuple[str, str, str], ...] = (
        ("Open flags (octal)", flags, "of the descriptor in /proc/PID/fdinfo"),
        ("O_SYNC on the disk", _text(observed.o_sync), ""),
        ("stable_writes of DRBD", _text(observed.drbd_stable_writes), "the node holds its own pages still"),
        ("stable_writes in the guest", _text(observed.guest_stable_writes), "the guest holds its pages still"),
        (
            "Scatter-gather on the link",
            _text(observed.scatter_gather),
            "off: the network copies, the window is narrower",
        ),
    )
    for node, settings in observed.nodes.items():
        nic = f"Scatter-gather of {node}'s replication NIC ({settings.nic})"
        rows += (
            (nic, _text(settings.scatter_gather), ""),
            (f"stable_writes of DRBD on {node}", _text(settings.drbd_stable_writes), ""),
        )
    return tuple(Property(name, "", value, Match.NOTED, meaning) for name, value, meaning in rows if value)


def _same(name: str, requested: bool | str, observed: bool | str | None, meaning: str = "") -> Property:
    match = Match.UNREAD if observed is None else Match.SAME if observed == requested else Match.DIFFERENT
    return Property(name, _text(requested), _text(observed), match, meaning)


def _text(value: bool | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else "on" if value else "off"

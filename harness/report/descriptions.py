"""A cell, its replication and what happens in it, in words; pure."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model import Cell, ClientKind, Crash, Fault, Protocol, ReplicationProfile, State
from harness.report.formatting import joined, plural

CRASHES: Mapping[Crash, str] = {
    Crash.NODE: "the Primary loses its power",
    Crash.QEMU: "QEMU is killed",
    Crash.RESET: "the guest is reset",
}

FAULTS: Mapping[Fault, str] = {
    Fault.LINK_CUT: "the replication link is cut in mid-migration",
    Fault.TARGET_KILL: "the target node loses its power in mid-migration",
    Fault.LIBVIRTD_RESTART: "the source's libvirtd is restarted in mid-migration",
    Fault.STALL: "the migration gets too little bandwidth to end",
    Fault.IO_ERROR: "both lower devices fail",
    Fault.STANDALONE: "both nodes are StandAlone from the start",
}


def describe(cell: Cell) -> str:
    """A cell in words: who writes what, through what, for how long, and what is done to it meanwhile."""
    wide = [
        f"{name} {delay} ms"
        for name, delay in (("link", cell.delays.link_delay_ms), ("disk", cell.delays.disk_delay_ms))
        if delay
    ]
    through = "on the node itself"
    if cell.client is ClientKind.GUEST:
        through = f"in a guest, cache={cell.cache}, aio={cell.aio}, bus={cell.bus}"
    parts = [
        f"{cell.workload}{_place(cell)} {through}",
        f"{cell.seconds} s of work",
        f"delayed by {joined(wide)}" if wide else "nothing delayed",
        "" if cell.replication.plain else replication_text(cell.replication),
        _migrations(cell),
        CRASHES[cell.crash] if cell.crash else "",
        FAULTS[cell.fault] if cell.fault else "",
    ]
    return ", ".join(part for part in parts if part)


def replication_text(replication: ReplicationProfile) -> str:
    """How DRBD replicates: the protocol always, the rest where it is not the harness's default."""
    parts = [
        f"protocol {replication.protocol}",
        f"digest {replication.integrity}" if replication.integrity else "",
        "sendpage disabled" if replication.disable_sendpage else "",
        "" if replication.scatter_gather else "no scatter-gather",
        "two Primaries" if replication.two_primaries else "",
    ]
    return ", ".join(part for part in parts if part)


def replication_order(replication: ReplicationProfile) -> tuple[int, str]:
    """A key that puts the default replication first and the weaker protocols last."""
    return -list(Protocol).index(replication.protocol), replication.suffix()


def state_text(state: State | None) -> str:
    """What DRBD says of the resource; empty where nobody asked it."""
    if state is None:
        return ""
    return (
        f"{state.connection}, {state.local_role}/{state.peer_role}, {state.local_disk}/{state.peer_disk}, "
        f"{state.replication}"
    )


def _place(cell: Cell) -> str:
    places = [str(kind) for kind in (cell.filesystem, cell.layout) if kind != "raw"]
    return f" on {' on '.join(places)}" if places else ""


def _migrations(cell: Cell) -> str:
    if not cell.migrations:
        return ""
    unsafe = ", also where libvirt calls it unsafe" if cell.unsafe_migration else ""
    return f"{plural(cell.migrations, 'live migration')} of at most {cell.migration_deadline} s each{unsafe}"

"""A cell, its arm and what happens in it, in words; pure."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model import Arm, Cell, ClientKind, Crash, Fault, Protocol, State
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
        for name, delay in (("link", cell.widener.link_delay_ms), ("disk", cell.widener.disk_delay_ms))
        if delay
    ]
    through = "on the node itself"
    if cell.client is ClientKind.GUEST:
        through = f"in a guest, cache={cell.cache}, aio={cell.aio}, bus={cell.bus}"
    parts = [
        f"{cell.workload} {through}",
        f"{cell.seconds} s of work",
        f"widened by {joined(wide)}" if wide else "nothing widened",
        "" if cell.arm.plain else arm_words(cell.arm),
        _migrations(cell),
        CRASHES[cell.crash] if cell.crash else "",
        FAULTS[cell.fault] if cell.fault else "",
    ]
    return ", ".join(part for part in parts if part)


def arm_words(arm: Arm) -> str:
    """How DRBD replicates: the protocol always, the rest where it is not the harness's default."""
    parts = [
        f"protocol {arm.protocol}",
        f"digest {arm.integrity}" if arm.integrity else "",
        "sendpage disabled" if arm.disable_sendpage else "",
        "" if arm.scatter_gather else "no scatter-gather",
        "two Primaries" if arm.two_primaries else "",
    ]
    return ", ".join(part for part in parts if part)


def arm_order(arm: Arm) -> tuple[int, str]:
    """A key that puts the default arm first and the weaker protocols last."""
    return -list(Protocol).index(arm.protocol), arm.suffix()


def state_words(state: State | None) -> str:
    """What DRBD says of the resource; empty where nobody asked it."""
    if state is None:
        return ""
    return (
        f"{state.connection}, {state.local_role}/{state.peer_role}, {state.local_disk}/{state.peer_disk}, "
        f"{state.replication}"
    )


def _migrations(cell: Cell) -> str:
    if not cell.migrations:
        return ""
    unsafe = ", also where libvirt calls it unsafe" if cell.unsafe_migration else ""
    return f"{plural(cell.migrations, 'live migration')} of at most {cell.migration_deadline} s each{unsafe}"

"""A cell, its replication profile and its disturbances as sentences; pure."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model import (
    Cell,
    ClientKind,
    Crash,
    DelayProfile,
    DetectZeroes,
    Discard,
    Fault,
    FilesystemKind,
    Layout,
    Protocol,
    ReplicationProfile,
    Sabotage,
    State,
    SwapOn,
)
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

SABOTAGES: Mapping[Sabotage, str] = {
    Sabotage.DELAY_LEFT_A: "a delay that nobody asked for is left on node a",
    Sabotage.DELAY_LEFT_B: "a delay that nobody asked for is left on node b",
    Sabotage.SCATTER_GATHER_OFF_A: "scatter-gather is switched off behind its back on node a",
    Sabotage.SCATTER_GATHER_OFF_B: "scatter-gather is switched off behind its back on node b",
    Sabotage.FLIP_FILE: "one byte of a file is inverted below DRBD",
    Sabotage.FLIP_FREE: "one byte of free space is inverted below DRBD",
    Sabotage.FLIP_OWNERS: "one byte in a block of each class that the filesystem has is inverted below DRBD",
    Sabotage.FLIP_SWAP_SLOT: "one byte of a swap slot in use is inverted below DRBD",
    Sabotage.SILENT_VERIFY: "drbdadm verify does nothing while a block differs",
    Sabotage.PARTIAL_VERIFY: "drbdadm verify leaves out the part of the device in which a block differs",
    Sabotage.BLIND_VERIFY: "drbdadm verify does not report a block that differs",
    Sabotage.IDLE_WORKLOAD: "the workload does nothing",
    Sabotage.STOPPED_NODE: "node b stops in mid-work",
    Sabotage.STOPPED_GUEST: "the guest's QEMU stops in mid-work",
    Sabotage.STOPPED_LIBVIRTD: "libvirtd on node a is stopped in mid-work",
    Sabotage.KILLED_LIBVIRTD: "the controller's libvirtd is killed in mid-work",
    Sabotage.FULL_DISK: "the disk of node a is full",
    Sabotage.LOST_EVENTS: "whoever reads DRBD's events is killed in mid-work",
    Sabotage.LOST_KERNEL_MESSAGES: "the kernel log of node a loses messages",
    Sabotage.DAMAGE_SUPERBLOCK: "the superblock is damaged before the filesystem is mounted again",
    Sabotage.DAMAGE_DIRECTORY: "a directory is damaged before the filesystem is mounted again",
    Sabotage.SWAP_LEFT_ON: "the guest still swaps to the disk when it is detached",
    Sabotage.MOUNT_LEFT: "the guest still has the disk mounted when it is detached",
}


def describe(cell: Cell) -> str:
    """A cell as one sentence: workload, filesystem, client, duration, delays, replication profile, disturbances."""
    client = "on the node itself"
    if cell.client is ClientKind.GUEST:
        client = f"in a guest, cache={cell.cache}, aio={cell.aio}, bus={cell.bus}{_options_text(cell)}"
    parts = [
        f"{_work_text(cell)} {filesystem_text(cell)} {client}",
        f"{cell.seconds} s of work",
        delays_text(cell.delays),
        "" if cell.replication.plain else str(cell.replication),
        _migrations(cell),
        CRASHES[cell.crash] if cell.crash else "",
        FAULTS[cell.fault] if cell.fault else "",
        SABOTAGES[cell.sabotage] if cell.sabotage else "",
    ]
    return ", ".join(part for part in parts if part)


def _options_text(cell: Cell) -> str:
    """What QEMU and the guest are told besides: ``, iothread, discard=unmap, stable_writes in the guest``."""
    disk, guest = cell.disk_options, cell.guest_options
    parts = (
        ("iothread", disk.iothread),
        (f"detect-zeroes={disk.detect_zeroes}", disk.detect_zeroes is not DetectZeroes.OFF),
        (f"discard={disk.discard}", disk.discard is not Discard.IGNORE),
        ("stable_writes in the guest", guest.guest_stable_writes),
        ("online discard", guest.online_discard),
        (f"swap on {guest.swap_on}", guest.swap_on is not SwapOn.DRBD),
    )
    return "".join(f", {text}" for text, there in parts if there)


def delays_text(delays: DelayProfile) -> str:
    """``delays: link 20 ms and disk 5 ms``, or ``no delays``."""
    named = (("link", delays.link_delay_ms), ("disk", delays.disk_delay_ms), ("flush", delays.flush_delay_ms))
    on = [f"{name} {delay} ms" for name, delay in named if delay]
    return f"delays: {joined(on)}" if on else "no delays"


def _work_text(cell: Cell) -> str:
    """The workload; a user's own file by its name: ``fio-job (mine.fio)``."""
    return f"{cell.workload} ({cell.user_file.name})" if cell.user_file else cell.workload


def filesystem_text(cell: Cell) -> str:
    """What the workload writes to: ``on ext4``, ``on ext4 (layout lvm)``, ``on the raw device``."""
    filesystem = "on the raw device" if cell.filesystem is FilesystemKind.RAW else f"on {cell.filesystem}"
    return filesystem if cell.layout is Layout.RAW else f"{filesystem} (layout {cell.layout})"


def replication_order(replication: ReplicationProfile) -> tuple[int, str]:
    """A key that puts the default replication first and the weaker protocols last."""
    return -list(Protocol).index(replication.protocol), replication.suffix()


def state_text(state: State | None) -> str:
    """What DRBD reported of the resource; empty where it was not read."""
    return str(state) if state else ""


def _migrations(cell: Cell) -> str:
    if not cell.migrations:
        return ""
    unsafe = ", also where libvirt calls it unsafe" if cell.unsafe_migration else ""
    return f"{plural(cell.migrations, 'live migration')} of at most {cell.migration_deadline} s each{unsafe}"

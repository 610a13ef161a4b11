"""What goes with what in one cell: the rules over more than one key."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from harness.config.sentences import hint
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Crash,
    DiskBus,
    Fault,
    FilesystemKind,
    Layout,
    Quorum,
    Sabotage,
    SwapOn,
)
from harness.model.acknowledgement import QEMU_PROBES

#: The keys that only a guest has: with ``client = "host"`` there is no QEMU.
GUEST_ONLY = (
    "cache", "aio", "bus", "migrations", "unsafe_migration", "migration_deadline", "crash", "fault", "sabotage",
    "iothread", "detect_zeroes", "discard", "guest_stable_writes", "online_discard", "swap_on", "mitigation", "preset",
)  # fmt: skip
# A flush that is shorter cannot be told from what a busy machine takes for anything.
LEAST_FLUSH_MS = 200
#: What a sabotage needs on the device.
_SABOTAGE_NEEDS = {
    Sabotage.FLIP_FILE: FilesystemKind.EXT4,
    Sabotage.FLIP_FREE: FilesystemKind.EXT4,
    Sabotage.FLIP_SWAP_SLOT: FilesystemKind.SWAP,
    Sabotage.SILENT_VERIFY: FilesystemKind.RAW,
    Sabotage.PARTIAL_VERIFY: FilesystemKind.RAW,
    Sabotage.BLIND_VERIFY: FilesystemKind.RAW,
    Sabotage.IDLE_WORKLOAD: FilesystemKind.SWAP,
    Sabotage.DAMAGE_SUPERBLOCK: FilesystemKind.EXT4,
    Sabotage.DAMAGE_DIRECTORY: FilesystemKind.EXT4,
    Sabotage.SWAP_LEFT_ON: FilesystemKind.SWAP,
    Sabotage.MOUNT_LEFT: FilesystemKind.EXT4,
}


def broken_rule(cell: Cell, given: Collection[str], usable: Collection[FilesystemKind]) -> str | None:
    """The first rule that ``cell`` breaks, as the end of a sentence; None if it breaks none.

    ``given``: the keys that were written for it; ``usable``: the filesystems that its workload can use.
    """
    return next(_broken(cell, given, usable), None)


def _broken(cell: Cell, given: Collection[str], usable: Collection[FilesystemKind]) -> Iterator[str]:
    if cell.filesystem not in usable:
        yield (
            f"the workload '{cell.workload}' does not go with filesystem = \"{cell.filesystem}\""
            f"{hint(cell.filesystem, usable)}"
        )
    probe = cell.workload in QEMU_PROBES
    of_a_guest = [key for key in GUEST_ONLY if key in given and not (probe and key in ("cache", "aio"))]
    if cell.client is ClientKind.HOST and of_a_guest:
        yield f"'{of_a_guest[0]}' is given with client = \"host\", which has no QEMU; leave it out"
    if probe:
        yield from _broken_by_probe(cell)
    elif cell.client is ClientKind.GUEST and cell.cache is None:
        yield f"'cache' is missing, a guest needs one{hint('', CacheMode)}"
    if cell.fault is not None and cell.fault.needs_migration and not cell.migrations:
        yield f"'fault' is '{cell.fault}', which is injected in mid-migration; give 'migrations' too"
    if cell.unsafe_migration and not cell.migrations:
        yield "'unsafe_migration' is given without 'migrations'"
    if cell.migrations and cell.deadline <= cell.migration_deadline:
        yield f"'deadline' is {cell.deadline}, no more than 'migration_deadline', {cell.migration_deadline}"
    if cell.replication.two_primaries and (cell.migrations or cell.crash is not None or cell.fault is not None):
        yield "'two_primaries' goes with none of 'migrations', 'crash' and 'fault'"
    if cell.replication.quorum is not Quorum.OFF and cell.crash is Crash.NODE:
        yield f"'quorum' is '{cell.replication.quorum}', which no node has alone; not with crash = \"{Crash.NODE}\""
    if cell.crash is not None and (cell.migrations or cell.fault is not None):
        yield "'crash' goes with neither 'migrations' nor 'fault': one thing at a time"
    if cell.crash is not None and cell.filesystem.damaged_by_crash:
        yield f"'crash' does not go with filesystem = \"{cell.filesystem}\": without a journal it may break on any disk"
    if cell.layout is not Layout.RAW:
        yield from _broken_by_layout(cell)
    yield from _broken_by_options(cell)
    if cell.sabotage is not None:
        yield from _broken_by_sabotage(cell, cell.sabotage)
    if cell.deadline <= cell.seconds:
        yield f"'deadline' is {cell.deadline}, which leaves no time behind 'seconds' = {cell.seconds}"


def _broken_by_probe(cell: Cell) -> Iterator[str]:
    """Rules over a workload that asks the node's QEMU whether it flushes."""
    what = f"the workload '{cell.workload}'"
    if cell.client is not ClientKind.HOST:
        yield f'{what} asks the QEMU of the node; write client = "host"'
    if cell.cache is CacheMode.DIRECTSYNC:
        # Its O_DIRECT writes may carry FUA, which is no flush that the delay holds up: they would look early.
        yield f'{what} cannot tell with cache = "{cell.cache}": QEMU may flush by FUA then, which no delay holds up'
    elif cell.cache is not CacheMode.WRITETHROUGH:
        wanted = f'cache = "{CacheMode.WRITETHROUGH}", with which QEMU flushes by itself'
        yield f"{what} is about {wanted}, not {cell.cache or 'none given'}"
    if cell.delays.flush_delay_ms < LEAST_FLUSH_MS:
        yield f"{what} needs flushes that take long: 'flush_delay_ms' of {LEAST_FLUSH_MS} at least"
    if cell.delays.disk_delay_ms or cell.delays.link_delay_ms:
        yield f"{what} goes with no other delay than 'flush_delay_ms': a write that is late looks flushed"
    if cell.layout is not Layout.RAW:
        yield f'{what} goes with layout = "{Layout.RAW}" only, not "{cell.layout}"'


def _broken_by_options(cell: Cell) -> Iterator[str]:
    """Rules over what QEMU and the guest are told beside cache, aio and bus."""
    swap_on, happens = cell.guest_options.swap_on, cell.has_canary
    if swap_on is not SwapOn.DRBD and cell.filesystem is not FilesystemKind.SWAP:
        yield f"'swap_on' is '{swap_on}', which needs filesystem = \"{FilesystemKind.SWAP}\", not \"{cell.filesystem}\""
    if swap_on is not SwapOn.DRBD and cell.layout is not Layout.RAW:
        yield f"'swap_on' is '{swap_on}', which does not go with layout = \"{cell.layout}\": nothing would be on it"
    if swap_on is SwapOn.GUEST_DISK and happens:
        yield f"'swap_on' is '{swap_on}', a disk on one node; it goes with none of 'migrations', 'crash' and 'fault'"
    if cell.guest_options.online_discard and cell.filesystem is FilesystemKind.NTFS_3G:
        yield f"'online_discard' does not go with filesystem = \"{cell.filesystem}\", which has no such option"
    if not cell.bus.hot_plugged and happens:
        yield (
            f"'bus' is '{cell.bus}', for which a guest is started with the disk; it goes with none of 'migrations', "
            "'crash' and 'fault'"
        )
    if not cell.bus.hot_plugged and cell.disk_options.iothread:
        yield f'\'iothread\' goes with bus = "{DiskBus.VIRTIO}" or "{DiskBus.SCSI}", not "{cell.bus}"'
    if cell.replication.two_primaries and cell.replication.allow_two_primaries:
        yield "'two_primaries' means 'allow_two_primaries' too; leave that out"


def _broken_by_layout(cell: Cell) -> Iterator[str]:
    layout = f"'layout' is '{cell.layout}'"
    if cell.client is ClientKind.HOST and cell.layout is Layout.CRYPT_NODE:
        yield f'{layout}, which lies below QEMU; with client = "host" write layout = "{Layout.CRYPT}"'
    elif cell.client is ClientKind.HOST and cell.layout.on_node:
        yield f'{layout}, a file that QEMU opens; with client = "host" there is no QEMU'
    elif cell.layout.on_node and cell.migrations:
        # The other would see a device that changes under what it has in use.
        yield f"{layout}, which only one node may have in use; it does not go with 'migrations'"
    elif cell.layout.on_node and cell.crash is Crash.NODE:
        yield f'{layout}, which went with its node; with it \'crash\' is "{Crash.QEMU}" or "{Crash.RESET}"'
    elif cell.layout.on_node and cell.fault is not None and cell.fault is not Fault.STANDALONE:
        yield f"{layout}, which would have the fault before its guest; with it 'fault' is \"{Fault.STANDALONE}\" only"
    elif cell.has_canary and cell.layout is Layout.PARTITIONED:
        yield (
            f"{layout}, and with 'migrations', 'crash' or 'fault' the workload's part of the disk is a partition "
            "already, which the kernel does not look into for others"
        )
    if cell.replication.two_primaries and cell.layout.on_node:
        yield f"{layout}, which only one node may have in use; it does not go with 'two_primaries'"
    if cell.sabotage not in (None, Sabotage.FLIP_OWNERS):
        yield f"'sabotage' is '{cell.sabotage}', which goes with layout = \"{Layout.RAW}\" only, and {layout}"


def _broken_by_sabotage(cell: Cell, sabotage: Sabotage) -> Iterator[str]:
    needed = _SABOTAGE_NEEDS.get(sabotage, cell.filesystem)
    if cell.filesystem is not needed:
        yield f"'sabotage' is '{sabotage}', which needs filesystem = \"{needed}\", not \"{cell.filesystem}\""
    if sabotage in (Sabotage.DELAY_LEFT_A, Sabotage.DELAY_LEFT_B) and not cell.delays.undelayed:
        yield f"'sabotage' is '{sabotage}', which goes with neither 'link_delay_ms' nor 'disk_delay_ms'"
    if sabotage in (Sabotage.SCATTER_GATHER_OFF_A, Sabotage.SCATTER_GATHER_OFF_B) and not (
        cell.replication.scatter_gather
    ):
        yield f"'sabotage' is '{sabotage}', which does not go with scatter_gather = false"
    if sabotage.after_crash and cell.crash is not Crash.QEMU:
        yield f"'sabotage' is '{sabotage}', which needs crash = \"{Crash.QEMU}\": it damages what that left"
    crash = cell.crash is not None and not sabotage.after_crash
    if cell.migrations or crash or cell.fault is not None or cell.control is not None:
        yield "'sabotage' goes with none of 'migrations', 'crash', 'fault' and 'control'"

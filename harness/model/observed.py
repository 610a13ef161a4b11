"""What was in force while a cell ran, read back from the running machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.cell import DelayProfile, ReplicationProfile

#: What the disk under test is called among what a guest swaps to.
DISK_UNDER_TEST = "the disk under test"


@dataclass(frozen=True)
class NodeSettings:
    """What was in force on one node for the client's writes.  None: could not be read, or does not apply.

    ``nic`` is its replication NIC.  ``replication`` counts a NIC that does not tell its scatter-gather as one that has
    it; ``scatter_gather`` does not.
    """

    replication: ReplicationProfile
    nic: str = ""
    scatter_gather: bool | None = None
    drbd_stable_writes: bool | None = None


@dataclass(frozen=True)
class DelayReading:
    """The delays of each node, by name, as they were read ``when``; None: could not be read.

    ``delayed`` is the node that was to have the cell's delays then, None where none was.  ``over``: everything was
    written by then.
    """

    when: str
    delayed: str | None
    nodes: Mapping[str, DelayProfile | None] = field(default_factory=dict)
    over: bool = False


@dataclass(frozen=True)
class Observed:
    """What was in force, against what was requested.  None: could not be read, or does not apply.

    ``link_delay_ms``, ``disk_delay_ms`` and ``flush_delay_ms`` are those of the node that the client wrote on, read
    when they were on; ``delays`` are all readings of both nodes, ``nodes`` their other settings by name.
    ``qemu_format`` is the driver of QEMU's topmost block node, as ``raw`` or ``luks``; ``qemu_bus`` the bus in the
    domain's definition.  ``guest_stable_writes`` is read before the disk is used, ``stable_writes_in_use`` once it is,
    as are ``guest_swaps``, the devices and files that the guest swaps to, and ``guest_mount_options``.  Evidence of
    before these were read has none of them.
    """

    open_flags: int | None = None
    o_direct: bool | None = None
    o_sync: bool | None = None
    qemu_cache: Mapping[str, bool] | None = None
    qemu_aio: str | None = None
    guest_write_cache: str | None = None
    guest_stable_writes: bool | None = None
    drbd_stable_writes: bool | None = None
    scatter_gather: bool | None = None
    link_delay_ms: int | None = 0
    disk_delay_ms: int | None = 0
    flush_delay_ms: int | None = 0
    replication: ReplicationProfile | None = None
    delays: tuple[DelayReading, ...] = ()
    nodes: Mapping[str, NodeSettings] = field(default_factory=dict)
    qemu_bus: str | None = None
    qemu_format: str | None = None
    qemu_iothread: bool | None = None
    qemu_detect_zeroes: str | None = None
    qemu_discard: str | None = None
    stable_writes_in_use: bool | None = None
    guest_swaps: tuple[str, ...] | None = None
    guest_mount_options: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ObservedAfterMove:
    """The same of the disk on the ``node`` that migration number ``migration`` brought the guest to.

    ``observed`` is None where it could not be read, and ``message`` says why.
    """

    migration: int
    node: str
    observed: Observed | None
    message: str = ""

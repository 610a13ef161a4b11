"""What was seen: the facts that a piece of evidence is made of.  Seconds; KiB, bytes and blocks say which they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.axes import Crash
from harness.model.cell import ReplicationProfile
from harness.model.device import Extent, blocks_of


class MigrationOutcome(StrEnum):
    """How one live migration ended."""

    COMPLETED = "completed"
    REFUSED = "refused"  # libvirt, QEMU or DRBD would not begin
    ABORTED = "aborted"  # its deadline came first; the guest stayed where it was
    FAILED = "failed"  # it broke under way


class BlockOwner(StrEnum):
    """Who a differing block belongs to once the workload is over."""

    ALLOCATED = "allocated"  # data that a file, a swap area in use or the application on the raw device holds
    FREE = "free"  # nobody will read it before it is written again
    METADATA = "metadata"  # the structures of the filesystem or the swap area itself
    JOURNAL = "journal"
    UNKNOWN = "unknown"


class PlantedKind(StrEnum):
    """How something was changed below DRBD on purpose."""

    SECTORS = "sectors"  # whole sectors were overwritten with random data
    BYTE = "byte"  # one byte of a sector was inverted


class FilesystemCheck(StrEnum):
    """What fsck found in a filesystem that is not in use."""

    CLEAN = "clean"
    DAMAGED = "damaged"
    UNCHECKED = "could not be checked"


@dataclass(frozen=True, order=True)
class PlantedChange(Extent):
    """What was changed below DRBD on purpose: which sectors, on which ``node``, and how.

    ``byte`` is the offset of the byte that was inverted in its sector, None where whole sectors were overwritten.
    Evidence of schema 1 does not know the node: it was the Secondary.
    """

    node: str = ""
    kind: PlantedKind = PlantedKind.SECTORS
    byte: int | None = None


@dataclass(frozen=True)
class NodeVerify:
    """One node's kernel log of one online verify.

    ``found_blocks`` is the log's own count (the whole bitmap's weight), None where it printed none.
    """

    node: str
    started: bool
    finished: bool
    extents: tuple[Extent, ...]
    found_blocks: int | None = None


@dataclass(frozen=True)
class Verify:
    """One `drbdadm verify`: what both kernels logged of it, and how long it took."""

    source: NodeVerify
    target: NodeVerify
    seconds: float
    skipped_blocks: int = 0

    @property
    def complete(self) -> bool:
        """Both its start and its end were seen on the node that ran it."""
        return self.source.started and self.source.finished


@dataclass(frozen=True)
class Counters:
    """DRBD's own counters of one volume on one node; all in KiB."""

    sent_kib: int
    received_kib: int
    disk_write_kib: int
    disk_read_kib: int
    out_of_sync_kib: int


@dataclass(frozen=True)
class State:
    """What DRBD reports of the resource: connection, disks and roles, in DRBD's terms."""

    connection: str
    local_role: str
    peer_role: str
    local_disk: str
    peer_disk: str
    replication: str = "Established"

    def __str__(self) -> str:
        roles, disks = f"{self.local_role}/{self.peer_role}", f"{self.local_disk}/{self.peer_disk}"
        return f"{self.connection}, {roles}, {disks}, {self.replication}"

    @property
    def healthy(self) -> bool:
        """Connected, both UpToDate, nothing under way."""
        return (self.connection, self.local_disk, self.peer_disk, self.replication) == (
            "Connected", "UpToDate", "UpToDate", "Established")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The block-by-block comparison of the two backing devices, read outside DRBD."""

    blocks: int
    differing: tuple[Extent, ...]
    seconds: float
    where: str

    @property
    def differing_blocks(self) -> int:
        """How many 4 KiB blocks differ."""
        return len(blocks_of(self.differing))


@dataclass(frozen=True)
class Sample:
    """A differing block, a piece of both sides, and whose it is.

    ``offset`` is the byte in the block at which the two sides first differ; ``a`` and ``b`` are up to
    32 bytes from there on as hex.
    """

    block: int
    offset: int
    differing_bytes: int
    a: str
    b: str
    owner: BlockOwner = BlockOwner.UNKNOWN
    detail: str = ""


@dataclass(frozen=True)
class Ownership:
    """Who the differing blocks belong to, counted, and by what reasoning."""

    allocated: int = 0
    free: int = 0
    metadata: int = 0
    journal: int = 0
    unknown: int = 0
    method: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What was in force, against what was requested.  None: could not be read, or does not apply."""

    open_flags: int | None = None
    o_direct: bool | None = None
    o_sync: bool | None = None
    qemu_cache: Mapping[str, bool] | None = None
    qemu_aio: str | None = None
    guest_write_cache: str | None = None
    guest_stable_writes: bool | None = None
    drbd_stable_writes: bool | None = None
    scatter_gather: bool | None = None
    link_delay_ms: int = 0
    disk_delay_ms: int = 0
    replication: ReplicationProfile | None = None


@dataclass(frozen=True)
class Work:
    """What a workload did.  ``facts`` are its own figures; ``read_back_errors`` counts wrong data it read.

    ``opportunities``: how many chances to diverge the workload made on purpose, by its own count; None where it cannot
    count them.  Chance may add some, so that more blocks than these may differ.  ``opportunity`` says what one of them
    is, in the plural.
    """

    seconds: float
    facts: Mapping[str, float] = field(default_factory=dict)
    read_back_errors: int = 0
    notes: tuple[str, ...] = ()
    opportunities: float | None = None
    opportunity: str = ""


@dataclass(frozen=True)
class Repair:
    """How equality was restored, and whether the comparison says so."""

    method: str
    seconds: float
    differing_after: int


@dataclass(frozen=True)
class Migration:
    """One live migration of the guest.

    ``began`` is in seconds since the work began (for ``during`` = "readback": since the first read-back),
    ``seconds`` from the call to its end, ``two_primaries_seconds`` how long both nodes were Primary for it.
    ``downtime_ms``, ``iterations`` and ``transferred_bytes`` are QEMU's figures as libvirt hands them on, or None.
    ``throttle_percent`` is how far auto-converge slowed the guest down at most.  ``message`` is that of libvirt, QEMU
    or DRBD when it did not complete.
    """

    number: int
    source: str
    target: str
    outcome: MigrationOutcome
    began: float
    seconds: float
    downtime_ms: float | None = None
    iterations: int | None = None
    transferred_bytes: int | None = None
    memory_bytes: int | None = None
    throttle_percent: int | None = None
    two_primaries_seconds: float = 0.0
    during: str = "work"
    message: str = ""


@dataclass(frozen=True)
class Readback:
    """The guest read the whole device before a migration and after it, and nothing wrote in between.

    ``differing`` is what it read differently; ``ownership`` whose that is.  ``before`` and ``after`` are the nodes.
    """

    blocks: int
    before: str
    after: str
    differing: tuple[Extent, ...] = ()
    ownership: Ownership = Ownership()
    seconds: float = 0.0

    @property
    def differing_blocks(self) -> int:
        """How many 4 KiB blocks the guest read differently."""
        return len(blocks_of(self.differing))


@dataclass(frozen=True)
class Canary:
    """What the guest process with the checksummed records kept and lost.

    ``acknowledged``, ``lost``: records by how they were written (``fsync``, ``dsync``, ``direct``): those the guest
    got acknowledged, and those of them that are not there any more (an older record or none in their place).
    ``corrupt`` counts records of the disk whose checksum is wrong although nothing was writing them; ``memory_wrong``
    records in memory that are not what was put there, of ``memory_checked`` checks.  ``examples`` are sentences.
    ``longest_gap_seconds`` is the longest time in which it got nothing done: what a user feels.
    """

    acknowledged: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    corrupt: int = 0
    memory_checked: int = 0
    memory_wrong: int = 0
    longest_gap_seconds: float = 0.0
    survived: bool = True
    examples: tuple[str, ...] = ()

    @property
    def total_lost(self) -> int:
        """Acknowledged records that are gone, however they were written."""
        return sum(self.lost.values())


@dataclass(frozen=True)
class CrashRecovery:
    """What was found after a crash.

    Seconds are counted from the crash: until the peer was ``promoted``, until the guest answered again, until the
    replicas were ``rejoined`` (both UpToDate again).  ``differing_blocks`` is how many blocks of the two disks differed
    right after the crash, before anything was resynced.  ``mounted``: whether the filesystem could be mounted, which
    replays its journal; None where there is none, or where it is not known.  ``mount_message`` is the reason of mount
    where it could not.  ``fsck_status`` is fsck's exit status after that (:mod:`harness.parse.fsck`), None where there
    is no filesystem.
    """

    crash: Crash
    crashed_at: float = 0.0
    promoted_seconds: float | None = None
    guest_seconds: float | None = None
    rejoined_seconds: float | None = None
    differing_blocks: int | None = None
    resynced_kib: int | None = None
    fsck_status: int | None = None
    fsck_message: str = ""
    wrong_reads: int = 0
    mounted: bool | None = None
    mount_message: str = ""


@dataclass(frozen=True)
class SplitBrain:
    """A split brain: both replicas were written apart from each other.

    ``after_seconds``: from the first digest failure to the moment DRBD dropped the connection, by one kernel's clock;
    None where there was no digest failure.  ``states`` are what each node reported before the repair;
    ``differing_blocks`` what the comparison found then.  ``victim``: the node whose changes were discarded.
    ``confirmed``: a kernel logged the split brain; else a node was StandAlone for another reason.
    """

    after_seconds: float | None
    states: Mapping[str, State]
    differing_blocks: int | None
    victim: str
    repaired: bool
    confirmed: bool = True


@dataclass(frozen=True)
class Alarms:
    """What DRBD itself noticed while the workload had the device.

    ``mismatches``: writes whose buffer the sender saw changed; ``failures``: writes whose digest the receiver found
    wrong; each in the order of the kernel log, repeats included.  ``drops``: how often the connection was lost;
    ``down_seconds``: how long it was not Connected and UpToDate, in ``watched_seconds``; ``resynced_kib``: how much was
    copied again for it.
    """

    algorithm: str = ""
    mismatches: tuple[Extent, ...] = ()
    failures: tuple[Extent, ...] = ()
    drops: int = 0
    down_seconds: float = 0.0
    watched_seconds: float = 0.0
    resynced_kib: int = 0
    split_brain: SplitBrain | None = None

    @property
    def detections(self) -> int:
        """Distinct writes that either side noticed."""
        return len({*self.mismatches, *self.failures})


@dataclass(frozen=True)
class Witness:
    """What a BPF program on the nodes saw of the client's writes, from DRBD's taking them to their completion.

    ``watched``: each node that could write was watched until everything was written; where it is False, ``reason`` says
    what is missing, and the counts are of what was seen all the same.  ``hooks`` are the functions or tracepoints at
    which a write began and ended, ``nodes`` those whose counts these are.

    ``writes``, ``bytes`` and ``block_writes`` were watched from their beginning to their end; a write counts once in
    each 4 KiB block of the device that it touches.  ``changed_writes`` and ``changed_block_writes``: those whose data
    was another at the end; ``changed_blocks`` how many blocks of the device they were for, and ``changed`` which, as
    far as the program lists them.  ``not_watched`` counts writes by the reason why they are in none of these figures.
    ``attach_seconds``: from the start of the program until it watched, the longest of the nodes'.
    """

    watched: bool
    reason: str = ""
    nodes: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    writes: int = 0
    bytes: int = 0
    block_writes: int = 0
    changed_writes: int = 0
    changed_block_writes: int = 0
    changed_blocks: int = 0
    changed: tuple[Extent, ...] = ()
    not_watched: Mapping[str, int] = field(default_factory=dict)
    attach_seconds: float = 0.0

    @property
    def total_not_watched(self) -> int:
        """Writes that are in none of the other figures, whatever the reason."""
        return sum(self.not_watched.values())


@dataclass(frozen=True)
class Failure:
    """Why a cell has no answer, or was refused: which kind of error, in which phase, with its message."""

    kind: str
    phase: str
    message: str

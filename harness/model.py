"""The words of the harness: enumerations and frozen dataclasses, standard library only.

Units: offsets and lengths on a device are 512-byte sectors (``*_sectors``), 4096-byte blocks
(``*_blocks``, what DRBD's bitmap counts) or bytes, and say which.  Times are seconds; moments are
ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SECTOR_BYTES = 512
BLOCK_BYTES = 4096
SECTORS_PER_BLOCK = BLOCK_BYTES // SECTOR_BYTES
SCHEMA_VERSION = 1


class CacheMode(StrEnum):
    """QEMU's cache modes of a disk."""

    NONE = "none"
    DIRECTSYNC = "directsync"
    WRITETHROUGH = "writethrough"
    WRITEBACK = "writeback"
    UNSAFE = "unsafe"

    @property
    def direct(self) -> bool:
        """Whether QEMU opens the disk with O_DIRECT, so that DRBD reads the guest's own pages."""
        return self in (CacheMode.NONE, CacheMode.DIRECTSYNC)

    @property
    def guest_write_cache(self) -> str:
        """What the guest then reads in ``/sys/block/*/queue/write_cache``."""
        return "write through" if self in (CacheMode.DIRECTSYNC, CacheMode.WRITETHROUGH) else "write back"

    @property
    def no_flush(self) -> bool:
        """Whether QEMU ignores the guest's flushes."""
        return self is CacheMode.UNSAFE


class AioMode(StrEnum):
    """How QEMU submits the I/O of a disk."""

    THREADS = "threads"
    NATIVE = "native"
    IO_URING = "io_uring"


class DiskBus(StrEnum):
    """The bus the guest sees its disk on."""

    VIRTIO = "virtio"
    SCSI = "scsi"


class ClientKind(StrEnum):
    """Who writes: a guest through QEMU, or the node itself on /dev/drbdN."""

    GUEST = "guest"
    HOST = "host"


class Control(StrEnum):
    """A cell that proves the lab could have seen what it did not see."""

    PLANTED = "planted"
    MUTATOR = "mutator"
    IDLE = "idle"


class Protocol(StrEnum):
    """When DRBD calls a write done: sent (A), received by the peer (B), written by the peer (C)."""

    A = "A"
    B = "B"
    C = "C"


class Crash(StrEnum):
    """What dies in the middle of the work."""

    NODE = "node"  # the Primary loses its power; the peer is promoted and runs the guest
    QEMU = "qemu"  # the guest's QEMU is killed; the guest starts again on the same node
    RESET = "reset"  # the guest is reset; its QEMU goes on


class Fault(StrEnum):
    """What goes wrong around the guest, on purpose."""

    LINK_CUT = "link-cut"  # the replication link carries nothing any more, in mid-migration
    TARGET_KILL = "target-kill"  # the target node loses its power in mid-migration
    LIBVIRTD_RESTART = "libvirtd-restart"  # the source's libvirtd is restarted in mid-migration
    STALL = "stall"  # the migration gets so little bandwidth that it cannot end
    IO_ERROR = "io-error"  # both lower devices fail, so that the guest's writes do
    STANDALONE = "standalone"  # both nodes are StandAlone when the cell begins

    @property
    def needs_migration(self) -> bool:
        """Whether it strikes in the middle of a migration."""
        return self not in (Fault.IO_ERROR, Fault.STANDALONE)


class MigrationOutcome(StrEnum):
    """How one live migration ended."""

    COMPLETED = "completed"
    REFUSED = "refused"  # libvirt, QEMU or DRBD would not begin
    ABORTED = "aborted"  # given up by its deadline; the guest stayed where it was
    FAILED = "failed"  # it broke under way


class VerdictKind(StrEnum):
    """The opinion about one cell; see :mod:`harness.judge`."""

    CLEAN = "CLEAN"
    TRANSIENT = "TRANSIENT"
    DIVERGED = "DIVERGED"
    CORRUPT = "CORRUPT"
    REFUSED = "REFUSED"
    INCONCLUSIVE = "INCONCLUSIVE"


class Owner(StrEnum):
    """Who a differing block belongs to once the workload is over."""

    LIVE = "live"
    DEAD = "dead"
    UNKNOWN = "unknown"


# --------------------------------------------------------------------------- what is asked


@dataclass(frozen=True)
class Widener:
    """What makes the in-flight window longer.  Both zero: a natural cell."""

    link_delay_ms: int = 0
    disk_delay_ms: int = 0

    @property
    def natural(self) -> bool:
        """Whether nothing was widened."""
        return self == Widener()

    def suffix(self) -> str:
        """The part of a cell's id that names the widener; empty for a natural cell."""
        parts = [("link", self.link_delay_ms), ("disk", self.disk_delay_ms)]
        return "".join(f"-{name}{ms}ms" for name, ms in parts if ms)


@dataclass(frozen=True)
class Arm:
    """How DRBD replicates; the default is how the harness sets a resource up.

    ``integrity`` is the algorithm of ``data-integrity-alg``, empty for none.  ``disable_sendpage`` is the parameter of
    DRBD's module, ``scatter_gather`` the feature of both replication NICs.  ``two_primaries``: both nodes are Primary
    all the time.
    """

    protocol: Protocol = Protocol.C
    integrity: str = ""
    disable_sendpage: bool = False
    scatter_gather: bool = True
    two_primaries: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing differs from the harness's default."""
        return self == Arm()

    def suffix(self) -> str:
        """The part of a cell's id that names the arm; empty for the default."""
        parts = [
            (self.protocol is not Protocol.C, f"proto{self.protocol}"),
            (bool(self.integrity), f"digest.{self.integrity}"),
            (self.disable_sendpage, "nosendpage"),
            (not self.scatter_gather, "nosg"),
            (self.two_primaries, "twoprimaries"),
        ]
        return "".join(f"-{name}" for there, name in parts if there)


@dataclass(frozen=True)
class Expectation:
    """What a cell is expected to end as, and why; a verdict outside ``verdicts`` is a finding."""

    verdicts: tuple[VerdictKind, ...]
    reason: str


@dataclass(frozen=True)
class Cell:
    """One point of the matrix.

    ``seconds`` is how long the workload works; ``deadline`` bounds the whole cell.  ``migrations``: how often the guest
    is moved to the other node and back while it works, ``migration_deadline`` bounds each in seconds.
    ``unsafe_migration`` asks libvirt for what it refuses otherwise.
    """

    workload: str
    client: ClientKind = ClientKind.GUEST
    cache: CacheMode | None = None
    aio: AioMode = AioMode.THREADS
    bus: DiskBus = DiskBus.VIRTIO
    widener: Widener = Widener()
    arm: Arm = Arm()
    migrations: int = 0
    unsafe_migration: bool = False
    migration_deadline: int = 60
    crash: Crash | None = None
    fault: Fault | None = None
    seconds: int = 10
    deadline: int = 180
    control: Control | None = None
    expected: Expectation | None = None

    @property
    def id(self) -> str:
        """Stable and readable, e.g. ``none-swap-link20ms`` or ``host-mutator``; defaults are left out.

        The length of the work is not part of it: it changes how much was exposed, not what is asked.
        """
        who = "host" if self.client is ClientKind.HOST else str(self.cache)
        parts = [who, self.workload]
        if self.client is ClientKind.GUEST and self.aio is not AioMode.THREADS:
            parts.append(self.aio.value.replace("_", ""))
        if self.client is ClientKind.GUEST and self.bus is not DiskBus.VIRTIO:
            parts.append(self.bus.value)
        return "-".join(parts) + self.widener.suffix() + self.arm.suffix() + self._happenings()

    def _happenings(self) -> str:
        parts = [
            (self.migrations, f"migrate{self.migrations}"),
            (self.unsafe_migration, "unsafemigration"),
            (self.crash, f"crash.{self.crash}"),
            (self.fault, f"fault.{self.fault}"),
        ]
        return "".join(f"-{name}" for there, name in parts if there)

    @property
    def watched(self) -> bool:
        """Whether a canary lives in the guest beside the workload: wherever something happens to the guest."""
        return self.client is ClientKind.GUEST and (
            self.migrations > 0 or self.crash is not None or self.fault is not None
        )

    @property
    def column(self) -> str:
        """The heat map's column: the workload and whatever else is not the cache mode."""
        return self.id.removeprefix("host-" if self.client is ClientKind.HOST else f"{self.cache}-")

    @property
    def row(self) -> str:
        """The heat map's row: the cache mode, or ``host``."""
        return "host" if self.client is ClientKind.HOST else str(self.cache)


# --------------------------------------------------------------------------- what was seen


@dataclass(frozen=True, order=True)
class Extent:
    """A run of sectors: ``start`` and ``size`` in 512-byte sectors."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """First sector behind the extent."""
        return self.start + self.size

    def blocks(self) -> range:
        """The 4 KiB blocks it touches."""
        return range(self.start // SECTORS_PER_BLOCK, -(-self.end // SECTORS_PER_BLOCK))


def blocks_of(extents: Iterable[Extent]) -> frozenset[int]:
    """The set of 4 KiB block numbers that ``extents`` touch."""
    return frozenset(block for extent in extents for block in extent.blocks())


def extents_of(blocks: Iterable[int]) -> tuple[Extent, ...]:
    """``blocks`` (4 KiB block numbers, any order, repeats allowed) as the fewest sorted extents."""
    merged: list[Extent] = []
    for block in sorted(set(blocks)):
        start = block * SECTORS_PER_BLOCK
        if merged and merged[-1].end == start:
            merged[-1] = Extent(merged[-1].start, merged[-1].size + SECTORS_PER_BLOCK)
        else:
            merged.append(Extent(start, SECTORS_PER_BLOCK))
    return tuple(merged)


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
    """What DRBD says of the resource: connection, disks and roles, in its own words."""

    connection: str
    local_role: str
    peer_role: str
    local_disk: str
    peer_disk: str
    replication: str = "Established"

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
    owner: Owner = Owner.UNKNOWN
    detail: str = ""


@dataclass(frozen=True)
class Ownership:
    """Who the differing blocks belong to, counted, and by what reasoning."""

    live: int = 0
    dead: int = 0
    unknown: int = 0
    method: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What was really opened, against what was asked.  None: could not be read, or does not apply."""

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
    arm: Arm | None = None


@dataclass(frozen=True)
class Work:
    """What a workload did.  ``facts`` are its own figures; ``read_back_errors`` counts wrong data it read."""

    seconds: float
    facts: Mapping[str, float] = field(default_factory=dict)
    read_back_errors: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repair:
    """How equality was restored, and whether the comparison says so."""

    method: str
    seconds: float
    differing_after: int


@dataclass(frozen=True)
class Migration:
    """One live migration of the guest.

    ``began`` is in seconds since the work began (for ``during`` = "readings": since the readings began), ``seconds``
    from the call to its end, ``two_primaries_seconds`` how long both nodes were Primary for it.  ``downtime_ms``,
    ``iterations`` and ``transferred_bytes`` are QEMU's figures as libvirt hands them on; None where it has none.
    ``throttle_percent`` is how far auto-converge slowed the guest down at most.  ``words`` is what the stack said when
    it did not complete.
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
    words: str = ""


@dataclass(frozen=True)
class Readings:
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
    was told are safe, and those of them that are not there any more (an older record or none in their place).
    ``corrupt`` counts records of the disk whose checksum is wrong although nothing was writing them; ``memory_wrong``
    records in memory that are not what was put there, of ``memory_checked`` looks at them.  ``examples`` are sentences.
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
class Aftermath:
    """What was found after a crash.

    Seconds are counted from the crash: until the peer was ``promoted``, until the guest answered again, until the
    replicas were ``rejoined`` (both UpToDate again).  ``differing_blocks`` is how many blocks of the two disks differed
    right after the crash, before anything was resynced.  ``fsck_status`` is fsck's exit status after the journal was
    replayed (0: clean), None where there is no file system.
    """

    crash: Crash
    crashed_at: float = 0.0
    promoted_seconds: float | None = None
    guest_seconds: float | None = None
    rejoined_seconds: float | None = None
    differing_blocks: int | None = None
    resynced_kib: int | None = None
    fsck_status: int | None = None
    fsck_words: str = ""
    wrong_reads: int = 0


@dataclass(frozen=True)
class SplitBrain:
    """Both replicas went their own way.

    ``after_seconds``: from the first digest failure to the moment DRBD gave the connection up, by one kernel's clock;
    None where there was no digest failure.  ``states`` are both sides' own words before the repair;
    ``differing_blocks`` what the comparison found then.  ``victim``: whose data was given up in the repair.
    """

    after_seconds: float | None
    states: Mapping[str, State]
    differing_blocks: int | None
    victim: str
    repaired: bool


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
class Failure:
    """Why a cell has no answer, or was refused: which kind of error, in which phase, in its own words."""

    kind: str
    phase: str
    message: str


@dataclass(frozen=True)
class Evidence:
    """The facts of one attempt at one cell; no opinion.

    ``exposed_blocks`` counts 4 KiB block writes that DRBD sent to its peer while the workload had the device:
    each was a chance to diverge.  ``log_holes`` counts kernel messages that were lost before they were read.
    ``planted`` are the extents changed below DRBD on purpose.  ``struck``: the cell's crash or fault really happened.
    ``happened`` are sentences about what was done to the lab on purpose and how it was mended; ``console_trouble`` are
    lines of the guest's console that speak of trouble.
    ``phases`` maps phase names to seconds.
    """

    cell: Cell
    attempt: int
    started_at: str
    finished_at: str = ""
    lab: str = ""
    device_blocks: int = 0
    before: State | None = None
    after: State | None = None
    equal_before: bool | None = None
    observed: Observed = Observed()
    work: Work | None = None
    exposed_blocks: int = 0
    verify: Verify | None = None
    counter_kib: int | None = None
    comparison: Comparison | None = None
    planted: tuple[Extent, ...] = ()
    samples: tuple[Sample, ...] = ()
    ownership: Ownership = Ownership()
    repair: Repair | None = None
    migrations: tuple[Migration, ...] = ()
    readings: Readings | None = None
    canary: Canary | None = None
    aftermath: Aftermath | None = None
    alarms: Alarms | None = None
    struck: bool = False
    happened: tuple[str, ...] = ()
    console_trouble: tuple[str, ...] = ()
    kernel_trouble: tuple[str, ...] = ()
    log_holes: int = 0
    failure: Failure | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION


# --------------------------------------------------------------------------- what is thought of it


@dataclass(frozen=True)
class Verdict:
    """The opinion about one piece of evidence: a kind, the sentence that says what was seen, and the reasons."""

    kind: VerdictKind
    sentence: str
    reasons: tuple[str, ...] = ()
    differing_blocks: int = 0
    exposed_blocks: int = 0
    rate_upper_95: float | None = None

    def meets(self, expected: Expectation | None) -> bool:
        """Whether this is what was expected; without an expectation every conclusive verdict is."""
        if expected is None:
            return self.kind is not VerdictKind.INCONCLUSIVE
        return self.kind in expected.verdicts


@dataclass(frozen=True)
class Stack:
    """The versions under test, as the nodes and the controller report them."""

    suite: str = ""
    kernel: str = ""
    drbd: str = ""
    drbd_utils: str = ""
    qemu: str = ""
    libvirt: str = ""
    guest_kernel: str = ""
    accelerator: str = ""
    controller: str = ""


@dataclass(frozen=True)
class Run:
    """Many cells in one environment.

    ``lab_options`` are the fields of the lab's options, so that a resumed run goes on with the same kind of lab.
    """

    id: str
    matrix: str
    started_at: str
    cells: tuple[Cell, ...]
    stack: Stack = Stack()
    finished_at: str = ""
    lab_seconds: Mapping[str, float] = field(default_factory=dict)
    lab_options: Mapping[str, str | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA_VERSION

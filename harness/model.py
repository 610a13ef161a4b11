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
class Expectation:
    """What a cell is expected to end as, and why; a verdict outside ``verdicts`` is a finding."""

    verdicts: tuple[VerdictKind, ...]
    reason: str


@dataclass(frozen=True)
class Cell:
    """One point of the matrix.  ``seconds`` is how long the workload works; ``deadline`` bounds the whole cell."""

    workload: str
    client: ClientKind = ClientKind.GUEST
    cache: CacheMode | None = None
    aio: AioMode = AioMode.THREADS
    bus: DiskBus = DiskBus.VIRTIO
    widener: Widener = Widener()
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
        return "-".join(parts) + self.widener.suffix()

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
    ``planted`` are the extents changed below DRBD on purpose.
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

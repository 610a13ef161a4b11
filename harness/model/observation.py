"""What was seen: the facts that a piece of evidence is made of.  Seconds; KiB, bytes and blocks say which they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from harness.model.device import Extent, blocks_of


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


@dataclass(frozen=True, order=True, slots=True)
class PlantedChange(Extent):
    """What was changed below DRBD on purpose: which sectors, on which ``node``, and how.

    ``byte`` is the offset of the byte that was inverted in its sector, None where whole sectors were overwritten.
    Evidence of schema 1 does not know the node: it was the Secondary.  ``owner`` is whose that place is, known
    otherwise than by the harness's own search, and ``owner_detail`` what the search has to call it (a file by its
    path); None and empty where that is not known.  ``owner_offset``: the byte of that file that the first block begins
    with, or None.
    """

    node: str = ""
    kind: PlantedKind = PlantedKind.SECTORS
    byte: int | None = None
    owner: BlockOwner | None = None
    owner_detail: str = ""
    owner_offset: int | None = None


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

    @cached_property
    def differing_blocks(self) -> int:
        """How many 4 KiB blocks differ."""
        return len(blocks_of(self.differing))


@dataclass(frozen=True)
class Written:
    """Which blocks of ``node``'s backing device hold something else than when the work began.

    Both moments are ones at which all that was written before them had got there: the first after everything was
    prepared, the last when everything was written.  A write of what was there already leaves no trace here.
    ``blocks`` were digested each time; ``unequal_before`` are those that differed between the replicas at the first
    moment.  ``seconds`` is what both took.
    """

    node: str
    blocks: int
    changed: tuple[Extent, ...]
    unequal_before: tuple[Extent, ...] = ()
    seconds: float = 0.0

    @property
    def changed_blocks(self) -> int:
        """How many 4 KiB blocks changed."""
        return len(blocks_of(self.changed))


@dataclass(frozen=True)
class Sample:
    """A differing block, a piece of both sides, and whose it is.

    ``offset`` is the byte in the block at which the two sides first differ.  ``a`` and ``b`` are pieces of both sides
    as hex that begin at the byte ``start`` of the block; None, in older evidence: at ``offset``.
    ``looks_a`` and ``looks_b`` say what the whole block looks like on either side ("text"), empty where that is not
    known.  ``lines`` has one bit for each 64 bytes of the block, the first one highest, as 16 hex digits: 1 where the
    sides differ there; empty where that is not known.
    ``path`` is the file that the block belongs to, from the root of its filesystem, and ``file_offset`` the byte in it
    that the block begins with; empty and None where it is no file's or not known.
    """

    block: int
    offset: int
    differing_bytes: int
    a: str
    b: str
    owner: BlockOwner = BlockOwner.UNKNOWN
    detail: str = ""
    start: int | None = None
    looks_a: str = ""
    looks_b: str = ""
    lines: str = ""
    path: str = ""
    file_offset: int | None = None


@dataclass(frozen=True)
class FileBlocks:
    """How many differing blocks belong to one file, as whose, and the first byte offsets that they begin at in it."""

    path: str
    owner: BlockOwner
    blocks: int
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ownership:
    """Who the differing blocks belong to, counted, and by what reasoning.

    ``names`` are the distinct names of what is hit, ``files`` those of them that are files, the most hit first; neither
    holds more than 50.  ``extents``: which blocks are of which class.  Evidence of before there were ``files`` and
    ``extents`` has none.
    """

    allocated: int = 0
    free: int = 0
    metadata: int = 0
    journal: int = 0
    unknown: int = 0
    method: str = ""
    names: tuple[str, ...] = ()
    files: tuple[FileBlocks, ...] = ()
    extents: Mapping[BlockOwner, tuple[Extent, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FioFigures:
    """What fio measured of one way of writing.

    ``pattern`` names it, as ``4k random writes``.  ``bandwidth_bytes`` is in bytes a second; ``p50_ns`` and ``p99_ns``
    are percentiles of the completion latency in nanoseconds, None where fio gave none.
    """

    pattern: str
    ios: int
    iops: float
    bandwidth_bytes: float
    p50_ns: int | None
    p99_ns: int | None


@dataclass(frozen=True)
class FioPerformance:
    """How fast the client's disk was: one entry for each pattern, measured one after the other."""

    figures: tuple[FioFigures, ...]


@dataclass(frozen=True)
class Work:
    """What a workload did.  ``facts`` are its own figures; ``read_back_errors`` counts wrong data it read.

    ``seconds`` is the time that it worked as it says itself; ``took_seconds`` how long it took in all, with what it
    does before and after that, by the controller's clock; None where nobody measured it.

    ``opportunities``: how many chances to diverge the workload made on purpose, by its own count; None where it cannot
    count them.  Chance may add some, so that more blocks than these may differ.  ``opportunity`` says what one of them
    is, in the plural.  ``performance``: how fast the disk was, where the workload measures that.
    """

    seconds: float
    facts: Mapping[str, float] = field(default_factory=dict)
    read_back_errors: int = 0
    notes: tuple[str, ...] = ()
    opportunities: float | None = None
    opportunity: str = ""
    took_seconds: float | None = None
    performance: FioPerformance | None = None


@dataclass(frozen=True)
class Repair:
    """How equality was restored, and whether the comparison says so."""

    method: str
    seconds: float
    differing_after: int


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

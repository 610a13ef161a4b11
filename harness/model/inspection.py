"""What ``drbd-harness inspect`` saw of a resource that somebody uses: facts, no opinion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.device import BLOCK_BYTES, Extent, blocks_of
from harness.model.observation import Ownership, State, Witness


@dataclass(frozen=True)
class InspectedMachine:
    """One of the two machines; versions are empty where it has none.

    ``qemu`` and ``libvirt`` are what is installed; a QEMU that runs may be an older one, see :class:`GuestDisk`.
    """

    name: str
    distribution: str = ""
    kernel: str = ""
    processor: str = ""
    drbd: str = ""
    drbd_utils: str = ""
    qemu: str = ""
    libvirt: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplicationSeen:
    """How one machine replicates: DRBD's options in force, its module, the link.

    ``options`` are those of the sections ``net`` and ``disk``.  ``scatter_gather`` is None where nobody told.
    """

    machine: str
    options: Mapping[str, str] = field(default_factory=dict)
    disable_sendpage: bool | None = None
    nic: str = ""
    scatter_gather: bool | None = None

    def option(self, name: str) -> str:
        """One option; empty where it is not set."""
        return self.options.get(name, "")

    @property
    def two_primaries(self) -> bool:
        """Whether DRBD allows both to be Primary."""
        return self.option("allow-two-primaries") == "yes"


@dataclass(frozen=True)
class GuestDisk:
    """A disk of a guest that runs, on the volume: on its device or in a file on a filesystem on it.

    ``cache`` is the mode by its usual name, or two with "or" between them where nobody told which; ``direct`` by the
    open flags of the QEMU that runs.  ``told_by`` says where the rest is from; ``contradiction`` that the two disagree.
    ``program_replaced``: the QEMU that runs is not the file that is installed now.
    """

    machine: str
    domain: str
    pid: int
    path: str
    image_file: bool = False
    libvirt: bool = False
    version: str = ""
    program_replaced: bool = False
    cache: str = ""
    direct: bool | None = None
    aio: str = ""
    bus: str = ""
    discard: str = ""
    detect_zeroes: str = ""
    format: str = ""
    told_by: str = ""
    contradiction: str = ""


@dataclass(frozen=True)
class VolumeSide:
    """One volume on one machine.

    ``blocks`` are those of 4 KiB that DRBD shows; ``lower_bytes`` the size of its lower device, with DRBD's metadata.
    ``uses`` are those who use it beside guests: mounts, swap, other processes, in words.  ``epochs`` of received writes
    the connection has, where DRBD 8.4 counts them: one where nothing is in flight.
    """

    machine: str
    minor: int
    device: str
    lower: str
    blocks: int
    lower_bytes: int | None
    state: State
    out_of_sync_kib: int
    written_kib: int
    progress: float | None = None
    stable_writes: bool | None = None
    disks: tuple[GuestDisk, ...] = ()
    uses: tuple[str, ...] = ()
    epochs: int = 1

    @property
    def in_use(self) -> bool:
        """Whether anybody has it open."""
        return bool(self.disks or self.uses)


@dataclass(frozen=True)
class BlockReadings:
    """Marked blocks read again on both machines' lower devices, past the page cache, some times.

    ``equal``: the same in the last reading, and nothing changed between the readings.  ``lasting``: either side read
    the same each time, and they differ.  ``changing``: what was read was not the same each time; ``changing_equal``
    are those of them that were equal in the last reading.  ``not_read``: marked ones beyond what is read.
    ``written_kib``: what DRBD wrote to the two disks of the volume meanwhile.
    """

    readings: int = 0
    seconds: float = 0.0
    equal: tuple[Extent, ...] = ()
    lasting: tuple[Extent, ...] = ()
    changing: tuple[Extent, ...] = ()
    changing_equal: tuple[Extent, ...] = ()
    not_read: tuple[Extent, ...] = ()
    written_kib: tuple[int, int] | None = None


@dataclass(frozen=True)
class VolumeVerify:
    """One online verify of a volume, what it marked, and what became of that.

    ``marked`` is what both kernel logs say; ``before_kib`` was out of sync before it, ``found_blocks`` of 4 KiB are by
    DRBD's own count at its end.  ``ownership`` is None where nobody was asked: ``no_owners`` says why.  ``owners_of``:
    where it was looked.
    """

    complete: bool
    seconds: float
    marked: tuple[Extent, ...] = ()
    before_kib: int = 0
    found_blocks: int = 0
    skipped_blocks: int = 0
    readings: BlockReadings | None = None
    unread: str = ""
    ownership: Ownership | None = None
    owners_of: str = ""
    no_owners: str = ""

    @property
    def unnamed_blocks(self) -> int:
        """How many blocks of 4 KiB at least it marked without saying where.

        DRBD 8.4, and 9 before 9.0.14, print no line for a differing block whose reply is followed by one out of order
        (:mod:`harness.judgement.oracles`).  What was marked before may be among the named ones.
        """
        return max(0, self.found_blocks - self.before_kib * 1024 // BLOCK_BYTES - len(blocks_of(self.marked)))


@dataclass(frozen=True)
class Watch:
    """What a machine's writes to a volume looked like for some seconds."""

    machine: str
    seconds: int
    witness: Witness


@dataclass(frozen=True)
class InspectedVolume:
    """One volume on both machines; a verify of it, and what changed in flight, where that was asked for.

    ``watches``: for each machine that was Primary; ``unwatched``: why one, or all, could not be watched.
    """

    number: int
    sides: tuple[VolumeSide, VolumeSide]
    verify: VolumeVerify | None = None
    watches: tuple[Watch, ...] = ()
    unwatched: tuple[str, ...] = ()

    @property
    def out_of_sync_kib(self) -> int:
        """What either machine counts; they count the same where they are connected."""
        return max(side.out_of_sync_kib for side in self.sides)

    @property
    def disks(self) -> tuple[GuestDisk, ...]:
        """The disks of guests on either machine."""
        return tuple(disk for side in self.sides for disk in side.disks)


@dataclass(frozen=True)
class Inspection:
    """A resource on two machines.  ``generation`` is DRBD's, ``8.4`` or ``9``; ``unknown`` what could not be told."""

    resource: str
    generation: str
    machines: tuple[InspectedMachine, InspectedMachine]
    replication: tuple[ReplicationSeen, ReplicationSeen]
    volumes: tuple[InspectedVolume, ...]
    unknown: tuple[str, ...] = ()

"""One point of the matrix: what is asked, and what it is expected to end as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.model.axes import (
    AioMode,
    CacheMode,
    ClientKind,
    Control,
    Crash,
    DetectZeroes,
    Discard,
    DiskBus,
    Fault,
    FilesystemKind,
    Layout,
    Protocol,
    Quorum,
    Sabotage,
    SwapOn,
    Transport,
    VerdictKind,
)
from harness.model.device import BLOCK_BYTES
from harness.model.mitigation import Mitigation, Preset, settings


@dataclass(frozen=True)
class DelayProfile:
    """What makes the in-flight window longer, and what a flush costs.  All zero: a natural cell.

    ``flush_delay_ms``: how much later the lower device is done with a flush, as a disk without a battery-backed cache
    is.
    """

    link_delay_ms: int = 0
    disk_delay_ms: int = 0
    flush_delay_ms: int = 0

    @property
    def undelayed(self) -> bool:
        """Whether nothing was delayed."""
        return self == DelayProfile()

    def suffix(self) -> str:
        """The part of a cell's id that names the delays; empty for a natural cell."""
        parts = [("link", self.link_delay_ms), ("disk", self.disk_delay_ms), ("flush", self.flush_delay_ms)]
        return "".join(f"-{name}{ms}ms" for name, ms in parts if ms)


#: What DRBD 9.3 takes for a bit of its bitmap, the least first, which every version has.
BITMAP_BLOCK_SIZES = ("4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M")


@dataclass(frozen=True)
class ReplicationProfile:
    """How DRBD replicates; the default is how the harness sets a resource up.

    ``integrity`` is the algorithm of ``data-integrity-alg``, empty for none.  ``disable_sendpage`` is the parameter of
    DRBD's module, ``scatter_gather`` the feature of both replication NICs.  ``two_primaries``: both nodes are Primary
    all the time; ``allow_two_primaries``: DRBD would let them, all the time.
    DRBD 9 alone has the rest: the ``transport``, ``tls`` (the kernel encrypts it), the ``quorum`` without which it
    suspends I/O, ``auto_promote`` (who opens a Secondary's device to write makes it Primary), and
    ``bitmap_block_size``, how much of the device one bit of the bitmap is, which belongs to the metadata.
    """

    protocol: Protocol = Protocol.C
    integrity: str = ""
    disable_sendpage: bool = False
    scatter_gather: bool = True
    two_primaries: bool = False
    allow_two_primaries: bool = False
    transport: Transport = Transport.TCP
    tls: bool = False
    quorum: Quorum = Quorum.OFF
    auto_promote: bool = True
    bitmap_block_size: str = BITMAP_BLOCK_SIZES[0]

    def __str__(self) -> str:
        parts = [
            (True, f"protocol {self.protocol}"),
            (bool(self.integrity), f"digest {self.integrity}"),
            (self.disable_sendpage, "sendpage disabled"),
            (not self.scatter_gather, "no scatter-gather"),
            (self.two_primaries, "two Primaries"),
            (self.allow_two_primaries, "two Primaries allowed"),
            (self.transport is not Transport.TCP, f"transport {self.transport}"),
            (self.tls, "TLS"),
            (self.quorum is not Quorum.OFF, f"quorum {self.quorum}"),
            (not self.auto_promote, "no auto-promote"),
            (self.bitmap_block_kib != BLOCK_BYTES // 1024, f"bitmap blocks of {self.bitmap_block_size}"),
        ]
        return ", ".join(text for there, text in parts if there)

    @property
    def permits_two_primaries(self) -> bool:
        """Whether DRBD's configuration lets both nodes be Primary."""
        return self.two_primaries or self.allow_two_primaries

    @property
    def bitmap_block_kib(self) -> int:
        """How many KiB of the device one bit of the bitmap is."""
        number, unit = self.bitmap_block_size[:-1], self.bitmap_block_size[-1]
        return int(number) * {"k": 1, "M": 1024}[unit]

    @property
    def plain(self) -> bool:
        """Whether nothing differs from the harness's default."""
        return self == ReplicationProfile()

    def suffix(self) -> str:
        """The part of a cell's id that names the replication profile; empty for the default."""
        parts = [
            (self.protocol is not Protocol.C, f"proto{self.protocol}"),
            (bool(self.integrity), f"digest.{self.integrity}"),
            (self.disable_sendpage, "nosendpage"),
            (not self.scatter_gather, "nosg"),
            (self.two_primaries, "twoprimaries"),
            (self.allow_two_primaries, "twoallowed"),
            (self.transport is not Transport.TCP, self.transport.replace("-", "")),
            (self.tls, "tls"),
            (self.quorum is not Quorum.OFF, f"quorum.{self.quorum}"),
            (not self.auto_promote, "noautopromote"),
            (self.bitmap_block_kib != BLOCK_BYTES // 1024, f"bitmap{self.bitmap_block_size}"),
        ]
        return "".join(f"-{name}" for there, name in parts if there)


@dataclass(frozen=True)
class DiskOptions:
    """How QEMU serves the disk, beside cache, aio and bus; the default is libvirt's.

    ``iothread``: in a thread of the disk's own; on the bus ``scsi`` that is one of a controller of its own.
    """

    iothread: bool = False
    detect_zeroes: DetectZeroes = DetectZeroes.OFF
    discard: Discard = Discard.IGNORE

    def suffix(self) -> str:
        """The part of a cell's id that names them; empty for the default."""
        parts = [
            (self.iothread, "iothread.on"),
            (self.detect_zeroes is not DetectZeroes.OFF, f"zeroes.{self.detect_zeroes}"),
            (self.discard is not Discard.IGNORE, f"discard.{self.discard}"),
        ]
        return "".join(f"-{name}" for there, name in parts if there)


@dataclass(frozen=True)
class GuestOptions:
    """What is set in the guest before it uses the disk.

    ``guest_stable_writes``: the flag of the disk's queue that makes its kernel hold pages still while they are written.
    ``online_discard``: what it frees is discarded at once.
    """

    guest_stable_writes: bool = False
    online_discard: bool = False
    swap_on: SwapOn = SwapOn.DRBD

    def suffix(self) -> str:
        """The part of a cell's id that names them; empty for the default."""
        parts = [
            (self.guest_stable_writes, "stablewrites"),
            (self.online_discard, "onlinediscard"),
            (self.swap_on is not SwapOn.DRBD, f"swapon.{self.swap_on}"),
        ]
        return "".join(f"-{name}" for there, name in parts if there)


#: The keys of a cell that are fields of one of its parts.
PARTS: Mapping[str, type[Any]] = {
    "delays": DelayProfile,
    "replication": ReplicationProfile,
    "disk_options": DiskOptions,
    "guest_options": GuestOptions,
}
PART_OF: Mapping[str, str] = {one.name: part for part, kind in PARTS.items() for one in fields(kind)}


@dataclass(frozen=True)
class UserFile:
    """A fio job file or a script of the user's own, which is the cell's work.

    ``name`` is its own without its folder, with nothing in it that a file's name in a run cannot have; ``digest`` the
    SHA-256 of its bytes (hex), of which the first eight digits are part of the cell's id.
    """

    name: str
    digest: str
    text: str


@dataclass(frozen=True)
class Expectation:
    """What a cell is expected to end as, and why; a verdict outside ``verdicts`` is a finding.

    So is one whose sentence does not contain ``says``: INCONCLUSIVE for another reason is not what was expected.
    """

    verdicts: tuple[VerdictKind, ...]
    reason: str
    says: str = ""


@dataclass(frozen=True)
class Cell:
    """One point of the matrix.

    ``seconds`` is how long the workload works; ``deadline`` bounds the whole cell.  ``mitigation`` and ``preset`` name
    what set some of the other axes.  ``migrations``: how often the guest is moved to the other node and back while it
    works, ``migration_deadline`` bounds each in seconds.  ``unsafe_migration`` asks libvirt for what it refuses
    otherwise.  ``sabotage`` is for the matrix that tests the instrument itself.  ``repetition`` counts from 1 how often
    a run plays the cell, each time with a ``seed`` of its own for whatever the workload chooses at random; neither is
    part of the id, for all repetitions ask the same.
    """

    workload: str
    client: ClientKind = ClientKind.GUEST
    filesystem: FilesystemKind = FilesystemKind.RAW
    layout: Layout = Layout.RAW
    cache: CacheMode | None = None
    aio: AioMode = AioMode.THREADS
    bus: DiskBus = DiskBus.VIRTIO
    delays: DelayProfile = DelayProfile()
    replication: ReplicationProfile = ReplicationProfile()
    disk_options: DiskOptions = DiskOptions()
    guest_options: GuestOptions = GuestOptions()
    mitigation: Mitigation | None = None
    preset: Preset | None = None
    migrations: int = 0
    unsafe_migration: bool = False
    migration_deadline: int = 60
    crash: Crash | None = None
    fault: Fault | None = None
    sabotage: Sabotage | None = None
    seconds: int = 10
    deadline: int = 180
    control: Control | None = None
    expected: Expectation | None = None
    repetition: int = 1
    seed: int = 0
    user_file: UserFile | None = None

    @property
    def tests_instrument(self) -> bool:
        """Whether it asks about the harness itself: what differs in it was made to differ, and says nothing of DRBD."""
        return self.control is not None or self.sabotage is not None

    @property
    def id(self) -> str:
        """Stable and readable, e.g. ``none-swap-pressure-link20ms`` or ``host-inflight-modify``; defaults are left out.

        The length of the work is not part of it: it changes how much was exposed, not what is asked.  A user's own file
        is, by its digest: ``none-ext4-fio-job.1b2c3d4e``.  What a preset or a mitigation sets is left out, for its name
        stands at the end.
        """
        if self.preset is not None or self.mitigation is not None:
            names = "".join(f"-{one}" for one in (self.preset, self.mitigation) if one is not None)
            return f"{self._unset().id}{names}"
        who = "host" if self.client is ClientKind.HOST else str(self.cache)
        workload = f"{self.workload}.{self.user_file.digest[:8]}" if self.user_file else self.workload
        parts = [who, f"{self.layout.prefix}{self.filesystem.prefix}{workload}"]
        if self.client is ClientKind.HOST and self.cache is not None:
            # Of a probe that asks the node's QEMU.
            parts.append(self.cache.value)
        if self.cache is not None and self.aio is not AioMode.THREADS:
            parts.append(self.aio.value.replace("_", ""))
        if self.client is ClientKind.GUEST and self.bus is not DiskBus.VIRTIO:
            parts.append(self.bus.value)
        options = self.disk_options.suffix() + self.guest_options.suffix()
        suffixes = (options, self.delays.suffix(), self.replication.suffix(), self._disturbance_suffix())
        return "-".join(parts) + "".join(suffixes)

    def value(self, key: str) -> Any:
        """The value of ``key`` as a matrix writes it, be it in one of the cell's parts."""
        return getattr(getattr(self, PART_OF[key]) if key in PART_OF else self, key)

    def with_values(self, values: Mapping[str, Any]) -> Cell:
        """The same with other ``values`` by key, as a matrix writes them."""
        own = {key: value for key, value in values.items() if key not in PART_OF}
        changed = replace(self, **own)
        for part in PARTS:
            if inside := {key: value for key, value in values.items() if PART_OF.get(key) == part}:
                changed = replace(changed, **{part: replace(getattr(changed, part), **inside)})
        return changed

    def without_presets(self) -> Cell:
        """The same cell as nobody does anything about it: without mitigation and preset, with ``cache=none``."""
        return replace(self._unset(), cache=None if self.cache is None else CacheMode.NONE)

    def _unset(self) -> Cell:
        """The same without mitigation and preset, what they set left at its default; the cache mode stays."""
        keys = settings(self.preset, self.mitigation).keys() - {"cache"}
        plain = Cell(self.workload)
        return replace(self, mitigation=None, preset=None).with_values({key: plain.value(key) for key in keys})

    @property
    def play(self) -> tuple[str, int]:
        """What is played once in a run: the cell's id and which repetition."""
        return self.id, self.repetition

    def _disturbance_suffix(self) -> str:
        parts = [
            (self.migrations, f"migrate{self.migrations}"),
            (self.unsafe_migration, "unsafemigration"),
            (self.crash, f"crash.{self.crash}"),
            (self.fault, f"fault.{self.fault}"),
            (self.sabotage, f"sabotage.{self.sabotage}"),
        ]
        return "".join(f"-{name}" for there, name in parts if there)

    @property
    def cuts_power(self) -> bool:
        """Whether a node loses its power in it."""
        return self.crash is Crash.NODE or self.fault is Fault.TARGET_KILL

    @property
    def has_canary(self) -> bool:
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

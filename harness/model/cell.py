"""One point of the matrix: what is asked, and what it is expected to end as."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.axes import (
    AioMode,
    CacheMode,
    ClientKind,
    Control,
    Crash,
    DiskBus,
    Fault,
    FilesystemKind,
    Layout,
    Protocol,
    Sabotage,
    VerdictKind,
)


@dataclass(frozen=True)
class DelayProfile:
    """What makes the in-flight window longer.  Both zero: a natural cell."""

    link_delay_ms: int = 0
    disk_delay_ms: int = 0

    @property
    def undelayed(self) -> bool:
        """Whether nothing was delayed."""
        return self == DelayProfile()

    def suffix(self) -> str:
        """The part of a cell's id that names the delays; empty for a natural cell."""
        parts = [("link", self.link_delay_ms), ("disk", self.disk_delay_ms)]
        return "".join(f"-{name}{ms}ms" for name, ms in parts if ms)


@dataclass(frozen=True)
class ReplicationProfile:
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

    def __str__(self) -> str:
        parts = [
            (True, f"protocol {self.protocol}"),
            (bool(self.integrity), f"digest {self.integrity}"),
            (self.disable_sendpage, "sendpage disabled"),
            (not self.scatter_gather, "no scatter-gather"),
            (self.two_primaries, "two Primaries"),
        ]
        return ", ".join(text for there, text in parts if there)

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
        ]
        return "".join(f"-{name}" for there, name in parts if there)


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

    ``seconds`` is how long the workload works; ``deadline`` bounds the whole cell.  ``migrations``: how often the guest
    is moved to the other node and back while it works, ``migration_deadline`` bounds each in seconds.
    ``unsafe_migration`` asks libvirt for what it refuses otherwise.  ``sabotage`` is for the matrix that tests the
    instrument itself.  ``repetition`` counts from 1 how often a run plays
    the cell, each time with a ``seed`` of its own for whatever the workload chooses at random; neither is part of the
    id, for all repetitions ask the same.
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
    def id(self) -> str:
        """Stable and readable, e.g. ``none-swap-pressure-link20ms`` or ``host-inflight-modify``; defaults are left out.

        The length of the work is not part of it: it changes how much was exposed, not what is asked.  A user's own file
        is, by its digest: ``none-ext4-fio-job.1b2c3d4e``.
        """
        who = "host" if self.client is ClientKind.HOST else str(self.cache)
        workload = f"{self.workload}.{self.user_file.digest[:8]}" if self.user_file else self.workload
        parts = [who, f"{self.layout.prefix}{self.filesystem.prefix}{workload}"]
        if self.client is ClientKind.GUEST and self.aio is not AioMode.THREADS:
            parts.append(self.aio.value.replace("_", ""))
        if self.client is ClientKind.GUEST and self.bus is not DiskBus.VIRTIO:
            parts.append(self.bus.value)
        return "-".join(parts) + self.delays.suffix() + self.replication.suffix() + self._disturbance_suffix()

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

"""Facts of what happened around the work: migrations and their read-back, canary, crash, split brain, alarms.

Seconds; KiB, bytes and blocks say which they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.model.axes import Crash
from harness.model.device import Extent, blocks_of
from harness.model.observation import Comparison, Ownership, State


class MigrationOutcome(StrEnum):
    """How one live migration ended."""

    COMPLETED = "completed"
    REFUSED = "refused"  # libvirt, QEMU or DRBD would not begin
    ABORTED = "aborted"  # its deadline came first; the guest stayed where it was
    FAILED = "failed"  # it broke under way


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
    ownership: Ownership = field(default_factory=Ownership)
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
    is no filesystem.  ``wrong_reads`` counts what the workload read back wrongly, ``findings`` say what it was, and
    ``looked_at`` is what it looked for, where it can say.
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
    findings: tuple[str, ...] = ()
    looked_at: str = ""


@dataclass(frozen=True)
class RejoinComparison:
    """Both backing devices, compared while the replicas were apart and before a resync could make them equal.

    ``when`` says at which moment, as the end of a sentence; ``away`` is the node whose replica the resync was going to
    overwrite.  ``quiet``: nobody could write to either device meanwhile; where it is False, what differs may be writes
    that were under way.  ``out_of_sync_kib`` is what DRBD on the other node held out of sync then, None where it gave
    no answer.  What was in flight when the nodes lost each other, and what was written since, differs rightly.
    """

    when: str
    away: str
    comparison: Comparison
    quiet: bool
    out_of_sync_kib: int | None = None


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
    ``causes``: what a node said when it gave its peer up, ``nodeb: PingAck did not arrive in time``, each once;
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
    causes: tuple[str, ...] = ()

    @property
    def detections(self) -> int:
        """Distinct writes that either side noticed."""
        return len({*self.mismatches, *self.failures})

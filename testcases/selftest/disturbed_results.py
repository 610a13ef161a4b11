"""Results of cells with migrations, crashes and alarms, made up for the report.  Nothing here is a test."""

from __future__ import annotations

from dataclasses import replace

from reported_results import BLOCKS, HEALTHY, HOSTILE, evidence, idle, in_flight, planted, verdict

from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    Crash,
    CrashRecovery,
    Extent,
    FilesystemKind,
    Migration,
    MigrationOutcome,
    Ownership,
    Protocol,
    Readback,
    ReplicationProfile,
    Result,
    SplitBrain,
    VerdictKind,
    Work,
    extents_of,
)
from harness.report.grid import Grid

KEPT = Canary({"fsync": 1204, "dsync": 900}, {}, 0, 5300, 0, 1.3)
NOISY = Alarms(
    "crc32c",
    (*(Extent(8 * at, 8) for at in range(30)), Extent(0, 8)),
    (Extent(0, 8), Extent(800, 8)),
    14, 12.0, 60.0, 40960,
    SplitBrain(
        12.5, {"node-a": HEALTHY, "node-b": replace(HEALTHY, connection="StandAlone")}, 5, "node-b", True
    ),
)  # fmt: skip


def moved(number: int, **changes: object) -> Migration:
    source, target = ("node-a", "node-b") if number % 2 else ("node-b", "node-a")
    made = Migration(
        number, source, target, MigrationOutcome.COMPLETED, 5.0 * number, 2.5, 100.0 * number, 3, 210 << 20, 256 << 20,
        None, 3.25,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def migrated() -> Result:
    """Three migrations during the work, one of them refused, and one between the readback."""
    cell = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, migrations=3, seconds=60)
    moves = (
        moved(1),
        moved(2, throttle_percent=20),
        moved(3, outcome=MigrationOutcome.REFUSED, downtime_ms=None, iterations=None, transferred_bytes=None,
              message=f"Unsafe migration: {HOSTILE}"),
        moved(4, during="readback"),
    )  # fmt: skip
    found = evidence(
        cell, [], [], work=Work(60.4), migrations=moves, canary=KEPT, readback=Readback(BLOCKS, "node-a", "node-b"),
        event_log=(f"somebody did {HOSTILE}",), console_errors=(f"EXT4-fs error {HOSTILE}",),
    )  # fmt: skip
    return Result(cell, verdict(VerdictKind.CLEAN, "Nothing."), found)


def misread() -> Result:
    cell = Cell(
        "pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK, migrations=2, unsafe_migration=True
    )
    readback = Readback(
        BLOCKS,
        "node-a",
        "node-b",
        extents_of([5, 6, 99]),
        Ownership(allocated=2, free=1, method="debugfs", names=("/a.db",)),
    )
    canary = replace(KEPT, lost={"fsync": 3}, memory_wrong=2, examples=(f"record 12 is gone {HOSTILE}",))
    found = evidence(cell, [], [], migrations=(moved(1), moved(2)), readback=readback, canary=canary)
    return Result(cell, verdict(VerdictKind.CORRUPT, "Three blocks were read differently."), found)


def crashed(crash: Crash, cache: CacheMode, protocol: Protocol, lost: dict[str, int], workload: str = "ext4") -> Result:
    cell = Cell(workload, cache=cache, crash=crash, replication=ReplicationProfile(protocol))
    after = CrashRecovery(crash, 5.1, 1.25 if crash is Crash.NODE else None, 23.4, 31.5, 17, 4096, 0, "clean", 0)
    found = evidence(cell, [], [], canary=replace(KEPT, lost=lost, survived=False), crash_recovery=after)
    kind = VerdictKind.CORRUPT if lost else VerdictKind.CLEAN
    return Result(cell, verdict(kind, "It crashed."), found)


def alarmed(replication: ReplicationProfile, alarms: Alarms | None, differing: int = 0) -> Result:
    cell = Cell("inflight-modify", cache=CacheMode.NONE, replication=replication)
    blocks = list(range(differing))
    kind = VerdictKind.DIVERGED if differing else VerdictKind.CLEAN
    return Result(cell, verdict(kind, "Said.", differing), evidence(cell, blocks, blocks, alarms=alarms))


def alarm_cells() -> list[Result]:
    return [
        alarmed(ReplicationProfile(integrity="crc32c"), NOISY),
        alarmed(ReplicationProfile(), Alarms(watched_seconds=60), 535),
    ]


def sample() -> list[Result]:
    return [
        planted(), in_flight(), idle(), migrated(), misread(),
        crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"fsync": 12, "direct": 1}),
        crashed(Crash.NODE, CacheMode.NONE, Protocol.C, {}),
        crashed(Crash.QEMU, CacheMode.NONE, Protocol.C, {}),
        *alarm_cells(),
        Result(
            Cell("inflight-modify", cache=CacheMode.NONE, replication=ReplicationProfile(scatter_gather=False)),
            None, None,
        ),
    ]  # fmt: skip


def shown(table: Grid | None, row: int = 0) -> dict[str, str]:
    """One row of ``table``, by the names of its columns."""
    assert table is not None
    return {name: slot.text for name, slot in zip(table.columns, table.rows[row], strict=True)}

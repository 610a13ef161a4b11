"""Evidence of any kind, drawn by Hypothesis; half of each piece is as it should be.  Nothing here is a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from judged_evidence import BLOCKS, NOTICED, SPLIT, disturbed, evidence, moved, oracles

from harness.model import (
    AioMode,
    Alarms,
    BlockOwner,
    CacheMode,
    Canary,
    Cell,
    ClientKind,
    Comparison,
    Control,
    ControlOutcome,
    Crash,
    CrashRecovery,
    DelayProfile,
    Evidence,
    Extent,
    Failure,
    Fault,
    MigrationOutcome,
    NodeVerify,
    Observed,
    Ownership,
    PlantedChange,
    Readback,
    ReplicationProfile,
    Sample,
    State,
    Verify,
    Work,
)

NUMBERS = st.sets(st.integers(0, 40), max_size=6)
EXTENTS = st.lists(st.builds(Extent, st.integers(0, 400), st.integers(0, 40)), max_size=4).map(tuple)
OWNERS = st.sampled_from(BlockOwner)
CHANGES = st.lists(
    st.builds(PlantedChange, st.integers(0, 400), st.integers(1, 9), owner=st.none() | OWNERS), max_size=2
).map(tuple)
SAMPLES = st.builds(Sample, st.integers(0, 50), st.just(0), st.just(1), st.just("00"), st.just("ff"), OWNERS)
STATE_NAMES = st.sampled_from(["", "Connected", "UpToDate", "Established", "Inconsistent", "VerifyS"])
NODES = st.builds(NodeVerify, st.just("node"), st.booleans(), st.booleans(), EXTENTS, st.none() | st.integers(0, 50))
CELLS = st.builds(
    Cell,
    st.sampled_from(["pressure", "no-writes", "inflight-modify"]),
    client=st.sampled_from(ClientKind),
    cache=st.none() | st.sampled_from(CacheMode),
    aio=st.sampled_from(AioMode),
    delays=st.builds(DelayProfile, st.sampled_from([0, 20]), st.sampled_from([0, 5])),
    control=st.none() | st.sampled_from(Control),
    migrations=st.sampled_from([0, 2]),
    crash=st.sampled_from([None, *Crash]),
    fault=st.sampled_from([None, *Fault]),
)
SEEN = st.builds(
    Observed,
    o_direct=st.none() | st.booleans(),
    qemu_cache=st.none()
    | st.dictionaries(st.sampled_from(["direct", "no-flush", "writeback"]), st.booleans(), max_size=3),
    qemu_aio=st.none() | st.sampled_from(["threads", "native"]),
    guest_write_cache=st.sampled_from([None, "write back", "write through"]),
    scatter_gather=st.none() | st.booleans(),
    link_delay_ms=st.sampled_from([0, 20]),
    disk_delay_ms=st.sampled_from([0, 5]),
    replication=st.sampled_from([None, ReplicationProfile(), ReplicationProfile(integrity="crc32c")]),
)
FEW = st.integers(0, 2)
OWNED = st.builds(Ownership, *[st.integers(0, 3)] * 3)
MIGRATIONS = st.lists(
    st.builds(moved, st.integers(1, 3), st.sampled_from(MigrationOutcome), st.sampled_from(["work", "readback"])),
    max_size=3,
).map(tuple)
CANARIES = st.builds(
    Canary, lost=st.dictionaries(st.sampled_from(["fsync", "direct"]), FEW), corrupt=FEW, memory_wrong=FEW,
    survived=st.booleans(),
)  # fmt: skip
CRASH_RECOVERIES = st.builds(
    CrashRecovery,
    st.sampled_from(Crash),
    fsck_status=st.sampled_from([None, 0, 4, 8]),
    mounted=st.sampled_from([None, True, False]),
    wrong_reads=FEW,
)
COMPARISONS = st.builds(Comparison, st.sampled_from([0, BLOCKS]), EXTENTS, st.just(0.1), st.just("here"))
FAILURES = st.builds(Failure, st.sampled_from(["refused", "deadline", "bug"]), st.just("work"), st.text(max_size=5))
OUTCOMES = st.dictionaries(st.sampled_from(Control), st.booleans()).map(
    lambda held: {control: ControlOutcome(control, ok, "why") for control, ok in held.items()}
)


@st.composite
def any_evidence(draw: st.DrawFn) -> Evidence:
    """Anything: half of each piece is as it should be, so that every question is reached."""
    cell = draw(CELLS)
    found = disturbed(cell, fault_injected=True) if cell.has_canary else evidence(cell)
    verified = draw(NUMBERS)
    if draw(st.booleans()):
        compared = draw(st.sets(st.sampled_from(sorted(verified)), max_size=3)) if verified else set()
        found = replace(found, **oracles(verified, compared))
    pieces: dict[str, st.SearchStrategy[Any]] = {
        "before": st.none() | st.builds(State, *[STATE_NAMES] * 6),
        "equal_before": st.none() | st.booleans(),
        "observed": SEEN,
        "work": st.none() | st.builds(Work, st.just(1.0), read_back_errors=st.integers(0, 2)),
        "exposed_blocks": st.integers(0, 3),
        "verify": st.none() | st.builds(Verify, NODES, NODES, st.just(1.0), st.integers(0, 1)),
        "counter_kib": st.none() | st.integers(0, 200),
        "comparison": st.none() | COMPARISONS,
        "planted": CHANGES,
        "samples": st.lists(SAMPLES, max_size=3).map(tuple),
        "ownership": OWNED,
        "migrations": MIGRATIONS,
        "readback": st.none() | st.builds(Readback, st.just(BLOCKS), st.just("a"), st.just("b"), EXTENTS, OWNED),
        "canary": st.none() | CANARIES,
        "crash_recovery": st.none() | CRASH_RECOVERIES,
        "alarms": st.sampled_from([None, NOTICED, Alarms(split_brain=SPLIT), Alarms("crc32c"), Alarms(drops=1)]),
        "fault_injected": st.booleans(),
        "console_errors": st.sampled_from([(), ("Oops",)]),
        "kernel_errors": st.lists(st.text(max_size=5), max_size=2).map(tuple),
        "failure": st.none() | FAILURES,
        "log_holes": st.integers(0, 1),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(pieces)), max_size=3))
    return replace(found, **{name: draw(pieces[name]) for name in sorted(chosen)})

"""Evidence that is CLEAN but for what a test changes, of a guest that moves or crashes too.  Nothing here is a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.config.controls import CONTROL_CELLS
from harness.judgement.judge import judge
from harness.judgement.workload_proof import PROOFS
from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    ClientKind,
    Comparison,
    Control,
    ControlOutcome,
    Controls,
    Crash,
    CrashRecovery,
    Evidence,
    Extent,
    FilesystemKind,
    Migration,
    MigrationOutcome,
    NodeVerify,
    Observed,
    SplitBrain,
    State,
    VerdictKind,
    Verify,
    Work,
    extents_of,
)

BLOCKS = 32768
HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")
HELD: Controls = {control: ControlOutcome(control, True, "as it should be") for control in Control}
SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)


def observed(cell: Cell) -> Observed:
    """Just what the cell asks for."""
    seen = Observed(
        scatter_gather=True, link_delay_ms=cell.delays.link_delay_ms, disk_delay_ms=cell.delays.disk_delay_ms
    )
    if cell.cache is None:
        return seen
    told = cell.cache.guest_write_cache
    return replace(
        seen,
        o_direct=cell.cache.direct,
        qemu_cache={
            "direct": cell.cache.direct,
            "no-flush": cell.cache.no_flush,
            "writeback": told == "write back",
        },
        qemu_aio=cell.aio.value,
        guest_write_cache=told,
    )


def oracles(verified: set[int], compared: set[int], counter_kib: int | None = None) -> dict[str, Any]:
    """What the three oracles say, as fields of the evidence."""
    extents = extents_of(verified)
    source, target = (NodeVerify(name, True, True, extents, len(verified)) for name in ("nodea", "nodeb"))
    return {
        "verify": Verify(source, target, 9.0),
        "counter_kib": 4 * len(verified) if counter_kib is None else counter_kib,
        "comparison": Comparison(BLOCKS, extents_of(compared), 0.1, "controller"),
    }


def evidence(cell: Cell = SWAP, **changed: Any) -> Evidence:
    """Evidence that is CLEAN under controls that held, but for what is ``changed``."""
    facts: dict[str, Any] = {
        "lab": "lab",
        "device_blocks": BLOCKS,
        "before": HEALTHY,
        "after": HEALTHY,
        "equal_before": True,
        "observed": observed(cell),
        "work": Work(8.0, {proof.fact: 4000.0 for proof in PROOFS.get(cell.workload, ())}),
        "exposed_blocks": 1000,
        **oracles(set(), set()),
        **changed,
    }
    return Evidence(cell, 1, "2026-11-23T01:50:10Z", **facts)


def kind(found: Evidence, controls: Controls | None = HELD) -> VerdictKind:
    return judge(found, controls).kind


def assert_inconclusive(found: Evidence, text: str, controls: Controls | None = HELD) -> None:
    """``found`` is INCONCLUSIVE, and the sentence says why."""
    verdict = judge(found, controls)
    assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.sentence
    assert text in verdict.sentence


# --------------------------------------------------------------------------- what happens to a guest


MOVED = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, migrations=2)
CRASHED = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, crash=Crash.NODE)
CANARY = Canary({"fsync": 200, "direct": 50}, {"fsync": 0}, memory_checked=4096)
SPLIT_STATES = {
    "nodea": replace(HEALTHY, connection="StandAlone", peer_role="Unknown", peer_disk="DUnknown"),
    "nodeb": replace(HEALTHY, connection="Connecting", peer_role="Unknown", peer_disk="DUnknown"),
}
SPLIT = SplitBrain(0.4, SPLIT_STATES, 12, "nodeb", True)
NOTICED = Alarms("crc32c", (Extent(8, 8), Extent(8, 8)), (Extent(64, 8),), 3, 4.0, 60.0, 80)


def moved(
    number: int, outcome: MigrationOutcome = MigrationOutcome.COMPLETED, during: str = "work", text: str = ""
) -> Migration:
    return Migration(number, "nodea", "nodeb", outcome, 1.0, 2.0, during=during, message=text)


def disturbed(cell: Cell = MOVED, **changed: Any) -> Evidence:
    """Evidence of a cell in which something happened to the guest; CLEAN but for what is ``changed``."""
    facts: dict[str, Any] = {"canary": CANARY, "migrations": (moved(1), moved(2), moved(3, during="readback"))}
    if cell.crash is not None:
        facts = {
            "canary": replace(CANARY, survived=False),
            "crash_recovery": CrashRecovery(cell.crash, 4.0, fsck_status=0),
        }
    return evidence(cell, **{**facts, **changed})


# --------------------------------------------------------------------------- the controls themselves


PLANTED = Cell("planted", client=ClientKind.HOST, control=Control.PLANTED)
IN_FLIGHT = Cell("inflight-modify", client=ClientKind.HOST, control=Control.IN_FLIGHT)
IDLE = Cell("no-writes", client=ClientKind.HOST, control=Control.IDLE)
_, STEADY, _, _, IN_FLIGHT_GUEST = CONTROL_CELLS

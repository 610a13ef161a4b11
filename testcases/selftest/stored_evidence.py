"""A run with nothing in it yet, and evidence for it.  Nothing here is a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    Comparison,
    DelayProfile,
    Evidence,
    Expectation,
    Extent,
    Failure,
    FileBlocks,
    FilesystemKind,
    NodeVerify,
    Observed,
    Ownership,
    PlantedChange,
    PlantedKind,
    Repair,
    Run,
    Sample,
    Stack,
    State,
    VerdictKind,
    Verify,
    Work,
)
from harness.store import Store

SWAP = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.NONE,
    delays=DelayProfile(20),
    expected=Expectation((VerdictKind.DIVERGED,), "why"),
)
IDLE = Cell("no-writes", cache=CacheMode.WRITEBACK)
RUN = Run("20261123T015003Z-4f2a", "quick", "2026-11-23T01:50:03Z", (SWAP, IDLE), Stack(kernel="6.1.0-40-amd64"))
BARE = Evidence(SWAP, 1, "2026-11-23T01:50:10Z")
NODE = NodeVerify("nodea", True, True, (Extent(16, 8), Extent(800, 24)), 4)
FULL = Evidence(
    cell=SWAP,
    attempt=1,
    started_at="2026-11-23T01:50:10Z",
    finished_at="2026-11-23T01:51:10Z",
    lab="nested",
    device_blocks=32768,
    before=State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate"),
    after=State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "VerifyS"),
    equal_before=True,
    observed=Observed(0o2140002, True, False, {"direct": True}, "native", "write back", None, True, True, 20, 0),
    work=Work(8.5, {"pages": 1e9}, 0, ("swapped",)),
    exposed_blocks=93210,
    verify=Verify(NODE, NODE, 9.25, 2),
    counter_kib=16,
    comparison=Comparison(32768, (Extent(16, 8),), 0.5, "controller"),
    planted=(PlantedChange(8, 8, "nodeb"), PlantedChange(80, 1, "nodea", PlantedKind.BYTE, 511)),
    samples=(
        Sample(2, 17, 9, "00ff", "ff00", BlockOwner.FREE, "free swap slot", 16, "text", "zeros", "8000000000000000"),
    ),
    ownership=Ownership(
        free=4,
        method="swap map",
        names=("slot 7",),
        files=(FileBlocks("/f", BlockOwner.FREE, 2, (0, 4096)),),
        extents={BlockOwner.FREE: (Extent(16, 32),)},
    ),
    repair=Repair("invalidate-remote", 2.5, 0),
    kernel_errors=("BUG: x",),
    failure=Failure("deadline", "verify", "it took too long"),
    phases={"verify": 9.25},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "runs", RUN)

"""One cell over a lab that only remembers, ready to be played.  Nothing here is a test."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stage import Stage

from harness.engine import cell_steps
from harness.model import CacheMode, Cell, ClientKind, DelayProfile, FilesystemKind, Observed, ReplicationProfile

GUEST_CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(20, 0))
HOST_CELL = Cell("inflight-modify", client=ClientKind.HOST)
ALARMED = Cell("inflight-modify", client=ClientKind.HOST, replication=ReplicationProfile(integrity="crc32c"))


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    numbers = itertools.count(1)
    return lambda cell=GUEST_CELL: Stage.of(tmp_path / f"runs{next(numbers)}", cell)

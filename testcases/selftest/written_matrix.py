"""Text of a test, loaded as a matrix file.  Nothing here is a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config.matrix import load
from harness.model import CacheMode, Cell, FilesystemKind
from harness.workloads import WORKLOADS

SHIPPED = Path(__file__).parents[1] / "matrices"
CELL = '[[cells]]\ncache = "none"\nfilesystem = "swap"\nworkload = "pressure"\n'
HOST = '[[cells]]\nclient = "host"\nworkload = "inflight-modify"\n'
IN_GUEST = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
# Each is one of two values of a key that is given in both cells.
TWO_OF = {
    "protocol": ("A", "C"),
    "integrity": ("crc32c", "none"),
    "disable_sendpage": (True, False),
    "scatter_gather": (False, True),
    "two_primaries": (True, False),
    "unsafe_migration": (True, False),
    "migrations": (2, 1),
    "migration_deadline": (7, 60),
    "crash": ("node", "reset"),
    "fault": ("io-error", "standalone"),
}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Loads a text as a matrix file."""

    def loaded(text: str) -> tuple[Cell, ...]:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load(str(path), WORKLOADS, tmp_path).cells

    return loaded


def ids(cells: tuple[Cell, ...]) -> list[str]:
    return [cell.id for cell in cells]


def toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)

"""What is planted below DRBD: the real scripts, on a file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.drbd.below import plant
from harness.errors import CommandError
from harness.model import PlantedChange, PlantedKind
from harness.remote.local import LocalRunner
from harness.workloads.controls import Planted

BLOCKS = 512


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    file = tmp_path / "lower"
    file.write_bytes(bytes(range(256)) * (BLOCKS * 4096 // 256))
    try:
        os.close(os.open(file, os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("no O_DIRECT in the folder for temporary files")
    return file


def planted_in(file: Path, *changes: PlantedChange) -> set[int]:
    """Plant ``changes`` and say which bytes changed."""
    before = file.read_bytes()
    plant(cast(Any, SimpleNamespace(lower=str(file), runner=LocalRunner(), require_lower=lambda what: None)), changes)
    after = file.read_bytes()
    assert len(after) == len(before)
    return {at for at in range(len(before)) if before[at] != after[at]}


@pytest.mark.parametrize("offset", [0, 1, 92, 255, 511])
def test_plant_byte_inverted_and_no_other_changed(lower: Path, offset: int) -> None:
    at = 77 * 512 + offset
    before = lower.read_bytes()[at]
    assert planted_in(lower, PlantedChange(77, 1, "nodeb", PlantedKind.BYTE, offset)) == {at}
    assert lower.read_bytes()[at] == 255 - before


def test_plant_sectors_random_and_no_other_changed(lower: Path) -> None:
    found = planted_in(lower, PlantedChange(8, 16), PlantedChange(101, 1))
    assert {at // 512 for at in found} == {*range(8, 24), 101}
    assert len(found) > 17 * 512 * 0.9, "one byte in 256 stays what it was by chance"


def test_plant_seeded_places_every_change_in_its_block(lower: Path) -> None:
    changes = Planted.changes(BLOCKS, 3, "nodea", "nodeb")
    found = {at // 4096 for at in planted_in(lower, *changes)}
    assert found == {block for one in changes for block in one.blocks()}
    assert planted_in(lower) == set(), "nothing is nothing"


def test_plant_missing_device_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        planted_in_nothing = SimpleNamespace(
            lower=str(tmp_path / "none" / "x"), runner=LocalRunner(), require_lower=lambda what: None
        )
        plant(cast(Any, planted_in_nothing), [PlantedChange(0, 1, "nodeb", PlantedKind.BYTE, 0)])

"""Matrix files: how often a cell is played, with which seeds, and which are played more often as they decide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_matrix import CELL, IN_GUEST, SHIPPED, ids, written

from harness.config.controls import with_controls
from harness.config.matrix import load
from harness.config.repetitions import cell_seed, new_seed, repeated
from harness.errors import UsageError
from harness.workloads import WORKLOADS

__all__ = ["written"]


def test_repeat_matrix_and_defaults_say_how_often(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'schema = 1\n[defaults]\nrepeat = 2\n[[cells]]\ncache = ["none", "writeback"]\nfilesystem = "swap"\n'
        'workload = "pressure"\n[[cells]]\ncache = "none"\nfilesystem = "ext4"\nworkload = "mmap"\nrepeat = 3\n'
        '[[cells]]\nclient = "host"\nworkload = "planted"\ncontrol = "planted"\n'
    )
    cells = load(str(file), WORKLOADS, SHIPPED).cells
    played = [cell.play for cell in with_controls(repeated(cells, None, 7))][5:]
    first, second = ["none-swap-pressure", "writeback-swap-pressure", "none-ext4-mmap"], "none-ext4-mmap"
    # The second time backwards: what comes first is not always the same.
    assert played == [*((one, 1) for one in first), *((one, 2) for one in reversed(first)), (second, 3)]
    assert [cell.repetition for cell in repeated(cells, 1, 7)] == [1] * 4, "what is asked for now counts"
    assert [cell.play for cell in repeated(cells, 2, 7) if cell.control] == [("host-planted", 1)]


@pytest.mark.parametrize("entry", ["repeat = 0", "repeat = [1, 2]", 'repeat = "often"', "repeat = 10001"])
def test_repeat_wrong_is_one_sentence(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'schema = 1\n[[cells]]\ncache = "none"\nfilesystem = "swap"\nworkload = "pressure"\n{entry}\n')
    with pytest.raises(UsageError, match="'repeat'"):
        load(str(file), WORKLOADS, SHIPPED)


@pytest.mark.parametrize("table", ["exclude", "expect"])
def test_repeat_is_no_pattern(tmp_path: Path, table: str) -> None:
    file = tmp_path / "own.toml"
    expected = 'verdicts = ["CLEAN"]\nreason = "x"\n' if table == "expect" else ""
    file.write_text(f"schema = 1\n{CELL}[[{table}]]\nrepeat = 2\n{expected}")
    with pytest.raises(UsageError, match="'repeat'"):
        load(str(file), WORKLOADS, SHIPPED)


@given(st.integers(1, 2**63 - 1), st.integers(1, 50))
def test_cell_seed_is_the_same_for_the_same_and_fits_everywhere(run_seed: int, repetition: int) -> None:
    seed = cell_seed(run_seed, "none-swap", repetition)
    assert 1 <= seed < 2**31 and seed == cell_seed(run_seed, "none-swap", repetition)
    others = {cell_seed(run_seed, cell, number) for cell in ("none-swap", "none-mmap") for number in range(1, 51)}
    assert len(others) > 98, "each cell and each repetition has its own"


def test_repeated_seeds_differ_and_a_run_seed_brings_them_back() -> None:
    seeds = [cell.seed for cell in repeated((IN_GUEST,), 5, 7)]
    assert len(set(seeds)) == 5 and seeds == [cell.seed for cell in repeated((IN_GUEST,), 5, 7)]
    assert seeds != [cell.seed for cell in repeated((IN_GUEST,), 5, 8)] and new_seed() != new_seed()


def test_deciding_cells_that_match_are_repeated_by_the_first_entry(written: Any) -> None:
    cells = written(
        """
        schema = 1
        [defaults]
        repeat = 2
        [[cells]]
        cache = ["none", "directsync", "writeback"]
        filesystem = "swap"
        workload = "reclaim"
        [[cells]]
        cache = "none"
        filesystem = "swap"
        workload = "pressure"
        repeat = 1
        [[deciding]]
        cache = "none"
        repeat = 5
        reason = "it diverges there or nowhere"
        [[deciding]]
        workload = "reclaim"
        cache = ["none", "directsync"]
        repeat = 3
        reason = "the other mode that opens with O_DIRECT"
        """
    )
    assert Counter(ids(cells)) == {
        "none-swap-reclaim": 5, "directsync-swap-reclaim": 3, "writeback-swap-reclaim": 2, "none-swap-pressure": 1,
    }  # fmt: skip
    assert [cell.repetition for cell in cells][:5] == [1, 2, 3, 4, 5]

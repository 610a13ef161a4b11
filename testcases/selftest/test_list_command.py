"""``drbd-harness list``: the runs with their outcomes, or the cells of a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stored_run import CELLS, apart, command, stored

from harness.model import Failure
from harness.store import run_ids

__all__ = ["apart", "command"]


def test_list_without_runs_exit_code_3(command: Any) -> None:
    code, _, err = command("list")
    assert code == 3 and err == "drbd-harness: there is no run in runs\n"


def test_list_runs_with_outcomes_damaged_run_passed_over(command: Any) -> None:
    stored()
    stored(run_id="run2", none={"failure": Failure("deadline", "work", "late")}, writeback=None)
    broken = stored(run_id="run3")
    (broken.directory / "run.json").write_text("{")
    code, out, err = command("list")
    assert code == 0 and run_ids(Path("runs")) == ("run1", "run2", "run3")
    assert "4 DIVERGED, 2 CLEAN, 1 CLEAN (strong)" in out and "1 not run" in out and "6.12-fake" in out
    assert err.startswith("run3: ") and "damaged" in err


def test_list_of_an_empty_name_is_no_list_of_the_runs(command: Any) -> None:
    stored()
    for option in ("--matrix", "--fio-job"):
        code, out, err = command("list", option, "")
        assert (code, out) == (4, "") and "''" in err and len(err.splitlines()) == 1


def test_list_matrix_prints_its_cells(command: Any) -> None:
    code, out, err = command("list", "--matrix", "quick")
    assert "about" in err.splitlines()[0] and "for 8 plays" in err and "estimate" not in out
    assert code == 0 and out.splitlines()[:5] == [cell.id for cell in CELLS[:5]]
    assert "none-swap-reclaim-link20ms" in out.splitlines()


def test_list_matrix_old_names_are_told_beside_the_cells(command: Any) -> None:
    Path("mine.toml").write_text('schema = 1\n[[cells]]\ncache = "none"\nworkload = ["swap", "ext4-cut"]\n')
    code, out, err = command("list", "--matrix", "mine.toml")
    assert code == 0 and out.splitlines()[5:] == ["none-swap-pressure", "none-ext4-truncate"]
    first, second = err.splitlines()[:2]
    assert first == (
        'drbd-harness: mine.toml, [[cells]] number 1: workload = "swap" is an old name; '
        'write filesystem = "swap", workload = "pressure"'
    )
    assert '"ext4-cut"' in second

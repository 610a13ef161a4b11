"""The front door, through pytest itself: the ids of what is collected, what -k and -m select, old names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plugin_world import CONTROLS, IDS, Runs, World, matrix, run, suite, world

from harness.pytest_plugin import pytest_run

__all__ = ["matrix", "run", "suite", "world"]

pytest_plugins = ("pytester",)


def test_items_matrix_cells_have_the_controls_in_front(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix))
    assert re.findall(r"test_cells\.py::test_cell\[(.+)\]", ran.out) == IDS
    assert ran.status == 0 and world.labs == [] and not (ran.folder / "runs").exists()


def test_items_stand_together_by_the_size_of_their_device(
    run: Runs, matrix: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = "none-swap-pressure"
    monkeypatch.setattr(pytest_run, "device_mib", lambda cell, least, canary: 320 if cell.id == large else least)
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix), "--drbd-repeat", "3")
    others = ["writeback-swap-pressure", "unsafe-swap-pressure"]
    order = [*others, large], [large, *reversed(others)], [*others, large]
    wanted = [f"{cell}-rep{number}" for number, cells in enumerate(order, 1) for cell in cells]
    assert re.findall(r"test_cells\.py::test_cell\[(.+)\]", ran.out) == [*CONTROLS, *wanted]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("none-swap-pressure", ["none-swap-pressure"]),
        ("swap and not none", ["writeback-swap-pressure", "unsafe-swap-pressure"]),
        ("host", CONTROLS[:4]),
    ],
)
def test_items_k_and_m_select_cells(run: Runs, matrix: Path, words: str, ids: list[str]) -> None:
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-k", words)
    assert re.findall(r"\[(.+)\]", ran.out) == ids


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("host-mutator", ["host-inflight-modify"]),
        ("none-swap-reclaim", ["none-swap-reclaim"]),
        ("none-ext4-cut-link20ms", ["none-ext4-truncate-link20ms"]),
        ("ext4-cut", ["none-ext4-truncate", "none-ext4-truncate-link20ms"]),
        ("idle or cut", ["host-no-writes", "none-ext4-truncate", "none-ext4-truncate-link20ms"]),
        ("truncate and not link20ms", ["none-ext4-truncate"]),
    ],
)
def test_select_former_id_or_workload_the_cell_of_today(run: Runs, matrix: Path, words: str, ids: list[str]) -> None:
    matrix.write_text(
        'schema = 1\ndefaults = { cache = "none" }\n[[cells]]\nfilesystem = "swap"\nworkload = "reclaim"\n'
        '[[cells]]\nfilesystem = "ext4"\nworkload = "truncate"\nlink_delay_ms = [0, 20]\n'
    )
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-k", words)
    assert re.findall(r"\[(.+)\]", ran.out) == ids


def test_marker_old_names_one_warning_each(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache=["none", "writeback"], workload="ext4-cut")
        def test_writes(verdict):
            pass
        """
    )
    ran = run("--collect-only")
    advice = (
        'the cell marker of test_writes: workload = "ext4-cut" is an old name; '
        'write filesystem = "ext4", workload = "truncate"'
    )
    assert ran.status == 0 and ran.out.count(advice) == 1 and "PytestDeprecationWarning" in ran.out


def test_all_cells_are_marked_as_needing_a_lab(run: Runs, matrix: Path) -> None:
    assert run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-m", "not lab").status == 3
    assert run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-m", "lab", "--strict-markers").status == 0


def test_says_what_to_do_where_no_cell_matches(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "-k", "NOSUCH")
    advice = f"-k 'NOSUCH' matches no cell, so nothing ran; 'drbd-harness list --matrix {matrix}' prints the ids"
    assert ran.status == 3 and advice in ran.out
    assert "matches no cell" not in run("--drbd-matrix", str(matrix), "-k", "none-swap-pressure").out


def test_run_selected_cells_are_its_plan(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    assert [cell.id for cell in ran.store.run().cells] == ["none-swap-pressure"]
    assert world.played == [*CONTROLS, "none-swap-pressure", *CONTROLS], "never without its controls"
    assert ran.status == 0 and ran.outcomes == {"passed": 1, "deselected": 7}

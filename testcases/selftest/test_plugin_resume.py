"""The front door, through pytest itself: a stored run that is gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

from plugin_world import CONTROLS, IDS, Runs, World, broken, diverged, matrix, run, suite, world

from harness.errors import InfrastructureError
from harness.store import run_ids

__all__ = ["matrix", "run", "suite", "world"]

pytest_plugins = ("pytester",)
GOLDEN = Path(__file__).parent / "golden"


def test_resume_plays_only_unanswered_cells(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = broken()
    assert run("--drbd-matrix", str(matrix)).status == 2
    world.finds.clear()
    world.played.clear()
    ran = run("--drbd-resume", "latest")
    assert (ran.status, ran.outcomes) == (0, {"passed": 8})
    assert world.played == [*CONTROLS, "unsafe-swap-pressure", *CONTROLS], "another lab, its controls"
    assert len(run_ids(ran.folder / "runs")) == 1
    assert [cell.id for cell in ran.store.run().cells] == IDS


def test_resume_keeps_the_lab_spec(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = broken()
    run("--drbd-matrix", str(matrix), "--drbd-suite", "bookworm", "--drbd-device-mib", "64")
    run("--drbd-resume", "latest")
    assert [(stack.suite, spec.device_mib) for spec, stack in world.specs] == [("bookworm", 64)] * 2
    refused = run("--drbd-resume", "latest", "--drbd-suite", "trixie")
    assert refused.status == 4 and "leave --drbd-suite out" in refused.err


def test_resume_finished_run_needs_no_lab(run: Runs, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = diverged()
    assert run("--drbd-matrix", str(matrix)).status == 1
    world.error = InfrastructureError("there is no lab any more")
    ran = run("--drbd-resume", "latest")
    assert (ran.status, ran.outcomes) == (1, {"passed": 7, "failed": 1}), "a finding stays one"
    assert len(world.specs) == 1


def test_resume_run_of_schema_1_nothing_is_played_again(run: Runs, matrix: Path, world: World) -> None:
    kept = Path("runs/quick-drbd-8.4")
    shutil.copytree(GOLDEN / kept.name, kept)
    world.error = InfrastructureError("there is no lab any more")
    ran = run("--drbd-resume", "quick-drbd-8.4")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert (world.specs, world.played) == ([], [])


def test_resume_run_of_schema_1_a_missing_cell_is_played_in_its_former_folder(
    run: Runs, matrix: Path, world: World
) -> None:
    kept = Path("runs/quick-drbd-8.4")
    shutil.copytree(GOLDEN / kept.name, kept)
    folder = kept / "cells" / "writeback-ext4-cut-link20ms"
    (folder / "1" / "evidence.json").unlink()
    ran = run("--drbd-resume", "quick-drbd-8.4")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert world.played == [*CONTROLS, "writeback-ext4-truncate-link20ms", *CONTROLS], "another lab, its controls"
    assert (folder / "2" / "evidence.json").is_file() and not folder.with_name(world.played[5]).exists()

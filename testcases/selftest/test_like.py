"""Cells of a stored run played again: exactly those, on a lab like its own, with its stack or another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from plugin_world import MATRIX, Ran, World, diverged, matrix, run, suite, world  # noqa: F401 - fixtures

from harness.store import Store

pytest_plugins = ("pytester",)

Runs = Callable[..., Ran]
LONGER = MATRIX.replace("three cells", "with one whose id holds another's") + (
    '[[cells]]\ncache = "none"\nfilesystem = "swap"\nworkload = "pressure"\nlink_delay_ms = 20\n'
)


@pytest.fixture
def played(run: Runs, matrix: Path, world: World) -> Store:  # noqa: F811
    """A run of four cells on a device of its own size, of which one id is the beginning of another."""
    matrix.write_text(LONGER)
    world.finds["none-swap-pressure-link20ms"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "--drbd-device-mib", "192", "--drbd-suite", "bookworm", "--drbd-seed", "7")
    assert ran.status == 0
    return ran.store


def test_like_plays_the_cell_and_no_other_on_the_same_kind_of_lab(
    run: Runs, played: Store, world: World  # noqa: F811
) -> None:  # fmt: skip
    world.played.clear()
    ran = run("--drbd-like", str(played.directory), "--drbd-cell", "none-swap-pressure", "--drbd-repeat", "2")
    assert ran.status == 0
    assert [cell for cell in world.played if not cell.startswith(("host", "directsync"))] == ["none-swap-pressure"] * 2
    lab, stack = world.specs[-1]
    assert (lab.device_mib, stack.suite) == (192, "bookworm")
    new, old = ran.store.run(), played.run()
    assert (new.matrix, new.matrix_digest) == (old.matrix, old.matrix_digest) and new.seed != old.seed
    (cell,) = {replace(one, repetition=1, seed=0) for one in new.cells if one.control is None}
    assert cell in {replace(one, repetition=1, seed=0) for one in old.cells}
    assert ran.store.directory.parent == played.directory.parent


def test_like_all_cells_with_another_stack(run: Runs, played: Store, world: World) -> None:  # noqa: F811
    ran = run("--drbd-like", played.directory.name, "--drbd-suite", "trixie")
    assert ran.status == 0 and world.specs[-1][1].suite == "trixie" and world.specs[-1][0].device_mib == 192
    assert {cell.id for cell in ran.store.run().cells} == {cell.id for cell in played.run().cells}


def test_like_run_that_does_not_say_its_stack_needs_one(run: Runs, played: Store, world: World) -> None:  # noqa: F811
    played.save_run(replace(played.run(), stack_spec={}))
    ran = run("--drbd-like", played.directory.name)
    assert ran.status == 4 and "does not say which stack it was played with: give --drbd-stack" in ran.err
    assert run("--drbd-like", played.directory.name, "--drbd-suite", "trixie").status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--drbd-cell", "none-swap-pressur"), "has no cell 'none-swap-pressur'; did you mean 'none-swap-pressure'?"),
        (("--drbd-matrix", "three.toml"), "on a lab like its own; leave --drbd-matrix out"),
        (("--drbd-device-mib", "256"), "leave --drbd-device-mib out"),
        (("--drbd-resume", "latest"), "leave --drbd-like out"),
    ],
)
def test_like_with_what_says_something_else_exit_code_4(
    run: Runs, played: Store, world: World, arguments: tuple[str, ...], said: str  # noqa: F811
) -> None:  # fmt: skip
    labs = len(world.labs)
    ran = run("--drbd-like", played.directory.name, *arguments)
    assert ran.status == 4 and said in ran.err and len(world.labs) == labs


def test_like_cell_without_a_run_exit_code_4(run: Runs, matrix: Path, world: World) -> None:  # noqa: F811
    ran = run("--drbd-matrix", str(matrix), "--drbd-cell", "none-swap-pressure")
    assert ran.status == 4 and "give it with --drbd-like RUN" in ran.err


def test_like_cell_of_a_users_own_test_is_said(run: Runs, played: Store, world: World) -> None:  # noqa: F811
    stored = played.run()
    own = replace(stored.cells[-1], workload="my-test")
    played.save_run(replace(stored, cells=(*stored.cells, own)))
    ran = run("--drbd-like", played.directory.name, "--drbd-cell", own.id)
    assert ran.status == 4 and "is a test's own; only that test plays it" in ran.err

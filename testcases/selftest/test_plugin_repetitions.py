"""The front door, through pytest itself: repetitions and their seeds, and the parts of a matrix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plugin_world import CONTROLS, OWN, SWAPS, Runs, World, broken, junit, matrix, run, suite, world

from harness.store import Store, judged_results

__all__ = ["matrix", "run", "suite", "world"]

pytest_plugins = ("pytester",)


# --------------------------------------------------------------------------- repetitions


def test_repeat_items_are_interleaved_and_selected_by_cell(run: Runs, matrix: Path, world: World) -> None:
    asked = ("--drbd-matrix", str(matrix), "--drbd-repeat", "2")
    ran = run("--collect-only", "-q", *asked)
    items = re.findall(r"test_cells\.py::test_cell\[(.+)\]", ran.out)
    assert items == [*CONTROLS, *(f"{cell}-rep1" for cell in SWAPS), *(f"{cell}-rep2" for cell in reversed(SWAPS))]
    some = run("--collect-only", "-q", *asked, "-k", "none-swap-pressure")
    assert re.findall(r"\[(.+)\]", some.out) == ["none-swap-pressure-rep1", "none-swap-pressure-rep2"]
    one = run("--collect-only", "-q", *asked, "-k", "none-swap-pressure and rep2")
    assert re.findall(r"\[(.+)\]", one.out) == ["none-swap-pressure-rep2"]


def test_repeat_every_play_has_a_seed_a_result_and_an_attempt(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--drbd-repeat", "2", "--drbd-seed", "7", "--junitxml", "junit.xml")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert world.played == [*CONTROLS, *SWAPS, *reversed(SWAPS), *CONTROLS]
    stored = ran.store.run()
    assert stored.seed == 7 and [cell.play for cell in stored.cells[5:]] == [
        (cell, number) for number in (1, 2) for cell in (SWAPS if number == 1 else reversed(SWAPS))
    ]
    seeds = [cell.seed for cell in stored.cells[5:]]
    assert len(set(seeds)) == len(seeds) and all(seeds)
    plays = [one.cell for one in ran.store.every_attempt() if one.cell.control is None]
    assert {cell.play: cell.seed for cell in plays} == {cell.play: cell.seed for cell in stored.cells[5:]}
    cases, _ = junit(ran)
    assert len(cases) == 11, "every name once"
    assert {cell.play for cell in (one.cell for one in judged_results(ran.store))} == {
        cell.play for cell in stored.cells
    }
    assert "the seed of this run is 7" in ran.out


def test_seed_of_a_run_brings_the_same_seeds_back(run: Runs, matrix: Path, world: World) -> None:
    def seeds(*arguments: str) -> list[int]:
        return [cell.seed for cell in run("--drbd-matrix", str(matrix), *arguments).store.run().cells]

    first, again = (seeds("--drbd-seed", "7", "--drbd-run-id", name) for name in ("r1", "r2"))
    assert first == again != seeds("--drbd-run-id", "r3")


def test_resume_plays_only_the_repetitions_that_are_missing(run: Runs, matrix: Path, world: World) -> None:
    world.finds_later["unsafe-swap-pressure"] = broken()
    assert run("--drbd-matrix", str(matrix), "--drbd-repeat", "2").status == 2
    before = Store.open(Path("runs"), "latest").run()
    world.finds_later.clear()
    world.played.clear()
    ran = run("--drbd-resume", "latest")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert world.played == [*CONTROLS, "unsafe-swap-pressure", *CONTROLS]
    after = ran.store.run()
    assert after.cells == before.cells and after.seed == before.seed
    last = ran.store.evidence("unsafe-swap-pressure")
    assert last is not None and (last.cell.repetition, last.attempt) == (2, 3)
    assert last.cell.seed == next(cell.seed for cell in after.cells if cell.play == last.cell.play)
    refused = run("--drbd-resume", "latest", "--drbd-repeat", "3")
    assert refused.status == 4 and "leave --drbd-repeat out" in refused.err


@pytest.mark.parametrize(
    ("option", "words"),
    [(("--drbd-repeat", "0"), "--drbd-repeat is 0; it is a number from 1 to 10000"),
     (("--drbd-seed", "-1"), "--drbd-seed is -1; it is a number from 1 to 9223372036854775807")],
)  # fmt: skip
def test_repeat_and_seed_out_of_range_one_sentence(
    run: Runs, matrix: Path, world: World, option: tuple[str, str], words: str
) -> None:
    ran = run("--drbd-matrix", str(matrix), *option)
    assert ran.status == 4 and words in ran.err and world.labs == []


def test_controls_every_is_for_the_session_and_a_number_of_seconds(run: Runs, matrix: Path, world: World) -> None:
    refused = run("--drbd-matrix", str(matrix), "--drbd-controls-every", "0")
    assert refused.status == 4 and "--drbd-controls-every is 0; it is a number from 1 to" in refused.err
    assert world.labs == []
    assert run("--drbd-matrix", str(matrix), "--drbd-controls-every", "7200").status == 0


def test_repeat_own_test_is_repeated_too(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache="none", repeat=2'))
    assert re.findall(r"\[(.+)\]", run("--collect-only", "-q").out) == ["none-my-own-rep1", "none-my-own-rep2"]
    ran = run("--collect-only", "-q", "--drbd-repeat", "3")
    assert re.findall(r"\[(.+)\]", ran.out)[-1] == "none-my-own-rep3"


def test_resume_own_test_has_the_seeds_of_its_run(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache="none", repeat=2'))
    run("--drbd-seed", "7")
    ran = run("--drbd-resume", "latest")
    planned = {cell.play: cell.seed for cell in ran.store.run().cells}
    plays = [one.cell for one in ran.store.every_attempt() if one.cell.control is None]
    assert len(plays) == 4 and all(cell.seed == planned[cell.play] for cell in plays)


# --------------------------------------------------------------------------- parts of a matrix


def test_shard_parts_play_every_play_once_with_its_seed(run: Runs, matrix: Path, world: World) -> None:
    asked = ("--drbd-matrix", str(matrix), "--drbd-repeat", "2", "--drbd-seed", "7")
    whole = run(*asked, "--drbd-run-id", "r0").store.run()
    found = []
    for number in ("1", "2"):
        world.played.clear()
        ran = run(*asked, "--drbd-run-id", f"r{number}", "--drbd-shard", f"{number}/2")
        stored = ran.store.run()
        assert (ran.status, stored.shard, stored.plan) == (0, f"{number}/2", (*CONTROLS, *SWAPS))
        assert stored.matrix_digest == whole.matrix_digest != ""
        assert world.played == [*CONTROLS, *(cell.id for cell in stored.cells[5:]), *CONTROLS]
        found += [cell for cell in stored.cells if cell.control is None]
    assert sorted(found, key=str) == sorted((cell for cell in whole.cells if cell.control is None), key=str)
    assert (whole.shard, whole.plan, whole.chosen) == ("", (), {"--repeat": "2"})
    assert run(*asked, "--drbd-run-id", "r3", "-k", "unsafe").store.run().chosen == {"-k": "unsafe", "--repeat": "2"}


def test_shard_resume_keeps_the_part(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = broken()
    assert run("--drbd-matrix", str(matrix), "--drbd-shard", "1/2").status == 2
    before = Store.open(Path("runs"), "latest").run()
    world.finds.clear()
    world.played.clear()
    ran = run("--drbd-resume", "latest")
    assert ran.status == 0 and world.played == [*CONTROLS, "unsafe-swap-pressure", *CONTROLS]
    after = ran.store.run()
    assert (after.cells, after.shard, after.plan) == (before.cells, "1/2", before.plan)
    refused = run("--drbd-resume", "latest", "--drbd-shard", "1/2")
    assert refused.status == 4 and "leave --drbd-shard out" in refused.err


def test_shard_own_tests_are_dealt_out_also_when_resumed(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache=["none", "writeback"], repeat=2'))
    run("--drbd-shard", "2/4", "--drbd-run-id", "part")
    planned = [cell.play for cell in Store.open(Path("runs"), "part").run().cells]
    assert planned == [("none-my-own", 2)]
    ran = run("--drbd-resume", "part")
    assert [cell.play for cell in ran.store.run().cells] == planned
    assert {one.cell.play for one in ran.store.every_attempt() if one.cell.control is None} == set(planned)


@pytest.mark.parametrize(
    ("shard", "words"),
    [("0/3", "--drbd-shard is '0/3'; it is one part of several, written as i/n"),
     ("4/4", "--drbd-shard is 4/4, but there are only 3 plays: this part has none of them")],
)  # fmt: skip
def test_shard_that_cannot_be_one_sentence(run: Runs, matrix: Path, world: World, shard: str, words: str) -> None:
    ran = run("--drbd-matrix", str(matrix), "--drbd-shard", shard)
    assert ran.status == 4 and words in ran.err and world.labs == []

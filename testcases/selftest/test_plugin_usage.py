"""The front door, through pytest itself: what is wrong before it starts is one sentence, and nothing is brought up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plugin_world import MATRIX, OWN, Runs, World, matrix, run, suite, world

__all__ = ["matrix", "run", "suite", "world"]

pytest_plugins = ("pytester",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--drbd-matrix", "quikc"), "there is no matrix 'quikc'.*did you mean 'quick'"),
        (("--drbd-matrix", "missing.toml"), "there is no matrix file missing.toml"),
        (("--drbd-resume", "20260101"), "there is no run '20260101' in runs"),
        (("--drbd-device-mib", "much"), "--drbd-device-mib"),
    ],
)
def test_options_wrong_value_is_one_sentence(
    run: Runs, matrix: Path, world: World, arguments: tuple[str, ...], words: str
) -> None:
    ran = run(*arguments)
    assert ran.status == 4
    assert re.search(words, ran.out + ran.err)
    assert "Traceback" not in ran.out + ran.err and world.labs == []


def test_matrix_unknown_key_is_one_sentence(run: Runs, matrix: Path) -> None:
    matrix.write_text(MATRIX.replace("[[cells]]", '[[cells]]\ncahce = "none"'))
    ran = run("--drbd-matrix", str(matrix))
    assert ran.status == 4 and "did you mean 'cache'?" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('cahce="none"', "did you mean 'cache'?"),
        ('cache="nnoe"', "did you mean 'none'?"),
        ("", "'cache' is missing"),
        ('cache="none", migrations=2', "a test of your own moves its guest with the fixture 'migrate'"),
        ('cache="none", crash="node"', "'crash' happens to the harness's own workloads only"),
        ('cache="none", fault="standalone"', "'fault' happens to the harness's own workloads only"),
        ('cache="none", filesystem="ext4"', "'filesystem' is made for the harness's own workloads only"),
        ('cache="none", layout="lvm"', "'layout' is made for the harness's own workloads only"),
        ('cache="none", mitigation="crypt-guest"', "the layout 'crypt' is made for the harness's own workloads only"),
        ('cache="none", sabotage="flip-free"', "'sabotage' is made for the harness's own workloads only"),
    ],
)
def test_marker_unknown_key_is_one_sentence(
    run: Runs, pytester: pytest.Pytester, world: World, keys: str, words: str
) -> None:
    pytester.makepyfile(test_own=OWN.format(keys=keys))
    ran = run()
    assert words in ran.out + ran.err and "test_my_own" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert ran.status == 4 and world.labs == []


@pytest.mark.parametrize(("fixtures", "status"), [("lab, resource", 4), ("guest", 4), ("lab, resource, verdict", 0)])
def test_marker_of_a_test_that_plays_no_cell_is_refused(
    run: Runs, pytester: pytest.Pytester, world: World, fixtures: str, status: int
) -> None:
    mark = 'import pytest\n@pytest.mark.cell(client="host")\n'
    pytester.makepyfile(test_own=f"{mark}def test_my_own({fixtures}):\n    pass\n")
    ran = run("--collect-only")
    assert ran.status == status and world.labs == []
    said = "test_my_own: it has the marker 'cell' and names none of the fixtures that play a cell"
    assert (said in ran.out + ran.err) is (status == 4)
    assert "Traceback" not in ran.out + ran.err


def test_marker_own_test_names_its_cell(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache=["none", "writeback"], link_delay_ms=20'))
    ran = run("--collect-only", "-q", "--strict-markers")
    assert re.findall(r"\[(.+)\]", ran.out) == ["none-my-own-link20ms", "writeback-my-own-link20ms"]


def test_run_nothing_selected_exit_code_3(run: Runs, matrix: Path, world: World) -> None:
    assert run("--drbd-matrix", str(matrix), "-k", "nosuchcell").status == 3
    assert world.labs == []


def test_run_without_matrix_exit_code_3(run: Runs, matrix: Path, world: World) -> None:
    ran = run()
    assert "INTERNALERROR" not in ran.out + ran.err
    assert ran.status == 3, "a success that did nothing is none"
    assert world.labs == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--drbd-suite", "warty"), "there is no node image of 'warty'"),
        (("--drbd-guest-suite", "warty"), "there is no guest image of 'warty'"),
        (("--drbd-device-mib", "1"), "device_mib is 1"),
    ],
)
def test_options_impossible_lab_is_refused_at_once(
    run: Runs, matrix: Path, world: World, option: tuple[str, str], words: str
) -> None:
    ran = run("--drbd-matrix", str(matrix), *option)
    assert ran.status == 4 and words in ran.err
    assert not world.labs and not (ran.folder / "runs").exists()

"""``drbd-harness run`` hands over to pytest, with everything in one folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from stored_run import apart, command, handed_over, stored

from harness.store import Store

__all__ = ["apart", "command"]


@pytest.fixture(autouse=True)
def nothing_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """What should be refused, and is not, starts no lab."""

    def become(*_: object) -> None:
        raise AssertionError("it would be played")

    monkeypatch.setattr(os, "execv", become)


def value(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_run_becomes_pytest_with_everything_in_one_folder(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = handed_over(monkeypatch, command, "run", "--matrix", "smoke", "-k", "none or back", "--device-mib", "64")
    assert argv[:3] == [sys.executable, "-m", "pytest"] and argv[3].endswith("testcases/lab")
    chosen = [value(argv, option) for option in ("--drbd-matrix", "-k", "--drbd-device-mib")]
    assert chosen == ["smoke", "none or back", "64"]
    run_id = value(argv, "--drbd-run-id")
    assert f"--junitxml=runs/{run_id}/junit.xml" in argv and f"--html=runs/{run_id}/pytest.html" in argv


def test_run_without_matrix_plays_quick(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = handed_over(monkeypatch, command, "run", "--runs", "elsewhere")
    assert (value(argv, "--drbd-matrix"), value(argv, "--drbd-runs")) == ("quick", "elsewhere")
    assert "-k" not in argv and "--drbd-resume" not in argv


def test_run_resume_stays_in_its_folder(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(Path("elsewhere"))
    argv = handed_over(monkeypatch, command, "run", "--resume", "latest", "--runs", "elsewhere")
    assert Store.open(Path(value(argv, "--drbd-runs")), value(argv, "--drbd-resume")).run().id == "run1"
    assert "--drbd-matrix" not in argv and "--drbd-run-id" not in argv
    assert "--junitxml=elsewhere/run1/junit.xml" in argv


def test_run_resume_gives_no_lab_options(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored()
    argv = handed_over(monkeypatch, command, "run", "--resume", "latest")
    assert not {"--drbd-suite", "--drbd-device-mib"} & set(argv), "else one run mixes two kernels"


@pytest.mark.parametrize(
    ("option", "beside"),
    [("--matrix", ()), ("--resume", ()), ("--like", ()), ("--group", ("--inventory", "x")), ("--client", ())],
)
def test_run_with_an_empty_name_is_not_as_if_it_were_left_out(command: Any, option: str, beside: tuple[str]) -> None:
    said = f"drbd-harness: {option} is empty; give it a value, or leave it out\n"
    assert command("run", option, "", *beside) == (4, "", said)


def test_run_with_a_device_of_no_size_is_not_as_if_none_were_asked_for(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = handed_over(monkeypatch, command, "run", "--device-mib", "0")
    assert value(argv, "--drbd-device-mib") == "0", "pytest's part says what the least is"


def test_run_that_could_not_be_kept_one_sentence_and_nothing_is_left(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    before = sorted(Path().rglob("*"))
    for runs, folder, why in (
        ("file", "file", "Not a directory"),
        ("file/runs", "file/runs", "Not a directory"),
        ("/proc/runs", "/proc/runs", "No such file or directory"),
        ("x" * 300, "x" * 300, "File name too long"),
    ):
        said = f"drbd-harness: nothing can be kept in {folder}: {why}; name another folder\n"
        assert command("run", "--runs", runs) == (4, "", said)
    handed_over(monkeypatch, command, "run", "--runs", "new/runs")
    assert sorted(Path().rglob("*")) == before

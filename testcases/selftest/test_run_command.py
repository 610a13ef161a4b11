"""``drbd-harness run`` hands over to pytest, with everything in one folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from stored_run import apart, command, handed_over, stored

from harness.store import Store

__all__ = ["apart", "command"]


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

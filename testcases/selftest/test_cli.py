"""The command: one sentence for what is wrong, the right exit code, and stored runs that need no lab."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_judge import evidence, observed, oracles

from harness.cli import main
from harness.config.controls import with_controls
from harness.model import (
    CacheMode,
    Cell,
    Control,
    Evidence,
    Expectation,
    Failure,
    FilesystemKind,
    Run,
    Stack,
    VerdictKind,
)
from harness.store import Store, judged_results, run_ids
from harness.workloads.controls import Planted

NONE = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.NONE,
    expected=Expectation((VerdictKind.DIVERGED,), "buffers change in flight"),
)
BACK = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.WRITEBACK,
    expected=Expectation((VerdictKind.CLEAN,), "pages are copied"),
)
CELLS = with_controls((NONE, BACK))


class Ended(Exception):  # noqa: N818 - it is no error
    """The process would have become another one."""


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's labs or runs; none can start one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DRBD_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run ``drbd-harness`` in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["drbd-harness", *arguments])
        code: Any = 0
        try:
            main.main()
        except SystemExit as ended:
            code = ended.code
        said = capfd.readouterr()
        return int(code or 0), said.out, said.err

    return run


def found(cell: Cell) -> Evidence:
    """What a good lab finds."""
    good: dict[str, Any] = {}
    if cell.control is Control.PLANTED:
        blocks = {block for extent in Planted.extents(32768) for block in extent.blocks()}
        good = {"planted": Planted.extents(32768), **oracles(blocks, blocks)}
    elif cell.control is Control.IN_FLIGHT or cell == NONE:
        good = oracles({1, 2}, {1, 2})
    return evidence(cell, observed=observed(cell), **good)


def stored(root: Path = Path("runs"), run_id: str = "run1", **other: dict[str, Any]) -> Store:
    """A run on the disk; ``other`` replaces facts of a cell by its row, and None leaves its evidence out."""
    run = Run(run_id, "quick", "2026-11-23T01:50:03Z", CELLS, Stack("trixie", "6.12-fake", "8.4.11"))
    store = Store.create(root, run)
    for cell in CELLS:
        changed = other.get(cell.row, {}) if cell.control is None else {}
        if changed is not None:
            store.begin(cell).save(replace(found(cell), **changed))
    return store


# --------------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--nonsense",), "--nonsense"),
        (("judge", "--nonsense"), "--nonsense"),
        (("judge",), "RUN"),
        (("jugde", "latest"), "jugde"),
        (("judge", "run7"), "there is no run 'run7' in runs"),
        (("judge", "latest"), "there is no run in runs"),
        (("report", "run7"), "there is no run 'run7'"),
        (("compare", "run7", "run8"), "there is no run 'run7'"),
        (("run", "--device-mib", "much"), "--device-mib"),
        (("run", "--resume", "run7"), "there is no run 'run7'"),
        (("run", "--resume", "run7", "--matrix", "quick"), "leave them out"),
        (("list", "--matrix", "quikc"), "did you mean 'quick'?"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_four(command: Any, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = command(*arguments)
    assert code == 4, out + err
    assert err.startswith("drbd-harness: ") and words in err
    assert err.count("\n") == 1 and out == "", "one sentence"


def test_the_nearest_name_is_offered(command: Any) -> None:
    stored()
    assert "did you mean 'run1'?" in command("judge", "run")[2]


def test_nothing_to_list_is_nothing_run(command: Any) -> None:
    code, _, err = command("list")
    assert code == 3 and err == "drbd-harness: there is no run in runs\n"


def test_help_and_version_are_successes(command: Any) -> None:
    assert command("version")[0] == 0
    code, out, _ = command("--help")
    assert code == 0 and "judge" in out and "doctor" in out
    assert command("judge", "--help")[0] == 0


def test_ctrl_c_is_one_sentence(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    assert command("version") == (2, "", "drbd-harness: interrupted\n")


def test_ctrl_c_inside_of_a_command_too(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: Path) -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.store.run_ids", interrupted)
    code, _, err = command("list")
    assert (code, err) == (2, "drbd-harness: interrupted\n")


# --------------------------------------------------------------------------- a stored run, judged again


def test_a_stored_run_is_judged_without_a_lab_and_as_before(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored()
    before = {one.cell.id: one.verdict for one in judged_results(store)}
    monkeypatch.setitem(sys.modules, "libvirt", None)
    code, out, err = command("judge", "run1")
    assert code == 0, out + err
    assert "DIVERGED" in out and "CLEAN" in out and err == ""
    assert {one.cell.id: one.verdict for one in judged_results(store)} == before
    assert {kind.kind for kind in before.values() if kind} == {VerdictKind.DIVERGED, VerdictKind.CLEAN}


def test_a_run_is_named_by_its_id_its_folder_or_as_the_latest(command: Any, tmp_path: Path) -> None:
    stored(tmp_path / "elsewhere")
    for name in (("run1", "--runs", "elsewhere"), ("elsewhere/run1",), ("latest", "--runs", "elsewhere")):
        assert command("judge", *name)[0] == 0


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({}, 0),
        ({"writeback": oracles({5}, {5})}, 1),
        ({"none": oracles(set(), set())}, 1),
        ({"writeback": oracles(set(), set(), 2)}, 2),
        ({"writeback": {"failure": Failure("deadline", "work", "late")}}, 2),
        ({"writeback": None}, 2),
        ({"none": {"failure": Failure("deadline", "work", "late")}, "writeback": oracles({5}, {5})}, 1),
        ({"none": None, "writeback": oracles({5}, {5})}, 1),
        ({"none": {"failure": Failure("refused", "attach", "no")}}, 1),
    ],
    ids=["as-expected", "finding", "not-seen", "disagree", "failure", "not-run", "both", "left", "refused"],
)  # fmt: skip
def test_the_exit_code_of_a_run(command: Any, other: dict[str, Any], code: int) -> None:
    stored(**other)
    assert command("judge", "run1")[0] == code


def test_a_run_without_evidence_did_not_run(command: Any) -> None:
    Store.create(Path("runs"), Run("run1", "quick", "now", CELLS))
    code, _, err = command("judge", "run1")
    assert code == 3 and err.endswith("no cell of runs/run1 has evidence\n")


def test_damaged_evidence_is_said_and_counts_as_not_run(command: Any) -> None:
    store = stored()
    (store.directory / "cells" / NONE.id / "1" / "evidence.json").write_text("{")
    code, _, err = command("judge", "run1")
    assert code == 2 and "is damaged: it is not whole JSON" in err


def test_controls_of_another_lab_prove_nothing(command: Any) -> None:
    stored(writeback={"lab": "another"})
    code, out, _ = command("judge", "run1")
    assert code == 2 and "INCONCLUSIVE" in out


def test_the_report_is_written_again(command: Any) -> None:
    store = stored()
    code, out, _ = command("report", "run1")
    assert code == 0 and Path(out.strip()) == (store.directory / "report.html").resolve()
    assert "none-swap-pressure" in (store.directory / "report.html").read_text()


def test_runs_are_listed_with_how_they_ended_and_a_broken_one_is_passed_over(command: Any) -> None:
    stored()
    stored(run_id="run2", none={"failure": Failure("deadline", "work", "late")}, writeback=None)
    broken = stored(run_id="run3")
    (broken.directory / "run.json").write_text("{")
    code, out, err = command("list")
    assert code == 0 and run_ids(Path("runs")) == ("run1", "run2", "run3")
    assert "3 DIVERGED, 2 CLEAN" in out and "1 not run" in out and "6.12-fake" in out
    assert err.startswith("run3: ") and "damaged" in err


def test_the_cells_of_a_matrix_are_listed(command: Any) -> None:
    code, out, _ = command("list", "--matrix", "quick")
    assert code == 0 and out.splitlines()[:3] == ["host-planted", "host-no-writes", "host-inflight-modify"]
    assert "none-swap-reclaim-link20ms" in out.splitlines()


# --------------------------------------------------------------------------- two runs


def test_runs_that_say_the_same(command: Any) -> None:
    stored()
    stored(run_id="run2")
    code, out, _ = command("compare", "run1", "run2")
    assert code == 0 and out.count("DIVERGED 2/1000") == 4


def test_a_verdict_that_changed_is_a_finding(command: Any) -> None:
    stored()
    stored(run_id="run2", writeback=oracles(set(range(50)), set(range(50))))
    code, out, _ = command("compare", "run1", "run2")
    assert code == 1
    (line,) = [line for line in out.splitlines() if "writeback-swap-pressure" in line]
    assert "CLEAN 0/1000" in line and "DIVERGED 50/1000" in line and "e-" in line


def test_a_cell_that_only_one_run_has_is_no_change(command: Any) -> None:
    stored()
    stored(run_id="run2", writeback=None)
    code, out, _ = command("compare", "run1", "run2")
    assert code == 0 and "not run" in out


# --------------------------------------------------------------------------- handing over to pytest


def handed_over(monkeypatch: pytest.MonkeyPatch, command: Any, *arguments: str) -> list[str]:
    handed: list[list[str]] = []

    def become(path: str, argv: list[str]) -> None:
        assert path == sys.executable
        handed.append(argv)
        raise Ended

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(Ended):
        command(*arguments)
    return handed[0]


def value(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_run_is_pytest_with_everything_kept_in_one_folder(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = handed_over(monkeypatch, command, "run", "--matrix", "smoke", "-k", "none or back", "--device-mib", "64")
    assert argv[:3] == [sys.executable, "-m", "pytest"] and argv[3].endswith("testcases/lab")
    chosen = [value(argv, option) for option in ("--drbd-matrix", "-k", "--drbd-device-mib")]
    assert chosen == ["smoke", "none or back", "64"]
    run_id = value(argv, "--drbd-run-id")
    assert f"--junitxml=runs/{run_id}/junit.xml" in argv and f"--html=runs/{run_id}/pytest.html" in argv


def test_run_without_a_matrix_is_the_quick_one(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = handed_over(monkeypatch, command, "run", "--runs", "elsewhere")
    assert (value(argv, "--drbd-matrix"), value(argv, "--drbd-runs")) == ("quick", "elsewhere")
    assert "-k" not in argv and "--drbd-resume" not in argv


def test_a_resumed_run_stays_where_it_is(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(Path("elsewhere"))
    argv = handed_over(monkeypatch, command, "run", "--resume", "latest", "--runs", "elsewhere")
    assert Store.open(Path(value(argv, "--drbd-runs")), value(argv, "--drbd-resume")).run().id == "run1"
    assert "--drbd-matrix" not in argv and "--drbd-run-id" not in argv
    assert "--junitxml=elsewhere/run1/junit.xml" in argv


def test_a_resumed_run_leaves_the_lab_as_the_run_has_it(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored()
    argv = handed_over(monkeypatch, command, "run", "--resume", "latest")
    assert not {"--drbd-suite", "--drbd-device-mib"} & set(argv), "else one run mixes two kernels"


# --------------------------------------------------------------------------- as a process


def test_the_exit_code_reaches_the_shell() -> None:
    stored(writeback=oracles({5}, {5}))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", "judge", "run1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr

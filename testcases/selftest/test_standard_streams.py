"""What a command is started with and how it is ended: no such thing makes a traceback, or an answer of no answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_command import run_here

from harness.cli import main
from harness.store import run_store

GOLDEN = Path(__file__).parent / "golden"
JSON = ("report", str(GOLDEN / "smoke-drbd-9.3.3"), "--json")
FULL_DISK = "drbd-harness: what is printed cannot be written: No space left on device\n"


def ended(redirected: str, *arguments: str) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of the command as bash starts it with ``redirected``."""
    argv = ["bash", "-c", f'exec "$@" {redirected}', "bash", sys.executable, "-m", "harness.cli.main", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [("version",), ("list", "--matrix", "smoke"), JSON, ("--help",)])
def test_command_whose_output_nobody_reads_no_answer_and_silent(arguments: tuple[str, ...]) -> None:
    ours, its = os.pipe()
    os.close(ours)
    argv = [sys.executable, "-m", "harness.cli.main", *arguments]
    done = subprocess.run(argv, stdout=its, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(its)
    told = [line for line in done.stderr.splitlines() if line.startswith("drbd-harness: ") or "BrokenPipe" in line]
    assert (done.returncode, told) == (2, []), "1 would be a finding"


@pytest.mark.parametrize("arguments", [("version",), JSON, ("judge", JSON[1]), ("--help",)])
def test_command_whose_output_has_no_room_one_sentence(arguments: tuple[str, ...]) -> None:
    assert ended(">/dev/full", *arguments) == (2, "", FULL_DISK)


@pytest.mark.parametrize("columns", ["1", "0", "-5", "9" * 30])
def test_command_for_a_terminal_of_any_width_ends_as_in_any_other(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, err = ended("", "judge", JSON[1])
    assert (code, err) == (0, "") and out


def test_command_started_without_streams_ends_as_with_them() -> None:
    code, document, _ = ended("<&- 2>&-", *JSON)
    assert code == 0 and document.startswith("{")
    assert ended("<&- >&-", *JSON) == (0, "", "")
    assert ended("2>/dev/full", "judge", "no-such-run")[:2] == (4, "")


def test_command_started_without_standard_error_warns_not_on_standard_output(tmp_path: Path) -> None:
    run_store.write_atomic(tmp_path / "run.json", (GOLDEN / "smoke-drbd-9.3.3" / "run.json").read_bytes())
    damaged = tmp_path / "cells" / "none-raw-no-writes" / "1"
    damaged.mkdir(parents=True)
    (damaged / "evidence.json").write_text("{")
    assert "damaged" in ended("", "report", str(tmp_path), "--csv")[2]
    code, table, _ = ended("2>&-", "report", str(tmp_path), "--csv")
    assert code == 0 and table.startswith("run,cell,")


@pytest.mark.parametrize(("asked", "code"), [("status", 2), ("bisect-step", 130)])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_command_interrupted_while_it_is_loaded_one_sentence(
    tmp_path: Path, sent: signal.Signals, asked: str, code: int
) -> None:
    there = tmp_path / "there"
    slow = f"import pathlib, time\npathlib.Path({str(there)!r}).touch()\ntime.sleep(60)\n"
    (tmp_path / "numpy.py").write_text(slow)
    # What is started in the background by a shell may have been told to ignore SIGINT.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    argv = [sys.executable, "-c", f"{heard}; from harness.cli.main import main; main()", asked]
    process = subprocess.Popen(
        argv, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while not there.exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", "drbd-harness: interrupted\n")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run ``drbd-harness`` in this process: (exit code, standard output, standard error)."""
    return partial(run_here, monkeypatch, capfd)


def test_command_with_a_fault_of_its_own_is_no_finding(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(**_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(main, "app", faulty)
    code, _, err = command("version")
    assert code == 2 and "ZeroDivisionError" in err, "who reports it needs the place"
    assert err.splitlines()[-1].startswith("drbd-harness: this is a fault of drbd-harness itself")


def test_command_that_the_system_refuses_a_file_one_sentence(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        Path("/proc/self/mem/none").read_bytes()

    monkeypatch.setattr(main, "app", refused)
    assert command("version") == (2, "", "drbd-harness: /proc/self/mem/none: Not a directory\n")


def test_command_with_a_line_break_in_a_name_one_line(command: Any) -> None:
    assert command("judge", "no\n\x1b[31mrun") == (4, "", "drbd-harness: there is no run 'no\\n\\x1b[31mrun' in runs\n")

"""The power of two foreign machines, as testcases/hardware cuts it: only QEMU is ended, and that it did is seen."""

from __future__ import annotations

import importlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HARDWARE = Path(__file__).parents[1] / "hardware"
# What has the words of that argument vector, and says that it runs.
WAITS = "import sys, time; print('there', flush=True); time.sleep(60)"
Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def alpha(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HARDWARE))
    machine = importlib.import_module("pair").Paired(tmp_path, tmp_path, "alpha")
    machine.run.mkdir()
    return machine


@pytest.fixture
def started(alpha: Any) -> Iterator[Started]:
    """A program that is noted as the machine's, with the words behind it; ended afterwards."""
    with ExitStack() as ends:

        def start(*words: str) -> subprocess.Popen[str]:
            argv = [sys.executable, "-c", WAITS, *words]
            program = ends.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            ends.callback(program.kill)
            assert program.stdout and program.stdout.readline() == "there\n"
            (alpha.run / "pid").write_text(str(program.pid))
            return program

        yield start


def test_power_is_cut_where_the_machine_is_noted(alpha: Any, started: Started) -> None:
    program = started("-pidfile", str(alpha.run / "pid"))
    alpha.cut()
    assert program.wait(timeout=10) == -9


def test_power_that_is_cut_ends_no_other_program_that_has_its_number(alpha: Any, started: Started) -> None:
    program = started("-pidfile", "/elsewhere/pid")
    alpha.cut()
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(timeout=1)


def test_power_that_was_cut_already_is_no_error(alpha: Any, started: Started) -> None:
    program = started("-pidfile", str(alpha.run / "pid"))
    program.kill()
    program.wait()
    alpha.cut()


def test_machine_that_ends_while_it_is_asked_does_not_run(alpha: Any) -> None:
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.bind(str(alpha.run / "qmp"))
        monitor.listen()

        def ends() -> None:
            connection, _ = monitor.accept()
            with connection:
                connection.sendall(b'{"QMP": {}}\n')
                connection.recv(65536)

        asked = threading.Thread(target=ends)
        asked.start()
        assert alpha.runs() is False
        asked.join(10)

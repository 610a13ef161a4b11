"""Tests dealt out to several processes: a lab never, the selftests by ``ci/test``, and what fails or ends is seen."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from plugin_world import Runs, World, matrix, run, suite, world

from harness.util.deadline import Deadline, poll

pytest_plugins = ("pytester",)
__all__ = ["matrix", "run", "suite", "world"]

CHECKOUT = Path(__file__).resolve().parents[2]
OTHER = "def test_other():\n    pass\n"
# A parameter that has the name of one of ours.
SOMEBODYS_CELL = "import pytest\n@pytest.mark.parametrize('cell', [1])\ndef test_other(cell):\n    pass\n"
OWN = "def test_own(resource):\n    pass\n"
# One that brings up a lab by itself.
MARKED = "import pytest\n@pytest.mark.lab\ndef test_own():\n    pass\n"
ASKS_LATER = "def test_late(request):\n    request.getfixturevalue('lab')\n"
SENTENCE = "a lab is played by one process: leave pytest-xdist's -n, --dist and --tx out"


# --------------------------------------------------------------------------- a lab


@pytest.mark.parametrize(
    ("text", "arguments"),
    [(OWN, ("-n", "1")), (OWN, ("-d", "--tx", "popen")), (MARKED, ("--dist", "each", "--tx", "popen"))],
    ids=["number", "load", "each"],
)
def test_lab_dealt_out_is_refused_in_one_sentence(
    run: Runs, pytester: pytest.Pytester, text: str, arguments: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_other=OTHER, test_own=text)
    ran = run(*arguments)
    assert (ran.status, ran.err.strip()) == (4, f"ERROR: test_own.py::test_own: {SENTENCE}")
    assert "Error" not in ran.out and "passed" not in ran.out and not (ran.folder / "runs").exists()


def test_lab_of_the_checkout_dealt_out_is_refused(run: Runs) -> None:
    ran = run("-n", "2", "--drbd-matrix", "smoke", str(CHECKOUT / "testcases" / "lab"))
    assert ran.status == 4 and re.fullmatch(rf"ERROR: \S+test_cells.py::\S+: {re.escape(SENTENCE)}\n+", ran.err)
    assert not (ran.folder / "runs").exists()


def test_lab_that_is_not_selected_lets_others_be_dealt_out_and_is_refused_when_it_is_asked_for_late(
    run: Runs, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_other=SOMEBODYS_CELL, test_own=OWN, test_late=ASKS_LATER)
    ran = run("-n", "1", "-k", "not test_own")
    assert ran.outcomes == {"passed": 1, "failed": 1} and ran.status == 1
    assert f"\n{SENTENCE}\n" in ran.out and not (ran.folder / "runs").exists()


def test_lab_without_workers_is_played(run: Runs, matrix: Path, world: World) -> None:
    ran = run("-n", "0", "--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    assert (ran.status, ran.outcomes["passed"]) == (0, 1) and world.labs == ["lab1"]


def test_nothing_selected_dealt_out_is_nothing_ran(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other=OTHER)
    assert run("-n", "1", "-k", "nothing").status == 3


def test_option_given_to_a_foreign_suite_dealt_out_is_refused_in_one_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other=OTHER)
    ended = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2", "--drbd-matrix", "smoke")
    told = ended.stderr.str().strip()
    assert ended.ret == 4 and told.startswith("ERROR: --drbd-matrix is for the DRBD harness, which no conftest.py here")
    assert "\n" not in told and "Error" not in ended.stdout.str()


# --------------------------------------------------------------------------- ci/test


SCRIPT = """
set -euo pipefail
. "$ROOT/ci/lib/console.sh"
. "$ROOT/ci/lib/checks.sh"
catch_signals
check_tests_side_by_side "selftests" "$1"
((${#FAILED[@]} == 0)) || { echo "FAILED: ${FAILED[*]}"; exit 1; }
"""
SKIPPED = "import pytest\n@pytest.mark.skip\ndef test_one():\n    pass\n"
CRASHES = "import os, signal\ndef test_one():\n    os.kill(os.getpid(), signal.SIGKILL)\ndef test_two():\n    pass\n"
# In two files, as a file stays with one worker.
WHERE = "import os\ndef test_{0}():\n    print('in', os.environ.get('PYTEST_XDIST_WORKER'))\n    assert False\n"
PLAIN = "import os\ndef test_one():\n    assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
WAITS = """
import os, pathlib, subprocess, time
def test_{0}():
    child = subprocess.Popen(["sleep", "600"])
    try:
        there = pathlib.Path({1!r}) / str(os.getpid())
        there.with_suffix(".new").write_text(str(child.pid))
        there.with_suffix(".new").rename(there)
        time.sleep(600)
    finally:
        child.kill()
        child.wait()
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """A folder for tests that is the top of its own suite."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def started(tests: Path, processors: int, terminal: int | None = None) -> subprocess.Popen[str]:
    """``check_tests_side_by_side`` of ``ci/test`` on that folder, on a machine of so many processors.

    ``terminal``: the one that it is started at, and that its output goes to.
    """
    if shutil.which("pytest", path=f"{sys.prefix}/bin") is None:
        pytest.skip("pytest is not in a virtual environment")
    programs = tests.parent / "bin"
    programs.mkdir()
    (programs / "nproc").write_text(f"#!/bin/sh\necho {processors}\n")
    (programs / "nproc").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {
        "PATH": f"{programs}:{environment['PATH']}", "ROOT": str(CHECKOUT), "VENV": sys.prefix,
        "LOG": str(tests.parent / "test.log"),
    }  # fmt: skip
    # What is started in the background by a shell may have been told to ignore SIGINT, and bash then never hears it.
    heard = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    argv = [sys.executable, "-c", heard, "bash", "-c", SCRIPT, "bash", str(tests)]
    if terminal is not None:
        return subprocess.Popen(argv, cwd=tests, env=environment, preexec_fn=partial(os.login_tty, terminal), text=True)
    return subprocess.Popen(
        argv, cwd=tests, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


Checks = Callable[..., tuple[int, str]]


@pytest.fixture
def checked(tests: Path) -> Checks:
    """The exit code and the output of that check, after tests of these texts, one in a file of its own."""

    def check(*texts: str, processors: int = 2) -> tuple[int, str]:
        for number, text in enumerate(texts):
            (tests / f"test_{number}.py").write_text(text)
        running = started(tests, processors)
        out, _ = running.communicate(timeout=300)
        return running.returncode, out

    return check


def test_check_tests_side_by_side_one_worker_a_processor_and_what_fails_is_shown(checked: Checks) -> None:
    code, out = checked(WHERE.format("a"), WHERE.format("b"))
    assert code == 1 and set(re.findall(r"^in (\w+)$", out, re.MULTILINE)) == {"gw0", "gw1"}
    assert "2 workers [2 items]" in out and "FAILED test_0.py::test_a" in out and "2 failed" in out
    assert "2 ran, 0 skipped" in out and out.endswith("FAILED: selftests (status 1)\n")


def test_check_tests_side_by_side_one_processor_no_workers(checked: Checks) -> None:
    code, out = checked(PLAIN, OTHER, processors=1)
    assert code == 0 and "2 passed" in out and out.endswith("2 ran, 0 skipped\n")


def test_check_tests_side_by_side_worker_that_dies_is_a_failure(checked: Checks) -> None:
    code, out = checked(CRASHES, OTHER)
    assert code == 1 and "crashed while running 'test_0.py::test_one'" in out and "1 failed" in out
    assert out.count("\nFAILED test_0.py") == 1, "it is not tried again"
    assert " ran, 0 skipped" in out and out.endswith("FAILED: selftests (status 1)\n")


@pytest.mark.parametrize(
    ("text", "said", "why"),
    [
        (SKIPPED, "0 ran, 1 skipped", "selftests (nothing ran)"),
        ("", "0 ran, 0 skipped", "selftests (status 5) selftests (nothing ran)"),
    ],
)
def test_check_tests_side_by_side_nothing_ran_is_a_failure(checked: Checks, text: str, said: str, why: str) -> None:
    code, out = checked(text)
    assert code == 1 and said in out and out.endswith(f"FAILED: {why}\n")


def test_check_tests_side_by_side_file_that_cannot_be_read_is_a_failure(checked: Checks) -> None:
    code, out = checked("nonsense", OTHER)
    assert code == 1 and "NameError: name 'nonsense' is not defined" in out and "ERROR test_0.py" in out


@pytest.fixture
def there(tests: Path) -> Iterator[Path]:
    """Where two workers that wait note themselves and what they started; at the end nothing of it is left."""
    folder = tests.parent / "there"
    folder.mkdir()
    for name in ("a", "b"):
        (tests / f"test_{name}.py").write_text(WAITS.format(name, str(folder)))
    yield folder
    for pid in alive(folder):
        os.kill(pid, signal.SIGKILL)


def alive(folder: Path) -> list[int]:
    """The workers that noted themselves in ``folder``, and what they started, as far as it runs."""
    noted = [pid for one in folder.glob("*[0-9]") for pid in (int(one.name), int(one.read_text()))]
    return [pid for pid in noted if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("at_the_terminal", [False, True], ids=["alone", "at-a-terminal"])
def test_check_tests_side_by_side_interrupted_leaves_no_worker(tests: Path, there: Path, at_the_terminal: bool) -> None:
    ours, its = os.openpty()
    running = started(tests, 2, terminal=its if at_the_terminal else None)
    os.close(its)
    try:
        poll(lambda: len(alive(there)) == 4 or None, Deadline.after(120, "two workers that wait"))
        if at_the_terminal:
            # Everything in its foreground hears that: the shell, pytest, its workers and what those started.
            os.write(ours, b"\x03")
        else:
            running.send_signal(signal.SIGINT)
        assert running.wait(timeout=120) == 130
        assert alive(there) == []
    finally:
        running.kill()
        running.wait()
        if running.stdout is not None:
            # Not read to its end: whoever did not hear the interruption holds it.
            running.stdout.close()
        os.close(ours)

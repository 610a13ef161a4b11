"""How the scripts of ci/ that are modules end, each as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from harness.errors import OutputError

CHECKOUT = Path(__file__).parents[2]


def ended(main: str, stdout: int | IO[bytes] = subprocess.PIPE) -> tuple[int, str, str]:
    """``main`` is an expression that is called; the exit code, standard output and standard error."""
    code = f"from harness.util.script import run_script\nrun_script('ci/some', lambda: {main})"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout or "", done.stderr


@pytest.mark.parametrize("code", [0, 1, 4])
def test_run_script_ends_with_the_code_and_all_that_was_printed(code: int) -> None:
    assert ended(f"print('said', end='') or {code}") == (code, "said", "")


def test_run_script_that_nobody_reads_ends_without_a_word() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        assert ended("print('x' * 100000) or 0", writes) == (OutputError.exit_code, "", "")
    finally:
        os.close(writes)


def test_run_script_on_a_full_disk_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        code, _, said = ended("print('said') or 0", full)
    assert (code, said) == (2, "ci/some: what is printed cannot be written: No space left on device\n")


def test_run_script_interrupted_one_sentence() -> None:
    assert ended("(_ for _ in ()).throw(KeyboardInterrupt)") == (2, "", "ci/some: interrupted\n")


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("figures", "report/figures"), ("costs", "report/costs"), ("bench", "report/bench"),
        ("probe-flush", "doctor/flush_probe"), ("probe-migration", "doctor/migration_probe"),
    ],
)  # fmt: skip
def test_modules_that_scripts_of_ci_run_end_by_it(script: str, module: str) -> None:
    assert f'run_script("ci/{script}", main)' in (CHECKOUT / "harness" / f"{module}.py").read_text()
    assert f"-m harness.{module.replace('/', '.')}" in (CHECKOUT / "ci" / script).read_text()

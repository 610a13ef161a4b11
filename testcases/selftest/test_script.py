"""How the scripts of ci/ that are modules end, each as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from harness.errors import OutputError, UsageError
from harness.report import costs

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


def test_run_script_that_the_system_refuses_a_file_one_sentence() -> None:
    assert ended("open('/nowhere/at all')") == (2, "", "ci/some: /nowhere/at all: No such file or directory\n")


def test_run_script_with_an_error_of_ours_its_sentence_and_its_code() -> None:
    code, out, said = ended("__import__('harness.store').store.Store.open(__import__('pathlib').Path('no'), 'latest')")
    assert (code, out, said) == (4, "", "ci/some: there is no run in no\n")


_SCRIPTS = pytest.mark.parametrize(
    ("script", "module"),
    [
        ("figures", "report/figures"), ("costs", "report/costs"), ("bench", "report/bench"),
        ("probe-flush", "doctor/flush_probe"), ("probe-migration", "doctor/migration_probe"),
    ],
)  # fmt: skip


def by_itself(script: str, *arguments: str) -> tuple[int, str, str]:
    """The script as people start it."""
    done = subprocess.run(
        [CHECKOUT / "ci" / script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@_SCRIPTS
def test_scripts_with_an_option_that_there_is_not_one_sentence_and_code_4(script: str, module: str) -> None:
    assert (CHECKOUT / "harness" / f"{module}.py").is_file()
    said = f"ci/{script}: unrecognized arguments: --no-such (--help lists what there is)\n"
    assert by_itself(script, "--no-such") == (4, "", said)


def test_bench_of_a_matrix_that_is_refused_measures_no_other_run(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "testcases" / "selftest" / "golden" / "smoke-drbd-9.3.3", tmp_path / "before")
    code, out, said = by_itself("bench", "--matrix", "no-such", "--runs", str(tmp_path))
    assert (code, out) == (4, "") and "there is no matrix 'no-such'" in said
    assert said.endswith("ci/bench: nothing was played of the matrix 'no-such', and so nothing is measured (the reason"
                         " is above)\n")  # fmt: skip
    assert not (tmp_path / "before" / "bench.json").exists()


@pytest.mark.parametrize("script", ["figures", "bench"])
def test_scripts_with_runs_that_no_file_system_takes_one_sentence(script: str) -> None:
    code, out, said = by_itself(script, "latest", "--runs", "x" * 300)
    assert (code, out) == (4, "")
    assert said == f"ci/{script}: the runs in {'x' * 300} cannot be read: File name too long\n"


def test_figures_of_a_checkout_that_is_none_one_sentence(tmp_path: Path) -> None:
    spec = tmp_path / "docs" / "figures.toml"
    said = f"ci/figures: {spec} cannot be read: No such file or directory\n"
    assert by_itself("figures", "--check", "--checkout", str(tmp_path)) == (4, "", said)


def test_costs_table_that_is_damaged_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "costs.json").write_text("<<<<<<< ours\n[]\n")
    monkeypatch.setattr(costs, "TABLE", tmp_path / "costs.json")
    monkeypatch.setattr(costs.read_table, "__defaults__", (tmp_path / "costs.json",))
    with pytest.raises(UsageError, match=r"costs\.json is damaged; 'git checkout' brings it back, or remove it$"):
        costs.table_of_checkout()


@_SCRIPTS
def test_modules_that_scripts_of_ci_run_end_by_it(script: str, module: str) -> None:
    assert f'run_script("ci/{script}", main)' in (CHECKOUT / "harness" / f"{module}.py").read_text()
    assert f"-m harness.{module.replace('/', '.')}" in (CHECKOUT / "ci" / script).read_text()

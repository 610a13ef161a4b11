"""The command: one sentence for what is wrong, the right exit code, and stored runs that need no lab."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_command import run_here
from test_judge import evidence, observed, oracles

from harness import images
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
    Work,
)
from harness.remote.local import LocalRunner
from harness.store import Store, judged_results, run_ids
from harness.util import logs
from harness.workloads.controls import Planted

GOLDEN = Path(__file__).parent / "golden"
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


class Ended(BaseException):
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

    return partial(run_here, monkeypatch, capfd)


def found(cell: Cell) -> Evidence:
    """What a good lab finds."""
    good: dict[str, Any] = {}
    if cell.control is Control.PLANTED:
        blocks = {block for extent in Planted.changes(32768, 5, "nodea", "nodeb") for block in extent.blocks()}
        good = {"planted": Planted.changes(32768, 5, "nodea", "nodeb"), **oracles(blocks, blocks)}
    elif cell.control in (Control.IN_FLIGHT, Control.IN_FLIGHT_GUEST) or cell == NONE:
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
    ("arguments", "part"),
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
        (("images", "build", "--drbd", ""), "--drbd: 'drbd' is empty"),
        (("images", "prune", "--drbd", ""), "--drbd: 'drbd' is empty"),
        (("run", "--resume", "run7"), "there is no run 'run7'"),
        (("run", "--resume", "run7", "--matrix", "quick"), "leave them out"),
        (("run", "--resume", "run7", "--repeat", "3"), "leave --repeat and --seed out"),
        (("run", "--resume", "run7", "--shard", "1/2"), "and --shard"),
        (("run", "--repeat", "0"), "--repeat"),
        (("run", "--shard", "0/3"), "--shard is '0/3'; it is one part of several"),
        (("run", "--shard", "4/3"), "--shard is '4/3'; it is one part of several"),
        (("run", "--shard", "x"), "--shard is 'x'; it is one part of several"),
        (("merge",), "RUN"),
        (("merge", "run7", "run8"), "there is no run 'run7' in runs"),
        (("list", "--matrix", "quikc"), "did you mean 'quick'?"),
    ],
)
def test_command_wrong_request_one_sentence_and_exit_code_4(
    command: Any, arguments: tuple[str, ...], part: str
) -> None:
    code, out, err = command(*arguments)
    assert code == 4, out + err
    assert err.startswith("drbd-harness: ") and part in err
    assert err.count("\n") == 1 and out == "", "one sentence"


def test_judge_unknown_run_nearest_name_offered(command: Any) -> None:
    stored()
    assert "did you mean 'run1'?" in command("judge", "run")[2]


def test_judge_samples_differing_blocks_in_hex(command: Any) -> None:
    golden = Path(__file__).parent / "golden"
    plain = command("judge", "quick-drbd-8.4", "--runs", str(golden))[1]
    code, out, _ = command("judge", "quick-drbd-8.4", "--runs", str(golden), "--samples", "1")
    assert code in (0, 1) and out.startswith(plain)
    assert out.count("^^\n") >= out.count("block owner: ") > 2, "below a row or more of each"
    assert "block owner: " not in plain


def test_list_without_runs_exit_code_3(command: Any) -> None:
    code, _, err = command("list")
    assert code == 3 and err == "drbd-harness: there is no run in runs\n"


def test_help_and_version_exit_code_0(command: Any) -> None:
    assert command("version")[0] == 0
    code, out, _ = command("--help")
    assert code == 0 and "judge" in out and "doctor" in out
    assert command("judge", "--help")[0] == 0


def test_command_interrupted_one_sentence(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    assert command("version") == (2, "", "drbd-harness: interrupted\n")


def test_command_interrupted_inside_one_sentence(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: Path) -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.store.run_ids", interrupted)
    code, _, err = command("list")
    assert (code, err) == (2, "drbd-harness: interrupted\n")


# --------------------------------------------------------------------------- a stored run, judged again


def test_judge_stored_run_without_libvirt_same_verdicts(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored()
    before = {one.cell.id: one.verdict for one in judged_results(store)}
    monkeypatch.setitem(sys.modules, "libvirt", None)
    code, out, err = command("judge", "run1")
    assert code == 0, out + err
    assert "DIVERGED" in out and "CLEAN" in out and err == ""
    assert {one.cell.id: one.verdict for one in judged_results(store)} == before
    assert {kind.kind for kind in before.values() if kind} == {VerdictKind.DIVERGED, VerdictKind.CLEAN}


def test_judge_run_by_id_folder_or_latest_found(command: Any, tmp_path: Path) -> None:
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
        ({"none": {"failure": Failure("refused", "attach", "no"), **oracles(set(), set())}}, 1),
    ],
    ids=["as-expected", "finding", "not-seen", "disagree", "failure", "not-run", "both", "left", "refused"],
)  # fmt: skip
def test_judge_outcomes_of_a_run_exit_code(command: Any, other: dict[str, Any], code: int) -> None:
    stored(**other)
    assert command("judge", "run1")[0] == code


@pytest.mark.parametrize(("wrong_reads", "code"), [(0, 0), (3, 1)])
def test_judge_corrupt_without_expectation_is_a_finding(command: Any, wrong_reads: int, code: int) -> None:
    cell = replace(BACK, expected=None)
    store = Store.create(Path("runs"), Run("run1", "quick", "now", (*CELLS[:-1], cell)))
    for one in store.run().cells:
        seen = found(one)
        work = replace(seen.work or Work(10.0), read_back_errors=wrong_reads if one == cell else 0)
        store.begin(one).save(replace(seen, work=work))
    assert command("judge", "run1")[0] == code


def test_judge_control_that_did_not_hold_exit_code_2(command: Any) -> None:
    store = stored(writeback=oracles({5}, {5}))
    steady = next(cell for cell in CELLS if cell.control is Control.STEADY)
    broken = replace(found(steady), started_at="2026-11-23T01:59:00Z", **oracles({5}, {5}))
    store.begin(steady).save(broken)
    code, out, _ = command("judge", "run1")
    assert code == 2 and "the steady control failed" in out, "no finding: the lab made differences by itself"


@pytest.mark.parametrize(("says", "code"), [("late", 0), ("early", 2)])
def test_judge_inconclusive_that_is_expected_exit_code_by_its_sentence(command: Any, says: str, code: int) -> None:
    expected = Expectation((VerdictKind.INCONCLUSIVE,), "it is sabotaged", says)
    store = Store.create(Path("runs"), Run("run1", "meta", "now", (*CELLS[:-1], replace(BACK, expected=expected))))
    for cell in store.run().cells:
        failure = {"failure": Failure("deadline", "work", "late")} if cell.expected == expected else {}
        store.begin(cell).save(replace(found(cell), **failure))
    assert command("judge", "run1")[0] == code


def test_judge_run_without_evidence_exit_code_3(command: Any) -> None:
    Store.create(Path("runs"), Run("run1", "quick", "now", CELLS))
    code, _, err = command("judge", "run1")
    assert code == 3 and err.endswith("no cell of runs/run1 has evidence\n")


def test_judge_damaged_evidence_reported_and_not_run(command: Any) -> None:
    store = stored()
    (store.directory / "cells" / NONE.id / "1" / "evidence.json").write_text("{")
    code, _, err = command("judge", "run1")
    assert code == 2 and "is damaged: it is not whole JSON" in err


def test_judge_controls_of_another_lab_inconclusive(command: Any) -> None:
    stored(writeback={"lab": "another"})
    code, out, _ = command("judge", "run1")
    assert code == 2 and "INCONCLUSIVE" in out


def test_report_stored_run_written_again(command: Any) -> None:
    store = stored()
    code, out, _ = command("report", "run1")
    assert code == 0 and Path(out.strip()) == (store.directory / "report.html").resolve()
    assert "none-swap-pressure" in (store.directory / "report.html").read_text()


def test_list_runs_with_outcomes_damaged_run_passed_over(command: Any) -> None:
    stored()
    stored(run_id="run2", none={"failure": Failure("deadline", "work", "late")}, writeback=None)
    broken = stored(run_id="run3")
    (broken.directory / "run.json").write_text("{")
    code, out, err = command("list")
    assert code == 0 and run_ids(Path("runs")) == ("run1", "run2", "run3")
    assert "4 DIVERGED, 2 CLEAN, 1 CLEAN (strong)" in out and "1 not run" in out and "6.12-fake" in out
    assert err.startswith("run3: ") and "damaged" in err


def test_list_matrix_prints_its_cells(command: Any) -> None:
    code, out, err = command("list", "--matrix", "quick")
    assert "about" in err.splitlines()[0] and "for 8 plays" in err and "estimate" not in out
    assert code == 0 and out.splitlines()[:5] == [cell.id for cell in CELLS[:5]]
    assert "none-swap-reclaim-link20ms" in out.splitlines()


def test_list_matrix_old_names_are_told_beside_the_cells(command: Any) -> None:
    Path("mine.toml").write_text('schema = 1\n[[cells]]\ncache = "none"\nworkload = ["swap", "ext4-cut"]\n')
    code, out, err = command("list", "--matrix", "mine.toml")
    assert code == 0 and out.splitlines()[5:] == ["none-swap-pressure", "none-ext4-truncate"]
    first, second = err.splitlines()[:2]
    assert first == (
        'drbd-harness: mine.toml, [[cells]] number 1: workload = "swap" is an old name; '
        'write filesystem = "swap", workload = "pressure"'
    )
    assert '"ext4-cut"' in second


# --------------------------------------------------------------------------- two runs


def test_compare_equal_runs_exit_code_0(command: Any) -> None:
    stored()
    stored(run_id="run2")
    code, out, _ = command("compare", "run1", "run2")
    assert code == 0 and "no regression: 1 still failing, 1 passing" in out
    assert "No component under test is another" in out


def test_compare_newly_failing_exit_code_1_with_evidence_and_command(command: Any) -> None:
    stored()
    stored(run_id="run2", writeback=oracles(set(range(50)), set(range(50))))
    code, out, _ = command("compare", "run1", "run2")
    assert code == 1 and "regression: 1 newly failing, 1 still failing" in out
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if "writeback-swap-pressure" in line)
    assert "CLEAN (strong), 0/1000 exposed \u2192 DIVERGED, 50/1000 exposed" in lines[at]
    assert "diverged or worse 0/1 \u2192 1/1 (p = 0.5)" in lines[at], "one play proves nothing, however many blocks"
    assert lines[at + 1].strip().startswith("DIVERGED: ")
    assert lines[at + 2].strip() == "runs/run2/cells/writeback-swap-pressure/1"
    assert lines[at + 3].strip().startswith("drbd-harness run --matrix quick -k writeback-swap-pressure")
    assert "play it 3 more times on the old stack and 3 more times on the new stack (--rerun)" in out
    assert "The matrix expects CLEAN: pages are copied." in out


def test_compare_repetitions_how_many_diverged_and_opportunities(command: Any) -> None:
    work = Work(8.0, {"pages_swapped_out": 4000.0}, opportunities=300.0, opportunity="pages")
    for name, differing in (("run1", set[int]()), ("run2", set(range(50)))):
        store = stored(run_id=name, writeback=None)
        for repetition in range(1, 6):
            cell = replace(next(one for one in CELLS if one.row == "writeback"), repetition=repetition)
            store.begin(cell).save(replace(found(cell), work=work, **oracles(differing, differing)))
    code, out, _ = command("compare", "run1", "run2")
    assert code == 1
    line = next(line for line in out.splitlines() if "writeback-swap-pressure" in line)
    for part in ("5 CLEAN (strong), 0/1500 opportunities", "5 DIVERGED, 250/1500 opportunities",
                 "0/5 \u2192 5/5 (p = 0.004)"):  # fmt: skip
        assert part in line


def test_compare_cell_not_played_again_exit_code_2(command: Any) -> None:
    stored()
    stored(run_id="run2", writeback=None)
    code, out, _ = command("compare", "run1", "run2")
    assert code == 2 and "lost (1)" in out and "1 of 1 not played" in out
    code, out, _ = command("compare", "run2", "run1")
    assert code == 2 and "The old run has no answer." in out


def test_compare_nothing_in_common_exit_code_3(command: Any) -> None:
    stored()
    Store.create(Path("runs"), Run("run2", "", "2026-11-23T01:50:03Z", (replace(NONE, workload="reclaim"),)))
    code, out, err = command("compare", "run1", "run2")
    assert code == 3 and "1 new, 2 gone" in out and "no cell in common" in err


def test_compare_json_and_markdown_say_the_same(command: Any) -> None:
    stored()
    store = stored(run_id="run2", writeback=oracles(set(range(50)), set(range(50))))
    store.save_run(replace(store.run(), stack=Stack("trixie", "7.0-fake", "8.4.11")))
    code, out, _ = command("compare", "run1", "run2", "--json")
    told = json.loads(out)
    assert code == told["exit_code"] == 1 and told["counts"]["newly failing"] == 1
    assert told["components"] == [{"name": "kernel", "old": "6.12-fake", "new": "7.0-fake"}]
    first = told["cells"][0]
    assert (first["cell"], first["change"], first["plays_wanted"]) == ("writeback-swap-pressure", "newly failing", 4)
    assert first["evidence"]["folder"] == "runs/run2/cells/writeback-swap-pressure/1"
    code, out, _ = command("compare", "run1", "run2", "--markdown")
    assert code == 1 and "| kernel | 6.12-fake | 7.0-fake |" in out and "**regression: 1 newly failing" in out
    assert command("compare", "run1", "run2", "--markdown", "--json")[0] == 4


def test_compare_cell_only_those_that_match(command: Any) -> None:
    stored()
    stored(run_id="run2", writeback=None)
    assert command("compare", "run1", "run2", "--cell", "none-*")[0] == 0
    code, out, _ = command("compare", "run1", "run2", "--cell", "none-*", "--cell", "writeback-swap")
    assert code == 2 and "1 lost, 1 still failing" in out, "also by the name of an earlier version"
    assert command("compare", "run1", "run2", "--cell", "unsafe-*")[0] == 3
    _, _, err = command("compare", "run1", "run2", "--cell", "none-*", "--cell", "nome-*")
    assert err == "drbd-harness: --cell: neither run has a cell 'nome-*'\n", "what is not compared is said"


def test_compare_packages_that_are_another_are_named(command: Any) -> None:
    for name, version in (("run1", "10.0"), ("run2", "11.0")):
        packages = {"node": {"qemu-system-x86": version, "zlib1g": "1"}, "guest": {"fio": "3"}}
        (stored(run_id=name).directory / "packages.json").write_text(json.dumps(packages))
    out = command("compare", "run1", "run2")[1]
    assert "1 package of the images:" in out and "node: qemu-system-x86 10.0 \u2192 11.0" in out


# --------------------------------------------------------------------------- runs of schema 1


def golden(name: str) -> dict[str, bytes]:
    """A copy of a stored run in runs/; its files."""
    shutil.copytree(GOLDEN / name, Path("runs") / name)
    return files_of(Path("runs") / name)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def kinds_of(files: dict[str, bytes]) -> Counter[str]:
    """The verdicts kept in the files of a run, of the newest attempt at each cell."""
    newest = {name.split("/")[1]: content for name, content in sorted(files.items()) if name.endswith("verdict.json")}
    return Counter(json.loads(content)["kind"] for content in newest.values())


@pytest.mark.parametrize(
    ("name", "code"), [("quick-drbd-8.4", 0), ("alarms-drbd-9.3.3", 0), ("no-scatter-gather-drbd-8.4", 2)]
)
def test_judge_run_of_schema_1_same_verdicts_and_files_untouched(command: Any, name: str, code: int) -> None:
    kept = golden(name)
    assert b'"schema": 1' in kept["run.json"] or b'"schema":1' in kept["run.json"]
    assert command("judge", name)[0] == code
    assert Counter(str(one.verdict.kind) for one in judged_results(Store.open(Path("runs"), name)) if one.verdict) == (
        kinds_of(kept)
    )
    assert files_of(Path("runs") / name) == kept


def test_compare_run_of_schema_1_with_itself_nothing_changed(command: Any) -> None:
    kept = golden("quick-drbd-8.4")
    code, out, err = command("compare", "quick-drbd-8.4", "quick-drbd-8.4")
    assert (code, err) == (0, "")
    diverged = kinds_of(kept)["DIVERGED"]
    headline = out.splitlines()[-1]
    assert headline.startswith("no regression: ")
    assert sum(int(number) for number in re.findall(r"(\d+) (?:still failing|passing)", headline)) == 8
    assert out.count("DIVERGED, ") == 2 * (diverged - 2), "two of them are controls"


def test_compare_run_of_schema_1_with_one_of_today_same_cells(command: Any) -> None:
    golden("quick-drbd-8.4")
    old = Store.open(Path("runs"), "quick-drbd-8.4")
    new = Store.create(Path("runs"), replace(old.run(), id="today"))
    for attempt in old.every_attempt():
        new.begin(attempt.cell).save(attempt)
    assert (old.directory / "cells" / "none-ext4-cut-link20ms").is_dir()
    assert (new.directory / "cells" / "none-ext4-truncate-link20ms").is_dir()
    code, out, _ = command("compare", "quick-drbd-8.4", "today")
    assert code == 0 and "gone" not in out and "none-ext4-truncate-link20ms" in out


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


# --------------------------------------------------------------------------- as a process


def test_process_exit_code_reaches_the_shell() -> None:
    stored(writeback=oracles({5}, {5}))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", "judge", "run1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# --------------------------------------------------------------------------- the log of commands without a run


def test_images_build_that_fails_shows_progress_and_keeps_its_log(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ensure_stack(*_: Any) -> None:
        logs.progress("node image, trixie: unpacking")
        LocalRunner().run(["sh", "-c", "exit 3"])

    monkeypatch.setattr(images, "ensure_stack", ensure_stack)
    code, _, err = command("images", "build")
    assert code == 2 and "  node image, trixie: unpacking\n" in err
    (folder,) = (tmp_path / "state" / "logs").iterdir()
    assert "-images-build-" in folder.name
    assert (folder / "commands.log").read_text().rstrip("\n").endswith("\tsh -c 'exit 3'")
    assert "\tnode image, trixie: unpacking\n" in (folder / "harness.log").read_text()


# --------------------------------------------------------------------------- merge


def test_merge_runs_one_run_that_every_command_reads(command: Any) -> None:
    for number in (1, 2):
        store = stored(run_id=f"run{number}")
        for path in store.directory.rglob("evidence.json"):
            path.write_text(path.read_text().replace('"lab": "lab"', f'"lab": "lab{number}"'))
    code, out, err = command("merge", "run2", "run1", "--into", "both")
    first, second = out.splitlines()
    assert (code, first, err) == (0, "both: 2 runs, 4 of 4 plays with evidence", "")
    assert Path(second).name == "report.html" and "none-swap-pressure" in Path(second).read_text()
    assert command("judge", "both")[0] == 0
    assert command("report", "both")[0] == 0
    assert command("compare", "run1", "both")[0] == 0
    assert "both" in command("list")[1]
    code, out, err = command("merge", "run1")
    assert (code, out, err) == (4, "", "drbd-harness: one run alone is merged already; name two or more\n")
    assert command("merge", "run1", "run2", "--into", "both")[0] == 4


def test_merge_part_that_is_missing_is_no_success_unless_asked_for(command: Any) -> None:
    for number, shard in ((1, "1/6"), (2, "2/3"), (3, "3/3"), (4, "4/6")):
        store = stored(run_id=f"run{number}")
        for path in store.directory.rglob("evidence.json"):
            path.write_text(path.read_text().replace('"lab": "lab"', f'"lab": "lab{number}"'))
        store.save_run(replace(store.run(), shard=shard))
    code, out, err = command("merge", "run1", "run2", "run3", "--into", "three")
    assert code == 2 and out.startswith("three: 3 runs") and Path("runs/three/report.html").exists()
    assert err == (
        "drbd-harness: the part 4/6 is missing: the merged run is not the whole matrix (--partial makes that no"
        " failure)\n"
    )
    assert command("merge", "run1", "run2", "--into", "two", "--partial")[0] == 0
    assert "without the parts 3/3, 4/6" in Path("runs/two/run.json").read_text()
    assert command("merge", "three", "run4", "--into", "four")[::2] == (0, "")


def test_merge_part_that_is_left_alone_is_a_whole_that_lacks_the_others(command: Any) -> None:
    store = stored(writeback=oracles({1}, {1}))
    store.save_run(replace(store.run(), shard="2/3"))
    code, out, err = command("merge", "run1", "--into", "all")
    assert (
        code == 2
        and out.startswith("all: 1 run, 2 of 2 plays with evidence")
        and err
        == (
            "drbd-harness: the parts 1/3, 3/3 are missing: the merged run is not the whole matrix (--partial makes that"
            " no failure)\n"
        )
    )
    assert command("judge", "all")[0] == 1, "what it found is not lost"


def test_merge_parts_with_another_repeat_is_no_success_unless_asked_for(command: Any) -> None:
    for number in (1, 2):
        store = stored(run_id=f"run{number}")
        for path in store.directory.rglob("evidence.json"):
            path.write_text(path.read_text().replace('"lab": "lab"', f'"lab": "lab{number}"'))
        store.save_run(replace(store.run(), shard=f"{number}/2", chosen={"--repeat": str(number)}))
    code, _, err = command("merge", "run1", "run2", "--into", "both")
    assert code == 2 and err == (
        "drbd-harness: the parts were played with another --repeat (run1 --repeat 1, run2 --repeat 2): they are not"
        " parts of one whole: the merged run is not the whole matrix (--partial makes that no failure)\n"
    )
    assert command("merge", "run1", "run2", "--into", "two", "--partial")[0] == 0


def test_command_on_a_processor_without_what_numpy_needs_is_one_sentence(tmp_path: Path) -> None:
    said = "NumPy was built with baseline optimizations: \n(X86_V2) but your machine doesn't support: \n(X86_V2)."
    (tmp_path / "numpy.py").write_text(f"raise RuntimeError({said!r})\n")
    argv = [sys.executable, "-c", "from harness.cli.main import main; main()", "--help"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "x86-64-v2" in done.stderr


@pytest.mark.parametrize("arguments", [("report", "--markdown"), ("report", "--csv"), ("judge",)])
def test_command_in_a_locale_without_unicode_ends_as_in_any_other(arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    program = Path(sys.executable).with_name("drbd-harness")

    def told(encoding: str) -> bytes:
        settings = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
        asked = [str(program), command, str(GOLDEN / "full-drbd-8.4"), *options]
        done = subprocess.run(asked, env=os.environ | settings, capture_output=True, timeout=120, check=False)
        assert done.returncode == (0 if command == "report" else 2), "42 of its cells were not run"
        assert b"Traceback" not in done.stderr
        return done.stdout

    as_ascii = told("ascii")
    if command == "report":
        assert as_ascii == told("utf-8")
    else:
        assert as_ascii.isascii()

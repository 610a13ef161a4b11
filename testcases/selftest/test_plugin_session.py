"""The front door, through pytest itself: what a session says and keeps, how it ends, and what its reports say."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from lxml import etree
from plugin_world import (
    ASKS,
    CONTROLS,
    IDS,
    MATRIX,
    Runs,
    World,
    broken,
    corrupt,
    diverged,
    matrix,
    pages,
    run,
    suite,
    world,
)

from harness.errors import InfrastructureError, StoreError
from harness.pytest_plugin import pytest_run
from harness.store import Store, run_ids

__all__ = ["matrix", "pages", "run", "suite", "world"]

pytest_plugins = ("pytester",)


# --------------------------------------------------------------------------- what a run keeps of what it did


RUNS_A_COMMAND = """
from harness.remote.local import LocalRunner
def test_my_own(drbd_run):
    LocalRunner("lab1").run(["true", "a b"])
    {then}
"""


@pytest.mark.parametrize("then", ["pass", "assert False", "raise KeyboardInterrupt"])
def test_session_that_ends_in_any_way_keeps_the_log_of_its_commands(
    run: Runs, pytester: pytest.Pytester, world: World, then: str
) -> None:
    pytester.makepyfile(test_own=RUNS_A_COMMAND.format(then=then))
    with contextlib.suppress(KeyboardInterrupt):
        run()
    (log,) = (pytester.path / "runs").glob("*/commands.log")
    assert [line.split("\t")[1:5] + line.split("\t")[6:] for line in log.read_text().splitlines()] == [
        ["command", "lab1", "controller", "0", "true 'a b'"]
    ]


def test_session_that_fails_does_not_repeat_the_log_in_its_report(
    run: Runs, pytester: pytest.Pytester, world: World
) -> None:
    pytester.makepyfile(test_own=RUNS_A_COMMAND.format(then="assert False"))
    ran = run()
    assert ran.status == 1 and "Captured log" not in ran.out


def test_session_shows_progress_and_keeps_it_and_a_resumed_one_appends(run: Runs, matrix: Path, world: World) -> None:
    line = "none-swap-pressure: DIVERGED: 2 blocks differ"
    ran = run("--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    log = ran.store.directory / "harness.log"
    kept = log.read_text()
    assert re.search(rf"^  \[ *\d+\.\d s\] {line}", ran.out, re.MULTILINE)
    assert len(re.findall(rf"^\S+Z\tINFO\tharness\.progress\t{line}", kept, re.MULTILINE)) == 1
    world.finds["unsafe-swap-pressure"] = broken()
    run("--drbd-matrix", str(matrix), "-k", "unsafe-swap-pressure", "--drbd-run-id", "29991231T000000Z-0000")
    run("--drbd-resume", "latest")
    again = (ran.folder / "runs" / "29991231T000000Z-0000" / "harness.log").read_text()
    assert again.count("unsafe-swap-pressure: INCONCLUSIVE") == 2 and log.read_text() == kept


def test_session_told_to_be_quiet_shows_no_progress_and_keeps_it(run: Runs, matrix: Path, world: World) -> None:
    ran = run("-q", "--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    assert " s] none-swap-pressure" not in ran.out
    assert "none-swap-pressure: DIVERGED" in (ran.store.directory / "harness.log").read_text()


# --------------------------------------------------------------------------- how a session ends


def test_run_says_how_long_it_will_take_before_it_begins_and_what_is_left(
    run: Runs, matrix: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRBD_HARNESS_ACCEL", "tcg")
    only = run("--collect-only", "--drbd-matrix", str(matrix))
    assert re.search(r"estimate: about \d+ min for 3 plays, by the phases of", only.out)
    assert re.search(r" 10 x controls\n", only.out) and world.labs == []
    one = run("--collect-only", "--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    assert re.search(r" for 1 plays?, by", one.out) and re.search(r" 10 x controls\n", one.out), "never without them"
    ran = run("--drbd-matrix", str(matrix), "-s")
    estimated, lab = ran.out.index("estimate: about"), ran.out.index("the seed of this run is")
    assert estimated < lab
    left = re.findall(r"(\d) of 3 played, about \d+ (?:s|min) left", ran.out)
    assert left[-3:] == ["1", "2", "3"] and {*left[:-3]} == {"0"}, "not after the closing controls"
    (kept,) = (ran.folder / "runs").glob("*/costs.json")
    assert kept.stat().st_size > 0


def test_run_as_expected_exit_code_0(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (0, {"passed": 8})
    assert world.played == [*IDS, *CONTROLS] and len(world.labs) == 1
    assert (ran.store.directory / "report.html").exists() and "report: " in ran.out
    assert "DIVERGED" in ran.out and ran.store.run().stack.kernel == "6.12-fake"


def test_run_finding_fails_with_a_sentence(run: Runs, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = diverged()
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (1, {"passed": 7, "failed": 1})
    said = "writeback-swap-pressure: CLEAN was expected (pages are copied); seen: DIVERGED: 2 blocks differ"
    assert said in ran.out
    assert "Traceback" not in ran.out and "def test_cell" not in ran.out, "the sentence, not our source"


def test_run_without_expectation_conclusive_passes(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = diverged()
    assert run("--drbd-matrix", str(matrix)).status == 0


def test_run_without_expectation_corrupt_is_a_finding(run: Runs, matrix: Path, world: World, tmp_path: Path) -> None:
    world.finds["unsafe-swap-pressure"] = corrupt()
    junit = tmp_path / "junit.xml"
    ran = run("--drbd-matrix", str(matrix), f"--junitxml={junit}")
    assert (ran.status, ran.outcomes) == (1, {"passed": 7, "failed": 1})
    said = (
        "unsafe-swap-pressure: nothing is expected of this cell, and lost or wrong data is a finding all the same; seen"
    )
    assert said in ran.out and "Traceback" not in ran.out
    assert f'<failure message="Failed: {said}: CORRUPT: ' in junit.read_text()


def test_run_inconclusive_is_an_error(run: Runs, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = broken()
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (2, {"passed": 7, "errors": 1})
    assert "writeback-swap-pressure: INCONCLUSIVE: work: it took too long" in ran.out and "Traceback" not in ran.out


@pytest.mark.parametrize(("says", "status"), [("it took", 0), ("nodeb", 2)])
def test_run_inconclusive_that_is_expected_passes_by_its_sentence(
    run: Runs, matrix: Path, world: World, says: str, status: int
) -> None:
    expected = f'verdicts = ["INCONCLUSIVE"]\nreason = "it is sabotaged"\nsays = "{says}"\n'
    text = MATRIX.replace('verdicts = ["CLEAN"]\nreason = "pages are copied"\n', expected)
    matrix.write_text(text)
    world.finds["writeback-swap-pressure"] = broken()
    ran = run("--drbd-matrix", str(matrix))
    assert ran.status == status
    assert ("error" in ran.outcomes or "errors" in ran.outcomes) is bool(status)


def test_run_finding_and_error_exit_code_1(run: Runs, matrix: Path, world: World) -> None:
    world.finds |= {"unsafe-swap-pressure": broken(), "writeback-swap-pressure": diverged()}
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (1, {"passed": 6, "failed": 1, "errors": 1})


def test_run_control_that_fails_on_two_labs_stops_the_run(run: Runs, matrix: Path, world: World) -> None:
    world.finds["host-no-writes"] = diverged()
    ran = run("--drbd-matrix", str(matrix))
    assert ran.outcomes == {"passed": 2, "errors": 6}, "planted and steady held"
    assert world.played == CONTROLS[:3] * 2 and len(world.labs) == 2
    assert ran.status == 2 and ran.out.count("not played: the idle control failed twice: CLEAN was expected") >= 5


def test_run_lab_not_up_is_an_error_for_every_cell(run: Runs, matrix: Path, world: World) -> None:
    world.error = InfrastructureError("node a did not boot")
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (2, {"errors": 8})
    assert "node a did not boot" in ran.out and "Traceback" not in ran.out
    assert len(world.specs) == 1, "asked once, not once a cell"


def test_options_lab_reach_the_lab(run: Runs, matrix: Path, world: World) -> None:
    suites = ("--drbd-suite", "bookworm", "--drbd-guest-suite", "trixie")
    chosen = (*suites, "--drbd-device-mib", "64", "--drbd-memory-mib", "900")
    kept = ("--drbd-runs", "elsewhere", "--drbd-run-id", "mine")
    run("--drbd-matrix", str(matrix), *chosen, *kept, "-k", "none-swap-pressure")
    ((spec, stack),) = world.specs
    assert (stack.suite, stack.guest_base, spec.device_mib, spec.memory_mib) == ("bookworm", "trixie", 64, 900)
    assert run_ids(Path("elsewhere")) == ("mine",)


def test_run_ctrl_c_keeps_everything(pytester: pytest.Pytester, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = {"raises": KeyboardInterrupt()}
    ended = pytester.inline_run("-p", "no:cacheprovider", "--drbd-matrix", str(matrix), no_reraise_ctrlc=True)
    assert ended.ret == 2
    store = Store.open(pytester.path / "runs", "latest")
    assert store.evidence("none-swap-pressure") is not None and store.run().finished_at
    assert (store.directory / "report.html").exists()


def test_run_own_bug_exit_code_2(run: Runs, matrix: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(f"{ASKS}\ndef pytest_collection_finish(session):\n    raise ZeroDivisionError('ours')\n")
    ran = run("--drbd-matrix", str(matrix))
    assert "INTERNALERROR" in ran.out + ran.err
    assert ran.status == 2, "3 means that nothing was chosen"


# --------------------------------------------------------------------------- reports of others


@pytest.mark.parametrize(("cells", "status"), [("writeback-swap-pressure", 2), ("none-swap-pressure", 1)])
def test_report_not_writable_is_no_success(
    run: Runs, matrix: Path, world: World, monkeypatch: pytest.MonkeyPatch, cells: str, status: int
) -> None:
    def full(path: Path, run: object, results: object, **_: object) -> None:
        raise StoreError(f"{path.name} cannot be written: No space left on device")

    monkeypatch.setattr(pytest_run, "write_html", full)
    matrix.write_text(MATRIX.replace("DIVERGED", "CLEAN"))
    ran = run("--drbd-matrix", str(matrix), "-k", cells)
    assert "report.html cannot be written: No space left on device" in ran.err and "Traceback" not in ran.err
    assert "report: " not in ran.out, "there is none"
    assert ran.status == status, "a finding stays a finding"


def test_junit_findings_and_errors_differ(run: Runs, matrix: Path, world: World) -> None:
    world.finds |= {"unsafe-swap-pressure": broken(), "writeback-swap-pressure": diverged()}
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    root = etree.fromstring((ran.folder / "junit.xml").read_bytes())
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert (
        "failure" in cases["test_cell[writeback-swap-pressure]"]
        and "error" not in cases["test_cell[writeback-swap-pressure]"]
    )
    assert (
        "error" in cases["test_cell[unsafe-swap-pressure]"]
        and "failure" not in cases["test_cell[unsafe-swap-pressure]"]
    )
    assert not {"failure", "error"} & set(cases["test_cell[none-swap-pressure]"])
    assert "CLEAN was expected" in str(next(root.iter("failure")).get("message"))
    assert "INCONCLUSIVE: work: it took too long" in etree.tostring(next(root.iter("error")), encoding="unicode")
    suite = next(root.iter("testsuite"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "1", "1")


@pytest.mark.usefixtures("pages")
def test_pages_both_have_heat_map_and_evidence(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--html", "page.html", "--self-contained-html")
    page = (ran.folder / "page.html").read_text()
    assert "DRBD divergence harness" in page and "writeback" in page and "none-swap-pressure" in page
    own = (ran.store.directory / "report.html").read_text()
    assert "none-swap-pressure" in own and "2 blocks differ" in own

"""The front door, through pytest itself: controls that close a session, and what did not last until then."""

from __future__ import annotations

from pathlib import Path

import pytest
from judged_evidence import oracles
from lxml import etree
from plugin_world import CONTROLS, IDS, Runs, World, diverged, junit, matrix, run, suite, world

from harness.model import VerdictKind
from harness.store import Store, judged_results

__all__ = ["matrix", "run", "suite", "world"]

pytest_plugins = ("pytester",)


def test_closing_control_fails_what_had_passed_is_an_error(run: Runs, matrix: Path, world: World) -> None:
    world.finds_later["host-steady"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml", "--html", "page.html", "--self-contained-html")
    assert world.played == [*IDS, *CONTROLS[:2]]
    # Four controls stay; the one that failed and the three cells of a lab that differs by itself do not.
    assert (ran.status, ran.outcomes) == (2, {"passed": 4, "errors": 4}), ran.out
    cases, suite = junit(ran)
    for cell in IDS[5:]:
        (error,) = cases[f"test_cell[{cell}]"]
        assert error.tag == "error" and "the steady control failed: CLEAN was expected" in error.get("message")
    assert cases["test_cell[host-steady]"][0].tag == "error" and cases["test_cell[host-planted]"] == []
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "0", "4")
    assert "ERROR after the closing controls: test_cells.py::test_cell[writeback-swap-pressure]" in ran.out
    assert "ERROR after the closing controls" in (ran.folder / "page.html").read_text()
    kept = ran.store.verdict("writeback-swap-pressure")
    assert kept is not None and kept.kind is VerdictKind.INCONCLUSIVE


def test_closing_control_fails_difference_stays_and_its_item(run: Runs, matrix: Path, world: World) -> None:
    world.finds_later["host-planted"] = {"planted": (), **oracles(set(), set())}
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    cases, _ = junit(ran)
    assert cases["test_cell[none-swap-pressure]"] == [], "it is DIVERGED as expected, whatever the lab missed since"
    assert [child.tag for child in cases["test_cell[writeback-swap-pressure]"]] == ["error"]
    assert ran.status == 2
    kept = ran.store.verdict("none-swap-pressure")
    assert kept is not None and any("the planted control failed" in reason for reason in kept.reasons)


def test_closing_control_fails_finding_that_is_none_any_more_is_no_failure(
    run: Runs, matrix: Path, world: World
) -> None:
    world.finds["writeback-swap-pressure"] = diverged()
    world.finds_later["host-no-writes"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    cases, suite = junit(ran)
    assert [child.tag for child in cases["test_cell[writeback-swap-pressure]"]] == ["error"]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "4")
    assert (ran.status, ran.outcomes) == (2, {"passed": 4, "errors": 4}), "a lab that differs by itself finds nothing"


def test_closing_controls_hold_nothing_changes(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    cases, suite = junit(ran)
    assert not any(cases.values()) and (suite.get("failures"), suite.get("errors")) == ("0", "0")
    assert "after the closing controls" not in ran.out
    kept = ran.store.verdict("writeback-swap-pressure")
    assert kept is not None and kept.reasons == (), "there was a control after it"


def test_closing_controls_are_played_where_pytest_stops_at_a_finding(run: Runs, matrix: Path, world: World) -> None:
    world.finds["none-swap-pressure"] = oracles(set(), set())
    world.finds_later["host-steady"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "-x")
    assert world.played == [*IDS[:6], *CONTROLS[:2]]
    kept = ran.store.verdict("none-swap-pressure")
    assert kept is not None and kept.kind is VerdictKind.INCONCLUSIVE and ran.status == 2
    assert ran.outcomes == {"passed": 4, "errors": 2}


def test_stop_at_nothing_is_played_behind_it_but_the_closing_controls(run: Runs, matrix: Path, world: World) -> None:
    repeated = ("--drbd-matrix", str(matrix), "--drbd-repeat", "3", "-k", "none-swap")
    ran = run(*repeated, "--drbd-stop-at", "CORRUPT", "--drbd-stop-at", "DIVERGED")
    assert world.played.count("none-swap-pressure") == 1 and world.played[-1] in CONTROLS
    assert ran.status == 0, "it was expected"
    assert "none-swap-pressure ended as DIVERGED, which --stop-at waited for" in ran.out
    world.finds["none-swap-pressure"] = oracles(set(), set())
    assert run(*repeated, "--drbd-stop-at", "CLEAN").status == 1, "a finding against the expectation stays one"
    assert run(*repeated, "--drbd-stop-at", "DIVERGED").status == 1 and world.played.count("none-swap-pressure") == 5
    world.finds_later["host-steady"] = diverged()
    assert run(*repeated, "--drbd-stop-at", "CLEAN").status == 2, "the closing controls take it back"


def test_stop_at_no_verdict_one_sentence(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--drbd-stop-at", "DIVERGD")
    assert ran.status == 4 and "--drbd-stop-at is 'DIVERGD'; did you mean 'DIVERGED'?" in ran.err and not world.labs


def test_closing_control_interrupted_takes_nothing_back(pytester: pytest.Pytester, matrix: Path, world: World) -> None:
    world.finds_later["host-steady"] = {"stops": KeyboardInterrupt()}
    asked = ("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    ended = pytester.inline_run("-p", "no:cacheprovider", *asked, no_reraise_ctrlc=True)
    assert ended.ret == 2, "interrupted"
    assert world.played == [*IDS, *CONTROLS[:2]], "and not all controls once more"
    results = {one.cell.id: one for one in judged_results(Store.open(pytester.path / "runs", "latest"))}
    clean = results["writeback-swap-pressure"].verdict
    assert clean is not None and clean.kind is VerdictKind.CLEAN
    assert any("no steady and no in-flight-guest control was played after it" in reason for reason in clean.reasons)
    cases = etree.fromstring((pytester.path / "junit.xml").read_bytes()).iter("testcase")
    # What pytest itself says of the teardown that was stopped is its own.
    assert all(not len(case) for case in cases if case.get("name") == "test_cell[writeback-swap-pressure]")


def test_closing_control_fails_own_test_that_passed_is_an_error(
    run: Runs, pytester: pytest.Pytester, world: World
) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_passes(own_cell):
            own_cell.run.context.resource.sent_kib += 400
        @pytest.mark.cell(cache="writeback")
        def test_fails(own_cell):
            raise ZeroDivisionError("the test's own")
        """
    )
    world.finds_later["host-no-writes"] = diverged()
    ran = run()
    assert (ran.status, ran.outcomes) == (1, {"failed": 1, "errors": 1}), "what failed by itself stays a failure"

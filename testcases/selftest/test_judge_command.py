"""``drbd-harness judge`` and ``report``: stored runs that need no lab, of today and of schema 1, and how it ends."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judged_evidence import oracles
from stored_run import BACK, CELLS, NONE, apart, command, files_of, found, golden, kinds_of, stored

from harness.model import Control, Expectation, Failure, Run, VerdictKind, Work
from harness.store import Store, judged_results

__all__ = ["apart", "command"]


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

"""One cell over many runs: the oldest first, no play twice, and where the stack became another."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from judged_evidence import oracles
from stored_run import BACK, apart, command, stored  # noqa: F401 - fixtures
from test_compare_runs import CLEAN, DIVERGED, INCONCLUSIVE, NONE, plays

from harness.judgement.history import Judged, history
from harness.model import MergedRun, Run, Stack, VerdictKind
from harness.report.history import history_json, history_text, strip
from harness.store import Store, judged_cells, judged_results, run_store

HIT = oracles({1, 2, 3}, {1, 2, 3})


def judged(day: int, *kinds: VerdictKind | None, kernel: str = "6.12", **other: Any) -> Judged:
    run = replace(Run(f"run{day}", "quick", f"2026-11-{day:02d}", (), Stack(kernel=kernel)), **other)
    return Judged(f"run{day}", run, tuple(plays(*kinds)))


def test_history_oldest_first_with_a_line_where_the_stack_is_another() -> None:
    runs = [judged(1, CLEAN), judged(2, CLEAN, DIVERGED), judged(3, DIVERGED, kernel="7.0"), judged(4, INCONCLUSIVE),
            judged(5, None)]  # fmt: skip
    random.Random(1).shuffle(runs)
    points = history(NONE.id, runs)
    assert [point.name for point in points] == ["run1", "run2", "run3", "run4", "run5"]
    assert [point.harmed for point in points] == [(0, 1), (1, 2), (1, 1), (0, 0), (0, 0)]
    assert strip(points) == "=#|#|?-"
    assert [(change.name, change.new) for change in points[2].changes] == [("kernel", "7.0")]


def test_history_runs_that_do_not_have_the_cell_are_left_out() -> None:
    assert history("no-such-cell", [judged(1, CLEAN)]) == ()


def test_history_no_play_twice_by_merged_runs_or_copies() -> None:
    merged = judged(3, CLEAN, DIVERGED, merged=(MergedRun("run1", ""), MergedRun("run2", "")))
    copy = replace(judged(4, CLEAN), name="a-copy")
    points = history(NONE.id, [judged(1, CLEAN), judged(2, DIVERGED), merged, judged(4, CLEAN), copy])
    assert [point.name for point in points] == ["run3", "a-copy"] and points[0].harmed == (1, 2)


def test_history_merged_runs_of_one_name_are_runs_of_their_own() -> None:
    nights = [judged(night, CLEAN, id="all", merged=(MergedRun(f"part{night}", ""),)) for night in (1, 2, 3)]
    again = replace(nights[0], name="a-copy-of-the-first")
    assert [one.name for one in history(NONE.id, [*nights, again])] == ["a-copy-of-the-first", "run2", "run3"]


def test_history_write_acknowledged_too_early_has_a_sign_of_its_own() -> None:
    late, early = judged(1, CLEAN), judged(2, CLEAN, CLEAN)
    flip = tuple(
        replace(one, verdict=replace(one.verdict, acknowledged_early=3)) for one in early.results if one.verdict
    )
    points = history(NONE.id, [late, replace(early, results=(*early.results[:1], *flip[1:]))])
    assert strip(points) == "=!" and [one.early for one in points] == [0, 1]
    assert "2 CLEAN, 1 acknowledged too early" in "\n".join(map(str, history_text(NONE.id, points)))
    assert [one["acknowledged_early"] for one in json.loads(history_json(NONE.id, points))["runs"]] == [0, 1]


def test_history_other_question_or_kind_of_lab_is_said() -> None:
    kvm, tcg = Stack(kernel="6.12", accelerator="kvm"), Stack(kernel="6.12", accelerator="tcg")
    longer = judged(3, DIVERGED, stack=tcg)
    asked = tuple(replace(one, cell=replace(one.cell, seconds=one.cell.seconds + 5)) for one in longer.results)
    points = history(
        NONE.id, [judged(1, CLEAN, stack=kvm), judged(2, CLEAN, stack=tcg), replace(longer, results=asked)]
    )
    assert strip(points) == "=:=:#" and points[1].otherwise == ("nodes under kvm \u2192 tcg",)
    said = f"not comparable with the run before: duration in seconds {NONE.seconds} \u2192 {NONE.seconds + 5}"
    assert said in "\n".join(map(str, history_text(NONE.id, points)))
    assert json.loads(history_json(NONE.id, points))["runs"][1]["not_comparable"] == ["nodes under kvm \u2192 tcg"]


def test_history_component_that_one_run_did_not_record_is_no_change() -> None:
    assert strip(history(NONE.id, [judged(1, CLEAN), judged(2, CLEAN, kernel=""), judged(3, CLEAN)])) == "==="


def test_judged_cells_same_verdicts_as_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # The controls belong to every cell, and nobody changes what is stored meanwhile.
    monkeypatch.setattr(run_store, "_load", cache(run_store._load))
    for path in sorted((Path(__file__).parent / "golden").glob("*/run.json")):
        store = Store(path.parent)
        whole = [one for one in judged_results(store) if one.cell.control is None]
        for cell_id in {one.cell.id for one in whole}:
            kinds = [one.verdict and one.verdict.kind for one in whole if one.cell.id == cell_id]
            assert [one.verdict and one.verdict.kind for one in judged_cells(store, [cell_id])] == kinds, cell_id


def three_runs() -> None:
    for number, finds in ((1, {}), (2, {}), (3, HIT)):
        store = stored(run_id=f"run{number}", writeback=finds)
        store.save_run(replace(store.run(), started_at=f"2026-11-2{number}T01:50:03Z"))


def test_history_command_text_and_json(command: Any) -> None:  # noqa: F811
    three_runs()
    code, out, _ = command("history", BACK.id)
    assert code == 0 and out.startswith(f"{BACK.id}  ==#\n")
    assert "# 2026-11-23 01:50  run3  1/1 harmed  1 DIVERGED" in out
    code, out, _ = command("history", BACK.id, "run1", "run3", "--json")
    told = json.loads(out)
    assert (code, told["strip"], [one["run"] for one in told["runs"]]) == (0, "=#", ["run1", "run3"])
    assert told["runs"][1]["verdict"] == "DIVERGED" and told["runs"][0]["stack"]["Kernel"] == "6.12-fake"
    assert command("history", "writeback-swap", "run1")[0] == 0, "the name of an earlier version"


def test_history_command_wrong_cell_or_no_run_is_one_sentence(command: Any) -> None:  # noqa: F811
    code, _, err = command("history", BACK.id)
    assert code == 3 and "there is no run in runs" in err
    stored()
    code, _, err = command("history", "writeback-swap-presure")
    assert code == 4 and "did you mean 'writeback-swap-pressure'?" in err


def test_history_run_that_cannot_be_read_hides_no_other(command: Any) -> None:  # noqa: F811
    three_runs()
    Path("runs/run2/run.json").write_text("{")
    code, out, err = command("history", BACK.id)
    assert code == 0 and out.startswith(f"{BACK.id}  =#\n") and "run2" in err


def test_compare_markdown_has_the_strip_of_a_flip(command: Any) -> None:  # noqa: F811
    three_runs()
    code, out, _ = command("compare", "run2", "run3", "--markdown")
    assert code == 1 and "| history |" in out and "| `==#` |" in out
    code, out, _ = command("compare", "run1", "run2", "--markdown")
    assert code == 0 and "history" not in out

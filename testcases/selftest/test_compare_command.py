"""``drbd-harness compare``: what became another between two runs, in words, as JSON and Markdown, and how it ends."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from judged_evidence import oracles
from stored_run import CELLS, NONE, apart, command, found, golden, kinds_of, stored

from harness.model import Run, Stack, Work
from harness.store import Store

__all__ = ["apart", "command"]


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

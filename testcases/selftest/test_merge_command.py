"""``drbd-harness merge``: several runs become one that every command reads, and what is missing is no success."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from judged_evidence import oracles
from stored_run import apart, command, stored

__all__ = ["apart", "command"]


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
    code, _, err = command("merge", "run1", "run2", "--into", "")
    assert code == 4 and err.startswith("drbd-harness: '' cannot be the name of a file")


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

"""What cells cost beyond their work, as ratios within one run: the speed of the machine plays no part in it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.report import bench
from harness.report.bench_page import SLOWEST, page_ratios, repeated
from harness.report.bench_ratios import Ratio, by_filesystem, by_phase, ratio_table
from harness.report.costs import CellKind, KindCost, RunCosts, read_table
from harness.store import Store, judged_results

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
CONTROL = CellKind("host", "raw", "raw", "steady")
EXT4 = CellKind("guest", "ext4", "raw", "truncate")
ON_LVM = CellKind("guest", "ext4", "lvm", "truncate")


def run_of(name: str, speed: float = 1.0, attach: float = 4.0, kinds: tuple[CellKind, ...] = (EXT4,)) -> RunCosts:
    def cost(kind: CellKind, times: int) -> KindCost:
        seconds = {"verify": 8 * speed, "attach": attach * speed, "work": 3.0, "between phases": 9.0}
        return KindCost(kind, times, seconds, 128)

    return RunCosts(name, "tcg", kinds=(cost(CONTROL, 6), *(cost(kind, 4) for kind in kinds)))


def test_by_filesystem_machine_of_another_speed_same_ratios() -> None:
    (control, ext4) = by_filesystem(run_of("here", speed=3.0), [run_of("stored")])
    assert (control.name, ext4.name, ext4.attempts) == ("node: raw", "ext4", 4)
    assert ext4.seconds == 36 and ext4.ratio == pytest.approx(1.5) and ext4.growth == pytest.approx(1.0)
    assert not ext4.grown


def test_by_filesystem_what_costs_more_has_grown() -> None:
    _, ext4 = by_filesystem(run_of("here", attach=9.0), [run_of("stored"), run_of("here", attach=90.0)])
    assert ext4.growth == pytest.approx(17 / 12), "the run itself is no baseline"
    assert ext4.grown
    few = replace(ext4, attempts=2)
    assert not few.grown, "two attempts say nothing"
    assert not Ratio("explain", 9, 0.2, 0.025, 0.01, 0.025).grown, "a fifth of a second is nobody's cost"


def test_by_filesystem_only_what_the_stored_runs_have_is_compared() -> None:
    rows = by_filesystem(run_of("here", kinds=(EXT4, ON_LVM)), [run_of("stored")])
    assert [(row.name, row.baseline is None) for row in rows] == [
        ("node: raw", False), ("ext4", False), ("ext4 on lvm", True),
    ]  # fmt: skip
    older = replace(run_of("stored"), schema=2)
    assert all(row.baseline is None for row in by_filesystem(run_of("here"), [older])), "less was looked at"
    newer = replace(run_of("stored"), stack="sid, DRBD 8")
    assert all(row.baseline is None for row in by_filesystem(run_of("here"), [newer])), "of other versions"
    assert by_filesystem(replace(run_of("here"), kinds=run_of("here").kinds[1:]), []) == (), "no unit to measure with"


def test_by_phase_of_the_controls_by_what_they_cost() -> None:
    (attach,) = by_phase(run_of("here", attach=8.0), [run_of("stored")])
    assert (attach.name, attach.attempts, attach.growth, attach.grown) == ("attach", 6, 2.0, True)
    assert ratio_table("t", [attach]).row_count == 1


@pytest.mark.parametrize("matrix", ["quick", "failover", "smoke", "migration"])
def test_bench_kept_runs_have_not_grown_beside_each_other(
    matrix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sorted(EVIDENCE.glob(f"{matrix}-*"))[-1]
    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["ci/bench", str(tmp_path / "run")])
    bench.main()
    printed = capsys.readouterr().out
    assert "Beyond the work, by filesystem and layout" in printed and "grew beyond" not in printed
    written = json.loads((tmp_path / "run" / "bench.json").read_text())
    assert written["by_filesystem"] and written["by_phase"] and len(read_table()) > 4


def test_bench_page_of_a_thousand_plays_is_small_and_drawn_as_fast_as_judged(tmp_path: Path) -> None:
    shutil.copytree(next(EVIDENCE.glob("alarms-*")), tmp_path / "run")
    found = page_ratios(Store.open(tmp_path, "run"))
    assert found is not None and found.plays >= 1000 and 0.5 < found.size <= 1 and found.time > 0
    # A busy machine makes no page larger; what it makes slower is judged as slowly.
    assert found.time < 2 * SLOWEST and str(found).startswith(f"a page of {found.plays} plays: ")
    assert replace(found, size=1.01).grown and replace(found, time=SLOWEST + 1).grown


def test_repeated_plays_no_two_alike_and_each_verdict_as_often() -> None:
    store = Store(next(EVIDENCE.glob("quick-*")))
    results = judged_results(store)
    again, attempts = repeated(results, list(store.every_attempt()), 3 * len(results))
    assert len(again) == len({one.cell.play for one in again}) == 3 * len(results)
    assert len({(one.lab, one.cell.play, one.attempt) for one in attempts}) == len(attempts)
    kinds = [Counter(one.verdict.kind for one in some if one.verdict) for some in (results, again)]
    assert {kind: 3 * number for kind, number in kinds[0].items()} == dict(kinds[1])

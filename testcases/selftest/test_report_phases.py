"""What the report says of a run: what each phase took."""

from __future__ import annotations

import io
import json

import pytest
from reported_results import clean_result, diverged, everything, not_run, run_of
from rich.console import Console

from harness.report.phases import as_json, phase_shares, phase_table, print_phases


def test_phase_shares_share_and_overhead() -> None:
    results = [diverged(), clean_result()]
    shares = phase_shares(run_of(results), results)
    named = {phase.name: phase for phase in shares.phases}
    assert [phase.name for phase in shares.phases][:3] == ["images", "bring-up", "attach"]
    assert named["work"].seconds == pytest.approx(20.4) and named["work"].times == 2
    assert sum(phase.share for phase in shares.phases) == pytest.approx(1)
    assert [cell.overhead for cell in shares.cells] == pytest.approx([15.1, 15.1])
    assert shares.elapsed == 720 and shares.unaccounted == pytest.approx(720 - 50 - 2 * 25.3)


def test_phase_shares_no_results_empty() -> None:
    shares = phase_shares(run_of([], lab_seconds={}, finished_at=""), [not_run()])
    assert (shares.phases, shares.cells, shares.elapsed, shares.overhead_mean) == ((), (), None, None)
    print_phases(shares, Console(file=io.StringIO()))


def test_phase_shares_json_and_table() -> None:
    shares = phase_shares(run_of(everything()), everything())
    stored = json.loads(json.dumps(as_json(shares)))
    assert stored["overhead_worst"]["overhead"] == pytest.approx(15.1)
    assert {"bring-up", "work"} <= {phase["name"] for phase in stored["phases"]}
    assert phase_table(shares).row_count == len(shares.phases)

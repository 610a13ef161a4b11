"""What is known to fail, in a session of pytest: an item whose failure is known is XFAIL with the entry's reason."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from harness.config.baseline_file import load_baseline
from harness.judgement.baseline import known_failure
from harness.model import Result
from harness.model.baseline import Baseline
from harness.pytest_plugin.options import flag


def baseline_of(config: pytest.Config) -> Baseline | None:
    """The baseline that the session was given; what is wrong with it is a :class:`~harness.errors.UsageError`."""
    given: str | None = config.getoption(flag("baseline"))
    return None if given is None else load_baseline(Path(given), flag("baseline"))


def mark_known(report: pytest.TestReport, baseline: Baseline | None, result: Result) -> None:
    """Make of an item's failure an expected one where that of its cell is known; where the entry is over, say so."""
    if baseline is None or report.when != "call" or not report.failed:
        return
    entry = known_failure(baseline, result, date.today())
    if entry is None:
        return
    if entry.expired(date.today()):
        over = f"known until {entry.until}, which is over: {entry.reason} ({baseline.source})"
        report.longrepr = f"{report.longrepr}\n{over}"
        return
    report.outcome = "skipped"
    report.wasxfail = f"known until {entry.until}: {entry.reason}"

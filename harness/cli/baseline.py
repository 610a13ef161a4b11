"""The command that writes a first baseline, and how one is read for others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import RunArgument, RunsOption, console, print_document, warn
from harness.errors import UsageError
from harness.model import Result, Run
from harness.model.baseline import Baseline

OPTION = "--baseline"
BaselineOption = Annotated[
    Path | None,
    typer.Option(OPTION, metavar="FILE", help="what is known to fail: only what is not ends with 1; docs/compare.md"),
]


def baseline(
    which: RunArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="the reason of every entry (empty: to be filled in)")
    ] = "",
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="the last day on which they count, as 2027-03-31 (in 90 days)")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Print a baseline of what fails in a stored run, to be kept in a file for --baseline."""
    from harness.report.baseline import baseline_toml
    from harness.store import Store, judged_run

    found = judged_run(Store.open(runs, which))
    for sentence in found.damaged:
        warn(sentence)
    day = None if until is None else _day(until)
    print_document(baseline_toml(found.run, found.results, date.today(), day, reason.strip()))


def read(path: Path | None) -> Baseline | None:
    """The baseline that was given; what is wrong with it is a :class:`~harness.errors.UsageError`."""
    from harness.config.baseline_file import load_baseline

    return None if path is None else load_baseline(path, OPTION)


def print_outcome(known: Baseline, run: Run, results: Sequence[Result]) -> None:
    """What the baseline says of a run that was judged."""
    from harness.judgement.baseline import assess
    from harness.report.baseline import baseline_lines

    lines = list(baseline_lines(known, assess(known, results, date.today(), run.plan)))
    if lines:
        console.print("\nBaseline", style="bold")
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--until is '{text}'; it is a day, such as 2027-03-31") from None

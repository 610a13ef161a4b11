"""What the report says of a run: on a terminal of any width, with colour and without."""

from __future__ import annotations

import io
import re

import pytest
from reported_results import diverged, everything, run_of, terminal
from rich.console import Console

from harness.model import CacheMode, Cell, Result
from harness.report.terminal import report_parts


@pytest.mark.parametrize("width", [80, 60, 200])
def test_terminal_any_width_fits_readable_without_colour(width: int) -> None:
    text = terminal(everything(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    flat = " ".join(text.split())
    for expected in (
        "# DIVERGED",
        "930 of 12 400 exposed",
        "= CLEAN",
        "X CORRUPT",
        "! unexpected",
        "held planted (host-planted)",
        "Verify (with its counter) and the comparison agree in 7 of 8 cells",
        "DRBD: 8.4.11",
        "writeback-swap-pressure-link20ms: 0 of 12 400 exposed, < 0.025 % (95 %)",
        "[red]not markup[/red]",
    ):
        assert expected in flat, expected


def test_terminal_colour_used() -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=80).print(
        *report_parts(run_of([diverged()]), [diverged()])
    )
    assert "\x1b[1;31m" in out.getvalue()


def test_terminal_empty_run_printed() -> None:
    assert "Not answered. Nothing ran." in terminal([])


def test_terminal_narrow_every_column_printed() -> None:
    results = [Result(Cell(f"workload{n}", cache=CacheMode.NONE), None, None) for n in range(20)]
    text = terminal(results, 80)
    assert all(re.search(rf"\bworkload{n}\b", text) for n in range(20))

"""The command that says what is another in a new run than in an old one."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import baseline as known_failures
from harness.cli.baseline import BaselineOption
from harness.cli.options import RunsOption, console, print_document, warn
from harness.errors import NothingRanError, UsageError

if TYPE_CHECKING:
    from harness.report.compare import Comparison

# More flips than that get no strip: each run would be read for all of them.
_STRIPS = 100


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="the run before: its id, its folder, or 'latest'")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="the run after: its id, its folder, or 'latest'")],
    as_json: Annotated[bool, typer.Option("--json", help="for a program: docs/compare.md")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="for the summary of a job, at most 1 MiB")] = False,
    cell: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="only this cell, with * and ? several; can be given again"),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="play what flipped again on both stacks: old, new, new, old, a lab each")
    ] = False,
    plays: Annotated[int, typer.Option(min=2, max=100, metavar="N", help="with --rerun: how often on each stack")] = 5,
    runs: RunsOption = Path("runs"),
    baseline: BaselineOption = None,
) -> None:
    """What changed from OLD to NEW: the components, then each answer that flipped or was lost; docs/compare.md.

    Ends with 1 where something fails that did not, 2 where coverage was lost or cells are not comparable, 3 where the
    runs have nothing in common, 0 otherwise.
    """
    from harness.report.compare import ComparedRun, compare_stored, unmatched
    from harness.report.compare_forms import compare_json, compare_markdown, compare_text
    from harness.report.history import strips
    from harness.store import Store

    if as_json and markdown:
        raise UsageError("--json and --markdown are two forms of the same; give one of them")
    known = known_failures.read(baseline)
    stores = [Store.open(runs, which) for which in (old, new)]
    compared = [ComparedRun.of(store) for store in stores]
    for sentence in (one for run in compared for one in run.damaged):
        warn(f"{sentence}; it counts as missing")
    for pattern in unmatched(cell or (), compared):
        warn(f"--cell: neither run has a cell '{pattern}'")
    comparison = compare_stored(*(run.only(cell or ()) for run in compared))
    if rerun:
        comparison = _with_rerun(comparison, plays, runs)
    if known is not None:
        comparison = comparison.knowing(known, date.today())
    if as_json:
        print_document(compare_json(comparison) + "\n")
    elif markdown:
        flips = [cell.cell_id for cell in comparison.cells if cell.flipped][:_STRIPS]
        shown = strips(flips, runs, stores, warn) if flips else {}
        print_document(compare_markdown(comparison, shown))
    else:
        for part in compare_text(comparison):
            console.print(part, highlight=False, soft_wrap=True)
    if comparison.exit_code == NothingRanError.exit_code:
        raise NothingRanError("the two runs have no cell in common that says something of a stack")
    raise typer.Exit(comparison.exit_code)


def _with_rerun(comparison: Comparison, plays: int, runs: Path) -> Comparison:
    from harness.cli.rerun import Rerun

    planned = Rerun.of(comparison, plays, runs)
    if planned is None:
        warn("nothing flipped, so nothing is played again")
        return comparison
    print(planned.estimate_line(runs), file=sys.stderr, flush=True)
    return planned.play()

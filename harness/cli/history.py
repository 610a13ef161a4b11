"""The command that shows one cell over many runs."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import RunsOption, console, print_document, warn
from harness.errors import HarnessError, NothingRanError, UsageError
from harness.store import Store


def history(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="a cell's id")],
    which: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="the runs (default: all below --runs)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for a program")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """One cell over many runs, oldest first: what it ended as, how often, and where the stack is another."""
    from harness.model.aliases import present_id
    from harness.report.history import history_json, history_text, read_history, stores_below

    stores = [Store.open(runs, one) for one in which] if which else stores_below(runs)
    if not stores:
        raise NothingRanError(f"there is no run in {runs}")
    cell_id = present_id(cell)
    points = read_history([cell_id], stores, warn)[cell_id]
    if not points:
        raise UsageError(f"no run of these has a cell '{cell}'{_near(cell_id, stores)}")
    if as_json:
        print_document(history_json(cell_id, points) + "\n")
        return
    for line in history_text(cell_id, points):
        console.print(line, highlight=False, soft_wrap=True)


def _near(cell_id: str, stores: Sequence[Store]) -> str:
    known: set[str] = set()
    for store in stores:
        try:
            known |= {cell.id for cell in store.run().cells}
        except HarnessError:
            continue
    near = get_close_matches(cell_id, sorted(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""

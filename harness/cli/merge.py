"""The command that makes one run of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import RunsOption, warn


def merge(
    which: Annotated[list[str], typer.Argument(metavar="RUN...", help="the runs: ids, folders, or 'latest'")],
    into: Annotated[str | None, typer.Option(metavar="ID", help="the new run's id (default: a new one)")] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="end with 0 also where a part of --shard is missing, or its -k or --repeat is another (it is 2)",
        ),
    ] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """Make one run of several, such as the parts that --shard made; they stay as they are.  Needs no lab.

    Parts may be of different sizes: 1/6, 2/3, 3/3 and 4/6 are the whole.
    """
    from harness.report.formatting import plural
    from harness.report.html import write_html
    from harness.store import Store, cut_differently, judged_run, merge_runs, missing_of, new_run_id

    stores = [Store.open(runs, one) for one in which]
    for store in stores:
        for sentence in store.damaged():
            warn(sentence)
    merged = merge_runs(runs, stores, new_run_id() if into is None else into)
    path = merged.directory / "report.html"
    found = judged_run(merged)
    write_html(path, found.run, found.results, attempts=found.attempts)
    played = [result for result in found.results if result.cell.control is None]
    answered = sum(result.evidence is not None for result in played)
    print(f"{merged.directory.name}: {plural(len(stores), 'run')}, {answered} of {len(played)} plays with evidence")
    print(path.resolve())
    sources = [store.run() for store in stores]
    sentences = list(cut_differently(sources))
    if missing := missing_of(sources):
        several = len(missing) > 1
        sentences.append(f"the part{'s' if several else ''} {', '.join(missing)} {'are' if several else 'is'} missing")
    for sentence in sentences:
        warn(f"{sentence}: the merged run is not the whole matrix (--partial makes that no failure)")
    if sentences:
        raise typer.Exit(0 if partial else 2)

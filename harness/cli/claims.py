"""The command that says what became of the claims, by one run or several together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import RunsOption, console, print_document, warn
from harness.errors import NothingRanError, UsageError
from harness.judgement.stacks import PlayedRun
from harness.util import resources


def claims(
    which: Annotated[list[str], typer.Argument(metavar="RUN...", help="the runs: ids, folders, or 'latest'")],
    claims_file: Annotated[
        Path | None, typer.Option("--claims", metavar="FILE", help="claims of yours (default: those of the harness)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for a program")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="tables, to paste into an issue or a mail")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """What became of each claim about DRBD and the cache modes, by one run or several together.  Needs no lab."""
    from harness.config.claims_file import load_claims
    from harness.judgement.claims import assess
    from harness.report.claims import claims_json, claims_markdown, claims_text
    from harness.workloads import WORKLOADS

    if as_json and markdown:
        raise UsageError("--json and --markdown are two forms of the same; give one of them")
    specs = load_claims(claims_file or resources.claims(), WORKLOADS)
    played = played_runs(which, runs)
    assessed = assess(specs, played)
    if as_json:
        print_document(claims_json(assessed, played) + "\n")
    elif markdown:
        print_document(claims_markdown(assessed, played) + "\n")
    else:
        for line in claims_text(assessed, played):
            console.print(line, highlight=False)


def played_runs(which: Sequence[str], runs: Path) -> list[PlayedRun]:
    """The runs, judged.

    :class:`~harness.errors.UsageError` where one is not there or its plays are given twice,
    :class:`~harness.errors.NothingRanError` where none of them has any evidence; evidence that cannot be read is said
    and counts as missing.
    """
    from harness.store import Store, judged_run

    found: list[PlayedRun] = []
    has_plays_of: dict[str, str] = {}
    for one in which:
        store = Store.open(runs, one)
        judged, name = judged_run(store), store.directory.resolve().name
        run = judged.run
        for run_id in (run.id, *(merged.id for merged in run.merged)):
            if run_id in has_plays_of:
                raise UsageError(
                    f"the plays of {run_id} are in {has_plays_of[run_id]} and in {name} too,"
                    " and would be counted twice; leave one of them out"
                )
            has_plays_of[run_id] = name
        for sentence in judged.damaged:
            warn(f"{sentence}; it counts as missing")
        found.append(PlayedRun(name, run.stack, tuple(judged.results)))
    if not any(result.evidence for run in found for result in run.results):
        raise NothingRanError(f"no cell of {' or '.join(run.name for run in found)} has evidence")
    return found

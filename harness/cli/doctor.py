"""The command ``doctor``: what the machine lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import SuiteOption


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    fresh: Annotated[bool, typer.Option(help="probe again instead of using what was probed before")] = False,
    suite: SuiteOption = "trixie",
) -> None:
    """Check everything a run needs; each failed check names the one command that puts it right."""
    from harness.doctor import run_doctor
    from harness.images import current_digests

    # A suite that there is no recipe for is an error before anything is looked at.
    current_digests({suite})
    raise typer.Exit(run_doctor(json_output=as_json, fresh=fresh, suite=suite))

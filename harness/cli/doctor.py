"""The command ``doctor``: what the machine lacks."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    fresh: Annotated[bool, typer.Option(help="probe again instead of using what was probed before")] = False,
) -> None:
    """Check everything a run needs; each failed check names the one command that puts it right."""
    from harness.doctor import run_doctor

    raise typer.Exit(run_doctor(json_output=as_json, fresh=fresh))

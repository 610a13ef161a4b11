"""What the commands share: options, and how they print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

SuiteOption = Annotated[str, typer.Option(help="Debian suite of the nodes: trixie or bookworm")]
RunsOption = Annotated[Path, typer.Option(help="where runs are kept")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a run's id, its folder, or 'latest'")]

console = Console(highlight=False)


def warn(sentence: str) -> None:
    """A sentence on standard error; the command goes on."""
    print(f"drbd-harness: {sentence}", file=sys.stderr)

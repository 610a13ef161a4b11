"""The commands ``status`` and ``clean``: what the harness left on this machine."""

from __future__ import annotations

import typer

from harness.util import logs
from harness.util.paths import log_dir


def status() -> None:
    """What the harness has on this machine: labs, domains, runs that hold the lease.  0 when there is nothing."""
    from harness.lab.nested.leftovers import leftovers

    found = leftovers()
    for what in found:
        print(what.sentence)
    if not found:
        print("nothing is left running")
    raise typer.Exit(0 if not found else 1)


def clean() -> None:
    """End and remove every lab of this user on this machine, found by its label."""
    from harness.lab.nested.leftovers import clean as remove

    with logs.kept_below(log_dir(), "clean"):
        gone = remove()
    for what in gone:
        print(f"removed {what}")
    if not gone:
        print("nothing was left")

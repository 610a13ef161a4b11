"""The doctor: can this machine carry a lab, and if not, which one command changes that?"""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.doctor.facts import gather
from harness.doctor.rules import Check, Status, judge
from harness.images import DEFAULT_SUITE

__all__ = ["Check", "Status", "checks", "run_doctor"]

_MARKS: dict[Status, str] = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]FAIL[/]"}


def checks(*, fresh: bool = False, suite: str = DEFAULT_SUITE) -> list[Check]:
    """Look at this machine, which takes seconds, as the place of a lab with ``suite`` on its nodes.

    ``fresh`` probes the accelerator again even if nothing changed.
    """
    return judge(gather(fresh=fresh, suite=suite))


def run_doctor(*, json_output: bool = False, fresh: bool = False, suite: str = DEFAULT_SUITE) -> int:
    """Print what was found, for people or as JSON; the exit code: 0 if a lab can come up here, else 2.

    The JSON has ``schema``, ``ok`` and ``checks``, each with ``name``, ``status``, ``detail`` and ``remedy`` (a
    command, or null).  Takes seconds, and at the first time up to minutes: a kernel is booted to probe the accelerator.
    """
    with Console(stderr=True).status("looking at this machine, the first time by booting a kernel ..."):
        found = checks(fresh=fresh, suite=suite)
    healthy = all(check.status != "fail" for check in found)
    if json_output:
        print(json.dumps({"schema": 2, "ok": healthy, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        show(found, Console())
    return 0 if healthy else 2


def show(found: list[Check], console: Console) -> None:
    """A table, then the commands, unbroken so that they can be copied."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for check in found:
        table.add_row(_MARKS[check.status], check.name, Text(check.detail))
    console.print(table)
    for check in found:
        if check.status != "ok" and check.remedy:
            console.print(f"\nremedy for '{check.name}':", markup=False, highlight=False)
            console.print(f"  {check.remedy}", markup=False, highlight=False, soft_wrap=True)
    failed = [check.name for check in found if check.status == "fail"]
    verdict = f"A lab cannot come up here yet: {', '.join(failed)}." if failed else "A lab can come up here."
    console.print(f"\n{verdict}", markup=False, highlight=False)

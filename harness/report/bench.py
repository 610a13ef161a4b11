"""Where the time of a run goes: the share of each phase, and what a cell costs beyond its work.

Run by ``ci/bench``.  Everything is a ratio or a difference within one run; nothing is compared with a clock of
another machine.  What a cell costs beyond its work is told by phase and by filesystem and layout, beside the same ratio
in the stored runs of ``costs.json``: it must not grow.  Nor must the page: with a thousand plays like those of the run
it is no larger than a page may be, and drawn in no more than so many times what judging them takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from harness.errors import HarnessError, UsageError
from harness.report.bench_page import page_ratios
from harness.report.bench_ratios import GROWN, by_filesystem, by_phase, ratio_table
from harness.report.costs import learnt, table_of_checkout
from harness.report.phases import as_json, phase_shares, print_phases
from harness.store import Store, judged_results, run_ids
from harness.util.atomic_file import write_atomic
from harness.util.script import ScriptParser, run_script

AIM_SECONDS = 25.0


def main() -> int:
    """Measure a stored run, or play a matrix first; 2 where cells or the page cost more than they may."""
    parser = ScriptParser(prog="ci/bench", description=__doc__)
    parser.add_argument("run", nargs="?", help="a stored run (id, folder, 'latest'); without it a matrix is played")
    parser.add_argument("--matrix", default="quick", help="the matrix to play (default: quick)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    chosen = parser.parse_args()
    try:
        store = Store.open(chosen.runs, chosen.run if chosen.run is not None else _played(chosen.matrix, chosen.runs))
        shares = phase_shares(store.run(), judged_results(store))
        costs, stored = learnt(store.run(), store.every_attempt()), table_of_checkout()
        page = page_ratios(store)
    except HarnessError as error:
        print(f"ci/bench: {error}", file=sys.stderr)
        return error.exit_code
    print_phases(shares)
    phases, filesystems = by_phase(costs, stored), by_filesystem(costs, stored)
    console = Console(highlight=False)
    console.print(ratio_table("Beyond the work, by phase, in the cells that are controls elsewhere", phases))
    console.print(ratio_table("Beyond the work, by filesystem and layout", filesystems))
    path = store.directory / "bench.json"
    ratios = {"by_phase": [asdict(one) for one in phases], "by_filesystem": [asdict(one) for one in filesystems]}
    drawn = {"page": asdict(page) if page else None}
    write_atomic(path, (json.dumps(as_json(shares) | ratios | drawn, indent=1) + "\n").encode())
    print(f"{path.resolve()}")
    if page:
        print(page)
    if shares.overhead_mean is None:
        print("ci/bench: no cell of the run has phases", file=sys.stderr)
        return 3
    within = "within" if shares.overhead_mean <= AIM_SECONDS else "beyond"
    print(f"overhead per cell: {shares.overhead_mean:.1f} s in the mean, {within} the aim of {AIM_SECONDS:.0f} s")
    grown = [one.name for one in (*phases, *filesystems) if one.grown]
    if grown:
        print(f"grew beyond {GROWN} times what it is in the stored runs: {', '.join(grown)}")
    beyond = shares.overhead_mean > AIM_SECONDS or grown or (page and page.grown)
    return 2 if beyond else 0


def _played(matrix: str, runs: Path) -> str:
    """Play ``matrix``, and the id of the run that it was kept as; :class:`HarnessError` where nothing was."""
    before = {*run_ids(runs)}
    command = [sys.executable, "-m", "harness.cli.main", "run", "--matrix", matrix, "--runs", str(runs)]
    ended = subprocess.run(command, check=False).returncode
    new = [run_id for run_id in run_ids(runs) if run_id not in before]
    if not new:
        # Not the newest that there was before, as if it were this one.
        kind = UsageError if ended == UsageError.exit_code else HarnessError
        raise kind(f"nothing was played of the matrix '{matrix}', and so nothing is measured (the reason is above)")
    return new[-1]


if __name__ == "__main__":
    run_script("ci/bench", main)

"""Where the time of a run goes: the share of each phase, and what a cell costs beyond its work.

Run by ``ci/bench``.  Everything is a ratio or a difference within one run; nothing is compared with a clock of
another machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from harness.errors import HarnessError
from harness.report.phases import as_json, phase_shares, print_phases
from harness.store import Store, judged_results

AIM_SECONDS = 25.0


def main() -> int:
    """Measure a stored run, or play a matrix first; 2 when a cell without a failure costs more than the aim."""
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    parser.add_argument("run", nargs="?", help="a stored run (id, folder, 'latest'); without it a matrix is played")
    parser.add_argument("--matrix", default="quick", help="the matrix to play (default: quick)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    chosen = parser.parse_args()
    which = chosen.run
    if which is None:
        command = [
            sys.executable,
            "-m",
            "harness.cli.main",
            "run",
            "--matrix",
            chosen.matrix,
            "--runs",
            str(chosen.runs),
        ]
        subprocess.run(command, check=False)
        which = "latest"
    try:
        store = Store.open(chosen.runs, which)
        shares = phase_shares(store.run(), judged_results(store))
    except HarnessError as error:
        print(f"ci/bench: {error}", file=sys.stderr)
        return error.exit_code
    print_phases(shares)
    path = store.directory / "bench.json"
    path.write_text(json.dumps(as_json(shares), indent=1) + "\n")
    print(f"{path.resolve()}")
    if shares.overhead_mean is None:
        print("ci/bench: no cell of the run has phases", file=sys.stderr)
        return 3
    within = "within" if shares.overhead_mean <= AIM_SECONDS else "beyond"
    print(f"overhead per cell: {shares.overhead_mean:.1f} s in the mean, {within} the aim of {AIM_SECONDS:.0f} s")
    return 0 if shares.overhead_mean <= AIM_SECONDS else 2


if __name__ == "__main__":
    sys.exit(main())

"""Cells in a guest of a user's own image, on a lab: a Debian with partitions, GRUB, systemd and the agent.

Before a release; 20 minutes on an emulated lab, most of it boots.  The command is run as its user runs it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import guest_disk
import pytest

from harness.model import MigrationOutcome, VerdictKind
from harness.store import Store, judged_results, run_ids

MATRIX = """\
schema = 1
description = "A guest image of one's own"

[[cells]]
cache = ["none", "writeback"]
filesystem = "ext4"
workload = "truncate"
link_delay_ms = 20
seconds = 8

[[cells]]
cache = "none"
filesystem = "swap"
workload = "reclaim"
link_delay_ms = 20
seconds = 8

[[cells]]
cache = "none"
filesystem = "ext4"
workload = "buffered"
migrations = 2
seconds = 8

[[cells]]
cache = "writeback"
filesystem = "ext4"
workload = "buffered"
crash = "qemu"
seconds = 8
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_disk.make(tmp_path_factory.mktemp("guest"))


def test_cells_in_it_end_as_in_the_harness_own(image: Path, tmp_path: Path) -> None:
    matrix, runs = tmp_path / "own.toml", tmp_path / "runs"
    matrix.write_text(MATRIX)
    program = Path(sys.executable).with_name("drbd-harness")
    command = [program, "run", "--matrix", matrix, "--guest-image", image, "--runs", runs]
    with (tmp_path / "run.log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=5400, check=False)
    said = (tmp_path / "run.log").read_text()
    print(said)
    assert done.returncode == 0, said[-3000:]
    (run,) = run_ids(runs)
    found = {one.cell.id: one for one in judged_results(Store.open(runs, run)) if one.cell.control is None}
    kinds = {name: one.verdict.kind for name, one in found.items() if one.verdict is not None}
    assert kinds == {
        "none-ext4-truncate-link20ms": VerdictKind.DIVERGED,
        "writeback-ext4-truncate-link20ms": VerdictKind.CLEAN,
        "none-swap-reclaim-link20ms": VerdictKind.DIVERGED,
        "none-ext4-buffered-migrate2": VerdictKind.CLEAN,
        "writeback-ext4-buffered-crash.qemu": VerdictKind.CLEAN,
    }
    moved = found["none-ext4-buffered-migrate2"].evidence
    assert moved is not None
    # Two under load, and the one between the two read-backs.
    assert [one.outcome for one in moved.migrations] == [MigrationOutcome.COMPLETED] * 3

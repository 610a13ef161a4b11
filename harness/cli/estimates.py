"""How long the plays of some cells will take on a lab, as the commands say it before anything begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.config.lab_spec import LabSpec
from harness.engine.control_rounds import CONTROLS_EVERY
from harness.engine.device_size import device_mib, play_order
from harness.lab.nested.accel import likely
from harness.model import Cell
from harness.report.estimate import Estimate, Schedule, costs_here, estimate
from harness.util.paths import cache_dir


def estimated(cells: Iterable[Cell], lab: LabSpec, runs: Path) -> Estimate | None:
    """By what cells have cost in ``runs`` and elsewhere; ``cells`` with their controls, in any order."""

    def size(cell: Cell) -> int:
        return device_mib(cell, lab.device_mib, lab.guest.canary_blocks)

    ordered = sorted(cells, key=lambda cell: play_order(cell, size(cell)))
    return estimate(Schedule.of(ordered, CONTROLS_EVERY, size), costs_here(runs, likely(cache_dir())))

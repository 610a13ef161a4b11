"""The matrix full: every filesystem and layout under every cache mode, thinned by its rule; how many, how long."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.config.controls import with_controls
from harness.config.lab_spec import LabSpec
from harness.config.matrix import load
from harness.config.repetitions import repeated
from harness.config.shards import Shard
from harness.engine.control_rounds import CONTROLS_EVERY
from harness.engine.device_size import device_mib, play_order
from harness.model import CacheMode, Cell, ClientKind, FilesystemKind, Layout, VerdictKind
from harness.model.acknowledgement import QEMU_PROBES
from harness.report.costs import read_table
from harness.report.estimate import Costs, Schedule, estimate
from harness.workloads import WORKLOADS

MATRICES = Path(__file__).parents[1] / "matrices"
MOST_CELLS, MOST_DECIDING, REPETITIONS = 160, 30, 3
HOUR = 3600.0
LAB = LabSpec()


def size(cell: Cell) -> int:
    return device_mib(cell, LAB.device_mib, LAB.guest.canary_blocks)


def seconds(cells: tuple[Cell, ...]) -> float:
    """How long they take under emulation, by the table that comes with the harness."""
    in_order = sorted(cells, key=lambda cell: play_order(cell, size(cell)))
    made = estimate(Schedule.of(in_order, CONTROLS_EVERY, size), Costs(read_table()))
    assert made is not None
    return made.total


@pytest.fixture(scope="module")
def plays() -> tuple[Cell, ...]:
    return with_controls(repeated(load("full", WORKLOADS, MATRICES).cells, None, 7))


@pytest.fixture(scope="module")
def tested(plays: tuple[Cell, ...]) -> tuple[Cell, ...]:
    return tuple(cell for cell in plays if cell.control is None)


def test_full_has_not_too_many_cells_and_repeats_those_that_decide(tested: tuple[Cell, ...]) -> None:
    times = Counter(cell.id for cell in tested)
    deciding = [cell_id for cell_id, count in times.items() if count > 1]
    assert 120 <= len(times) <= MOST_CELLS
    assert 20 <= len(deciding) <= MOST_DECIDING
    assert {times[cell_id] for cell_id in deciding} == {REPETITIONS}


def test_full_takes_about_three_hours_under_emulation(plays: tuple[Cell, ...]) -> None:
    assert 2.5 * HOUR < seconds(plays) < 3.4 * HOUR


def test_full_in_four_parts_each_about_an_hour_and_nothing_missing(plays: tuple[Cell, ...]) -> None:
    parts = [Shard(number, 4).of_cells(plays) for number in (1, 2, 3, 4)]
    assert all(seconds(part) < 1.1 * HOUR for part in parts)
    assert Counter(cell.play for part in parts for cell in part if cell.control is None) == Counter(
        cell.play for cell in plays if cell.control is None
    )


def test_full_has_every_filesystem_layout_cache_mode_and_way_of_writing(tested: tuple[Cell, ...]) -> None:
    # That of Windows needs an image of a user's.
    assert {cell.filesystem for cell in tested} == {*FilesystemKind} - {FilesystemKind.NTFS, FilesystemKind.PAGEFILE}
    # QEMU's own encryption is a mitigation, and played with those.
    assert {cell.layout for cell in tested} == {*Layout} - {Layout.CRYPT_QEMU}
    assert {cell.cache for cell in tested if cell.client is ClientKind.GUEST} == {*CacheMode}
    # Written for crashes, controls, costs, a user's, or about QEMU; what the first show without a crash, others show.
    elsewhere = {"buffered", "mmap", "planted", "steady", "fio-verify", "fio-cost", "fio-job", "guest-script"}
    assert {cell.workload for cell in tested} == {*WORKLOADS} - elsewhere - {*QEMU_PROBES}


def test_full_what_copies_is_asked_only_where_cache_none_is_asked_too(tested: tuple[Cell, ...]) -> None:
    direct = {cell.column for cell in tested if cell.cache is CacheMode.NONE}
    for cell in tested:
        if cell.cache is not None:
            assert cell.column in direct, f"a CLEAN of {cell.id} would be worth nothing"


def test_full_every_cell_has_an_expectation_with_a_reason(tested: tuple[Cell, ...]) -> None:
    for cell in tested:
        assert cell.expected is not None and cell.expected.reason, cell.id
        if cell.cache is not None and not cell.cache.direct:
            assert cell.expected.verdicts == (VerdictKind.CLEAN,), cell.id

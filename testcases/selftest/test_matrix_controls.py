"""Matrix files: the controls that stand in front of the cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from written_matrix import IN_GUEST, SHIPPED, ids

from harness.config.controls import CONTROL_CELLS, with_controls
from harness.config.matrix import load, names
from harness.model import CacheMode, Cell, ClientKind, Control, Expectation, VerdictKind
from harness.workloads import WORKLOADS

CONTROLS = ["host-planted", "host-steady", "host-no-writes", "host-inflight-modify", "directsync-inflight-modify"]


def test_with_controls_shipped_matrices_begin_with_their_controls() -> None:
    for name in names(SHIPPED):
        cells = load(name, WORKLOADS, SHIPPED).cells
        ready = with_controls(cells)
        guests = any(cell.client is ClientKind.GUEST for cell in cells)
        controls = CONTROLS if guests else CONTROLS[:-1]
        first, rest = ready[: len(controls)], ready[len(controls) :]
        assert ids(first) == controls
        assert [cell.control for cell in first] == [cell.control for cell in CONTROL_CELLS[: len(controls)]]
        assert all(cell.expected and cell.expected.reason for cell in first)
        assert list(rest) == [cell for cell in cells if cell.id not in CONTROLS]
        assert len({cell.play for cell in ready}) == len(ready)
        assert with_controls(ready) == ready


def test_with_controls_only_host_cells_start_no_guest() -> None:
    host = Cell("fio-verify", client=ClientKind.HOST)
    assert ids(with_controls((host,))) == [*CONTROLS[:4], host.id]
    assert ids(with_controls((host, IN_GUEST)))[:5] == CONTROLS


def test_with_controls_cell_that_plays_a_control_stays_as_it_is() -> None:
    own = Cell(
        "inflight-modify",
        client=ClientKind.HOST,
        seconds=33,
        control=Control.IN_FLIGHT,
        expected=Expectation((VerdictKind.CLEAN,), "x"),
    )
    ready = with_controls((IN_GUEST, own))
    assert ids(ready) == [*CONTROLS, IN_GUEST.id] and ready[3] == own


def test_with_controls_in_flight_of_a_guest_is_the_control_through_a_guest() -> None:
    own = Cell("inflight-modify", cache=CacheMode.NONE, control=Control.IN_FLIGHT, seconds=7)
    ready = with_controls((IN_GUEST, own))
    assert ids(ready) == [*CONTROLS[:4], own.id, IN_GUEST.id]
    assert [(cell.control, cell.seconds) for cell in ready[3:5]] == [
        (Control.IN_FLIGHT, 5), (Control.IN_FLIGHT_GUEST, 7)
    ]  # fmt: skip


def test_with_controls_cell_of_cache_none_stays_a_cell() -> None:
    own = Cell("inflight-modify", cache=CacheMode.NONE, seconds=7)
    assert ids(with_controls((own,))) == [*CONTROLS, own.id] and with_controls((own,))[-1] is own


@pytest.mark.parametrize("place", range(5))
def test_with_controls_cell_that_asks_the_same_becomes_the_control(place: int) -> None:
    control = CONTROL_CELLS[place]
    ready = with_controls((IN_GUEST, replace(control, control=None, expected=None, seconds=33)))
    assert ids(ready) == [*CONTROLS, IN_GUEST.id]
    assert ready[place] == replace(control, seconds=33)

"""Sectors, blocks and extents; the ids of cells."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.model import (
    SECTORS_PER_BLOCK,
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    DiskBus,
    Extent,
    Widener,
    blocks_of,
    extents_of,
)

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

BLOCKS = st.sets(st.integers(0, 300))
EXTENTS = st.lists(st.builds(Extent, st.integers(0, 5000), st.integers(0, 200)))


@given(BLOCKS)
def test_blocks_survive_the_way_through_extents(blocks: set[int]) -> None:
    assert blocks_of(extents_of(blocks)) == blocks


@given(st.lists(st.integers(0, 300)))
def test_extents_are_sorted_whole_blocks_with_gaps_between(blocks: list[int]) -> None:
    extents = extents_of(blocks)
    assert all(e.start % SECTORS_PER_BLOCK == e.size % SECTORS_PER_BLOCK == 0 and e.size for e in extents)
    assert all(a.end < b.start for a, b in pairwise(extents))


@given(EXTENTS)
def test_a_block_is_touched_if_one_of_its_sectors_is(extents: list[Extent]) -> None:
    by_sector = {sector // SECTORS_PER_BLOCK for e in extents if e.size for sector in range(e.start, e.end)}
    assert blocks_of(e for e in extents if e.size) == by_sector


def test_an_extent_off_the_block_grid_touches_both_its_blocks() -> None:
    assert blocks_of([Extent(7, 2)]) == {0, 1}


def test_ids_leave_defaults_out_and_name_the_rest() -> None:
    guest = Cell("swap", cache=CacheMode.NONE)
    rest = Cell("swap", cache=CacheMode.NONE, aio=AioMode.IO_URING, bus=DiskBus.SCSI, widener=Widener(20, 5))
    host = Cell("mutator", client=ClientKind.HOST)
    assert [cell.id for cell in (guest, rest, host)] == [
        "none-swap",
        "none-swap-iouring-scsi-link20ms-disk5ms",
        "host-mutator",
    ]
    assert [(cell.row, cell.column) for cell in (guest, host)] == [("none", "swap"), ("host", "mutator")]

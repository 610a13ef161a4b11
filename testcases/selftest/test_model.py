"""Sectors, blocks and extents; the ids of cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import (
    BITMAP_BLOCK_SIZES,
    SECTORS_PER_BLOCK,
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    Crash,
    DelayProfile,
    DetectZeroes,
    Discard,
    DiskBus,
    DiskOptions,
    Extent,
    Fault,
    FilesystemKind,
    GuestOptions,
    Layout,
    Mitigation,
    Preset,
    Protocol,
    Quorum,
    ReplicationProfile,
    Sabotage,
    SwapOn,
    Transport,
    UserFile,
    blocks_of,
    extents_of,
)
from harness.model import settings as preset_settings

BLOCKS = st.sets(st.integers(0, 300))
EXTENTS = st.lists(st.builds(Extent, st.integers(0, 5000), st.integers(0, 200)))


@given(BLOCKS)
def test_blocks_of_extents_of_blocks_same_blocks(blocks: set[int]) -> None:
    assert blocks_of(extents_of(blocks)) == blocks


@given(st.lists(st.integers(0, 300)))
def test_extents_of_any_blocks_sorted_aligned_and_not_adjacent(blocks: list[int]) -> None:
    extents = extents_of(blocks)
    assert all(e.start % SECTORS_PER_BLOCK == e.size % SECTORS_PER_BLOCK == 0 and e.size for e in extents)
    assert all(a.end < b.start for a, b in pairwise(extents))


@given(EXTENTS)
def test_blocks_of_extents_every_block_with_a_sector_in_them(extents: list[Extent]) -> None:
    by_sector = {sector // SECTORS_PER_BLOCK for e in extents if e.size for sector in range(e.start, e.end)}
    assert blocks_of(e for e in extents if e.size) == by_sector


def test_blocks_of_unaligned_extent_both_blocks() -> None:
    assert blocks_of([Extent(7, 2)]) == {0, 1}


def test_cell_id_defaults_left_out_rest_named() -> None:
    guest = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    rest = Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        aio=AioMode.IO_URING,
        bus=DiskBus.SCSI,
        delays=DelayProfile(20, 5),
    )
    host = Cell("inflight-modify", client=ClientKind.HOST)
    assert [cell.id for cell in (guest, rest, host)] == [
        "none-swap-pressure",
        "none-swap-pressure-iouring-scsi-link20ms-disk5ms",
        "host-inflight-modify",
    ]
    assert [(cell.row, cell.column) for cell in (guest, host)] == [
        ("none", "swap-pressure"),
        ("host", "inflight-modify"),
    ]


@pytest.mark.parametrize(
    ("cell", "suffix"),
    [
        (
            Cell("pressure", filesystem=FilesystemKind.SWAP, delays=DelayProfile(20), migrations=2),
            "swap-pressure-link20ms-migrate2",
        ),
        (
            Cell("inflight-modify", replication=ReplicationProfile(integrity="crc32c", two_primaries=True)),
            "inflight-modify-digest.crc32c-twoprimaries",
        ),
        (Cell("buffered", filesystem=FilesystemKind.EXT4, crash=Crash.NODE), "ext4-buffered-crash.node"),
        (
            Cell(
                "pressure",
                filesystem=FilesystemKind.SWAP,
                replication=ReplicationProfile(Protocol.A, disable_sendpage=True),
            ),
            "swap-pressure-protoA-nosendpage",
        ),
        (
            Cell(
                "pressure",
                filesystem=FilesystemKind.SWAP,
                replication=ReplicationProfile(Protocol.B, scatter_gather=False),
            ),
            "swap-pressure-protoB-nosg",
        ),
        (Cell("no-writes", migrations=1, fault=Fault.LINK_CUT), "no-writes-migrate1-fault.link-cut"),
        (Cell("no-writes", fault=Fault.IO_ERROR), "no-writes-fault.io-error"),
        (
            Cell("no-writes", migrations=1, unsafe_migration=True, migration_deadline=5),
            "no-writes-migrate1-unsafemigration",
        ),
        (
            Cell(
                "no-writes",
                aio=AioMode.NATIVE,
                delays=DelayProfile(5),
                replication=ReplicationProfile(Protocol.A),
                migrations=10,
                seconds=3,
            ),
            "no-writes-native-link5ms-protoA-migrate10",
        ),
    ],
)
def test_cell_id_names_replication_and_disturbances(cell: Cell, suffix: str) -> None:
    cell = replace(cell, cache=CacheMode.NONE)
    assert (cell.id, cell.row, cell.column) == (f"none-{suffix}", "none", suffix)


@pytest.mark.parametrize("crash", Crash)
def test_has_canary_guest_with_disturbance_only(crash: Crash) -> None:
    quiet = Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        replication=ReplicationProfile(Protocol.A, "md5"),
    )
    assert not quiet.has_canary
    assert all(
        cell.has_canary
        for cell in (replace(quiet, crash=crash), replace(quiet, migrations=1), replace(quiet, fault=Fault.STANDALONE))
    )
    assert not Cell("pressure", filesystem=FilesystemKind.SWAP, client=ClientKind.HOST).has_canary


# What a cell asks: all its fields but those that change how long it asks, or what is made of the answer.
NOT_ASKED = {"seconds", "deadline", "migration_deadline", "control", "expected", "repetition", "seed"}
ARMS: dict[str, list[Any]] = {
    "protocol": [*Protocol],
    "integrity": ["", "crc32c", "md5", "sha1", "sha256"],
    "disable_sendpage": [False, True],
    "scatter_gather": [True, False],
    "two_primaries": [False, True],
    "allow_two_primaries": [False, True],
    "transport": [*Transport],
    "tls": [False, True],
    "quorum": [*Quorum],
    "auto_promote": [True, False],
    "bitmap_block_size": [*BITMAP_BLOCK_SIZES],
}
WIDENERS: dict[str, list[Any]] = {"link_delay_ms": [0, 2, 20], "disk_delay_ms": [0, 2, 20], "flush_delay_ms": [0, 2]}
DISK_OPTIONS: dict[str, list[Any]] = {
    "iothread": [False, True],
    "detect_zeroes": [*DetectZeroes],
    "discard": [*Discard],
}
GUEST_OPTIONS: dict[str, list[Any]] = {
    "guest_stable_writes": [False, True],
    "online_discard": [False, True],
    "swap_on": [*SwapOn],
}
# What they set is as they set it.
PRESETS: dict[str, list[Any]] = {"mitigation": [None, *Mitigation], "preset": [None, *Preset]}
HOST_AXES: dict[str, list[Any]] = {
    "workload": ["planted", "no-writes", "inflight-modify", "pressure", "buffered"],
    "filesystem": [*FilesystemKind],
    "layout": [*Layout],
    "user_file": [None, UserFile("one", "1a" * 32, "x"), UserFile("one", "2b" * 32, "y")],
}
GUEST_AXES: dict[str, list[Any]] = {
    **HOST_AXES,
    "cache": [*CacheMode],
    "aio": [*AioMode],
    "bus": [*DiskBus],
    "migrations": [0, 1, 2, 11, 12],
    "unsafe_migration": [False, True],
    "crash": [None, *Crash],
    "fault": [None, *Fault],
    "sabotage": [None, *Sabotage],
}


def one_of_each(axes: dict[str, list[Any]]) -> dict[str, st.SearchStrategy[Any]]:
    return {name: st.sampled_from(values) for name, values in axes.items()}


# The host has no cache, aio, bus, and nothing happens to it: the matrix refuses those.
PARTS = {
    "delays": st.builds(DelayProfile, **one_of_each(WIDENERS)),
    "replication": st.builds(ReplicationProfile, **one_of_each(ARMS)),
}
GUEST_PARTS = {
    **PARTS,
    "disk_options": st.builds(DiskOptions, **one_of_each(DISK_OPTIONS)),
    "guest_options": st.builds(GuestOptions, **one_of_each(GUEST_OPTIONS)),
}
CELLS = st.one_of(
    st.builds(
        Cell, client=st.just(ClientKind.GUEST), **one_of_each(GUEST_AXES), **one_of_each(PRESETS), **GUEST_PARTS
    ).map(lambda cell: cell.with_values(preset_settings(cell.preset, cell.mitigation))),
    st.builds(Cell, client=st.just(ClientKind.HOST), **one_of_each(HOST_AXES), **PARTS),
)


def asked(cell: Cell) -> dict[str, Any]:
    return {each.name: getattr(cell, each.name) for each in fields(cell) if each.name not in NOT_ASKED}


def test_cell_fields_all_in_the_properties_below() -> None:
    assert {*GUEST_AXES, *PRESETS, *GUEST_PARTS, "client", *NOT_ASKED} == {each.name for each in fields(Cell)}
    for values, kind in (
        (ARMS, ReplicationProfile),
        (WIDENERS, DelayProfile),
        (DISK_OPTIONS, DiskOptions),
        (GUEST_OPTIONS, GuestOptions),
    ):
        assert set(values) == {each.name for each in fields(kind)}


@given(CELLS, CELLS)
def test_cell_id_equal_only_if_the_same_is_asked(one: Cell, other: Cell) -> None:
    assert (one.id == other.id) == (asked(one) == asked(other))


@given(CELLS)
def test_cell_id_each_value_of_each_axis_differs(cell: Cell) -> None:
    def ids(cells: Iterable[Cell]) -> list[str]:
        return sorted(each.id for each in cells)

    # What a preset sets is not shown.
    cell = replace(cell, mitigation=None, preset=None)
    for name, values in (GUEST_AXES if cell.client is ClientKind.GUEST else HOST_AXES).items():
        found = ids(replace(cell, **{name: value}) for value in values)
        assert len(set(found)) == len(values), (name, found)
    for name, values in ARMS.items():
        found = ids(replace(cell, replication=replace(cell.replication, **{name: value})) for value in values)
        assert len(set(found)) == len(values), (name, found)
    for name, values in WIDENERS.items():
        found = ids(replace(cell, delays=replace(cell.delays, **{name: value})) for value in values)
        assert len(set(found)) == len(values), (name, found)
    for name, values in {**DISK_OPTIONS, **GUEST_OPTIONS}.items():
        found = ids(cell.with_values({name: value}) for value in values)
        assert len(set(found)) == len(values), (name, found)


@given(CELLS, st.integers(1, 999), st.integers(1, 999), st.integers(5, 999))
def test_cell_id_durations_are_no_part(cell: Cell, seconds: int, deadline: int, migration: int) -> None:
    assert replace(cell, seconds=seconds, deadline=deadline, migration_deadline=migration).id == cell.id

"""A map of a device by bytes, and the owners of its blocks."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.filesystems.owned import MAX_NAMES, MAX_OFFSETS, ByteMap, OwnedBlock, summary
from harness.model import BLOCK_BYTES, BlockOwner, FileBlocks, Ownership

BLOCKS = 3
ALLOCATED, FREE, METADATA, UNKNOWN = BlockOwner.ALLOCATED, BlockOwner.FREE, BlockOwner.METADATA, BlockOwner.UNKNOWN


def test_byte_map_nothing_painted_is_unknown() -> None:
    assert ByteMap().blocks([4, 0]) == dict.fromkeys(
        (0, 4), OwnedBlock(UNKNOWN, "no map of the filesystem tells")
    )  # fmt: skip
    assert ByteMap().blocks([]) == {}


def test_byte_map_file_blocks_know_their_place_in_the_file() -> None:
    found = ByteMap()
    found.paint(0, 10 * BLOCK_BYTES, FREE, "free space")
    found.paint(4 * BLOCK_BYTES, 6 * BLOCK_BYTES, ALLOCATED, "/f", path="/f", offset=8192)
    assert found.blocks([3, 4, 5, 6]) == {
        3: OwnedBlock(FREE, "free space"),
        4: OwnedBlock(ALLOCATED, "/f at byte 8192", "/f", 8192),
        5: OwnedBlock(ALLOCATED, "/f at byte 12288", "/f", 12288),
        6: OwnedBlock(FREE, "free space"),
    }


def test_byte_map_shared_block_of_different_owners_is_unknown_with_their_names() -> None:
    found = ByteMap()
    found.paint(0, 4096, FREE, "free space")
    found.paint(1024, 2048, ALLOCATED, "/f", path="/f", offset=0)
    (one,) = found.blocks([0]).values()
    assert one == OwnedBlock(UNKNOWN, "shared by free (free space) and allocated (/f)")


def test_byte_map_block_half_told_is_unknown() -> None:
    found = ByteMap()
    found.paint(0, 4095, METADATA, "the table")
    assert found.blocks([0])[0].owner is UNKNOWN
    found.paint(4095, 4096, METADATA, "another")
    assert found.blocks([0])[0] == OwnedBlock(METADATA, "the table and another")


def test_byte_map_two_files_in_one_block_are_both_named_and_neither_is_the_path() -> None:
    found = ByteMap()
    found.paint(0, 2048, ALLOCATED, "/a", path="/a", offset=0)
    found.paint(2048, 4096, ALLOCATED, "/b", path="/b", offset=0)
    assert found.blocks([0])[0] == OwnedBlock(ALLOCATED, "/a and /b")


def test_byte_map_one_file_in_pieces_is_the_file_where_its_first_piece_begins() -> None:
    found = ByteMap()
    found.paint(0, 2048, ALLOCATED, "/a", path="/a", offset=6144)
    found.paint(2048, 4096, ALLOCATED, "/a", path="/a", offset=0)
    assert found.blocks([0])[0] == OwnedBlock(ALLOCATED, "/a at byte 6144", "/a", 6144)


def test_byte_map_no_place_or_nothing_to_paint() -> None:
    found = ByteMap()
    found.paint(4096, 4096, FREE, "nothing")
    found.paint(8192, 4096, FREE, "less than nothing")
    assert found.blocks([0, 1])[1].owner is UNKNOWN
    with pytest.raises(ValueError, match="before the beginning"):
        found.paint(-1, 4096, FREE, "free space")


paints = st.lists(
    st.tuples(
        st.integers(0, BLOCKS * BLOCK_BYTES), st.integers(0, BLOCKS * BLOCK_BYTES),
        st.sampled_from([ALLOCATED, FREE, METADATA]), st.sampled_from("abc"), st.booleans(),
    ), max_size=12,
)  # fmt: skip
# Where blocks begin and end is where mistakes are.
near = st.tuples(st.integers(0, BLOCKS), st.integers(-1, 1)).map(lambda at: max(0, at[0] * BLOCK_BYTES + at[1]))
near_paints = st.lists(
    st.tuples(near, near, st.sampled_from([ALLOCATED, FREE, METADATA]), st.sampled_from("abc"), st.booleans()),
    max_size=8,
)


@given(paints | near_paints)
def test_byte_map_each_byte_asked_says_the_same(
    painted: list[tuple[int, int, BlockOwner, str, bool]],
) -> None:
    found = ByteMap()
    each: list[tuple[BlockOwner, str] | None] = [None] * (BLOCKS * BLOCK_BYTES)
    places: list[int | None] = [None] * (BLOCKS * BLOCK_BYTES)
    for start, stop, owner, name, is_file in painted:
        found.paint(start, stop, owner, name, path=f"/{name}" if is_file else "", offset=5 if is_file else None)
        for at in range(start, min(stop, len(each))):
            each[at], places[at] = (owner, f"/{name}" if is_file else ""), 5 + at - start if is_file else None
    for block, one in found.blocks(range(BLOCKS)).items():
        of_it = {*each[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]}
        owners = {part[0] if part else UNKNOWN for part in of_it}
        assert one.owner is (owners.pop() if len(owners) == 1 else UNKNOWN)
        if one.path:
            assert of_it == {(one.owner, one.path)} and one.offset == places[block * BLOCK_BYTES]
        elif one.owner is not UNKNOWN:
            assert len({part[1] for part in of_it if part}) > 1 or of_it == {(one.owner, "")}


def test_byte_map_a_hundred_thousand_extents_take_seconds() -> None:
    found = ByteMap()
    found.paint(0, 2**33, FREE, "free space")
    for number in range(100_000):
        found.paint(number * 8192, number * 8192 + 4096, ALLOCATED, f"/{number}", path=f"/{number}", offset=0)
    began = time.monotonic()
    owned = found.blocks(range(200_000))
    assert time.monotonic() - began < 30, "two seconds on an idle machine"
    assert summary(owned, "").free == summary(owned, "").allocated == 100_000


def test_summary_files_the_most_hit_first_with_their_offsets() -> None:
    owned = {n: OwnedBlock(ALLOCATED, f"/a at byte {n}", "/a", n * 4096) for n in range(20)}
    owned |= {30: OwnedBlock(FREE, "preallocated for /a", "/a"), 31: OwnedBlock(ALLOCATED, "/b at byte 4", "/b", 4)}
    assert replace(summary(owned, "asking"), extents={}) == Ownership(
        allocated=21, free=1, method="asking", names=("/a", "/b"),
        files=(
            FileBlocks("/a", ALLOCATED, 20, tuple(n * 4096 for n in range(MAX_OFFSETS))),
            FileBlocks("/a", FREE, 1), FileBlocks("/b", ALLOCATED, 1, (4,)),
        ),
    )  # fmt: skip
    many = summary({n: OwnedBlock(ALLOCATED, f"/{n}", f"/{n}") for n in range(200)}, "")
    assert len(many.names) == len(many.files) == MAX_NAMES

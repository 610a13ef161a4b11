"""Two backing files, block by block."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import InfrastructureError
from harness.lab.backing_compare import block_digests, changed_blocks, compare_files, owned, sample, sample_files
from harness.model import BLOCK_BYTES, BlockOwner, Extent, Sample, blocks_of

# More than is read at once, and not a multiple of it.
BLOCKS = 2100


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a.raw", tmp_path / "b.raw"
    for path in (a, b):
        with path.open("wb") as file:
            file.truncate(BLOCKS * BLOCK_BYTES)
    return a, b


def poke(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_compare_files_equal_no_difference(pair: tuple[Path, Path]) -> None:
    found = compare_files(*pair, BLOCKS)
    assert (found.blocks, found.differing, found.differing_blocks) == (BLOCKS, (), 0)
    assert "controller" in found.where and found.seconds >= 0


@settings(max_examples=15)
@given(
    st.sets(st.sampled_from([0, 1, 2, 1022, 1023, 1024, 1025, 2047, 2048, BLOCKS - 1]) | st.integers(0, BLOCKS - 1)),
    st.integers(0, BLOCK_BYTES - 1),
)
def test_compare_files_one_byte_changed_that_block_only(blocks: set[int], at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder, "a"), Path(folder, "b")
        for path in (a, b):
            with path.open("wb") as file:
                file.truncate(BLOCKS * BLOCK_BYTES)
        for block in blocks:
            poke(b, block * BLOCK_BYTES + at, b"\x01")
        found = compare_files(a, b, BLOCKS)
        assert blocks_of(found.differing) == blocks == blocks_of(compare_files(b, a, BLOCKS).differing)
        assert found.differing_blocks == len(blocks)


def test_compare_files_adjacent_blocks_one_extent(pair: tuple[Path, Path]) -> None:
    for block in (1023, 1024, 7):
        poke(pair[1], block * BLOCK_BYTES, b"x")
    assert compare_files(*pair, BLOCKS).differing == (Extent(7 * 8, 8), Extent(1023 * 8, 16))


def test_compare_files_beyond_the_device_ignored(pair: tuple[Path, Path]) -> None:
    poke(pair[0], 2000 * BLOCK_BYTES, b"metadata")
    assert compare_files(*pair, 2000).differing == ()
    assert compare_files(*pair, 2001).differing_blocks == 1


def test_compare_files_short_file_infrastructure_error(pair: tuple[Path, Path]) -> None:
    a, b = pair
    with b.open("r+b") as file:
        file.truncate(BLOCKS * BLOCK_BYTES - 1)
    with pytest.raises(InfrastructureError, match=r"b\.raw is shorter than the DRBD device"):
        compare_files(a, b, BLOCKS)
    with pytest.raises(InfrastructureError, match=r"b\.raw is shorter"):
        compare_files(b, a, BLOCKS)


def test_compare_files_missing_file_infrastructure_error(pair: tuple[Path, Path]) -> None:
    pair[1].unlink()
    with pytest.raises(InfrastructureError, match=r"b\.raw"):
        compare_files(*pair, BLOCKS)


def test_sample_has_what_stands_around_the_first_differing_byte() -> None:
    one = bytes(BLOCK_BYTES)
    two = bytearray(one)
    two[100], two[131], two[4000] = 0xAB, 0xCD, 0xEF
    found = sample(7, one, bytes(two))
    assert (found.block, found.offset, found.differing_bytes) == (7, 100, 3)
    assert found.start == 80, "what stands before it is kept too, from a whole row on"
    assert found.a == "00" * 256
    assert found.b[: 2 * 52] == "00" * 20 + "ab" + "00" * 30 + "cd"
    assert found.lines == "6000000000000002", "of 64 lines the second, the third and the last but one"
    assert (found.looks_a, found.looks_b) == ("zeros", "")


def test_sample_at_the_end_of_a_block_stays_in_it() -> None:
    found = sample(0, bytes(BLOCK_BYTES), bytes(BLOCK_BYTES - 2) + b"\x01\x02")
    assert (found.offset, found.differing_bytes, found.start) == (BLOCK_BYTES - 2, 2, BLOCK_BYTES - 256)
    assert (found.a, found.b) == ("00" * 256, "00" * 254 + "0102")


def test_sample_equal_blocks_no_differing_bytes() -> None:
    same = "73616d65" * 64
    equal = Sample(3, 0, 0, same, same, start=0, looks_a="text", looks_b="text", lines="0" * 16)
    assert sample(3, b"same" * 1024, b"same" * 1024) == equal


def test_sample_files_each_block_its_own_sample(pair: tuple[Path, Path]) -> None:
    for block in (3, 2099):
        poke(pair[0], block * BLOCK_BYTES + block, b"A")
        poke(pair[1], block * BLOCK_BYTES + block, b"B")
    found = sample_files(*pair, [2099, 3])
    assert [(one.block, one.offset, one.differing_bytes) for one in found] == [(2099, 2099, 1), (3, 3, 1)]
    assert all(bytes.fromhex(one.a)[one.offset - (one.start or 0)] == ord("A") for one in found)
    assert all(bytes.fromhex(one.b)[one.offset - (one.start or 0)] == ord("B") for one in found)
    assert owned(found[0], BlockOwner.FREE, "free").detail == "free" and found[0].owner is BlockOwner.UNKNOWN


@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_changed_blocks_any_bytes_name_their_blocks(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.raw"
        with path.open("wb") as file:
            file.truncate((BLOCKS + 1) * BLOCK_BYTES)
        # Some of it is written already, so that not every block that changes is one of zeros.
        poke(path, 5 * BLOCK_BYTES, b"before" * 4000)
        before = block_digests(path, BLOCKS)
        places = data.draw(st.sets(st.integers(0, (BLOCKS + 1) * BLOCK_BYTES - 1), max_size=9))
        for at in places:
            poke(path, at, b"\xff")
        after = block_digests(path, BLOCKS)
    # What lies behind the device (DRBD's metadata) is no data.
    assert blocks_of(changed_blocks(before, after)) == {at // BLOCK_BYTES for at in places} - {BLOCKS}


def test_changed_blocks_of_another_size_is_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="not of the same blocks"):
        changed_blocks(block_digests(pair[0], 2), block_digests(pair[0], 3))


def test_block_digests_device_longer_than_the_file_is_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(InfrastructureError, match="shorter than the DRBD device"):
        block_digests(pair[0], BLOCKS + 1)

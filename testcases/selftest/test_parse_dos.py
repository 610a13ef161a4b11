"""The structures of NTFS, FAT and exFAT that are read by hand."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.bitmap import clear_runs, runs
from harness.parse.fat import (
    ExfatStream,
    exfat_layout,
    exfat_streams,
    exfat_system,
    fat_layout,
    free_clusters,
)
from harness.parse.ntfs import mft_record, record_bytes


@given(st.binary(min_size=1, max_size=64), st.integers(0, 512))
def test_clear_runs_any_bitmap_covers_what_is_clear(bitmap: bytes, count: int) -> None:
    if count > len(bitmap) * 8:
        with pytest.raises(ValueError, match="nothing about all"):
            clear_runs(bitmap, count)
        return
    found = clear_runs(bitmap, count)
    clear = [bit for bit in range(count) if not bitmap[bit // 8] & 1 << bit % 8]
    assert [bit for run in found for bit in run] == clear
    assert all(before.stop < after.start for before, after in pairwise(found))


def test_runs_neighbours_are_joined() -> None:
    assert runs([2, 3, 4, 7, 9, 10]) == [range(2, 5), range(7, 8), range(9, 11)]


def boot(bits: int, clusters: int) -> bytes:
    """The first sector of a FAT with clusters of 4 KiB and two tables, after 32 reserved sectors."""
    table = -(-(clusters + 2) * bits // 8 // 512)
    roots = 512 if bits == 16 else 0
    total = 32 + 2 * table + roots * 32 // 512 + clusters * 8
    sector = bytearray(512)
    struct.pack_into("<HBHBHHBH", sector, 11, 512, 8, 32, 2, roots, 0, 0xF8, table if bits == 16 else 0)
    struct.pack_into("<I", sector, 32, total)
    struct.pack_into("<I", sector, 36, 0 if bits == 16 else table)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def test_fat_layout_fat32_has_no_root_of_its_own() -> None:
    found = fat_layout(boot(32, 70000))
    assert (found.bits, found.clusters, len(found.tables), len(found.root)) == (32, 70000, 2, 0)
    assert found.place(2) == found.data == found.tables[1].stop
    assert found.place(70001) + found.cluster == found.end


def test_fat_layout_fat16_has_a_root_before_its_clusters() -> None:
    found = fat_layout(boot(16, 5000))
    assert (found.bits, found.clusters, len(found.root)) == (16, 5000, 512 * 32)
    assert found.root.stop == found.data and found.root.start == found.tables[1].stop


@pytest.mark.parametrize("bits, clusters", [(32, 60000), (16, 4000)])
def test_fat_layout_a_number_of_clusters_that_means_another_width_is_refused(bits: int, clusters: int) -> None:
    with pytest.raises(ValueError, match=f"{clusters} clusters"):
        fat_layout(boot(bits, clusters))


def test_fat_layout_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="not that of a FAT"):
        fat_layout(bytes(512))


def test_free_clusters_fat32_ignores_the_reserved_bits() -> None:
    layout = fat_layout(boot(32, 70000))
    entries = [0xFFFFFFF] * 70002
    entries[5], entries[6], entries[9] = 0, 0xF0000000, 0
    table = struct.pack(f"<{len(entries)}I", *entries)
    assert free_clusters(table, layout) == [range(5, 7), range(9, 10)]
    with pytest.raises(ValueError, match="too short"):
        free_clusters(table[:-8], layout)


def entry(kind: int, **at: tuple[int, int]) -> bytes:
    raw = bytearray(32)
    raw[0] = kind
    for size, (where, value) in at.items():
        struct.pack_into("<Q" if size.startswith("q") else "<I", raw, where, value)
    return bytes(raw)


def test_exfat_streams_of_deleted_files_are_left_out() -> None:
    used = entry(0x85) + entry(0xC0, q=(8, 5000), i=(20, 77)) + entry(0xC1)
    deleted = entry(0x05) + entry(0x40, q=(8, 9), i=(20, 99)) + entry(0x41)
    assert list(exfat_streams(deleted + used + bytes(32) + used)) == [ExfatStream(77, 5000)]


def test_exfat_system_no_bitmap_is_an_error() -> None:
    bitmap = entry(0x81, q=(24, 625), i=(20, 2))
    assert exfat_system(bitmap + entry(0x82, q=(24, 5836), i=(20, 3)))["the allocation bitmap"] == (2, 625)
    with pytest.raises(ValueError, match="no allocation bitmap"):
        exfat_system(entry(0x82, q=(24, 5836), i=(20, 3)))


@pytest.mark.parametrize("read", [exfat_layout, record_bytes])
def test_boot_sector_of_something_else_is_refused(read: object) -> None:
    assert callable(read)
    with pytest.raises(ValueError, match="its first sector is not that of an"):
        read(bytes(512))


def test_mft_record_what_was_never_written_is_none() -> None:
    assert mft_record(bytes(1024)) is None


@given(st.binary(min_size=1024, max_size=1024))
def test_mft_record_any_garbage_is_none_or_an_error(garbage: bytes) -> None:
    for data in (garbage, b"FILE" + garbage[4:], b"FILE\x30\x00\x03\x00" + garbage[8:]):
        try:
            record = mft_record(data)
        except ValueError:
            continue
        assert record is None or all(one.kind >= 0 for one in record.attributes)

"""Whose a block is: debugfs and dumpe2fs, recorded from a small real filesystem (``dumpe2fs.txt``, ``stat.txt``)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.debugfs import DataRun, InodeBlocks, inode_blocks, paths
from harness.parse.dumpe2fs import ext_map

EXT4 = Path(__file__).parent / "recordings" / "ext4"


def read(name: str) -> str:
    return (EXT4 / name).read_text()


def test_paths_with_hard_links_and_spaces() -> None:
    assert paths(read("ncheck.txt")) == {12: ("/sub",), 14: ("/four", "/five"), 13: ("/sub/two words.txt",)}


def test_inode_blocks_files_directories_links_and_system_inodes() -> None:
    found = {one.number: one for one in inode_blocks(read("stat.txt"))}
    assert sorted(found) == list(range(1, 19))
    assert found[1] == InodeBlocks(1, "bad type", links=0)
    assert found[8] == InodeBlocks(8, "regular", (DataRun(range(4096, 5120), 0),), links=1)
    assert found[11] == InodeBlocks(11, "directory", (DataRun(range(586, 590), 0),), links=2)
    assert found[17] == InodeBlocks(17, "symlink", (DataRun(range(702, 703), 0),), links=1)
    assert found[18] == InodeBlocks(18, "regular", (), (DataRun(range(704, 804), 0),), links=1), (
        "preallocated and never written"
    )


def test_inode_blocks_extent_tree_indirect_blocks_and_attributes_are_structure() -> None:
    found = {one.number: one for one in inode_blocks(read("stat.txt"))}
    assert found[13].structure == (range(623, 624),) and [run.blocks for run in found[13].data[-2:]] == [
        range(642, 643),
        range(644, 697),
    ]
    assert found[16].structure == (range(703, 704),) and [run.blocks for run in found[16].data] == [range(700, 702)]
    # The resize inode: its double indirect block, then the reserved descriptors of groups 0 (indirect), 1 and 3.
    assert found[7].structure[:2] == (range(590, 591), range(2, 3)) and len(found[7].structure) == 1 + 63
    assert {range(2050, 2051), range(6146, 6147)} <= {run.blocks for run in found[7].data}


def test_inode_blocks_of_ext3_know_their_place_in_the_file_behind_indirect_blocks() -> None:
    big, sparse = inode_blocks((EXT4.parent / "ext3" / "stat.txt").read_text())  # e2fsprogs 1.47.0
    assert (big.number, big.links) == (12, 2) and sum(len(run.blocks) for run in big.data) == 3072
    assert big.structure == (range(2574, 2575), range(2575, 2576), range(2576, 2577), range(2577, 2578))
    assert big.data[1] == DataRun(range(2074, 2078), 12) and big.data[-1] == DataRun(range(6156, 7168), 2060)
    assert sparse.data == (DataRun(range(9096, 9099), 5000),) and len(sparse.structure) == 2


def test_ext_map_groups_structures_free_space_and_inodes_in_use() -> None:
    found = ext_map(read("dumpe2fs.txt"))
    assert (found.blocks, found.block_bytes, found.orphan_file, found.unreplayed) == (8192, 4096, 12, False)
    assert found.groups == tuple(range(first, first + 2048) for first in range(0, 8192, 2048))
    assert found.inodes == tuple(range(1, 19))
    assert sum(map(len, found.free)) == 8192 - 1948, "as e2fsck counts them"
    assert found.free[0] == range(625, 626) and found.free[-1] == range(6209, 8192)
    assert {name: run for run, name in found.structures if name.endswith("of group 1")} == {
        "superblock of group 1": range(2048, 2049), "group descriptors of group 1": range(2049, 2050),
        "reserved GDT blocks of group 1": range(2050, 2113), "block bitmap of group 1": range(66, 67),
        "inode bitmap of group 1": range(70, 71), "inode table of group 1": range(201, 329),
    }  # fmt: skip


def test_ext_map_group_that_does_not_say_what_is_free_has_nothing_known_free() -> None:
    text = read("dumpe2fs.txt")
    cut = text[: text.index("  Free blocks: 5120")]
    found = ext_map(cut)
    assert found.free[-1] == range(2113, 4096) and found.groups[-1] == range(4096, 6144)
    assert found.inodes == tuple(range(1, 19)), "nor any inode in use that nobody listed"


def test_ext_map_journal_not_replayed() -> None:
    text = read("dumpe2fs.txt").replace("has_journal ", "has_journal needs_recovery ")
    assert ext_map(text).unreplayed


@pytest.mark.parametrize("text", ["", "dumpe2fs 1.47.0 (5-Feb-2023)\n", "Block count: many\n"])
def test_ext_map_no_map_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="dumpe2fs printed no 'Block count'"):
        ext_map(text)


@given(st.text())
def test_parsers_any_text_never_another_error(text: str) -> None:
    assert all(one.number >= 0 for one in inode_blocks(text)) and paths(text) is not None
    head = "Block count: 10\nBlock size: 4096\nInodes per group: 8\n"
    assert ext_map(f"{head}Group 0: (Blocks 0-9)\n{text}").blocks == 10


@given(st.lists(st.tuples(st.integers(1, 2**32), st.integers(0, 2**32), st.integers(0, 2**16)), max_size=5))
def test_inode_blocks_round_trip(written: list[tuple[int, int, int]]) -> None:
    text = "".join(
        f"debugfs: stat <{number}>\nInode: {number}   Type: regular    Mode:  0644   Flags: 0x80000\n"
        f"File ACL: 0\nEXTENTS:\n(0-{more}):{first}-{first + more}\n"
        for number, first, more in written
    )
    assert [(one.number, one.data) for one in inode_blocks(text)] == [
        (number, (DataRun(range(first, first + more + 1), 0),)) for number, first, more in written
    ]

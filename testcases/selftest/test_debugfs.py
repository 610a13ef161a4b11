"""Whose a block is: debugfs and dumpe2fs, recorded from a small real filesystem."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.parse.debugfs import in_use, inodes, paths

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

EXT4 = Path(__file__).parent / "recordings" / "ext4"


def read(name: str) -> str:
    return (EXT4 / name).read_text()


def test_inodes_icheck_output_owner_of_each_block() -> None:
    assert inodes(read("icheck.txt")) == {0: None, 5: 7, 2000: 8, 2065: 12, 2068: 13, 2072: 14, 2078: None, 12000: None}


def test_paths_ncheck_output_hard_links_and_spaces() -> None:
    assert paths(read("ncheck.txt")) == {12: ("/sub",), 14: ("/four", "/five"), 13: ("/sub/two words.txt",)}


def test_in_use_testb_output_state_of_each_block() -> None:
    assert in_use(read("testb.txt")) == {block: block < 2076 for block in range(2070, 2080)}


def test_debugfs_parsers_one_command_file_all_read() -> None:
    text = read("command-file.txt")
    assert inodes(text) == {2065: 12, 12000: None}
    assert paths(text) == {12: ("/sub",), 14: ("/four",)}, "it stops at as many paths as it was asked for inodes"
    assert in_use(text) == {2070: True, 2076: False}


@given(st.text())
def test_debugfs_parsers_any_text_no_error(text: str) -> None:
    inodes(text), paths(text), in_use(text)


@given(st.dictionaries(st.integers(0, 2**32), st.none() | st.integers(1, 2**32)))
def test_inodes_any_owners_round_trip(owners: dict[int, int | None]) -> None:
    lines = [f"{block}\t{'<block not found>' if inode is None else inode}\n" for block, inode in owners.items()]
    assert inodes("Block\tInode number\n" + "".join(lines)) == owners

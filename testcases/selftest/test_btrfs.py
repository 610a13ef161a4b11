"""Btrfs: what btrfs-progs 6.14 printed of a real filesystem, and whose its blocks are by that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from harness.filesystems.base import WorkloadTarget
from harness.filesystems.btrfs import Btrfs, BtrfsNoDataCow
from harness.filesystems.btrfs_owners import btrfs_owners
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BlockOwner, FilesystemCheck
from harness.parse.btrfs import super_block, trees
from harness.remote.base import Runner
from harness.remote.scripted import Answer, ScriptedRunner

RECORDED = (Path(__file__).parent / "recordings" / "btrfs" / "dump-super-and-trees.txt").read_text()
ALLOCATED, FREE, METADATA, UNKNOWN = BlockOwner.ALLOCATED, BlockOwner.FREE, BlockOwner.METADATA, BlockOwner.UNKNOWN


def owners(change: Callable[[str], str] = lambda text: text, complaints: str = "") -> Mapping[int, OwnedBlock]:
    """Of all blocks of the recorded filesystem and one behind its end, but for what ``change`` makes of it."""
    text = change(RECORDED)
    runner = ScriptedRunner(lambda argv: (0, text, complaints))
    return btrfs_owners(ReplicaView(cast(Runner, runner), "/copy", 84481), range(84481))


# --------------------------------------------------------------------------- owners


def test_owners_of_recorded_blocks_are_those_that_were_made() -> None:
    found = owners()
    expected = {
        0: OwnedBlock(FREE, "kept free in front of the chunks"),
        16: OwnedBlock(METADATA, "a superblock"),
        16384: OwnedBlock(METADATA, "a superblock"),
        256: OwnedBlock(FREE, "space that is given to no chunk"),
        84480: OwnedBlock(FREE, "behind the end of the filesystem"),
        # The first copy of a tree block and the second.
        9472: OwnedBlock(METADATA, "a block of the tree FS_TREE"),
        17664: OwnedBlock(METADATA, "a block of the tree FS_TREE"),
        5384: OwnedBlock(METADATA, "a block of the tree CHUNK_TREE"),
        7432: OwnedBlock(METADATA, "a block of the tree CHUNK_TREE"),
        9496: OwnedBlock(FREE, "free space for metadata"),
        25965: OwnedBlock(FREE, "free space for data"),
        # /plain was overwritten at byte 12288 after the snapshot.
        25990: OwnedBlock(ALLOCATED, "/plain at byte 12288", "/plain", 12288),
        25991: OwnedBlock(ALLOCATED, "/plain at byte 16384", "/plain", 16384),
        3331: OwnedBlock(ALLOCATED, "/snap/plain at byte 12288", "/snap/plain", 12288),
        3330: OwnedBlock(ALLOCATED, "shared by /plain, /snap/plain"),
        25868: OwnedBlock(ALLOCATED, "shared by /srcfile, /clone, /snap/srcfile, /snap/clone"),
        25871: OwnedBlock(ALLOCATED, "shared by /srcfile, /snap/srcfile"),
        25900: OwnedBlock(ALLOCATED, "shared by /comp/zipped (compressed), /snap/comp/zipped (compressed)"),
        25914: OwnedBlock(FREE, "part of an extent of /rewritten that no file shows any more", "/rewritten"),
        3590: OwnedBlock(FREE, "preallocated and never written, of /prealloc", "/prealloc"),
        3592: OwnedBlock(ALLOCATED, "shared by /prealloc, /snap/prealloc"),
        25962: OwnedBlock(ALLOCATED, "/vol/involume at byte 8192", "/vol/involume", 8192),
    }  # fmt: skip
    assert {block: found[block] for block in expected} == expected


def test_owners_without_the_snapshot_know_the_place_in_the_file() -> None:
    def alone(text: str) -> str:
        begin, end = text.index("file tree key (257 ROOT_ITEM 14)"), text.index("data reloc tree key")
        # Its tree blocks stay, so that all of them are there.
        kept = [line for line in text[begin:end].splitlines() if line.startswith(("leaf", "node"))]
        return text[:begin] + "\n".join([*kept, ""]) + text[end:]

    found = owners(alone)
    assert found[3330] == OwnedBlock(ALLOCATED, "/plain at byte 8192", "/plain", 8192)
    assert found[25900] == OwnedBlock(ALLOCATED, "/comp/zipped (compressed)", "/comp/zipped")
    assert found[25959] == OwnedBlock(ALLOCATED, "/nocow at byte 77824", "/nocow", 77824)
    assert found[3331] == OwnedBlock(FREE, "part of an extent of /plain that no file shows any more", "/plain")


def test_owners_behind_the_end_of_a_file_are_free() -> None:
    found = owners(lambda text: text.replace("size 20480 nbytes", "size 4097 nbytes"))
    assert found[25961].path == "/vol/involume" and found[25961].owner is ALLOCATED
    assert found[25962] == OwnedBlock(FREE, "behind the end of /vol/involume", "/vol/involume")


def test_owners_of_a_file_without_a_name_have_its_number() -> None:
    nameless = owners(lambda text: text.replace("index 2 namelen 8 name: involume", "index 2 namelen 8 name involume"))
    assert nameless[25960].detail == "inode 257 of subvolume 256, which may be a deleted one at byte 0"
    assert (nameless[25960].owner, nameless[25960].path) == (ALLOCATED, "")


def test_owners_of_an_extent_of_no_file_are_unknown() -> None:
    found = owners(lambda text: text.replace("data disk byte 64389120 nr", "data disk byte 0 nr"))
    assert found[25960] == OwnedBlock(UNKNOWN, "in use, but no file that was read has it")


def test_owners_of_a_chunk_in_stripes_are_unknown() -> None:
    found = owners(lambda text: text.replace("type DATA|single", "type DATA|RAID0"))
    assert found[25990] == OwnedBlock(UNKNOWN, "a chunk of DATA|RAID0", "/plain")
    assert found[9472].owner is METADATA


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("log_root\t\t0", "log_root\t\t30720000", "the log tree was not replayed"),
        ("num_devices\t\t1", "num_devices\t\t2", "it is on 2 devices"),
        ("bytes_used\t\t2011136", "bytes_used\t\t2015232", "its trees tell of 2011136 bytes that are in use, and its"),
        ("leaf 30425088 items", "leaf of nothing items", "1 of its 15 tree blocks could not be read"),
    ],
)
def test_owners_of_what_was_not_all_read_are_unknown(old: str, new: str, why: str) -> None:
    assert old in RECORDED
    found = owners(lambda text: text.replace(old, new))
    assert found[16].owner is METADATA, "a superblock lies where it always does"
    assert {one.owner for block, one in found.items() if block not in (16, 16384)} == {UNKNOWN}
    assert why in found[25990].detail


def test_owners_with_a_second_copy_that_is_good_are_known() -> None:
    damaged = "checksum verify failed on 30425088 wanted 0xc6e8936d found 0x9a65e5be\n"
    assert owners(complaints=damaged)[25990].path == "/plain"
    found = owners(complaints=f"{damaged}ERROR: failed to read the tree\n")
    assert found[25990] == OwnedBlock(UNKNOWN, "btrfs complains of the filesystem: ERROR: failed to read the tree")


def test_owners_without_a_superblock_are_an_error() -> None:
    with pytest.raises(ValueError, match="there is no Btrfs superblock that its checksum confirms"):
        owners(lambda text: text.replace("[match]", "[DON'T MATCH]", 1))
    with pytest.raises(ValueError, match="btrfs printed no nodesize of the superblock"):
        owners(lambda text: text.replace("nodesize", "node_size"))


# --------------------------------------------------------------------------- the parser


def test_trees_have_names_with_line_ends_and_several_names() -> None:
    text = (
        "fs tree key (FS_TREE ROOT_ITEM 0) \n"
        "leaf 1 items 3 free space 1 generation 9 owner FS_TREE\n"
        "\titem 1 key (257 INODE_REF 256) itemoff 1 itemsize 2\n"
        "\t\tindex 2 namelen 7 name: a\nb\tc d\n\t\tindex 3 namelen 6 name: ünïx\n"
        "\titem 2 key (257 INODE_EXTREF 99) itemoff 1 itemsize 2\n"
        "\t\tindex 5 parent 300 namelen 1 name: z\n"
    )
    assert trees(text).names == {(5, 257): [(256, "a\nb\tc d"), (256, "ünïx"), (300, "z")]}


def test_trees_of_an_item_that_is_not_known_are_an_error() -> None:
    with pytest.raises(ValueError, match="an item of a Btrfs tree is not as it is known: generation 9 kind 1"):
        trees("fs tree key (FS_TREE ROOT_ITEM 0) \n\titem 0 key (257 EXTENT_DATA 0) itemoff 1 itemsize 53\n"
              "\t\tgeneration 9 kind 1\n")  # fmt: skip


def test_super_block_is_read_whole() -> None:
    found = super_block(RECORDED)
    assert (found.total_bytes, found.bytes_used, found.node_bytes, found.sector_bytes) == (
        346030080, 2011136, 16384, 4096,
    )  # fmt: skip
    assert found.devices == 1 and not found.log_root


# --------------------------------------------------------------------------- make, mount, check


def _target(answer: Answer) -> tuple[WorkloadTarget, ScriptedRunner]:
    runner = ScriptedRunner(lambda argv: answer)
    return WorkloadTarget(cast(Runner, runner), "/dev/vdb", cast("object", None)), runner  # type: ignore[arg-type]


def test_mount_of_nodatacow_says_so() -> None:
    target, runner = _target((0, "", ""))
    Btrfs().make(target)
    Btrfs().mount(target)
    BtrfsNoDataCow().mount(target)
    made, plain, nodatacow = (argv[2] for argv in runner.ran)
    assert "mkfs.btrfs -q -f" in made and "nodatacow" not in plain and "-o nodatacow" in nodatacow


@pytest.mark.parametrize(
    ("answer", "found", "message"),
    [
        ((0, "found 163840 bytes used, no error found\n", "[1/7] checking root items\n"), FilesystemCheck.CLEAN,
         "btrfs check found no error"),
        ((1, "found 163840 bytes used, error(s) found\n", "Opening filesystem to check...\n[1/7] checking root items\n"
          "ref mismatch on [13631488 1048576] extent item 3, found 1\n"), FilesystemCheck.DAMAGED,
         "btrfs check ended with status 1: ref mismatch on [13631488 1048576] extent item 3, found 1"),
        ((1, "Opening filesystem to check...\n", "No valid Btrfs found on z.img\nERROR: cannot open file system\n"),
         FilesystemCheck.UNCHECKED, "btrfs check ended with status 1: No valid Btrfs found on z.img"),
        ((0, "", ""), FilesystemCheck.UNCHECKED, "btrfs check ended with status 0: nothing"),
        ((-9, "", ""), FilesystemCheck.UNCHECKED, "btrfs check ended with status -9: nothing"),
    ],
)  # fmt: skip
def test_check_has_the_meaning_of_btrfs_check(answer: Answer, found: FilesystemCheck, message: str) -> None:
    result = Btrfs().check(_target(answer)[0])
    assert (result.found, result.message) == (found, message)

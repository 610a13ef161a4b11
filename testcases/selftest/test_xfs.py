"""XFS: what xfs_db 6.13 and xfs_logprint printed of a real filesystem, and whose its blocks are by that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from harness.errors import CommandError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.filesystems.xfs import Xfs
from harness.filesystems.xfs_owners import xfs_owners
from harness.model import BlockOwner, FilesystemCheck
from harness.parse import xfs
from harness.remote.base import Completed, Runner
from harness.remote.scripted import Answer, ScriptedRunner

RECORDED = Path(__file__).parent / "recordings" / "xfs"
#: The blocks that were asked for when it was recorded.
ASKED = (
    0, 1, 3, 5, 6, 7, 8, 12, 13, 14, 15, 16, 23, 24, 27, 28, 30, 55, 56, 63, 64, 65, 66, 119, 120, 375, 376, 377, 378,
    391, 392, 393, 394, 400, 20900, 21120, 21123, 21136, 21143, 21144, 21150, 42247, 58630, 58637, 58638, 58639, 58640,
    58671, 58672, 58673, 63360, 63361, 84479, 84480, 90000,
)  # fmt: skip


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text()


class Replica:
    """Node a with a copy of the recorded filesystem; ``printed`` replaces what a program printed, by recording."""

    host, lab = "nodea", ""

    def __init__(self, printed: Mapping[str, str] | None = None, complaints: str = "") -> None:
        self._printed = printed or {}
        self._complaints = complaints
        self.asked: list[str] = []

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        name = "superblock-and-log"
        if stdin is not None:
            self.asked.append(stdin)
            name = "ncheck" if "ncheck" in stdin else "blockuse" if "blockget" in stdin else "inodes"
        text = self._printed.get(name, recorded(name))
        return Completed(self.host, tuple(argv), 0, text, self._complaints if stdin else "", 0.0)

    @property
    def view(self) -> ReplicaView:
        return ReplicaView(cast(Runner, self), "/copy", 84480)


def owner(block: int, printed: Mapping[str, str] | None = None) -> OwnedBlock:
    return xfs_owners(Replica(printed).view, ASKED)[block]


# --------------------------------------------------------------------------- owners


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (0, OwnedBlock(BlockOwner.METADATA, "headers of allocation group 0")),
        (21123, OwnedBlock(BlockOwner.METADATA, "map of the inodes of allocation group 1")),
        (5, OwnedBlock(BlockOwner.METADATA, "reverse map of allocation group 0")),
        (8, OwnedBlock(BlockOwner.FREE, "kept free for the maps of its allocation group")),
        (15, OwnedBlock(BlockOwner.METADATA, "target of the symbolic link /longlink")),
        (58640, OwnedBlock(BlockOwner.METADATA, "inodes of allocation group 2")),
        (58637, OwnedBlock(BlockOwner.METADATA, "directory /many")),
        (120, OwnedBlock(BlockOwner.ALLOCATED, "/plain at byte 0", "/plain", 0)),
        (375, OwnedBlock(BlockOwner.ALLOCATED, "/plain at byte 1044480", "/plain", 1044480)),
        (376, OwnedBlock(BlockOwner.ALLOCATED, "/sparse at byte 409600", "/sparse", 409600)),
        (21150, OwnedBlock(BlockOwner.ALLOCATED, "/sub/deep/file at byte 24576", "/sub/deep/file", 24576)),
        (24, OwnedBlock(BlockOwner.ALLOCATED, "/srcfile at byte 0 and /clone at byte 0")),
        (28, OwnedBlock(BlockOwner.ALLOCATED, "/srcfile at byte 16384", "/srcfile", 16384)),
        (392, OwnedBlock(BlockOwner.ALLOCATED, "/clone at byte 16384", "/clone", 16384)),
        (64, OwnedBlock(BlockOwner.ALLOCATED, "/prealloc at byte 32768", "/prealloc", 32768)),
        (66, OwnedBlock(BlockOwner.FREE, "preallocated for /prealloc and never written: it reads as zeros",
                        "/prealloc")),
        (42247, OwnedBlock(BlockOwner.JOURNAL, "the journal")),
        (400, OwnedBlock(BlockOwner.FREE, "free space")),
        (84480, OwnedBlock(BlockOwner.FREE, "behind the end of the filesystem")),
    ],
)  # fmt: skip
def test_owners_of_recorded_blocks_are_those_that_were_made(block: int, expected: OwnedBlock) -> None:
    assert owner(block) == expected


def test_owners_ask_of_no_run_that_reaches_into_two_groups() -> None:
    replica = Replica()
    xfs_owners(replica.view, [21118, 21119, 21120, 21121])
    assert replica.asked[0] == "blockget -n\nfsblock 21118\nblockuse -n -c 2\nfsblock 32768\nblockuse -n -c 2\n"


def test_owners_of_nothing_ask_nobody() -> None:
    replica = Replica()
    assert xfs_owners(replica.view, []) == {} and replica.asked == []


def test_owners_of_one_of_two_sharers_that_was_not_found_are_its_own() -> None:
    alone = recorded("inodes").partition("# inode 135")[0]
    assert owner(24, {"inodes": alone}).path == "/srcfile"


def test_owners_behind_the_end_of_a_file_are_free() -> None:
    short = recorded("inodes").replace("core.size = 1048576", "core.size = 4097")
    assert owner(120, {"inodes": short}).owner is BlockOwner.ALLOCATED
    assert owner(375, {"inodes": short}) == OwnedBlock(BlockOwner.FREE, "behind the end of /plain", "/plain")


def test_owners_of_a_deleted_file_say_so() -> None:
    gone = {
        "inodes": recorded("inodes").replace("core.nlinkv2 = 3", "core.nlinkv2 = 0"),
        "blockuse": recorded("blockuse").replace("inode 131 plain", "inode 131"),
    }
    assert owner(120, gone).detail == "/plain at byte 0, which was deleted"
    nameless = gone | {"ncheck": recorded("ncheck").replace("131 plain", "999 plain")}
    assert owner(120, nameless) == OwnedBlock(BlockOwner.ALLOCATED, "inode 131 at byte 0, which was deleted", "", 0)


def test_owners_of_a_name_with_a_line_end_have_all_of_it() -> None:
    odd = {"blockuse": recorded("blockuse").replace("131 plain", "131 pl\nain")}
    assert owner(120, odd).path == "/pl\nain"


@pytest.mark.parametrize("state", ["DIRTY", "?"])
def test_owners_with_a_log_that_was_not_replayed_are_unknown_but_for_the_log(state: str) -> None:
    printed = {"superblock-and-log": recorded("superblock-and-log").replace("CLEAN", state)}
    assert owner(120, printed).owner is owner(400, printed).owner is BlockOwner.UNKNOWN
    assert owner(42247, printed).owner is BlockOwner.JOURNAL
    assert owner(84480, printed).owner is BlockOwner.FREE


def test_owners_where_xfs_db_complains_are_unknown() -> None:
    noisy = {"blockuse": f"block 0/13 expected type unknown got data\n{recorded('blockuse')}"}
    assert owner(120, noisy) == OwnedBlock(
        BlockOwner.UNKNOWN, "xfs_db complains of the filesystem: block 0/13 expected type unknown got data"
    )
    replica = Replica(complaints="Metadata CRC error detected at 0x1, xfs_agf block 0x1/0x200\n")
    assert xfs_owners(replica.view, [120])[120].detail.endswith("Metadata CRC error detected at 0x1, xfs_agf block "
                                                               "0x1/0x200")  # fmt: skip
    counters = {"blockuse": f"sb_fdblocks 67625, counted 67624\n{recorded('blockuse')}"}
    assert owner(120, counters).path == "/plain", "a counter that is off says nothing about a place"


def test_owners_without_a_superblock_are_an_error() -> None:
    for printed in ("", "magicnum = 0\n", "magicnum = 0x58465342\nblocksize = 4096\n"):
        with pytest.raises(ValueError, match=r"superblock"):
            xfs_owners(Replica({"superblock-and-log": printed}).view, [1])


def test_owners_of_other_block_sizes_are_an_error() -> None:
    small = recorded("superblock-and-log").replace("blocksize = 4096", "blocksize = 1024")
    with pytest.raises(ValueError, match="its blocks are 1024 bytes large, not 4096"):
        xfs_owners(Replica({"superblock-and-log": small}).view, [1])


def test_sizes_turn_numbers_into_places_and_back() -> None:
    layout = xfs.sizes(recorded("superblock-and-log"))
    assert (layout.log_run.start, len(layout.log_run)) == (2 * 21120 + 7, 16384)
    assert [layout.number(block) for block in (0, 21119, 21120, 84479)] == [0, 21119, 32768, 3 * 32768 + 21119]


# --------------------------------------------------------------------------- make, mount, check


def _target(answer: Answer) -> tuple[WorkloadTarget, ScriptedRunner]:
    runner = ScriptedRunner(lambda argv: answer)
    return WorkloadTarget(cast(Runner, runner), "/dev/vdb", cast("object", None)), runner  # type: ignore[arg-type]


def test_make_has_blocks_of_the_size_of_drbds() -> None:
    target, runner = _target((0, "", ""))
    Xfs().make(target)
    Xfs().mount(target)
    assert "mkfs.xfs -q -f -b size=4096" in runner.ran[0][2] and "mount -t xfs" in runner.ran[1][2]


@pytest.mark.parametrize(
    ("answer", "found", "message"),
    [
        ((0, "Phase 1\n", ""), FilesystemCheck.CLEAN, "xfs_repair -n found nothing"),
        ((1, "Phase 1\n        - agno = 0\nentry \"a\" in directory inode 131 bad\n", ""), FilesystemCheck.DAMAGED,
         'xfs_repair -n ended with status 1: entry "a" in directory inode 131 bad'),
        ((1, "Phase 2\nALERT: The filesystem has valuable metadata changes in a log which is being\nignored", ""),
         FilesystemCheck.UNCHECKED, "xfs_repair -n ended with status 1: ALERT: The filesystem has valuable metadata "
         "changes in a log which is being"),
        ((127, "", "xfs_repair: not found\n"), FilesystemCheck.UNCHECKED,
         "xfs_repair -n ended with status 127: xfs_repair: not found"),
        ((3, "", ""), FilesystemCheck.UNCHECKED, "xfs_repair -n ended with status 3: nothing"),
    ],
)  # fmt: skip
def test_check_has_the_meaning_of_xfs_repair(answer: Answer, found: FilesystemCheck, message: str) -> None:
    result = Xfs().check(_target(answer)[0])
    assert (result.found, result.message) == (found, message)


def test_mount_that_fails_is_command_error() -> None:
    with pytest.raises(CommandError, match="wrong fs type"):
        Xfs().mount(_target((32, "", "mount: wrong fs type"))[0])

"""F2FS: what dump.f2fs and fsck.f2fs 1.15 printed of a filesystem that sload.f2fs filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from harness.filesystems.base import WorkloadTarget
from harness.filesystems.f2fs import F2fs
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BlockOwner, FilesystemCheck
from harness.remote.base import Runner
from harness.remote.scripted import Answer, ScriptedRunner

RECORDED = (Path(__file__).parent / "recordings" / "f2fs" / "dump.txt").read_text()


def owners(change: Callable[[str], str] = lambda text: text) -> Mapping[int, OwnedBlock]:
    runner = ScriptedRunner(lambda argv: (0, change(RECORDED), ""))
    return F2fs().owners(ReplicaView(cast(Runner, runner), "/copy", 32769), range(32769))


def test_owners_are_in_use_or_free() -> None:
    found = owners()
    in_use = {block for block, one in found.items() if one.owner is BlockOwner.ALLOCATED}
    assert in_use >= {*range(7168, 7227)}, "where the content of the two files was found"
    assert len([one for block, one in found.items() if block >= 4096 and one.owner is not BlockOwner.FREE]) == 66
    details = {block: (found[block].owner, found[block].detail) for block in (1, 600, 1600, 2600, 3600, 7227, 32768)}
    assert details == {
        1: (BlockOwner.METADATA, "the superblocks"),
        600: (BlockOwner.METADATA, "checkpoints"),
        1600: (BlockOwner.METADATA, "map of what is in use"),
        2600: (BlockOwner.METADATA, "map of the nodes"),
        3600: (BlockOwner.METADATA, "owners by segment"),
        7227: (BlockOwner.FREE, "free space"),
        32768: (BlockOwner.FREE, "behind the end of the filesystem"),
    }
    assert found[4096].detail.startswith("a node")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (" unmount\n", "\n", "it was not unmounted"),
        (
            "log_blocksize                 		[0x       c : 12]",
            "log_blocksize [0x e : 14]",
            "its blocks are 16384",
        ),
        ("segno:       3\tvblocks:  1", "segment 3", "in 55 segments, and there are 66 in 56"),
        ("  80  00  00", "  00  00  00", "there are 66 in 56"),
        ("valid_block_count", "valid_blocks", "dump.f2fs printed no valid_block_count"),
    ],
)
def test_owners_of_what_is_not_whole_are_unknown(old: str, new: str, why: str) -> None:
    assert old in RECORDED
    found = owners(lambda text: text.replace(old, new))
    assert {one.owner for one in found.values()} == {BlockOwner.UNKNOWN} and why in found[0].detail


def test_owners_of_nothing_ask_nobody() -> None:
    runner = ScriptedRunner(lambda argv: pytest.fail("it was asked"))
    assert F2fs().owners(ReplicaView(cast(Runner, runner), "/copy", 9), []) == {}


@pytest.mark.parametrize(
    ("answer", "found", "message"),
    [
        ((0, "[FSCK] Hard link checking for regular file  [Ok..] [0x0]\n", ""), FilesystemCheck.CLEAN,
         "fsck.f2fs found nothing"),
        ((255, "[ASSERT] (fsck_chk_inode_blk:1114)  --> ino: 0x5 dots: 0\n[FSCK] SIT bitmap [Fail] [0x1]\n",
          ""), FilesystemCheck.DAMAGED,
         "fsck.f2fs ended with status 255: [ASSERT] (fsck_chk_inode_blk:1114)  --> ino: 0x5 dots: 0"),
        ((0, "[FSCK] SIT bitmap [Fail] [0x1]\n", ""), FilesystemCheck.DAMAGED,
         "fsck.f2fs ended with status 0: [FSCK] SIT bitmap [Fail] [0x1]"),
        ((255, "\tCan't find a valid F2FS superblock at 0x0\n", ""), FilesystemCheck.UNCHECKED,
         "fsck.f2fs ended with status 255: nothing"),
        ((127, "", "sh: fsck.f2fs: not found\n"), FilesystemCheck.UNCHECKED,
         "fsck.f2fs ended with status 127: sh: fsck.f2fs: not found"),
        ((0, "", ""), FilesystemCheck.UNCHECKED, "fsck.f2fs ended with status 0: nothing"),
    ],
)  # fmt: skip
def test_check_has_the_meaning_of_what_fsck_prints(answer: Answer, found: FilesystemCheck, message: str) -> None:
    runner = ScriptedRunner(lambda argv: answer)
    target = WorkloadTarget(cast(Runner, runner), "/dev/vdb", cast("object", None))  # type: ignore[arg-type]
    result = F2fs().check(target)
    assert (result.found, result.message) == (found, message)
    F2fs().make(WorkloadTarget(cast(Runner, ScriptedRunner(lambda argv: (0, "", ""))), "/dev/vdb", target.resource))

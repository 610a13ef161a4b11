"""ext4, with 4 KiB blocks so that its blocks and DRBD's have the same numbers."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from harness.errors import CommandError, DeadlineError
from harness.filesystems.base import (
    MARGIN_SECONDS,
    CheckResult,
    OwnedBlock,
    ReplicaView,
    WorkloadTarget,
    unknown,
)
from harness.filesystems.mounted import Mounted
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemCheck, FilesystemKind
from harness.parse.debugfs import InodeBlocks, inode_blocks, paths
from harness.parse.dumpe2fs import Ext4Map, ext4_map
from harness.remote.base import Runner

# So many inodes are looked at: some seconds' worth; blocks of a filesystem with more files may stay unknown.
MAX_INODES = 100_000
# As many numbers as one command line of debugfs is asked; more are asked in turns.
_BATCH = 500
TOOL_SECONDS = 120.0
# Inodes below fs/ext4/ext4.h's EXT4_GOOD_OLD_FIRST_INO are the filesystem's own, but for the root directory.
ROOT_INODE, JOURNAL_INODE, FIRST_INODE = 2, 8, 11

_FREE = OwnedBlock(BlockOwner.FREE, "free space")
_BEHIND = OwnedBlock(BlockOwner.FREE, "behind the end of the filesystem")
_JOURNAL = OwnedBlock(BlockOwner.JOURNAL, "the journal")


class Ext4(Mounted):
    """ext4 with its defaults, everything initialized when it is made."""

    kind = FilesystemKind.EXT4
    mount_type = "ext4"
    needs_mib = 8
    modules = ("ext4",)
    programs = ("mkfs.ext4", "e2fsck")
    method = "the filesystem's own maps, by dumpe2fs and debugfs"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        options = "-E lazy_itable_init=0,lazy_journal_init=0"
        target.sh(f'mkfs.ext4 -q -F -b {BLOCK_BYTES} {options} "$1"', target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """e2fsck without a change."""
        checked = target.runner.run(["e2fsck", "-fn", target.device], timeout=MARGIN_SECONDS, ok=())
        printed = CheckResult(checked.status, _last_line(checked.stdout))
        # Why it could not check is in its errors; otherwise those are its name and version.
        if printed.found is FilesystemCheck.UNCHECKED:
            return replace(printed, message=_last_line(checked.stderr) or printed.message)
        return printed

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """What the maps of the filesystem say of each block; it was unmounted.

        One pass over the maps whatever the number of blocks: free space and the filesystem's own structures by
        dumpe2fs, files, directories and the journal by debugfs, the names last.  What no map tells is unknown.
        """
        wanted = sorted(set(blocks))
        if not wanted:
            return {}
        runner, device = view.runner, view.path
        try:
            printed = runner.run(["env", "LC_ALL=C", "dumpe2fs", device], timeout=TOOL_SECONDS).stdout
            return _by_maps(ext4_map(printed), wanted, lambda commands: _debugfs(runner, device, commands))
        except (CommandError, DeadlineError, ValueError) as error:
            return unknown(wanted, f"the maps of the filesystem could not be read: {error}")


#: Runs commands of debugfs, one after the other, and returns what they printed.
_Debugfs = Callable[[Iterable[str]], str]


def _by_maps(layout: Ext4Map, wanted: Sequence[int], debugfs: _Debugfs) -> Mapping[int, OwnedBlock]:
    """The owners of ``wanted`` (sorted); what is told last stands, so that a file's block is the file's."""
    if layout.block_bytes != BLOCK_BYTES:
        raise ValueError(f"its blocks are {layout.block_bytes} bytes large, not {BLOCK_BYTES}")
    found = dict(unknown(wanted, "no map of the filesystem tells"))
    for covered in layout.groups:
        found |= unknown(_among(wanted, covered), "marked in use, but no inode that was read has it")
    found |= dict.fromkeys(_among(wanted, range(layout.blocks, sys.maxsize)), _BEHIND)
    for free in layout.free:
        found |= dict.fromkeys(_among(wanted, free), _FREE)
    inodes = list(inode_blocks(debugfs(f"stat <{inode}>" for inode in layout.inodes[:MAX_INODES])))
    if layout.unreplayed:
        # What the bitmaps, the files and the directories are now stands in the journal; where it lies does not change.
        found = dict(unknown(wanted, "the journal was not replayed: the maps of the filesystem may be old"))
        inodes = [inode for inode in inodes if inode.number == JOURNAL_INODE]
    for run, name in layout.structures:
        found |= dict.fromkeys(_among(wanted, run), OwnedBlock(BlockOwner.METADATA, name))
    hit = [inode for inode in inodes if any(_among(wanted, run) for run in inode.runs)]
    names = _names([inode.number for inode in hit if inode.number != layout.orphan_file], debugfs)
    for inode in hit:
        data, unwritten, structure = _owned_by(inode, names.get(inode.number), layout.orphan_file)
        for runs, owner in ((inode.data, data), (inode.unwritten, unwritten), (inode.structure, structure)):
            for run in runs:
                found |= dict.fromkeys(_among(wanted, run), owner)
    return found


def _owned_by(
    inode: InodeBlocks, name: str | None, orphan_file: int | None
) -> tuple[OwnedBlock, OwnedBlock, OwnedBlock]:
    """Who has an inode's data, its preallocated blocks, and the blocks that tell where those are."""
    if inode.number == JOURNAL_INODE:
        return _JOURNAL, _JOURNAL, _JOURNAL
    if inode.number == orphan_file or (inode.number < FIRST_INODE and inode.number != ROOT_INODE):
        system = OwnedBlock(BlockOwner.METADATA, f"the filesystem's own inode {inode.number}")
        return system, system, system
    path, name = name or "", name or f"inode {inode.number}"
    structure = OwnedBlock(BlockOwner.METADATA, f"block map or attributes of {name}")
    if inode.kind == "directory":
        directory = OwnedBlock(BlockOwner.METADATA, f"directory {name}")
        return directory, directory, structure
    unwritten = OwnedBlock(BlockOwner.FREE, f"preallocated for {name} and never written: it reads as zeros")
    return OwnedBlock(BlockOwner.ALLOCATED, name, path), unwritten, structure


def _among(wanted: Sequence[int], run: range) -> Sequence[int]:
    """Those of ``wanted`` (sorted) that are in ``run``."""
    return wanted[bisect_left(wanted, run.start) : bisect_left(wanted, run.stop)]


def _names(inodes: Iterable[int], debugfs: _Debugfs) -> Mapping[int, str]:
    """A path of each of ``inodes`` that has one."""
    found = {ROOT_INODE: "/"}
    left = [inode for inode in inodes if inode >= FIRST_INODE]
    while left:
        batches = [left[at : at + _BATCH] for at in range(0, len(left), _BATCH)]
        named = paths(debugfs(f"ncheck {' '.join(map(str, batch))}" for batch in batches))
        found |= {inode: of_it[0] for inode, of_it in named.items()}
        # Hard links of one inode use up the answers that debugfs gives in one go: the rest is asked again.
        if len(left) == len(left := [inode for inode in left if inode not in found]):
            break
    return found


def _debugfs(runner: Runner, device: str, commands: Iterable[str]) -> str:
    argv = ["env", "LC_ALL=C", "debugfs", "-f", "-", device]
    return runner.run(argv, stdin="".join(f"{command}\n" for command in commands), timeout=TOOL_SECONDS).stdout


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()

"""Whose a block of an ext2, ext3 or ext4 filesystem is, by dumpe2fs and debugfs.

They are of one source with the mkfs that made it, and refuse a filesystem with a feature that they do not know, where
another reader (The Sleuth Kit, by pytsk3) has to be kept in step with it by somebody else.  Beside files they name the
rest too: free space as the bitmaps have it, structures group by group, extent trees and indirect blocks, what is
preallocated and was never written, the orphan file.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.errors import CommandError, DeadlineError
from harness.filesystems.owned import ByteMap, OwnedBlock, unknown
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner
from harness.parse.debugfs import InodeBlocks, inode_blocks, paths
from harness.parse.dumpe2fs import ExtMap, ext_map
from harness.remote.base import Runner

# So many inodes are looked at: some seconds' worth; blocks of a filesystem with more files may stay unknown.
MAX_INODES = 100_000
# As many numbers as one command line of debugfs is asked; more are asked in turns.
_BATCH = 500
TOOL_SECONDS = 120.0
# Inodes below fs/ext4/ext4.h's EXT4_GOOD_OLD_FIRST_INO are the filesystem's own, but for the root directory.
ROOT_INODE, JOURNAL_INODE, FIRST_INODE = 2, 8, 11
# With these a block is whose the maps say.  Others bring blocks that no map names, or maps in other units.
_KNOWN_FEATURES = frozenset({
    "64bit", "dir_index", "dir_nlink", "encrypt", "ext_attr", "extent", "extents", "extra_isize", "fast_commit",
    "filetype", "flex_bg", "has_journal", "huge_file", "inline_data", "large_dir", "large_file", "metadata_csum",
    "metadata_csum_seed", "needs_recovery", "orphan_file", "orphan_present", "quota", "resize_inode", "sparse_super",
    "uninit_bg", "verity",
})  # fmt: skip

_NO_MAP = "no map of the filesystem tells"
_OLD = "the journal was not replayed: the maps of the filesystem may be old"

#: Runs commands of debugfs, one after the other, and returns what they printed.
_Debugfs = Callable[[Iterable[str]], str]


def ext_owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    """What the maps of the filesystem say of each of ``blocks`` (4 KiB); it was unmounted.

    One pass over the maps whatever the number of blocks: free space and the filesystem's own structures by dumpe2fs,
    files, directories and the journal by debugfs, the names last.  A file with several names has one of them.  What no
    map tells is unknown: where the journal was not replayed, all but what does not move; blocks of files that were
    deleted while they were open.  Blocks for ``TOOL_SECONDS`` a few times at the most.
    """
    wanted = sorted(set(blocks))
    if not wanted:
        return {}
    runner, device = view.runner, view.path
    try:
        printed = runner.run(["env", "LC_ALL=C", "dumpe2fs", device], timeout=TOOL_SECONDS).stdout
        return _by_maps(ext_map(printed), wanted, lambda commands: _debugfs(runner, device, commands))
    except (CommandError, DeadlineError, ValueError) as error:
        return unknown(wanted, f"the maps of the filesystem could not be read: {error}")


class _Map:
    """A map of the filesystem in its own blocks, of which only those are painted that are asked for."""

    def __init__(self, wanted: Sequence[int], block_bytes: int) -> None:
        self._wanted = wanted
        self._block_bytes = block_bytes
        self._bytes = ByteMap()

    def hit(self, run: range) -> bool:
        """Whether a block that is asked for is among ``run``."""
        first, stop = run.start * self._block_bytes // BLOCK_BYTES, -(-run.stop * self._block_bytes // BLOCK_BYTES)
        at = bisect_left(self._wanted, first)
        return at < len(self._wanted) and self._wanted[at] < stop

    def paint(self, run: range, owner: BlockOwner, detail: str, path: str = "", first: int | None = None) -> None:
        """``run`` is ``owner``'s; ``first`` is the number of its first block in the file."""
        if self.hit(run):
            offset = None if first is None else first * self._block_bytes
            start, stop = run.start * self._block_bytes, run.stop * self._block_bytes
            self._bytes.paint(start, stop, owner, detail, path=path, offset=offset)

    def owners(self) -> Mapping[int, OwnedBlock]:
        return self._bytes.blocks(self._wanted)


def _by_maps(layout: ExtMap, wanted: Sequence[int], debugfs: _Debugfs) -> Mapping[int, OwnedBlock]:
    """The owners of ``wanted`` (sorted); what is told last stands, so that a file's block is the file's."""
    if strange := sorted({*layout.features} - _KNOWN_FEATURES):
        raise ValueError(f"it has features that the harness does not know: {', '.join(strange)}")
    found = _Map(wanted, layout.block_bytes)
    found.paint(range(sys.maxsize // layout.block_bytes), BlockOwner.UNKNOWN, _NO_MAP)
    if layout.first_block:
        found.paint(range(layout.first_block), BlockOwner.METADATA, "the boot block")
    for covered in layout.groups:
        found.paint(covered, BlockOwner.UNKNOWN, "marked in use, but no inode that was read has it")
    behind = range(layout.blocks, sys.maxsize // layout.block_bytes)
    found.paint(behind, BlockOwner.FREE, "behind the end of the filesystem")
    for free in layout.free:
        found.paint(free, BlockOwner.FREE, "free space")
    inodes = list(inode_blocks(debugfs(f"stat <{inode}>" for inode in layout.inodes[:MAX_INODES])))
    if layout.unreplayed:
        # What the bitmaps, the files and the directories are now stands in the journal; where it lies does not change.
        found.paint(range(sys.maxsize // layout.block_bytes), BlockOwner.UNKNOWN, _OLD)
        inodes = [inode for inode in inodes if inode.number == JOURNAL_INODE]
    for run, name in layout.structures:
        found.paint(run, BlockOwner.METADATA, name)
    hit = [inode for inode in inodes if any(found.hit(run) for run in inode.runs)]
    names = _names([inode.number for inode in hit if inode.number != layout.orphan_file], debugfs)
    for inode in hit:
        _paint_inode(found, inode, names.get(inode.number, ""), layout.orphan_file)
    return found.owners()


def _paint_inode(found: _Map, inode: InodeBlocks, path: str, orphan_file: int | None) -> None:
    """An inode's data, its preallocated blocks, and the blocks that tell where those are."""
    own = inode.number == orphan_file or (inode.number < FIRST_INODE and inode.number != ROOT_INODE)
    if own or (inode.links == 0 and inode.number != ROOT_INODE):
        owner, name = BlockOwner.METADATA, f"the filesystem's own inode {inode.number}"
        if inode.number == JOURNAL_INODE:
            owner, name = BlockOwner.JOURNAL, "the journal"
        elif not own:
            owner, name = BlockOwner.UNKNOWN, f"inode {inode.number}, which was deleted while it was open"
        for run in inode.runs:
            found.paint(run, owner, name)
        return
    name = path or f"inode {inode.number}"
    directory = inode.kind == "directory"
    for data in inode.data:
        if directory:
            found.paint(data.blocks, BlockOwner.METADATA, f"directory {name}")
        else:
            found.paint(data.blocks, BlockOwner.ALLOCATED, name, path, data.first)
    for data in inode.unwritten:
        detail = f"preallocated and never written, it reads as zeros: {name}"
        if directory:
            found.paint(data.blocks, BlockOwner.METADATA, f"directory {name}")
        else:
            found.paint(data.blocks, BlockOwner.FREE, detail, path, data.first)
    for run in inode.structure:
        found.paint(run, BlockOwner.METADATA, f"block map or attributes of {name}")


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

"""Whose a block of an XFS filesystem is, by xfs_db: with a reverse map or without, its scan of all metadata tells.

``fsmap`` would name files by inode too, but only where there is a reverse map, and says nothing of what is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from harness.errors import CommandError
from harness.filesystems.owned import OwnedBlock, unknown
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner
from harness.parse import xfs
from harness.parse.xfs import XfsBlock, XfsInode, XfsSizes

# So many inodes are asked which of them share a block: some seconds' worth.
MAX_INODES = 100_000
TOOL_SECONDS = 120.0

_LOOK = """
xfs_db -r -f -c 'sb 0' -c print "$1"
echo '== log'
xfs_logprint -t "$1" 2>&1 || true
"""
_SHARED_DATA = "rldata"
_OF_AN_INODE = {
    "dir": "directory {}", "attr": "attributes of {}", "symlink": "target of the symbolic link {}",
    "btbmapa": "map of the attributes of {}", "btbmapd": "block map of {}", "quota": "quotas, {}",
}  # fmt: skip
_STRUCTURES = {
    "sb": "headers of allocation group {}", "agf": "headers of allocation group {}",
    "agi": "headers of allocation group {}", "agfl": "headers of allocation group {}",
    "btbno": "free space by place, of allocation group {}", "btcnt": "free space by size, of allocation group {}",
    "btino": "map of the inodes of allocation group {}", "btfino": "map of the free inodes of allocation group {}",
    "btrmap": "reverse map of allocation group {}", "btrefcnt": "counts of shares of allocation group {}",
    "inode": "inodes of allocation group {}",
}  # fmt: skip
_FREE = {
    "free1": "free space", "free2": "free space",
    "freelist": "kept free for the maps of its allocation group",
}  # fmt: skip
# XFS_BMAP_CRC_MAGIC, XFS_BMAP_MAGIC
_MAP_MAGIC = (b"BMA3", b"BMAP")
_LOG = OwnedBlock(BlockOwner.JOURNAL, "the journal")


def xfs_owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    """Who each of ``blocks`` (4 KiB) belongs to, by xfs_db on ``view``; the filesystem was unmounted.

    A file that has several names is called by one of them.  A block that files share by reflinks is theirs, without a
    place in one file.  Where the log was not replayed, or xfs_db complains of what it reads, only the log is known.
    Blocks for ``TOOL_SECONDS`` a few times at the most; :class:`~harness.errors.HarnessError` and :class:`ValueError`
    where the superblock cannot be read.
    """
    wanted = sorted({*blocks})
    if not wanted:
        return {}
    printed, _, log = view.runner.run(["sh", "-ec", _LOOK, "sh", view.path], timeout=TOOL_SECONDS).stdout.partition(
        "== log\n"
    )
    layout = xfs.sizes(printed)
    if layout.block_bytes != BLOCK_BYTES:
        raise ValueError(f"its blocks are {layout.block_bytes} bytes large, not {BLOCK_BYTES}")
    found = {block: OwnedBlock(BlockOwner.FREE, "behind the end of the filesystem") for block in wanted}
    inside = [block for block in wanted if block < layout.blocks]
    try:
        if not xfs.log_is_clean(log):
            raise ValueError("the log was not replayed: the maps of the filesystem may be old")
        found |= _by_maps(view, layout, inside)
    except (CommandError, ValueError) as error:
        found |= unknown(inside, str(error))
    return found | dict.fromkeys((block for block in inside if block in layout.log_run), _LOG)


def _by_maps(view: ReplicaView, layout: XfsSizes, wanted: Sequence[int]) -> Mapping[int, OwnedBlock]:
    if not wanted:
        return {}
    uses = xfs.block_uses(_xfs_db(view, ["blockget -n", *_about_blocks(wanted, layout)]), layout)
    names = {use.inode: use.name for use in uses.values() if use.inode is not None and use.name}
    asked = {use.inode for use in uses.values() if use.inode is not None}
    if any(use.type == _SHARED_DATA for use in uses.values()):
        # One of the files that share it is named; which others do stands nowhere but in themselves.
        everywhere = xfs.names(_xfs_db(view, ["blockget -n", "ncheck"]))
        asked |= {*islice(everywhere, MAX_INODES)}
        names = {**everywhere, **names}
    names[layout.root_inode] = ""
    inodes = xfs.inodes(_xfs_db(view, _about_inodes(sorted(asked))), layout)
    sharing = _sharing(inodes.values(), {block for block, use in uses.items() if use.type == _SHARED_DATA})
    found = {block: _owner(block, uses.get(block), layout, inodes, names, sharing.get(block, ())) for block in wanted}
    return {block: owner or _map_block(view, block, uses[block], names) for block, owner in found.items()}


def _map_block(view: ReplicaView, block: int, use: XfsBlock, names: Mapping[int, str]) -> OwnedBlock:
    """A block that is a file's and none of its data: to xfs_db those are data too that tell where its data is."""
    name = _name(use.inode, names)
    if view.read(block * BLOCK_BYTES, 4) in _MAP_MAGIC:
        return OwnedBlock(BlockOwner.METADATA, f"block map of {name}")
    return OwnedBlock(BlockOwner.UNKNOWN, f"said to be of {name}, whose map does not have it")


def _xfs_db(view: ReplicaView, commands: Iterable[str]) -> str:
    """What xfs_db prints; :class:`ValueError` where it complains of what it reads, or does not know it."""
    argv = ["env", "LC_ALL=C", "xfs_db", "-r", "-f", view.path]
    done = view.runner.run(argv, stdin="".join(f"{command}\n" for command in commands), timeout=TOOL_SECONDS)
    if done.stderr.strip():
        raise ValueError(f"xfs_db complains of the filesystem: {done.stderr.strip().splitlines()[0][:120]}")
    return done.stdout


def _about_blocks(wanted: Sequence[int], layout: XfsSizes) -> Iterator[str]:
    """Commands that ask for each run of ``wanted`` (sorted) what it is; none reaches into two allocation groups."""
    runs: list[list[int]] = []
    for block in wanted:
        if runs and block == runs[-1][-1] + 1 and layout.place(block)[1]:
            runs[-1].append(block)
        else:
            runs.append([block])
    for run in runs:
        yield f"fsblock {layout.number(run[0])}"
        yield f"blockuse -n -c {len(run)}"


def _about_inodes(numbers: Iterable[int]) -> Iterator[str]:
    for number in numbers:
        yield from (f"echo # inode {number}", f"inode {number}", "print core.size core.mode core.nlinkv2", "bmap")


def _sharing(inodes: Iterable[XfsInode], shared: set[int]) -> Mapping[int, Sequence[XfsInode]]:
    """The inodes that have each of the ``shared`` blocks."""
    found: dict[int, list[XfsInode]] = {}
    for inode in inodes:
        for _, run, _ in inode.data:
            for block in shared.intersection(run):
                found.setdefault(block, []).append(inode)
    return found


def _owner(
    block: int,
    use: XfsBlock | None,
    layout: XfsSizes,
    inodes: Mapping[int, XfsInode],
    names: Mapping[int, str],
    sharing: Sequence[XfsInode],
) -> OwnedBlock | None:
    """Who has a block by what xfs_db calls it; None for data that the map of its file does not have."""
    if use is None or use.type not in {"data", _SHARED_DATA, "log", *_OF_AN_INODE, *_STRUCTURES, *_FREE}:
        return OwnedBlock(BlockOwner.UNKNOWN, f"xfs_db calls it '{use.type}'" if use else "xfs_db does not tell")
    if use.type in _FREE:
        return OwnedBlock(BlockOwner.FREE, _FREE[use.type])
    if use.type in _STRUCTURES:
        return OwnedBlock(BlockOwner.METADATA, _STRUCTURES[use.type].format(layout.place(block)[0]))
    if use.type == "log":
        return _LOG
    if use.type in _OF_AN_INODE:
        return OwnedBlock(BlockOwner.METADATA, _OF_AN_INODE[use.type].format(_name(use.inode, names)))
    if use.type == _SHARED_DATA:
        parts = [part for inode in sharing if (part := _of_file(block, inode, names)) is not None]
        if len({part.owner for part in parts}) != 1:
            return OwnedBlock(BlockOwner.UNKNOWN, f"shared by {_name(use.inode, names)} and others")
        # With one part only it was shared once: its count of shares is taken back later.
        return parts[0] if len(parts) == 1 else OwnedBlock(parts[0].owner, " and ".join(part.detail for part in parts))
    inode = inodes.get(use.inode) if use.inode is not None else None
    return _of_file(block, inode, names) if inode else OwnedBlock(BlockOwner.UNKNOWN, "a file that cannot be read")


def _of_file(block: int, inode: XfsInode, names: Mapping[int, str]) -> OwnedBlock | None:
    """A block of a file's data; None where it is none."""
    name = _name(inode.number, names)
    path = name if inode.number in names else ""
    for first, run, written in inode.data:
        if block not in run:
            continue
        offset = (first + block - run.start) * BLOCK_BYTES
        if not written:
            return OwnedBlock(BlockOwner.FREE, f"preallocated for {name} and never written: it reads as zeros", path)
        if offset >= inode.size:
            return OwnedBlock(BlockOwner.FREE, f"behind the end of {name}", path)
        deleted = "" if inode.links else ", which was deleted"
        return OwnedBlock(BlockOwner.ALLOCATED, f"{name} at byte {offset}{deleted}", path, offset)
    return None


def _name(inode: int | None, names: Mapping[int, str]) -> str:
    return f"/{names[inode]}" if inode is not None and inode in names else f"inode {inode}"

"""Who owns a block of an ext4 filesystem: what ``debugfs`` answers to icheck, ncheck and testb.

A block in use that no inode owns is the filesystem's own: superblock, bitmaps, inode tables.  ``testb`` calls a block
behind the end of the filesystem not in use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_INODE = re.compile(r"^(\d+)\t(?:(\d+)|<block not found>)\s*$", re.ASCII | re.MULTILINE)
_PATH = re.compile(r"^(\d+)\t/?(/.*)$", re.ASCII | re.MULTILINE)
_IN_USE = re.compile(r"^Block (\d+) (marked in use|not in use)\s*$", re.ASCII | re.MULTILINE)


def inodes(icheck: str) -> Mapping[int, int | None]:
    """Block to the inode that owns it, or None for a block that no inode owns."""
    return {int(block): int(inode) if inode else None for block, inode in _INODE.findall(icheck)}


def paths(ncheck: str) -> Mapping[int, tuple[str, ...]]:
    """Inode to its paths; system inodes such as the journal (8) have none.

    Where there are hard links debugfs may name several, but it stops at as many paths as it was asked for inodes.
    """
    found: dict[int, tuple[str, ...]] = {}
    for inode, path in _PATH.findall(ncheck):
        found[int(inode)] = (*found.get(int(inode), ()), path)
    return found


def in_use(testb: str) -> Mapping[int, bool]:
    """Block to whether the filesystem's bitmap marks it in use."""
    return {int(block): state == "marked in use" for block, state in _IN_USE.findall(testb)}

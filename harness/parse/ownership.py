"""Whose a block of an ext4 filesystem is: what ``debugfs`` answers to icheck, ncheck and testb.

A block in use that no inode owns is the filesystem's own: superblock, bitmaps, inode tables.  ``testb`` calls a block
behind the end of the filesystem not in use; compare with :func:`block_count` first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_INODE = re.compile(r"^(\d+)\t(?:(\d+)|<block not found>)\s*$", re.ASCII | re.MULTILINE)
_PATH = re.compile(r"^(\d+)\t/?(/.*)$", re.ASCII | re.MULTILINE)
_IN_USE = re.compile(r"^Block (\d+) (marked in use|not in use)\s*$", re.ASCII | re.MULTILINE)
_SIZE = re.compile(r"^Block size:\s+(\d+)\s*$", re.ASCII | re.MULTILINE)
_COUNT = re.compile(r"^Block count:\s+(\d+)\s*$", re.ASCII | re.MULTILINE)


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
    return {int(block): said == "marked in use" for block, said in _IN_USE.findall(testb)}


def block_size(dumpe2fs: str) -> int:
    """The filesystem's block size in bytes, from ``dumpe2fs -h``; :class:`ValueError` if it is not there."""
    return _header(_SIZE, dumpe2fs)


def block_count(dumpe2fs: str) -> int:
    """How many blocks the filesystem has, from ``dumpe2fs -h``; :class:`ValueError` if it is not there."""
    return _header(_COUNT, dumpe2fs)


def _header(pattern: re.Pattern[str], dumpe2fs: str) -> int:
    found = pattern.search(dumpe2fs)
    if not found:
        raise ValueError("this is not the output of dumpe2fs -h: it has no block size or no block count")
    return int(found[1])

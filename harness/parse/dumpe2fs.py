"""The map of an ext2, ext3 or ext4 filesystem as ``dumpe2fs`` prints it: structures, what is free, inodes in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FIELD = re.compile(r"^(\w[\w ]*):[ \t]+(.+?)[ \t]*$", re.ASCII | re.MULTILINE)
_GROUP = re.compile(r"^Group (\d+): \(Blocks (\d+)-(\d+)\)", re.ASCII | re.MULTILINE)
_STRUCTURE = re.compile(
    r"([Ss]uperblock|Group descriptors?|Reserved GDT blocks|Block bitmap|Inode bitmap|Inode table) at (\d+)(?:-(\d+))?",
    re.ASCII,
)
_FREE = re.compile(r"^  Free (blocks|inodes): ?([\d, -]*)$", re.ASCII | re.MULTILINE)
_RUN = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


@dataclass(frozen=True)
class ExtMap:
    """The map of one filesystem; ranges are of block numbers, ``block_bytes`` each.

    ``groups``: the blocks that the groups printed cover; ``structures``: what the filesystem itself is made of, with
    its name; ``free``: what its bitmaps hold free; ``inodes``: those that its bitmaps hold in use.  ``unreplayed``: the
    journal was not replayed yet, or what was deleted while it was open was not freed, so that the bitmaps may be old.
    ``orphan_file``: the inode of the system file of that name, or None.  ``first_block`` is 1 where the boot block is
    no part of the first group, else 0.
    """

    blocks: int
    block_bytes: int
    groups: tuple[range, ...]
    structures: tuple[tuple[range, str], ...]
    free: tuple[range, ...]
    inodes: tuple[int, ...]
    unreplayed: bool = False
    orphan_file: int | None = None
    features: tuple[str, ...] = ()
    first_block: int = 0


def ext_map(dumpe2fs: str) -> ExtMap:
    """The map that ``dumpe2fs`` printed in the C locale; :class:`ValueError` where it printed none."""
    head, *groups = re.split(r"^(?=Group \d+: )", dumpe2fs, flags=re.ASCII | re.MULTILINE)
    fields = dict(_FIELD.findall(head))
    blocks, block_bytes, per_group = (
        _number(fields, name) for name in ("Block count", "Block size", "Inodes per group")
    )
    covered: list[range] = []
    structures: list[tuple[range, str]] = []
    free: list[range] = []
    inodes: list[int] = []
    for text in groups:
        begin = _GROUP.match(text)
        if begin is None:
            continue
        number = int(begin[1])
        covered.append(range(int(begin[2]), int(begin[3]) + 1))
        structures += (
            (_range(first, last), f"{what[0].lower()}{what[1:]} of group {number}")
            for what, first, last in _STRUCTURE.findall(text)
        )
        # A group that does not say what is free has nothing that is known to be.
        runs = {what: _ranges(found) for what, found in _FREE.findall(text)}
        free += runs.get("blocks", ())
        if "inodes" in runs:
            unused = {inode for run in runs["inodes"] for inode in run}
            inodes += (i for i in range(number * per_group + 1, (number + 1) * per_group + 1) if i not in unused)
    orphans = fields.get("Orphan file inode", "")
    features = tuple(fields.get("Filesystem features", "").split())
    first = fields.get("First block", "0")
    return ExtMap(
        blocks, block_bytes, tuple(covered), tuple(structures), tuple(free), tuple(inodes),
        not {"needs_recovery", "orphan_present"}.isdisjoint(features),
        int(orphans) if orphans.isdecimal() else None,
        features, int(first) if first.isdecimal() else 0,
    )  # fmt: skip


def _number(fields: dict[str, str], name: str) -> int:
    if not (text := fields.get(name, "")).isdecimal():
        raise ValueError(f"dumpe2fs printed no '{name}'")
    return int(text)


def _range(first: str, last: str) -> range:
    return range(int(first), int(last or first) + 1)


def _ranges(text: str) -> Iterable[range]:
    return [_range(first, last) for first, last in _RUN.findall(text)]

"""What dump.f2fs prints: where the areas of an F2FS filesystem are, and which blocks of its main area are in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_VALUE = re.compile(r"^(\w+)\s+\[0x\s*[0-9a-f]+ : (\d+)\]", re.MULTILINE)
_SEGMENT = re.compile(r"segno:\s+(\d+)\s+vblocks:\s*(\d+)\s+seg_type:(\d+)\s+sit_pack:\d+")
_BYTES = re.compile(r"(?:\s*[0-9a-f]{2})+\s*")
#: A block; that the blocks of the kernel are as large as DRBD's is asked for.
BLOCK_BITS = 12
# fs/f2fs/segment.h: CURSEG_HOT_NODE and its like follow the three for data.
_FIRST_NODE_TYPE = 3


@dataclass(frozen=True)
class F2fsMap:
    """Places in blocks of 4 KiB: areas by name in their order, the main area, and the blocks of it that are in use.

    ``nodes`` hold inodes and maps of files, ``data`` what is in files and directories.
    """

    areas: tuple[tuple[int, str], ...]
    main: range
    nodes: frozenset[int]
    data: frozenset[int]


def f2fs_map(printed: str, segments: str) -> F2fsMap:
    """The map in the output of ``dump.f2fs -d 1 -s 0~-1`` (``printed``) and in the file that it writes (``segments``).

    :class:`ValueError` where either is not whole, where the filesystem was not unmounted, and where its blocks are not
    of 4 KiB.
    """
    found = {name: int(value) for name, value in _VALUE.findall(printed)}
    try:
        if found["log_blocksize"] != BLOCK_BITS:
            raise ValueError(f"its blocks are {1 << found['log_blocksize']} bytes large, not {1 << BLOCK_BITS}")
        state = re.search(r"checkpoint state = [0-9a-f]+ : (.*)", printed)
        if state is None or "unmount" not in state[1].split():
            raise ValueError("it was not unmounted: what is in use may have to be recovered first")
        blocks_per_segment = 1 << found["log_blocks_per_seg"]
        first, count = found["main_blkaddr"], found["segment_count_main"]
        places = ("cp", "checkpoints"), ("sit", "map of what is in use"), ("nat", "map of the nodes"), \
            ("ssa", "owners by segment")  # fmt: skip
        areas = tuple((found[f"{name}_blkaddr"], detail) for name, detail in places)
        used = found["valid_block_count"]
    except KeyError as missing:
        raise ValueError(f"dump.f2fs printed no {missing.args[0]}") from None
    nodes: set[int] = set()
    data: set[int] = set()
    seen = 0
    for number, kind, bitmap in _segments(segments):
        seen += 1
        begin = first + number * blocks_per_segment
        inside = {begin + at for at in range(len(bitmap) * 8) if bitmap[at >> 3] << (at & 7) & 0x80}
        (nodes if kind >= _FIRST_NODE_TYPE else data).update(inside)
    if seen != count or len(nodes) + len(data) != used:
        raise ValueError(
            f"dump.f2fs tells of {len(nodes) + len(data)} blocks in {seen} segments, and there are {used} in {count}"
        )
    return F2fsMap(areas, range(first, first + count * blocks_per_segment), frozenset(nodes), frozenset(data))


def _segments(text: str) -> Iterator[tuple[int, int, bytes]]:
    """Each segment's number, type, and which of its blocks are in use: a bit for each, the highest first."""
    now: tuple[int, int] | None = None
    bitmap = b""
    for line in text.splitlines():
        if match := _SEGMENT.fullmatch(line.strip()):
            if now is not None:
                yield *now, bitmap
            now, bitmap = (int(match[1]), int(match[3])), b""
        elif now is not None and _BYTES.fullmatch(line):
            bitmap += bytes.fromhex(line)
    if now is not None:
        yield *now, bitmap

"""Where a file lies on its device, as the kernel told ``filefrag -v``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EXTENT = re.compile(
    r"^\s*\d+:\s*\d+\.\.\s*\d+:\s*(?P<first>\d+)\.\.\s*\d+:\s*(?P<length>\d+):(?:\s*\d+:)?\s*(?P<flags>[\w,]*)\s*$",
    re.ASCII | re.MULTILINE,
)
#: What the kernel marks extents with whose place on the device is not known, or does not hold the file's data.
_NOT_THERE = {"delalloc", "unknown_loc", "inline", "not_aligned", "encoded", "tail_packed"}


@dataclass(frozen=True)
class FileExtent:
    """A run of a file's blocks on its device, in the blocks that filefrag was asked for.

    ``unwritten``: it is only preallocated and reads as zeros.
    """

    blocks: range
    unwritten: bool


def file_extents(text: str) -> tuple[FileExtent, ...]:
    """The extents that ``filefrag -v`` printed, in the order of the file; those without a known place are left out.

    :class:`ValueError` where it printed none.
    """
    found = []
    for extent in _EXTENT.finditer(text):
        first, length, flags = int(extent["first"]), int(extent["length"]), {*extent["flags"].split(",")}
        if not flags & _NOT_THERE:
            found.append(FileExtent(range(first, first + length), "unwritten" in flags))
    if not found:
        raise ValueError(f"filefrag printed no extent with a place but '{' '.join(text.split())[:120]}'")
    return tuple(found)

"""Bitmaps: a bit for each cluster, the lowest bit of a byte first, as NTFS and exFAT keep them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby


def clear_runs(bitmap: bytes, count: int) -> Sequence[range]:
    """The runs of numbers below ``count`` whose bit is 0, in order; :class:`ValueError` where bits are missing."""
    if len(bitmap) * 8 < count:
        raise ValueError(f"a bitmap of {len(bitmap)} bytes says nothing about all of {count} clusters")
    return runs(number for number in range(count) if not bitmap[number >> 3] >> (number & 7) & 1)


def runs(numbers: Iterable[int]) -> Sequence[range]:
    """The runs of consecutive ``numbers``, which come in ascending order."""
    found = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        found.append(range(members[0], members[-1] + 1))
    return found

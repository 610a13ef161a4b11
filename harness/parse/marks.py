"""Where the marks of the owner control lie, in what ``grep -abo`` found in a copy of a replica."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.model import BLOCK_BYTES

TOKEN_CHARACTERS = 12
_DIGITS = 8
_FOUND = re.compile(rf"^(\d+):([KFS])[0-9a-f]{{{TOKEN_CHARACTERS}}}(\d{{{_DIGITS}}})$", re.ASCII | re.MULTILINE)
_AT = re.compile(r"^(\d+):", re.ASCII | re.MULTILINE)


class MarkedAs(StrEnum):
    """What a mark stands in."""

    FILE = "K"  # a file that is still there
    FREED = "F"  # a file that was removed
    MEMORY = "S"  # the memory of a process


@dataclass(frozen=True, order=True)
class Mark:
    """One mark: at which byte of the device, in what, and which number it has there."""

    at: int
    kind: MarkedAs
    number: int

    @property
    def block(self) -> int:
        """The 4 KiB block of the device that it is in."""
        return self.at // BLOCK_BYTES


def pattern(token: str) -> str:
    """The extended regular expression of each mark with ``token``."""
    return f"[{''.join(MarkedAs)}]{token}[0-9]{{{_DIGITS}}}"


def marks(grep: str) -> Iterator[Mark]:
    """What ``grep -abo`` printed for :func:`pattern`; other lines are left out."""
    for at, kind, number in _FOUND.findall(grep):
        yield Mark(int(at), MarkedAs(kind), int(number))


def places(grep: str) -> tuple[int, ...]:
    """The bytes at which ``grep -abo`` found anything."""
    return tuple(int(at) for at in _AT.findall(grep))


def block_of_each(found: Iterable[Mark]) -> Mapping[int, int]:
    """Number to the block that begins with that mark, without those that were found in several places, or in none."""
    blocks: dict[int, set[int]] = {}
    for mark in found:
        blocks.setdefault(mark.number, set()).add(mark.block if mark.at % BLOCK_BYTES == 0 else -1)
    return {number: block for number, (block, *more) in blocks.items() if not more and block >= 0}

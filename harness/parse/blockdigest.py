"""What the guest program ``blockdigest`` prints: one digest of 64 bits for each 4 KiB block."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DIGEST = re.compile(r"[0-9a-f]{16}", re.ASCII)


def digests(text: str, count: int) -> tuple[str, ...]:
    """The ``count`` digests in ``text``, in the order of the blocks.

    :class:`ValueError` unless there are exactly ``count`` lines and each is a digest.
    """
    lines = tuple(text.splitlines())
    if len(lines) != count:
        raise ValueError(f"{count} digests were asked for and {len(lines)} lines came")
    for number, line in enumerate(lines):
        if not _DIGEST.fullmatch(line):
            raise ValueError(f"line {number} is no digest: {line[:40]!r}")
    return lines


def changed(before: Sequence[str], after: Sequence[str]) -> frozenset[int]:
    """The numbers of the blocks whose digests differ, counted from the first that was read.

    :class:`ValueError` when not as many blocks were read before as after.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} blocks were read before and {len(after)} after")
    return frozenset(number for number, (one, other) in enumerate(zip(before, after, strict=True)) if one != other)

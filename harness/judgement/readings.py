"""What became of blocks that a verify marked: what some readings of both sides say; pure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.model import extents_of
from harness.model.inspection import BlockReadings

#: Bytes of the digest of one block.
DIGEST_BYTES = 16


def classified(blocks: Sequence[int], a: Sequence[bytes], b: Sequence[bytes], seconds: float = 0.0) -> BlockReadings:
    """``blocks`` by ``a`` and ``b``: for each reading of either side the digests of all of them, in their order.

    :class:`ValueError` where a reading has not one digest for each block, or one side was read more often.
    """
    wanted = len(blocks) * DIGEST_BYTES
    if not a or len(a) != len(b) or any(len(one) != wanted for one in (*a, *b)):
        raise ValueError("the two sides were not read equally")
    classes: dict[str, list[int]] = {"equal": [], "lasting": [], "changing": [], "changing_equal": []}
    for number, block in enumerate(blocks):
        piece = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
        mine, theirs = [one[piece] for one in a], [one[piece] for one in b]
        same_at_last = mine[-1] == theirs[-1]
        if len(set(mine)) > 1 or len(set(theirs)) > 1:
            classes["changing"].append(block)
            if same_at_last:
                classes["changing_equal"].append(block)
        else:
            classes["equal" if same_at_last else "lasting"].append(block)
    equal, lasting, changing, at_last = map(extents_of, classes.values())
    return BlockReadings(len(a), seconds, equal, lasting, changing, at_last)  # fmt: skip

"""What the program ``witness`` on a node prints: that it watches, why it does not, and at its end what it counted.

The source of the format: ``vm_images/src/witness.c``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

from harness.model import SECTORS_PER_BLOCK, Extent, Witness, blocks_of, extents_of

_READY = re.compile(r"ready (\w+) (\w+) (\d+\.\d+)", re.ASCII)
_UNWATCHED = re.compile(r"unwatched (.+)")


@dataclass(frozen=True)
class Start:
    """It watches, attached to ``hooks``, which took it ``seconds``; or it cannot, for ``reason``."""

    hooks: tuple[str, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def parse_start(line: str) -> Start | None:
    """How it began, if ``line`` tells; None for any other line."""
    if found := _READY.fullmatch(line):
        return Start((found[1], found[2]), float(found[3]))
    if found := _UNWATCHED.fullmatch(line):
        return Start(reason=found[1])
    return None


def parse_report(line: str, node: str) -> Witness:
    """What it counted on ``node``, from its last line; :class:`ValueError` when that is something else."""
    try:
        report = json.loads(line)
        found = Witness(
            watched=True,
            nodes=(node,),
            hooks=(str(report["begin"]), str(report["end"])),
            writes=_count(report["writes"]),
            bytes=_count(report["bytes"]),
            block_writes=_count(report["block_writes"]),
            changed_writes=_count(report["changed_writes"]),
            changed_block_writes=_count(report["changed_block_writes"]),
            changed_blocks=_count(report["changed_blocks"]),
            changed=tuple(_extent(one) for one in report["changed"]),
            not_watched={str(reason): _count(writes) for reason, writes in report["not_watched"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no report of the witness ({error}): {line[:60]!r}") from None
    if any(before.end >= after.start for before, after in pairwise(found.changed)):
        raise ValueError("the witness lists changed blocks out of order")
    if len(blocks_of(found.changed)) > found.changed_blocks:
        raise ValueError("the witness lists more changed blocks than it counts")
    return found


def total(reports: Sequence[Witness], missing: Sequence[str] = ()) -> Witness:
    """One figure for all nodes; a block that changed on both counts once.

    ``missing`` are sentences about nodes that were not watched to the end, and whose counts are not in ``reports``.
    """
    listed = blocks_of([extent for one in reports for extent in one.changed])
    # A list that is too long is cut off: then a node's own count is what is known at least.
    distinct = max([len(listed), *(one.changed_blocks for one in reports)])
    return Witness(
        watched=bool(reports) and not missing and all(one.watched for one in reports),
        reason="; ".join([*(one.reason for one in reports if one.reason), *missing]),
        nodes=tuple(node for one in reports for node in one.nodes),
        hooks=tuple(dict.fromkeys(hook for one in reports for hook in one.hooks)),
        writes=sum(one.writes for one in reports),
        bytes=sum(one.bytes for one in reports),
        block_writes=sum(one.block_writes for one in reports),
        changed_writes=sum(one.changed_writes for one in reports),
        changed_block_writes=sum(one.changed_block_writes for one in reports),
        changed_blocks=distinct,
        changed=extents_of(listed),
        not_watched=_added([one.not_watched for one in reports]),
        attach_seconds=max((one.attach_seconds for one in reports), default=0.0),
    )


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {reason: sum(one.get(reason, 0) for one in counts) for reason in dict.fromkeys(chain(*counts))}


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _extent(pair: Any) -> Extent:
    first, blocks = (_count(value) for value in pair)
    if not blocks:
        raise ValueError("an extent of no blocks")
    return Extent(first * SECTORS_PER_BLOCK, blocks * SECTORS_PER_BLOCK)

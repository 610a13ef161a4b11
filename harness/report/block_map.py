"""The whole device as a picture: what was written, what differs, whose it is; lanes of bars for an SVG; pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise

from harness.model import BLOCK_BYTES, BlockOwner, Evidence, Extent, blocks_of
from harness.model.block_runs import below, highest, lowest
from harness.report.formatting import count, plural, size

BINS = 320
_TICKS = 4


@dataclass(frozen=True)
class Bar:
    """Bins ``x`` to ``x + width`` with the same weight, 0.5 (some) to 1 (every block of the bin)."""

    x: int
    width: int
    weight: float


@dataclass(frozen=True)
class Lane:
    """The blocks that were written, that one oracle found, that were planted, or that are of one class of owners.

    ``style`` is the name of its colour in the style sheet.
    """

    name: str
    style: str
    blocks: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class BlockMap:
    """The drawing: its lanes, where its ticks are, and the sentence for those who cannot see it."""

    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    sentence: str
    bins: int


def block_map(evidence: Evidence) -> BlockMap | None:
    """The block map of ``evidence``; None where nothing differed or the device's size is not known."""
    comparison, verify = evidence.comparison, evidence.verify
    total = evidence.device_blocks or (comparison.blocks if comparison else 0)
    differing = blocks_of(comparison.differing) if comparison else frozenset()
    marked = blocks_of((*verify.source.extents, *verify.target.extents)) if verify else frozenset()
    lanes = [("comparison", differing), ("verify", marked), ("planted", blocks_of(evidence.planted))]
    everything = differing | marked | blocks_of(evidence.planted)
    if not total or not everything:
        return None
    bins = min(BINS, total)
    written = blocks_of(evidence.written.changed) if evidence.written else frozenset()
    owned = ((owner, blocks_of(evidence.ownership.extents.get(owner, ()))) for owner in BlockOwner)
    lanes = [("written", written), *lanes, *((f"{owner} blocks", blocks) for owner, blocks in owned)]
    drawn = tuple(
        Lane(name, name.partition(" ")[0], len(blocks), _bars(blocks, total, bins)) for name, blocks in lanes if blocks
    )
    (first,), last = lowest(everything, 1), highest(everything)
    sentence = (
        f"{plural(len(everything), 'block')} between block {count(first)} and block {count(last)} of {count(total)}"
    )
    ticks = tuple((bins * part / _TICKS, size(total * BLOCK_BYTES * part // _TICKS)) for part in range(_TICKS + 1))
    return BlockMap(drawn, ticks, sentence, bins)


def shown_extents(evidence: Evidence) -> tuple[Extent, ...]:
    """The differing extents, or those verify marked where no comparison was made."""
    if evidence.comparison is not None:
        return evidence.comparison.differing
    return evidence.verify.source.extents if evidence.verify else ()


def _bars(blocks: AbstractSet[int], total: int, bins: int) -> tuple[Bar, ...]:
    begins = below(blocks, (-(-x * total // bins) for x in range(bins)))
    # What is behind the device belongs to the last bin.
    weights = [(end - begin) * bins / total for begin, end in pairwise((*begins, len(blocks)))]
    bars: list[Bar] = []
    for x, full in enumerate(weights):
        weight = 0.25 * round(4 * max(0.5, min(1.0, full))) if full else 0.0
        if bars and bars[-1].x + bars[-1].width == x and bars[-1].weight == weight:
            bars[-1] = Bar(bars[-1].x, bars[-1].width + 1, weight)
        elif weight:
            bars.append(Bar(x, 1, weight))
    return tuple(bars)

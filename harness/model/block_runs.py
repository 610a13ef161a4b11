"""Sets of block numbers that take memory for each run of blocks, and not for each block.

A disk of terabytes has hundreds of millions of blocks, which a workload may all have written: as a set of numbers they
would take tens of gigabytes.  Sets up to :data:`MOST_IN_A_SET` are plain ones, which are faster.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate, chain, islice
from operator import sub

#: 4 GiB of blocks of 4 KiB; as a plain set they take some sixty megabytes.
MOST_IN_A_SET = 2**20


def block_set(runs: Sequence[range]) -> AbstractSet[int]:
    """All numbers that are in one of ``runs``, in any order, with repeats allowed."""
    # Not run by run in Python where there are few blocks: evidence is read by the thousand.
    if sum(map(len, runs)) <= MOST_IN_A_SET:
        return frozenset(chain.from_iterable(runs))
    bounds: list[int] = []
    for run in sorted((one for one in runs if one), key=lambda one: one.start):
        if bounds and run.start <= bounds[-1]:
            bounds[-1] = max(bounds[-1], run.stop)
        else:
            bounds += (run.start, run.stop)
    return _of(bounds)


def runs_of(blocks: AbstractSet[int]) -> Iterable[range]:
    """Runs that have the same blocks, each once; in order, and as few as can be, where there are many blocks."""
    return blocks.runs() if isinstance(blocks, BlockRuns) else (range(one, one + 1) for one in blocks)


def lowest(blocks: AbstractSet[int], most: int) -> list[int]:
    """The lowest of them in order, at most so many."""
    return list(islice(blocks, most)) if isinstance(blocks, BlockRuns) else heapq.nsmallest(most, blocks)


def below(blocks: AbstractSet[int], bounds: Iterable[int]) -> list[int]:
    """How many of them are below each of ``bounds``; the blocks are sorted once, and not looked at one by one."""
    if isinstance(blocks, BlockRuns):
        return blocks.below(bounds)
    ordered = sorted(blocks)
    return [bisect_left(ordered, bound) for bound in bounds]


def highest(blocks: AbstractSet[int]) -> int:
    """The highest of them; :class:`ValueError` where there is none."""
    return blocks.highest if isinstance(blocks, BlockRuns) else max(blocks)


class BlockRuns(AbstractSet[int]):
    """A set of numbers as the bounds of its runs: start, stop, start, ..., each larger than the one before.

    What is made of it and another set is a plain set where it is small.  It is equal to any set of the same numbers.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, bounds: Sequence[int]) -> None:
        self._bounds = tuple(bounds)

    @property
    def highest(self) -> int:
        """The highest number."""
        return self._bounds[-1] - 1

    def runs(self) -> Iterator[range]:
        """Its runs, in order."""
        return map(range, self._bounds[::2], self._bounds[1::2])

    def below(self, bounds: Iterable[int]) -> list[int]:
        """How many numbers are below each of ``bounds``."""
        starts, stops = self._bounds[::2], self._bounds[1::2]
        before = [0, *accumulate(map(sub, stops, starts))]
        return [
            before[whole] + (max(0, bound - starts[whole]) if whole < len(starts) else 0)
            for bound in bounds
            for whole in (bisect_right(stops, bound),)
        ]

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and bisect_right(self._bounds, number) % 2 == 1

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.runs())

    def __len__(self) -> int:
        return sum(self._bounds[1::2]) - sum(self._bounds[::2])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AbstractSet):
            return len(self) == len(other) and _bounds(other) == self._bounds
        return NotImplemented

    def __le__(self, other: AbstractSet[object]) -> bool:
        return not _combined(self._bounds, _bounds(other), lambda here, there: here and not there)

    def __ge__(self, other: AbstractSet[object]) -> bool:
        return not _combined(self._bounds, _bounds(other), lambda here, there: there and not here)

    def __and__(self, other: AbstractSet[object]) -> AbstractSet[int]:
        return _of(_combined(self._bounds, _bounds(other), lambda here, there: here and there))

    def __or__(self, other: AbstractSet[object]) -> AbstractSet[int]:
        return _of(_combined(self._bounds, _bounds(other), lambda here, there: here or there))

    def __sub__(self, other: AbstractSet[object]) -> AbstractSet[int]:
        return _of(_combined(self._bounds, _bounds(other), lambda here, there: here and not there))

    def __xor__(self, other: AbstractSet[object]) -> AbstractSet[int]:
        return _of(_combined(self._bounds, _bounds(other), lambda here, there: here is not there))

    def __rsub__(self, other: AbstractSet[object]) -> AbstractSet[int]:
        return _of(_combined(_bounds(other), self._bounds, lambda here, there: here and not there))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def isdisjoint(self, other: Iterable[object]) -> bool:
        """Whether none is in both."""
        return not (self & other if isinstance(other, AbstractSet) else self & frozenset(other))

    def __repr__(self) -> str:
        return f"BlockRuns({self._bounds!r})"


def _of(bounds: Sequence[int]) -> AbstractSet[int]:
    found = BlockRuns(bounds)
    return found if len(found) > MOST_IN_A_SET else frozenset(found)


def _bounds(blocks: Iterable[object]) -> tuple[int, ...]:
    if isinstance(blocks, BlockRuns):
        return blocks._bounds
    bounds: list[int] = []
    for block in sorted(one for one in blocks if isinstance(one, int)):
        if bounds and bounds[-1] == block:
            bounds[-1] = block + 1
        else:
            bounds += (block, block + 1)
    return tuple(bounds)


def _combined(one: Sequence[int], other: Sequence[int], keep: Callable[[bool, bool], bool]) -> list[int]:
    """The bounds of all numbers of which ``keep`` says so, by whether they are in each of the two."""
    found: list[int] = []
    here = there = 0
    while here < len(one) or there < len(other):
        at = min(chain(one[here : here + 1], other[there : there + 1]))
        here += here < len(one) and one[here] == at
        there += there < len(other) and other[there] == at
        # A number is inside where as many bounds are behind it as begin a run, and one more.
        if keep(here % 2 == 1, there % 2 == 1) is (len(found) % 2 == 0):
            found.append(at)
    return found

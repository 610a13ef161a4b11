"""Sets of blocks that take memory for each run: they are what plain sets of the same blocks are."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.oracles import _covered
from harness.model import Extent, block_runs, blocks_of, extents_of
from harness.model.block_runs import BlockRuns, block_set, highest, lowest, runs_of
from harness.report.block_map import _bars

RUNS = st.lists(st.builds(lambda start, size: range(start, start + size), st.integers(0, 90), st.integers(0, 20)))
OPERATORS = st.sampled_from([operator.and_, operator.or_, operator.sub, operator.xor])
ORDERS = st.sampled_from([operator.le, operator.ge, operator.lt, operator.gt, operator.eq, operator.ne])
TERABYTES = 2**38


@pytest.fixture(scope="module", autouse=True)
def nothing_is_small() -> Iterator[None]:
    """Else each of these would be a plain set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_runs, "MOST_IN_A_SET", 0)
        yield


def plain(runs: list[range]) -> frozenset[int]:
    return frozenset(number for run in runs for number in run)


@given(RUNS)
def test_block_set_has_what_its_runs_have(runs: list[range]) -> None:
    made, expected = block_set(runs), plain(runs)
    assert isinstance(made, BlockRuns) is bool(expected)
    assert made == expected and expected == made and len(made) == len(expected) and {*made} == expected
    assert [one in made for one in range(120)] == [one in expected for one in range(120)]
    assert lowest(made, 3) == sorted(expected)[:3] and bool(made) is bool(expected)
    assert plain(list(runs_of(made))) == expected
    if expected:
        assert highest(made) == max(expected) and list(made) == sorted(expected)


@given(RUNS, RUNS, OPERATORS, st.booleans(), st.booleans())
def test_what_is_made_of_two_sets_is_what_plain_ones_make(
    one: list[range], other: list[range], made_by: Callable[[Any, Any], Any], first: bool, second: bool
) -> None:
    a: Any = block_set(one) if first else plain(one)
    b: Any = block_set(other) if second else plain(other)
    found = made_by(a, b)
    assert found == made_by(plain(one), plain(other)) and {*found} == made_by(plain(one), plain(other))


@given(RUNS, RUNS, ORDERS, st.booleans())
def test_order_of_two_sets_is_that_of_plain_ones(
    one: list[range], other: list[range], compared: Callable[[Any, Any], bool], second: bool
) -> None:
    b: Any = block_set(other) if second else plain(other)
    assert compared(block_set(one), b) is compared(plain(one), plain(other))
    assert block_set(one).isdisjoint(b) is plain(one).isdisjoint(plain(other))


@given(RUNS)
def test_extents_of_runs_are_those_of_the_plain_set(runs: list[range]) -> None:
    assert extents_of(block_set(runs)) == extents_of(plain(runs))


@given(RUNS, st.sampled_from([1, 2, 4, 16]))
def test_blocks_of_the_same_bits_are_covered_in_either_form(runs: list[range], a_bit: int) -> None:
    expected = {
        one for number in plain(runs) for one in range(number - number % a_bit, number - number % a_bit + a_bit)
    }
    assert _covered(block_set(runs), a_bit) == expected == _covered(plain(runs), a_bit)


@given(RUNS, st.integers(1, 120), st.integers(1, 40))
def test_bars_of_a_map_are_the_same_in_either_form(runs: list[range], total: int, bins: int) -> None:
    bins = min(bins, total)
    assert _bars(block_set(runs), total, bins) == _bars(plain(runs), total, bins)


def test_small_sets_are_plain_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_runs, "MOST_IN_A_SET", 4)
    assert isinstance(block_set([range(4), range(3)]), frozenset)
    large = block_set([range(8)])
    assert isinstance(large, BlockRuns) and isinstance(large - {1}, BlockRuns) and isinstance(large & {1, 9}, frozenset)


def test_all_blocks_of_the_largest_device_take_neither_memory_nor_time() -> None:
    began = time.process_time()
    every = blocks_of([Extent(0, TERABYTES * 8)])
    some = blocks_of([Extent(number * 80_000, 8) for number in range(1000)])
    assert len(every) == TERABYTES and len(every - some) == TERABYTES - 1000 and some <= every
    assert len(_covered(every, 256)) == TERABYTES and len(_bars(every, TERABYTES, 400)) == 1
    assert extents_of(every) == (Extent(0, TERABYTES * 8),) and highest(every) == TERABYTES - 1
    assert time.process_time() - began < 5

"""Marked blocks read again: equal, lasting or being written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.readings import DIGEST_BYTES, classified
from harness.model import blocks_of


def digest(content: int) -> bytes:
    return bytes([content]) * DIGEST_BYTES


def readings(*contents: list[int]) -> list[bytes]:
    """For each reading the digests of all blocks."""
    return [b"".join(map(digest, one)) for one in contents]


def test_classified_of_a_block_that_differs_in_each_reading_is_lasting() -> None:
    found = classified([7, 8], readings([1, 3], [1, 3]), readings([2, 3], [2, 3]))
    assert blocks_of(found.lasting) == {7}
    assert blocks_of(found.equal) == {8}
    assert found.changing == ()


def test_classified_of_a_block_that_changes_is_neither_whatever_it_ends_as() -> None:
    found = classified([7, 9], readings([1, 1], [2, 2]), readings([1, 1], [2, 3]))
    assert blocks_of(found.changing) == {7, 9}
    assert blocks_of(found.changing_equal) == {7}
    assert found.lasting == found.equal == ()


@pytest.mark.parametrize("b", ([], readings([1]), readings([1, 2], [1, 2])))
def test_classified_of_readings_of_another_length_is_refused(b: list[bytes]) -> None:
    with pytest.raises(ValueError, match="not read equally"):
        classified([1], readings([1], [1]), b)


@given(st.data(), st.integers(1, 4), st.sets(st.integers(0, 50), min_size=1, max_size=8))
def test_classified_puts_every_block_in_one_class(data: st.DataObject, times: int, blocks: set[int]) -> None:
    some = st.lists(st.integers(0, 2), min_size=len(blocks), max_size=len(blocks))
    a, b = (data.draw(st.lists(some, min_size=times, max_size=times)) for _ in range(2))
    found = classified(sorted(blocks), readings(*a), readings(*b))
    classes = [blocks_of(one) for one in (found.equal, found.lasting, found.changing)]
    assert frozenset().union(*classes) == blocks
    assert sum(map(len, classes)) == len(blocks)
    for number, block in enumerate(sorted(blocks)):
        mine, theirs = ({one[number] for one in side} for side in (a, b))
        assert (block in classes[1]) == (len(mine) == len(theirs) == 1 and mine != theirs)

"""The parts of a matrix: every play is in exactly one of them, every control in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.config.shards import Shard, missing_parts, plan_of
from harness.errors import UsageError
from harness.model import CacheMode, Cell

NAMES = ("reclaim", "pressure", "buffered", "truncate", "mmap")
CELLS = st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=5).map(
    lambda names: [Cell(name, cache=CacheMode.NONE) for name in names]
)


@given(CELLS, st.integers(1, 7), st.integers(1, 9), st.integers(1, 1000))
def test_shard_of_cells_every_play_once_balanced_controls_in_each(
    cells: list[Cell], repeat: int, of: int, seed: int
) -> None:
    whole = with_controls(repeated(cells, repeat, seed))
    parts = [Shard(number, of).of_cells(whole) for number in range(1, of + 1)]
    controls = [cell for cell in whole if cell.control is not None]
    assert all([cell for cell in part if cell.control is not None] == controls for part in parts)
    plays = [[cell for cell in part if cell.control is None] for part in parts]
    found = Counter(cell for part in plays for cell in part)
    assert found == Counter(cell for cell in whole if cell.control is None), "with the seed that it has in the whole"
    assert max(map(len, plays)) - min(map(len, plays)) <= 1
    for one in cells:
        share = [sum(cell.id == one.id for cell in part) for part in plays]
        assert max(share) - min(share) <= 1, "repetitions of one cell are spread"
    order = {cell: number for number, cell in enumerate(whole)}
    assert all(part == tuple(sorted(part, key=lambda cell: order[cell])) for part in parts)


@given(CELLS, CELLS, st.integers(1, 4))
def test_shard_of_cells_several_tests_dealt_on_where_the_last_ended(one: list[Cell], two: list[Cell], of: int) -> None:
    sizes = []
    for number in range(1, of + 1):
        shard = Shard(number, of)
        sizes.append(len(shard.of_cells(one)) + len(shard.of_cells(two, before=len(one))))
    assert sum(sizes) == len(one) + len(two) and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "x", "", "1", "1/0", "-1/3", "1/3/5", "1.5/3", "1/3 ", "\u0661/3", "01/3"]
)
def test_shard_parse_no_part_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--shard is '.*'; it is one part of several, written as i/n, such as 1/3"):
        Shard.parse(text, "--shard")


def test_shard_parse_part_as_written() -> None:
    assert Shard.parse("2/3", "--shard") == Shard(2, 3)
    assert str(Shard(2, 3)) == "2/3"
    assert Shard.parse("1/1", "--shard").of_cells((cell := Cell("reclaim", cache=CacheMode.NONE),)) == (cell,)


def test_plan_of_repeated_cells_each_once() -> None:
    cells = repeated([Cell("reclaim", cache=mode) for mode in (CacheMode.NONE, CacheMode.WRITEBACK)], 3, 1)
    assert plan_of(cells) == ("none-reclaim", "writeback-reclaim")


def shards(*texts: str) -> list[Shard]:
    return [Shard.parse(text, "--shard") for text in texts]


@given(st.lists(st.integers(1, 8).flatmap(lambda of: st.tuples(st.integers(1, of), st.just(of))), max_size=8))
def test_missing_parts_are_exactly_what_is_left_out(chosen: list[tuple[int, int]]) -> None:
    def plays(parts: Sequence[Shard]) -> list[int]:
        return [play for part in parts for play in range(part.number - 1, 840, part.of)]

    parts = [Shard(number, of) for number, of in chosen]
    missing = missing_parts(parts, most=840)
    left = set(range(840)) - set(plays(parts))
    assert Counter(plays(missing)) == Counter(left), "each once, and no other"


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (("1/6", "2/3", "3/3", "4/6"), ()),
        (("1/6", "2/3", "3/3"), ("4/6",)),
        (("1/6", "2/3", "4/6"), ("3/3",)),
        (("2/3", "3/3"), ("1/3",)),
        (("1/4", "3/4"), ("2/4", "4/4")),
        (("1/2", "1/3"), ("2/6", "6/6")),
        (("1/2", "2/2", "2/3"), ()),
        (("1/1",), ()),
        ((), ("1/1",)),
    ],
)
def test_missing_parts_of_several_sizes_in_the_sizes_there_are(
    there: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert missing_parts(shards(*there)) == tuple(shards(*missing))


def test_missing_parts_of_many_only_some_are_named_soon() -> None:
    named = missing_parts(shards("1/999983", "1/999979"), most=3)
    assert named == tuple(shards("2/999979", "3/999979", "4/999979"))
    assert len(missing_parts(shards("1/999983"))) == 12

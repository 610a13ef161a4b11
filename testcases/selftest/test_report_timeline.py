"""The timeline of a cell's migrations: everything stays on its axis, and the downtime is where it was."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import CacheMode, Cell, Evidence, FilesystemKind, Migration, MigrationOutcome, Work
from harness.report.timeline import MIN_BAR, MIN_MARK, SIGNS, Mark, Timeline, description, timeline

CELL = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, migrations=2, seconds=60)
NEARLY = 1e-6


def moved(number: int, began: float, seconds: float, down: float | None = 400.0, **changes: object) -> Migration:
    """Migration ``number``: the odd ones from a to b, the even ones back."""
    source, target = ("node-a", "node-b") if number % 2 else ("node-b", "node-a")
    made = Migration(number, source, target, MigrationOutcome.COMPLETED, began, seconds, down)
    return replace(made, **changes)  # type: ignore[arg-type]


def drawn(*migrations: Migration, worked: float = 60.0) -> Timeline:
    found = timeline(Evidence(CELL, 1, "", work=Work(worked), migrations=migrations))
    assert found is not None
    return found


SECONDS = st.floats(0, 5000, allow_nan=False)
ANYTHING = st.one_of(SECONDS, st.floats())
MIGRATIONS = st.lists(
    st.builds(
        moved,
        st.integers(1, 99),
        ANYTHING,
        ANYTHING,
        st.one_of(st.none(), st.floats(0, 1e7), st.floats()),
        outcome=st.sampled_from(MigrationOutcome),
    ),
    min_size=1,
    max_size=12,
)


def within(mark: Mark, start: float, end: float) -> bool:
    return start - NEARLY <= mark.x and mark.end <= end + NEARLY


@given(MIGRATIONS, ANYTHING)
def test_timeline_any_migrations_within_axis(migrations: list[Migration], worked: float) -> None:
    found = drawn(*migrations, worked=worked)
    bars = [bar for lane in found.lanes for bar in lane.bars]
    assert len(bars) == len(migrations)
    assert math.isfinite(found.seconds) and found.seconds > 0
    for bar in bars:
        assert within(bar.mark, 0, 100) and bar.mark.width >= MIN_BAR - NEARLY
        if bar.downtime is not None:
            assert within(bar.downtime, bar.mark.x, bar.mark.end)
            assert bar.downtime.end == pytest.approx(bar.mark.end) and bar.downtime.width >= MIN_MARK - NEARLY
        if bar.label is not None:
            assert bar.mark.x - NEARLY <= bar.label.x <= bar.mark.end + NEARLY
    assert found.work is None or (found.work.x == 0 and within(found.work, 0, 100))
    places = [tick.x for tick in found.ticks]
    assert 2 <= len(places) <= 9 and places[0] == 0 and places == sorted(set(places)) and places[-1] <= 100 + NEARLY


@given(MIGRATIONS)
def test_timeline_downtime_only_for_completed(migrations: list[Migration]) -> None:
    bars = [bar for lane in drawn(*migrations).lanes for bar in lane.bars]
    wanted = sum(one.outcome is MigrationOutcome.COMPLETED and one.downtime_ms is not None for one in migrations)
    assert sum(bar.downtime is not None for bar in bars) == wanted
    assert all(bar.downtime is None for bar in bars if not bar.completed)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=8), SECONDS)
def test_timeline_bar_length_matches_duration(spans: list[tuple[float, float]], work: float) -> None:
    migrations = [moved(1, began, seconds) for began, seconds in spans]
    found = drawn(*migrations, worked=work)
    for bar, (began, seconds) in zip(found.lanes[0].bars, sorted(spans, key=lambda one: one[0]), strict=True):
        if 100 * seconds / found.seconds > MIN_BAR:
            assert bar.mark.x * found.seconds / 100 == pytest.approx(began, abs=1e-6 * found.seconds)
            assert bar.mark.width * found.seconds / 100 == pytest.approx(seconds, abs=1e-6 * found.seconds)


def test_timeline_downtime_at_end_of_bar() -> None:
    found = drawn(moved(1, 12, 6, 3000.0), moved(2, 30, 6, 1.0))
    (long,), (short,) = (lane.bars for lane in found.lanes)
    assert found.seconds == 60
    assert [long.mark.x, long.mark.width] == pytest.approx([20, 10])
    assert long.downtime and [long.downtime.x, long.downtime.width] == pytest.approx([25, 5])
    assert short.downtime and short.downtime.width == pytest.approx(MIN_MARK)
    assert short.downtime.end == pytest.approx(60)


def test_timeline_downtime_too_long_fills_bar() -> None:
    (bar,) = drawn(moved(1, 0, 6, 9000.0)).lanes[0].bars
    assert bar.downtime == Mark(bar.mark.x, bar.mark.width)


def test_timeline_directions_one_lane_each() -> None:
    found = drawn(*(moved(number, 5.0 * number, 2.0) for number in range(1, 6)))
    assert [(lane.name, lane.style, len(lane.bars)) for lane in found.lanes] == [
        ("node-a \u2192 node-b", "outbound", 3),
        ("node-b \u2192 node-a", "inbound", 2),
    ]
    assert found.lanes[0].y < found.lanes[1].y < found.height
    labels = [bar.label.text for lane in found.lanes for bar in lane.bars if bar.label]
    assert labels == ["1", "3", "5", "2", "4"]


def test_timeline_not_completed_sign_in_label() -> None:
    for outcome, sign in SIGNS.items():
        (bar,) = drawn(moved(7, 10, 2, outcome=outcome)).lanes[0].bars
        completed = outcome is MigrationOutcome.COMPLETED
        assert bar.completed is completed and bar.label
        assert bar.label.text == ("7" if completed else f"7 {sign}")
        assert str(outcome) in bar.title


def test_timeline_labels_never_overlap() -> None:
    found = drawn(*(moved(2 * number + 1, number / 4, 0.01, None) for number in range(100)))
    places = [bar.label.x for bar in found.lanes[0].bars if bar.label]
    assert 10 < len(places) < 100
    assert all(later - earlier > 2 for earlier, later in pairwise(places))


def test_timeline_edge_labels_inside() -> None:
    first, last = drawn(moved(1, 0, 0.1), moved(3, 59.9, 0.1)).lanes[0].bars
    assert first.label and last.label and (first.label.anchor, last.label.anchor) == ("start", "end")


def test_timeline_work_length_from_work_or_phase() -> None:
    longer = drawn(moved(1, 50, 30), worked=60)
    assert longer.seconds == 80 and longer.work and longer.work.width == pytest.approx(75)
    phase = timeline(Evidence(CELL, 1, "", migrations=(moved(1, 1, 2),), phases={"work": 8.0}))
    assert phase and phase.seconds == 8 and "8.00 s" in phase.work_name
    unknown = timeline(Evidence(CELL, 1, "", migrations=(moved(1, 1, 3),)))
    assert unknown and unknown.work is None and unknown.seconds == 4


def test_timeline_readback_migrations_left_out() -> None:
    task = moved(2, 1, 2, during="readback")
    assert timeline(Evidence(CELL, 1, "", migrations=(task,))) is None
    assert len(drawn(moved(1, 1, 2), task).lanes) == 1
    assert timeline(Evidence(CELL, 1, "")) is None


def test_timeline_sentence_names_each_migration() -> None:
    sentence = drawn(moved(1, 3, 2.5), moved(2, 9, 1, None, outcome=MigrationOutcome.REFUSED)).sentence
    assert sentence == (
        "Work of 60.0 s. Migrations 1: node-a \u2192 node-b completed, 2.50 s, downtime 400 ms, began at 3.00 s; "
        "2: node-b \u2192 node-a refused, 1.00 s, began at 9.00 s"
    )
    many = drawn(*(moved(number, number, 0.5) for number in range(1, 25)))
    assert many.sentence.endswith("; 4 more")
    assert description(moved(1, 0, 1, 1200.0)).endswith("downtime 1.2 s")

"""The canary: for how long nothing was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.canary import WRITE_MODES, Ack, Failed, Message, Received, Tick, longest_gap


def messages_at(
    times: Sequence[tuple[int, float]], message: Callable[[int], Message] = lambda ms: Tick(ms, 0, 0)
) -> list[Received]:
    return [Received(at, message(ms)) for ms, at in times]


STEPS = st.lists(st.integers(1, 3000), min_size=1, max_size=30)


def clock(steps: list[int]) -> list[int]:
    return [sum(steps[: number + 1]) for number in range(len(steps))]


@given(STEPS, st.floats(0, 10**6))
def test_longest_gap_constant_delay_guest_clock_gap(steps: list[int], late: float) -> None:
    times = clock(steps)
    gap = longest_gap(messages_at([(ms, ms / 1000 + late) for ms in times]))
    assert gap == pytest.approx(max(steps[1:], default=0) / 1000, abs=1e-6)


@given(STEPS, st.integers(1, 29), st.floats(0.001, 100))
def test_longest_gap_paused_guest_counts_in_full(steps: list[int], where: int, pause: float) -> None:
    times = clock(steps)
    if where >= len(times):
        return
    gap = longest_gap(messages_at([(ms, ms / 1000 + (pause if i >= where else 0)) for i, ms in enumerate(times)]))
    assert gap >= pause + steps[where] / 1000 - 1e-6
    assert gap <= pause + max(steps[1:]) / 1000 + 1e-6


@given(st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 50)), min_size=2, max_size=30))
def test_longest_gap_delayed_line_not_counted(lines: list[tuple[int, float]]) -> None:
    times = clock([step for step, _ in lines])
    # Lines come in order, so a late one holds up those behind it; the last one is in time.
    at, heard_at = 0.0, []
    for ms, (_, late) in zip(times[:-1], lines, strict=False):
        at = max(at, ms / 1000 + late)
        heard_at.append((ms, at))
    in_time = [(ms, min(at, times[-1] / 1000)) for ms, at in heard_at] + [(times[-1], times[-1] / 1000)]
    assert longest_gap(messages_at(in_time)) == pytest.approx(max(step for step, _ in lines[1:]) / 1000, abs=1e-6)


def ack(ms: int, write_mode: str = "fsync") -> Message:
    return Ack(write_mode, ms, ms)


def test_longest_gap_stalled_disk_counts_despite_ticks() -> None:
    ticks = messages_at([(ms, ms / 1000) for ms in range(0, 10_001, 200)])
    work = messages_at([(ms, ms / 1000) for ms in [*range(0, 4000, 20), *range(7000, 10_000, 20)]], ack)
    assert longest_gap(ticks) == pytest.approx(0.2)
    assert longest_gap([*ticks, *work]) == pytest.approx(7.0 - 3.98)


def test_longest_gap_endless_stall_until_last_tick() -> None:
    ticks = messages_at([(ms, ms / 1000) for ms in range(0, 10_001, 200)])
    work = messages_at([(ms, ms / 1000) for ms in range(0, 4000, 20)], ack)
    assert longest_gap([*ticks, *work]) == pytest.approx(10.0 - 3.98)
    failed = [Received(4.0, Failed(write_mode, 200, 5, "Input/output error")) for write_mode in WRITE_MODES]
    assert longest_gap([*ticks, *work, *failed]) == pytest.approx(0.2), "they are at their end, not in a gap"
    assert longest_gap([*ticks, *work, *failed[:2]]) == pytest.approx(10.0 - 3.98), "one of them hangs"


def test_longest_gap_of_single_signs_is_never_negative() -> None:
    tick, work = Received(1.0, Tick(1000, 0, 0)), Received(2.0, ack(2000))
    assert longest_gap([tick, work]) == 0.0, "work that went on after the last tick is no stall"
    assert longest_gap([work, Received(5.0, Tick(5000, 0, 0))]) == pytest.approx(3.0)


def test_longest_gap_repeated_line_ignored() -> None:
    messages = messages_at([(ms, ms / 1000) for ms in range(0, 2000, 200)])
    again = [Received(one.at + 60, one.message) for one in messages]
    assert longest_gap([*messages, *again]) == longest_gap([*again, *messages]) == longest_gap(messages)
    assert longest_gap([]) == longest_gap(messages[:1]) == 0.0

"""Progress says each phase once, and again only after a while."""

import itertools

import pytest

from harness.util import progress


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> tuple[progress.Progress, list[float]]:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return progress.Progress(), clock


def test_progress_same_phase_repeated_every_ten_seconds(said: tuple[progress.Progress, list[float]]) -> None:
    say, clock = said
    lines = []
    for second in range(25):
        clock[0] = float(second)
        lines.append(say.line(f"node image: unpacking ({second} s)"))
    assert [line for line in lines if line] == [f"  node image: unpacking ({n} s)" for n in (0, 10, 20)]


def test_progress_two_phases_in_turn_both_limited(said: tuple[progress.Progress, list[float]]) -> None:
    say, clock = said
    lines = []
    for second, who in itertools.product(range(5), ("node", "guest")):
        clock[0] = float(second)
        lines.append(say.line(f"{who} image: unpacking ({second} s)"))
    assert len([line for line in lines if line]) == 2


def test_progress_other_phase_at_once(said: tuple[progress.Progress, list[float]]) -> None:
    say, _ = said
    assert say.line("attach") and say.line("prepare")


def test_progress_waiting_seconds_one_phase(said: tuple[progress.Progress, list[float]]) -> None:
    say, _ = said
    assert say.line("waiting for a to boot, 1 s so far") and not say.line("waiting for a to boot, 2 s so far")


def test_progress_long_line_cut(said: tuple[progress.Progress, list[float]]) -> None:
    say, _ = said
    line = say.line("x" * 1000)
    assert line is not None and len(line) <= progress.WIDTH + 2

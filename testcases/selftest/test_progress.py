"""Progress says each phase once, and again only after a while."""

import itertools

import pytest

from harness.util import progress


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> tuple[progress.Progress, list[float]]:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return progress.Progress(), clock


def test_a_phase_that_goes_on_is_said_every_ten_seconds(said: tuple[progress.Progress, list[float]]) -> None:
    say, clock = said
    lines = []
    for second in range(25):
        clock[0] = float(second)
        lines.append(say.line(f"node image: unpacking ({second} s)"))
    assert [line for line in lines if line] == [f"  node image: unpacking ({n} s)" for n in (0, 10, 20)]


def test_two_that_speak_in_turns_are_both_kept_short(said: tuple[progress.Progress, list[float]]) -> None:
    say, clock = said
    lines = []
    for second, who in itertools.product(range(5), ("node", "guest")):
        clock[0] = float(second)
        lines.append(say.line(f"{who} image: unpacking ({second} s)"))
    assert len([line for line in lines if line]) == 2


def test_another_phase_is_said_at_once(said: tuple[progress.Progress, list[float]]) -> None:
    say, _ = said
    assert say.line("attach") and say.line("prepare")


def test_waiting_is_one_phase_however_long_it_lasts(said: tuple[progress.Progress, list[float]]) -> None:
    say, _ = said
    assert say.line("waiting for a to boot, 1 s so far") and not say.line("waiting for a to boot, 2 s so far")


def test_a_long_line_is_cut(said: tuple[progress.Progress, list[float]]) -> None:
    say, _ = said
    line = say.line("x" * 1000)
    assert line is not None and len(line) <= progress.WIDTH + 2

"""The handler of progress shows each phase once, and again only after a while."""

import itertools
import logging
import re

import pytest

from harness.util import logs, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which progress goes."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_progress_same_phase_repeated_every_ten_seconds(clock: list[float]) -> None:
    handler = progress.Progress()
    lines = []
    for second in range(25):
        clock[0] = float(second)
        lines.append(handler.line(f"node image: unpacking ({second} s)"))
    assert [line for line in lines if line] == [f"  node image: unpacking ({n} s)" for n in (0, 10, 20)]


def test_progress_two_phases_in_turn_both_limited(clock: list[float]) -> None:
    handler = progress.Progress()
    lines = []
    for second, who in itertools.product(range(5), ("node", "guest")):
        clock[0] = float(second)
        lines.append(handler.line(f"{who} image: unpacking ({second} s)"))
    assert len([line for line in lines if line]) == 2


def test_progress_other_phase_at_once(clock: list[float]) -> None:
    handler = progress.Progress()
    assert handler.line("attach") and handler.line("prepare")


def test_progress_waiting_seconds_one_phase(clock: list[float]) -> None:
    handler = progress.Progress()
    assert handler.line("waiting for a to boot, 1 s so far") and not handler.line("waiting for a to boot, 2 s so far")


def test_progress_long_line_cut(clock: list[float]) -> None:
    line = progress.Progress().line("x" * 1000)
    assert line is not None and len(line) <= progress.WIDTH + 2


def test_progress_handler_shows_records_of_its_logger_limited(clock: list[float]) -> None:
    shown: list[str] = []
    with logs.with_handler(logs.PROGRESS, progress.Progress(shown.append, clock=True)):
        for second in (0.0, 1.5, 11.0):
            clock[0] = second
            logs.progress("none-swap: attach 100%")
        logging.getLogger("harness.command").info("none of ours")
    logs.progress("nobody listens any more")
    assert shown == ["  [   0.0 s] none-swap: attach 100%", "  [  11.0 s] none-swap: attach 100%"]


def test_progress_handler_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.with_handler(logs.PROGRESS, progress.Progress()):
        logs.progress("starting the guest")
    assert capsys.readouterr() == ("", "  starting the guest\n")


def test_progress_handler_of_warnings_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    handler = progress.Progress()
    handler.setLevel(logging.WARNING)
    with logs.with_handler(logs.PROGRESS, handler):
        logs.progress("starting the guest")
        logging.getLogger(logs.PROGRESS).warning("no room")
    assert re.fullmatch(r"  no room\n", capsys.readouterr().err)

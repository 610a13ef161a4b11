"""Deadlines, and streams that are waited on from a cursor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from harness.errors import DeadlineError, LostNodeError, UsageError
from harness.remote.stream import LineStream
from harness.util.deadline import Deadline, poll


def soon(seconds: float = 5.0, what: str = "it") -> Deadline:
    return Deadline.after(seconds, what)


def past(what: str = "it") -> Deadline:
    return Deadline(what, time.monotonic() - 1, 7)


def is_line(wanted: str) -> Callable[[str], str | None]:
    return lambda line: line if line == wanted else None


# --------------------------------------------------------------------------- deadlines


def test_deadline_passed_error_names_what() -> None:
    deadline = soon(10, "the boot")
    first = deadline.left()
    assert 9 < deadline.left() <= first <= 10
    with pytest.raises(DeadlineError, match=r"^the boot did not happen within 7 s$"):
        past("the boot").left()


def test_deadline_sooner_never_later_than_parent() -> None:
    cell = soon(10, "the cell")
    step = cell.sooner(1, "the step")
    assert (step.what, step.seconds) == ("the step", 1) and step.at < cell.at
    assert cell.sooner(100, "a long step").at == cell.at
    with pytest.raises(DeadlineError):
        past().sooner(100, "a step").left()


def test_poll_later_answer_returned() -> None:
    answers = iter([None, None, 0])
    assert poll(lambda: next(answers), soon(), every=0.001) == 0, "0 and False are answers"


def test_poll_no_answer_asked_once_deadline_error() -> None:
    assert poll(lambda: "there", past()) == "there"
    with pytest.raises(DeadlineError, match="the disk did not happen within"):
        poll(lambda: None, soon(0.03, "the disk"), every=0.01)


def test_poll_sleep_bounded_by_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        poll(lambda: None, soon(0.05), every=60)
    assert time.monotonic() - began < 5


def test_poll_check_error_raised() -> None:
    def broken() -> None:
        raise LostNodeError("gone")

    with pytest.raises(LostNodeError, match="gone"):
        poll(broken, soon())


# --------------------------------------------------------------------------- streams


def filled(*lines: str) -> LineStream:
    stream = LineStream("events on nodea")
    for line in lines:
        stream.append(line)
    return stream


def test_line_stream_wait_older_lines_ignored() -> None:
    stream = filled("up", "down")
    cursor = stream.cursor()
    assert (cursor, stream.since(0), stream.since(cursor)) == (2, ["up", "down"], [])
    with pytest.raises(DeadlineError):
        stream.wait(is_line("up"), cursor, soon(0.02))
    stream.append("up")
    assert stream.wait(is_line("up"), cursor, past()) == ("up", 3), "what is there needs no time"


def test_line_stream_wait_line_after_cursor_found() -> None:
    stream = filled("old")
    cursor = stream.cursor()
    stream.append("start")
    stream.append("end")
    found, behind = stream.wait(is_line("start"), cursor, soon())
    assert (found, behind) == ("start", 2)
    assert stream.wait(is_line("end"), behind, soon()) == ("end", 3)


def test_line_stream_wait_each_line_once_in_order() -> None:
    stream = filled("a", "b", "c", "d")
    seen: list[str] = []
    stream.wait(lambda line: seen.append(line) or (line if line == "c" else None), 1, soon())
    assert seen == ["b", "c"]


def test_line_stream_wait_falsy_match_returned() -> None:
    assert filled("a").wait(lambda _: 0, 0, soon()) == (0, 1)


def test_line_stream_append_wakes_reader() -> None:
    stream = filled()
    timer = threading.Timer(0.02, stream.append, ["now"])
    timer.start()
    assert stream.wait(is_line("now"), 0, soon(30)) == ("now", 1)
    timer.join()


def test_line_stream_two_readers_same_line() -> None:
    stream = filled()
    found: list[str] = []
    readers = [
        threading.Thread(target=lambda: found.append(stream.wait(is_line("x"), 0, soon(30))[0])) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    stream.append("noise")
    stream.append("x")
    for reader in readers:
        reader.join(30)
    assert found == ["x", "x"]


def test_line_stream_wait_deadline_names_last_line() -> None:
    with pytest.raises(DeadlineError, match=r"the end did not happen .*\(last line of events on nodea: b\)"):
        filled("a", "b").wait(is_line("c"), 0, soon(0.02, "the end"))
    with pytest.raises(DeadlineError, match="last line of events on nodea: nothing"):
        filled().wait(is_line("c"), 0, soon(0.02))


def test_line_stream_end_wakes_reader_lost_node() -> None:
    stream = filled()
    timer = threading.Timer(0.02, stream.end, ["the connection was lost"])
    timer.start()
    with pytest.raises(LostNodeError, match="ended while waiting for the boot: the connection was lost"):
        stream.wait(is_line("x"), 0, soon(30, "the boot"))
    timer.join()


def test_line_stream_ended_earlier_lines_found_first_reason_kept() -> None:
    stream = filled("x")
    stream.end("first")
    stream.end("second")
    assert stream.wait(is_line("x"), 0, soon()) == ("x", 1)
    with pytest.raises(LostNodeError, match="first"):
        stream.wait(is_line("y"), 0, soon())


def test_line_stream_match_error_raised() -> None:
    stream = filled("x")

    def broken(_: str) -> None:
        raise ValueError("not a line")

    with pytest.raises(ValueError, match="not a line"):
        stream.wait(broken, 0, soon())
    stream.append("y")
    assert stream.wait(is_line("y"), 0, soon()) == ("y", 2), "and the stream lives on"


def test_line_stream_forgets_what_is_before_a_cursor_and_cursors_stay() -> None:
    stream = filled("a", "b", "c")
    cursor = stream.cursor()
    stream.append("d")
    stream.forget(2)
    assert (stream.since(0), stream.since(2), stream.since(cursor), stream.cursor()) == (
        ["c", "d"],
        ["c", "d"],
        ["d"],
        4,
    )
    assert stream.wait(is_line("d"), 0, past()) == ("d", 4), "who waits from before it begins with what there is"
    stream.forget(1)
    stream.forget(-5)
    assert stream.since(0) == ["c", "d"]
    stream.forget(99)
    assert (stream.since(0), stream.cursor()) == ([], 4)
    stream.append("e")
    assert stream.since(cursor) == ["e"] and stream.wait(is_line("e"), 4, past()) == ("e", 5)


def test_line_stream_sift_puts_in_what_it_makes_of_a_line() -> None:
    stream = LineStream("log", lambda line: () if line == "no" else (f"before {line}", line))
    for line in ("yes", "no"):
        stream.append(line)
    assert stream.since(0) == ["before yes", "yes"] and stream.cursor() == 2


# --------------------------------------------------------------------------- patience


def test_deadline_on_a_slow_machine_is_as_many_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "3.5")
    deadline = Deadline.after(100, "the end")
    assert deadline.seconds == 350 and 340 < deadline.left() <= 350
    assert deadline.sooner(10, "a step").seconds == 35
    assert deadline.sooner(1000, "a step").at == deadline.at


@pytest.mark.parametrize("named", ["0.5", "soon", "101", "nan", "-1"])
def test_deadline_with_a_patience_that_is_none_is_a_usage_error(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", named)
    with pytest.raises(UsageError, match=f"DRBD_HARNESS_PATIENCE is a number from 1 to 100, not '{named}'"):
        Deadline.after(1, "the end")

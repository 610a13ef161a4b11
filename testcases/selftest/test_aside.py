"""Work in a thread of its own: its result, its error, its end."""

from __future__ import annotations

import threading

import pytest

from harness.errors import DeadlineError, LostGuestError
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds, "the end of it")


def test_it_begins_at_once_and_its_result_is_handed_out() -> None:
    gate = threading.Event()
    begun = threading.Event()

    def work() -> int:
        begun.set()
        assert gate.wait(20)
        return 7

    task = BackgroundTask(work, "the work")
    assert begun.wait(20), "nobody asked for it"
    assert task.running and not task.ended(0.01)
    gate.set()
    assert task.result(soon()) == 7 and task.result(soon()) == 7
    assert task.ended(0) and not task.running


def test_a_result_that_says_nothing_is_one() -> None:
    assert BackgroundTask(lambda: None, "the work").result(soon()) is None


@pytest.mark.parametrize("error", [LostGuestError("gone"), ValueError("ours"), KeyboardInterrupt()])
def test_an_error_comes_out_where_the_result_is_asked_for(error: BaseException) -> None:
    def work() -> int:
        raise error

    task = BackgroundTask(work, "the work")
    assert task.ended(20), "an error is an end"
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            task.result(soon())
        assert caught.value is error


def test_what_goes_on_for_too_long_is_a_deadline_and_can_be_asked_again() -> None:
    gate = threading.Event()

    def work() -> str:
        assert gate.wait(20)
        return "late"

    task = BackgroundTask(work, "the migration to nodeb")
    with pytest.raises(DeadlineError, match="the migration to nodeb did not end within"):
        task.result(soon(0.02))
    gate.set()
    assert task.result(soon()) == "late"


def test_it_never_keeps_the_process_from_ending() -> None:
    gate = threading.Event()
    task = BackgroundTask(lambda: gate.wait(20), "the one that goes on")
    found = next(thread for thread in threading.enumerate() if thread.name == "the one that goes on")
    assert found.daemon
    gate.set()
    assert task.ended(20)

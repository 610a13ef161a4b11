"""Work in a thread of its own: its result, its error, its end."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from harness.errors import DeadlineError, LostGuestError
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline


def soon(seconds: float = 20.0) -> Deadline:
    return Deadline.after(seconds, "the end of it")


def test_background_task_begins_at_once_result_returned() -> None:
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


def test_background_task_none_result_returned() -> None:
    assert BackgroundTask(lambda: None, "the work").result(soon()) is None


@pytest.mark.parametrize("error", [LostGuestError("gone"), ValueError("ours"), KeyboardInterrupt()])
def test_background_task_error_raised_by_result(error: BaseException) -> None:
    def work() -> int:
        raise error

    task = BackgroundTask(work, "the work")
    assert task.ended(20), "an error is an end"
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            task.result(soon())
        assert caught.value is error


def test_background_task_too_long_deadline_then_result() -> None:
    gate = threading.Event()

    def work() -> str:
        assert gate.wait(20)
        return "late"

    task = BackgroundTask(work, "the migration to nodeb")
    with pytest.raises(DeadlineError, match="the migration to nodeb did not end within"):
        task.result(soon(0.02))
    gate.set()
    assert task.result(soon()) == "late"


def test_background_task_that_has_ended_has_its_result_when_the_deadline_is_over() -> None:
    task = BackgroundTask(lambda: 7, "the migration to nodeb")
    assert task.ended(20)
    assert task.result(Deadline("it", time.monotonic() - 1, 0.25)) == 7


def test_background_task_running_process_ends() -> None:
    gate = threading.Event()
    task = BackgroundTask(lambda: gate.wait(20), "the one that goes on")
    found = next(thread for thread in threading.enumerate() if thread.name == "the one that goes on")
    assert found.daemon
    gate.set()
    assert task.ended(20)


def test_background_task_wait_interrupted_is_running_and_has_its_result_later() -> None:
    gate = threading.Event()
    task = BackgroundTask(lambda: gate.wait(20), "the work")

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            task.ended(10)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert task.running and not task.ended(0.01), "whoever waits for it again must not take it for ended"
    gate.set()
    assert task.result(soon()) is True

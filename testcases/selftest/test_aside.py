"""Work in a thread of its own: its result, its error, its end."""

from __future__ import annotations

import threading

import pytest

from harness.errors import DeadlineError, LostGuestError
from harness.util.background import Aside
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

    aside = Aside(work, "the work")
    assert begun.wait(20), "nobody asked for it"
    assert aside.running and not aside.ended(0.01)
    gate.set()
    assert aside.result(soon()) == 7 and aside.result(soon()) == 7
    assert aside.ended(0) and not aside.running


def test_a_result_that_says_nothing_is_one() -> None:
    assert Aside(lambda: None, "the work").result(soon()) is None


@pytest.mark.parametrize("trouble", [LostGuestError("gone"), ValueError("ours"), KeyboardInterrupt()])
def test_an_error_comes_out_where_the_result_is_asked_for(trouble: BaseException) -> None:
    def work() -> int:
        raise trouble

    aside = Aside(work, "the work")
    assert aside.ended(20), "an error is an end"
    for _ in range(2):
        with pytest.raises(type(trouble)) as caught:
            aside.result(soon())
        assert caught.value is trouble


def test_what_goes_on_for_too_long_is_a_deadline_and_can_be_asked_again() -> None:
    gate = threading.Event()

    def work() -> str:
        assert gate.wait(20)
        return "late"

    aside = Aside(work, "the migration to nodeb")
    with pytest.raises(DeadlineError, match="the migration to nodeb did not end within"):
        aside.result(soon(0.02))
    gate.set()
    assert aside.result(soon()) == "late"


def test_it_never_keeps_the_process_from_ending() -> None:
    gate = threading.Event()
    aside = Aside(lambda: gate.wait(20), "the one that goes on")
    found = next(thread for thread in threading.enumerate() if thread.name == "the one that goes on")
    assert found.daemon
    gate.set()
    assert aside.ended(20)

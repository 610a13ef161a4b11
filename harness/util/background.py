"""Work that goes on in a thread of its own while this one does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from harness.errors import DeadlineError
from harness.util.deadline import Deadline

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """Begins ``work`` at once.  The thread is a daemon: it never keeps the process from ending.

    Its end is an event of its own: a :meth:`threading.Thread.join` that Ctrl-C interrupts calls the thread ended from
    then on, whether it is or not (seen with Python 3.11).
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._name = name
        self._found: list[T] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error
        finally:
            self._ended.set()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    def ended(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for its end; whether it came."""
        return self._ended.wait(seconds)

    def result(self, deadline: Deadline) -> T:
        """What ``work`` returned; what it raised is raised here, :class:`DeadlineError` when it goes on for longer."""
        # One that has ended has its result, however late it is asked for it.
        if self.running and not self.ended(deadline.left()):
            raise DeadlineError(f"{self._name} did not end within {deadline.seconds:.0f} s")
        if self._error is not None:
            raise self._error
        return self._found[0]

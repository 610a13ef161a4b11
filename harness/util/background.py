"""Work that goes on in a thread of its own while this one does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from harness.errors import DeadlineError
from harness.util.deadline import Deadline

T = TypeVar("T")


class BackgroundTask(Generic[T]):
    """Begins ``work`` at once.  The thread is a daemon: it never keeps the process from ending."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._found: list[T] = []
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._trouble = error

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def ended(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for its end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self, deadline: Deadline) -> T:
        """What it found, or the error it ended with; :class:`DeadlineError` when it goes on for longer."""
        if not self.ended(deadline.left()):
            raise DeadlineError(f"{self._thread.name} did not end within {deadline.seconds:.0f} s")
        if self._trouble is not None:
            raise self._trouble
        return self._found[0]

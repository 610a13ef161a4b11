"""A growing text, line by line, that is waited on from a cursor.

Take a cursor, give the command, wait from the cursor: nothing that happens between the command and the wait is
lost, and nothing older is mistaken for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from harness.errors import DeadlineError, LostNodeError
from harness.util.deadline import Deadline

T = TypeVar("T")


class LineStream:
    """Lines that one thread appends; any number of threads may wait on it.

    ``sift`` says of each line, in order, what of it belongs to the stream; without one it is the line.  Cursors count
    from the first line that there ever was; see :meth:`forget`.
    """

    def __init__(self, name: str, sift: Callable[[str], Iterable[str]] | None = None) -> None:
        self.name = name
        self._sift = sift
        self._lines: list[str] = []
        self._forgotten = 0
        self._ended: str | None = None
        self._grown = threading.Condition()

    def append(self, line: str) -> None:
        """Add one line (without its newline), or what is sifted out of it, and wake the readers."""
        with self._grown:
            self._lines.extend(self._sift(line) if self._sift is not None else (line,))
            self._grown.notify_all()

    def forget(self, cursor: int) -> None:
        """Keep nothing before ``cursor``, which nobody asks for any more; cursors stay what they are."""
        with self._grown:
            gone = max(0, min(cursor - self._forgotten, len(self._lines)))
            del self._lines[:gone]
            self._forgotten += gone

    def end(self, why: str) -> None:
        """Mark that nothing will follow; waiting readers get :class:`LostNodeError`."""
        with self._grown:
            self._ended = self._ended or why
            self._grown.notify_all()

    @property
    def ended(self) -> str | None:
        """Why nothing will follow; None while something may."""
        with self._grown:
            return self._ended

    def cursor(self) -> int:
        """The position behind the newest line."""
        with self._grown:
            return self._forgotten + len(self._lines)

    def since(self, cursor: int) -> list[str]:
        """All lines from ``cursor`` on, or from the first that is not forgotten."""
        with self._grown:
            return self._lines[max(0, cursor - self._forgotten) :]

    def wait(self, match: Callable[[str], T | None], cursor: int, deadline: Deadline) -> tuple[T, int]:
        """The first non-None answer of ``match`` to a line at or behind ``cursor``, and the cursor behind that line.

        Blocks until ``deadline``, then :class:`DeadlineError` with the last line; :class:`LostNodeError` when the
        stream ended.
        """
        position = cursor
        with self._grown:
            while True:
                position = max(position, self._forgotten)
                while position - self._forgotten < len(self._lines):
                    found = match(self._lines[position - self._forgotten])
                    position += 1
                    if found is not None:
                        return found, position
                if self._ended is not None:
                    raise LostNodeError(f"{self.name} ended while waiting for {deadline.what}: {self._ended}")
                try:
                    self._grown.wait(deadline.left())
                except DeadlineError as late:
                    last = self._lines[-1] if self._lines else "nothing"
                    raise DeadlineError(f"{late} (last line of {self.name}: {last})") from None

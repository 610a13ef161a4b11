"""Progress for people: a handler of ``harness.progress`` that shows a phase once, and again while it lasts."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable

REPEAT_SECONDS = 10.0
WIDTH = 160

_ELAPSED = re.compile(r"[,(]? ?\(?\d+ s( so far)?\)?$")


def to_stderr(line: str) -> None:
    """Print ``line`` on standard error."""
    print(line, file=sys.stderr, flush=True)


class Progress(logging.Handler):
    """Shows records with ``write``, as often as they come; ``clock`` puts the seconds since its making in front."""

    def __init__(self, write: Callable[[str], None] = to_stderr, *, clock: bool = False) -> None:
        super().__init__()
        self._write = write
        self._began = time.monotonic()
        self._clock = clock
        self._shown_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show it, unless its phase was shown a moment ago; :mod:`logging` calls this under the handler's lock."""
        line = self.line(record.getMessage())
        if line is not None:
            self._write(line)

    def line(self, text: str) -> str | None:
        """The line to show for ``text``, or None when its phase was shown a moment ago."""
        now = time.monotonic()
        phase = _ELAPSED.sub("", text)
        # By phase, since two things may be going on at once and take turns.
        if now - self._shown_at.get(phase, float("-inf")) < REPEAT_SECONDS:
            return None
        self._shown_at[phase] = now
        text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
        return f"  [{now - self._began:6.1f} s] {text}" if self._clock else f"  {text}"

"""Progress for people: every phase is said once, and again every ten seconds while it lasts."""

from __future__ import annotations

import re
import sys
import time

REPEAT_SECONDS = 10.0
WIDTH = 160

_ELAPSED = re.compile(r"[,(]? ?\(?\d+ s( so far)?\)?$")


class Progress:
    """Call it with what is going on, as often as you like; ``clock`` puts the seconds since its making in front."""

    def __init__(self, *, clock: bool = False) -> None:
        self._began = time.monotonic()
        self._clock = clock
        self._said: dict[str, float] = {}

    def line(self, what: str) -> str | None:
        """The line to print for ``what``, or None when it was said a moment ago."""
        now = time.monotonic()
        phase = _ELAPSED.sub("", what)
        # By phase, since two things may be going on at once and speak in turns.
        if now - self._said.get(phase, float("-inf")) < REPEAT_SECONDS:
            return None
        self._said[phase] = now
        text = what if len(what) <= WIDTH else what[: WIDTH - 1] + "…"
        return f"  [{now - self._began:6.1f} s] {text}" if self._clock else f"  {text}"

    def __call__(self, what: str) -> None:
        """Print it on standard error, unless it was said a moment ago."""
        line = self.line(what)
        if line is not None:
            print(line, file=sys.stderr, flush=True)

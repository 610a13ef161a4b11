"""A deadline as a value: made once, handed down to everything that waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import DeadlineError, UsageError

T = TypeVar("T")

PATIENCE = "DRBD_HARNESS_PATIENCE"
"""For a machine on which everything is slow, emulation within emulation say: the factor of every deadline."""


def patience() -> float:
    """How many times as long as usual everything may take: 1, or what the environment says.

    :class:`UsageError` where that is no number from 1 to 100.
    """
    named = os.environ.get(PATIENCE) or "1"
    try:
        factor = float(named)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 100:
        raise UsageError(f"{PATIENCE} is a number from 1 to 100, not '{named}'")
    return factor


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock by which something must have happened.

    ``what`` names the thing for the error message; ``at`` is in seconds of :func:`time.monotonic`.
    """

    what: str
    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float, what: str) -> Deadline:
        """The deadline ``seconds`` from now, times the :func:`patience`."""
        seconds *= patience()
        return cls(what, time.monotonic() + seconds, seconds)

    def left(self) -> float:
        """Seconds left; raises :class:`DeadlineError` when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"{self.what} did not happen within {self.seconds:.0f} s")
        return left

    def sooner(self, seconds: float, what: str) -> Deadline:
        """A deadline for one step: ``seconds`` from now, times the :func:`patience`, or this one if that is earlier."""
        seconds *= patience()
        at = min(self.at, time.monotonic() + seconds)
        return Deadline(what, at, seconds)


def poll(check: Callable[[], T | None], deadline: Deadline, *, every: float = 0.2) -> T:
    """Ask ``check`` until it answers something other than None, for facts that announce themselves to nobody.

    Where an event or a stream exists, wait on that instead.  ``every`` is in seconds.
    """
    while True:
        found = check()
        if found is not None:
            return found
        time.sleep(min(every, deadline.left()))

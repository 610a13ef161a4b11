"""A polite end for every way of being asked to stop."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType


def stop_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C does, so that whatever was brought up is taken down."""
    for asked in (signal.SIGTERM, signal.SIGHUP):
        # Only the main thread may; anywhere else its handlers stay as they are.
        with contextlib.suppress(ValueError):
            if signal.getsignal(asked) is not signal.SIG_IGN:
                signal.signal(asked, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""While the program is being loaded: what ends it then ends it in one sentence, for nothing runs yet."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from harness.util.standard_streams import usable_columns

#: The one command whose exit codes are another's: to git, what is below 128 says something of a version.
STEP = "bisect-step"
_NO_ANSWER = 2


def no_answer() -> int:
    """The exit code of a program that could not be loaded, or not to the end."""
    return 128 + _NO_ANSWER if sys.argv[1:2] == [STEP] else _NO_ANSWER


@contextmanager
def loading() -> Iterator[None]:
    """Around imports: Ctrl-C and a polite end, and a processor that NumPy finds to lack something, are one sentence.

    NumPy does not start on many a virtual machine's, whose type leaves out what every real one has.
    """
    usable_columns()
    before = {}
    with suppress(ValueError):  # Not in the main thread: there it stays as it is.
        for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(asked) in (signal.SIG_DFL, signal.default_int_handler):
                before[asked] = signal.signal(asked, _end)
    try:
        yield
    except RuntimeError as error:
        if "baseline optimizations" not in str(error):
            raise
        print(
            "drbd-harness: this processor lacks what NumPy is built for (x86-64-v2); in a virtual machine choose a CPU "
            "type that has it, such as 'host', or 'x86-64-v2-AES' on Proxmox VE",
            file=sys.stderr,
        )
        sys.exit(no_answer())
    finally:
        for asked, was in before.items():
            signal.signal(asked, was)


def _end(_signal: int, _frame: FrameType | None) -> None:
    # No exception: half-loaded modules make another one of it, with a traceback.
    with suppress(OSError):
        os.write(2, b"drbd-harness: interrupted\n")
    os._exit(no_answer())

"""What ``qemu-io`` prints of its writes (:mod:`harness.render.qemu_io`), and what follows from how long they took."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.model.acknowledgement import DELAY_SECONDS, OFFSETS

# "wrote 4096/4096 bytes at offset 65536", then "4 KiB, 1 ops; 00.40 sec (9.970 KiB/sec and 2.4924 ops/sec)",
# or "... 0:00:01.50 (2.6 KiB/sec ..." from one second on.  In the order in which they were acknowledged.
_TOOK = re.compile(
    r"^wrote \d+/\d+ bytes at offset (\d+)\n\S+ \S+, 1 ops; (?:(\d+):(\d+):)?(\d+\.\d+)(?: sec)? \(", re.MULTILINE
)
_VERSION = re.compile(r"version (\d+(?:\.\d+)+)")


def durations(output: str, offsets: Sequence[int] = OFFSETS) -> tuple[float, ...]:
    """From qemu-io's ``output``: how long each write, by its offset, took until it was acknowledged, in s.

    Fewer where the output does not report all of them.
    """
    found = {
        int(offset): int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        for offset, hours, minutes, seconds in (match.groups("0") for match in _TOOK.finditer(output))
    }
    return tuple(found[offset] for offset in offsets if offset in found)


def unflushed(took: Sequence[float], delay: float = DELAY_SECONDS) -> tuple[int, ...]:
    """Which of the writes were acknowledged before a flush of theirs can have ended.

    qemu-io reports hundredths of a second.
    """
    return tuple(number for number, seconds in enumerate(took) if seconds < delay - 0.01)


def version(text: str) -> str:
    """The version that a program of QEMU's names, such as ``10.0.13``; empty where it names none."""
    found = _VERSION.search(text)
    return found[1] if found else ""

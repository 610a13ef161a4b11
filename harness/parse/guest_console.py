"""A Linux guest's serial console: the lines that report an error, and the last ones."""

from __future__ import annotations

import re
from collections import Counter

from harness.parse.kernel_log import is_error

# A terminal's sequences: with parameters, with a text (a title), and the short ones.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# printk's time may stand in the middle of a line, behind a prompt.
_BREAK = re.compile(r"[\r\n]+|\[ *\d+\.\d{6}\](?:\[ *[CT]\d+\])? ?", re.ASCII)

# What a guest's kernel reports of its memory, filesystems and processes, beyond what `is_error` knows of any kernel.
_GUEST = re.compile(
    r"\b[Uu]nable to handle\b|\bhung task\b|\bkthread starved for\b|\bcritical (?:\w+ ){1,3}error, dev\b"
    r"|\bEXT4-fs .*\bRemounting filesystem read-only\b|\bJBD2: (?:Detected IO errors|Error )|\bAborting journal\b"
    r"|\bXFS \(\S+\): .*\b[Cc]orruption\b|\bBTRFS:? (?:error|critical)\b|\bBTRFS.*\bcsum failed\b"
    r"|\bsegfault at\b|\btraps: .* trap\b|\b[Oo]ut of memory\b|\boom-kill:"
    r"|\b(?:Read|Write)-error on swap-device\b|\b(?:Bad|Unused) swap (?:file|offset) entry\b",
    re.ASCII,
)


def error_lines(console: str) -> tuple[str, ...]:
    """The lines of ``console`` that report an error of the guest's kernel, memory, disks or processes.

    In the order in which they first came, without printk's time and without a terminal's sequences.  Each text stands
    once, with a count behind it if it came more often, e.g. ``(5 times)``.
    """
    plain = _CONTROL.sub("", _ANSI.sub("", console))
    counts = Counter(text for piece in _BREAK.split(plain) if _is_console_error(text := piece.strip()))
    return tuple(f"{text} ({count} times)" if count > 1 else text for text, count in counts.items())


def last_lines(console: str, count: int) -> tuple[str, ...]:
    """The last ``count`` lines with anything on them, without a terminal's sequences."""
    lines = _CONTROL.sub("", _ANSI.sub("\n", console.replace("\r", "\n"))).splitlines()
    return tuple([line.strip() for line in lines if line.strip()][-count:])


def _is_console_error(text: str) -> bool:
    return is_error(text) or _GUEST.search(text) is not None

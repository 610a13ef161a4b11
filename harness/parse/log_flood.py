"""A kernel log that is bounded: a kind of line that comes again and again is left out from some number on, and counted.

DRBD can log thousands of lines a second that say the same (LINBIT/drbd#137).  What an oracle reads is never left out as
a repetition; where even of that there is more than can be kept, it shows as a hole in the log, which is no answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from harness.parse.kernel_log import LEFT_OUT, bears_on_oracles, message, record_number

#: How many lines of one kind are kept from one :meth:`LogSift.begin` to the next.
KEPT_OF_A_KIND = 1000
#: How many lines are kept in all; a verify of some GiB in which each block is another has no more.
MOST_LINES = 500_000
#: How many lines of one kind of error the evidence has.
SHOWN_OF_A_KIND = 20
# More kinds than any log has by itself: what comes beyond them is one kind.
_MOST_KINDS = 5000
_NUMBERS = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b|\d+", re.ASCII)
_SHOWN = 120


def kind_of(text: str) -> str:
    """What lines that say the same have in common: the text without its numbers."""
    return _NUMBERS.sub("#", text)


def some_of_each_kind(lines: Iterable[str], most: int = SHOWN_OF_A_KIND) -> tuple[str, ...]:
    """The first ``most`` of each kind of ``lines`` in their order, and how many more there were of it behind them."""
    kept, kinds, first = [], Counter[str](), dict[str, str]()
    for line in lines:
        kind = kind_of(line)
        kinds[kind] += 1
        first.setdefault(kind, line)
        if kinds[kind] <= most:
            kept.append(line)
    more = (f"{count - most} more like: {first[kind]}" for kind, count in kinds.items() if count > most)
    return (*kept, *more)


class LogSift:
    """Which lines of ``/dev/kmsg`` are kept, in the order they come; for one thread.

    A log that was opened again begins with records that came already: each is kept once.  In the place of lines that
    were left out as repetitions stands one that counts them (:data:`~harness.parse.kernel_log.LEFT_OUT`).
    """

    def __init__(self) -> None:
        self._last = -1
        # Whether the record that the lines of a dictionary belong to was kept.
        self._kept = True
        self._kinds: Counter[str] = Counter()
        self._lines = 0
        self._left_out = 0
        self._example = ""

    def begin(self) -> None:
        """Count anew: what was kept so far is not kept in memory any more."""
        self._kinds.clear()
        self._lines = 0

    def __call__(self, line: str) -> Iterator[str]:
        """What is to be kept where ``line`` came: nothing, the line, or a count of what was left out and the line."""
        if not line:
            return
        # The lines of a record's dictionary follow it and begin with a space.
        number = record_number(line)
        if number is None:
            if self._kept:
                yield line
            return
        self._kept = False
        if number <= self._last:
            return
        self._last = number
        text = message(line)
        if self._lines >= MOST_LINES and not _is_marker(text):
            # It may have been something that an oracle reads: its number is missing in the log.
            return
        if self._repeats(text):
            self._left_out += 1
            self._example = self._example or text
            return
        self._kept = True
        if self._left_out:
            self._lines += 1
            yield f"{LEFT_OUT} {self._left_out}, such as: {self._example[:_SHOWN]}"
            self._left_out, self._example = 0, ""
        self._lines += 1
        yield line

    def _repeats(self, text: str) -> bool:
        if bears_on_oracles(text) or _is_marker(text):
            return False
        kind = kind_of(text)
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = ""
        self._kinds[kind] += 1
        return self._kinds[kind] > KEPT_OF_A_KIND


def _is_marker(text: str) -> bool:
    """Whether the harness wrote it itself: somebody waits for it."""
    return text.startswith("drbd-harness: ")

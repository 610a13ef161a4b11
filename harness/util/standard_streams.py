"""Standard input, output and error as a command can rely on them, whatever it was started with."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from harness.errors import OutputError

_OUT, _ERR = 1, 2
# Of a width in columns.
_MOST_DIGITS = 4
# What has the buffer protocol; its name, collections.abc.Buffer, comes with Python 3.12.
_Buffer = Any


def make_usable() -> None:
    """Open what is closed, on nothing, and let printing fail in one way only: with an :class:`OutputError`.

    What cannot be written to standard error is lost, for there is nobody to tell.  Streams that somebody put in the
    place of the process's own stay as they are.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _ERR:
        os.set_inheritable(opened, True)
    os.close(opened)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _text(sys.stdout, _Output(_OUT))
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _text(sys.stderr, _Errors(_ERR), at_once=True)


def usable_columns() -> None:
    """Forget COLUMNS where it is no terminal's width: in 0 columns rich prints nothing, and of a line of thousands of
    millions it makes every blank.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and not 1 <= len(columns.lstrip("0")) <= _MOST_DIGITS:
        del os.environ["COLUMNS"]


class Lossy:
    """A stream of text that loses what cannot be written, because nobody reads it or there is no room for it; all else
    of it is ``stream``'s.

    For what has to be brought to its end whether or not somebody still looks on.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream does; never an error of the system's."""
        with self._losing():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream does; never an error of the system's."""
        with self._losing():
            self._stream.flush()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OutputError):
            with contextlib.suppress(OSError, OutputError, ValueError):
                _lead_nowhere(self._stream.fileno())
                # What it still holds goes there too, and not to whoever flushes it last.
                self._stream.flush()


def give_up_output() -> None:
    """What is printed from now on, and what was not written yet, goes nowhere."""
    _lead_nowhere(_OUT)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Output(io.FileIO):
    """Standard output."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: _Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.strerror or str(error), nobody_reads=error.errno == errno.EPIPE) from error


class _Errors(_Output):
    """Standard error."""

    def write(self, data: _Buffer, /) -> int:
        try:
            return super().write(data)
        except OutputError:
            return memoryview(data).nbytes


def _text(before: TextIO | None, raw: io.FileIO, *, at_once: bool = False) -> TextIO:
    """``raw`` as text in the encoding of ``before``; a sign that this lacks is written as its number."""
    was = before if isinstance(before, io.TextIOWrapper) else None
    if was is not None:
        was.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=was.encoding if was is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=at_once or was is None or was.line_buffering or was.write_through,
    )

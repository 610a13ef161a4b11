"""What the harness did, through :mod:`logging`: what ran where, what was going on, and the files that keep it.

Every logger is named ``harness.<room>``.  ``harness.command`` has one record for each command on any machine,
``harness.libvirt`` one for each call that changes something, ``harness.connection`` one for each connection that is
made: they go to ``commands.log``.  ``harness.progress`` has the lines for people; it and all others go to
``harness.log``.  Without :func:`kept` nothing is written anywhere.

A line of ``commands.log`` has these columns, with a tab between them; it is written when the command has ended:
time (ISO 8601, UTC), kind (``command``, ``libvirt``, ``connection``), lab (``-`` for none), host (``controller``, a
node, ``guest``), status (a number, ``ok``, or the error: ``deadline``, ``lost-node``, ``lost-guest``), seconds, the
command as a shell would take it, and for an error its message.  Standard input is never in it, nor is DRBD's shared
secret.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import CommandError
from harness.util.paths import make
from harness.util.redact import redacted

ROOT = "harness"
PROGRESS = "harness.progress"
#: The host of what is done on this machine.
CONTROLLER = "controller"
#: Its warnings, and the errors of its own threads, are kept too.
SSH_LIBRARY = "paramiko"
COMMANDS_FILE = "commands.log"
OTHERS_FILE = "harness.log"
#: Longer commands are cut in the log; the scripts of the harness itself have up to some 800 characters.
COMMAND_CHARACTERS = 2000
MESSAGE_CHARACTERS = 500
#: How many folders of logs :func:`kept_below` leaves.
FOLDERS = 20

_COMMANDS = frozenset(f"{ROOT}.{kind}" for kind in ("command", "libvirt", "connection"))
_ESCAPES = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\t": r"\t", "\r": r"\r"}

# A library that nobody listens to is silent, warnings too.
logging.getLogger(ROOT).addHandler(logging.NullHandler())


def progress(text: str) -> None:
    """One line about what is going on, for people."""
    logging.getLogger(PROGRESS).info("%s", text)


# --------------------------------------------------------------------------- what ran


@dataclass
class Outcome:
    """How something that is logged ended: a command's status, or ``ok``; an error that is raised says it by itself."""

    status: int | str = "ok"


@contextlib.contextmanager
def command(host: str, argv: Sequence[object], lab: str = "") -> Iterator[Outcome]:
    """Log the command that runs in this context; the caller sets the status of the :class:`Outcome`."""
    with timed("command", host, quoted(argv), lab) as outcome:
        yield outcome


@contextlib.contextmanager
def timed(kind: str, host: str, text: str, lab: str = "") -> Iterator[Outcome]:
    """Log what happens in this context to ``harness.<kind>`` when it is over, with its seconds and how it ended.

    ``text`` is one line, such as ``attachDeviceFlags cell-7``.  An error goes on to the caller.
    """
    began = time.monotonic()
    outcome, message = Outcome(), ""
    try:
        yield outcome
    except BaseException as error:
        outcome.status, message = error_name(error), str(error)
        raise
    finally:
        record(kind, host, text, outcome.status, time.monotonic() - began, lab, message)


def record(
    kind: str, host: str, text: str, status: int | str, seconds: float, lab: str = "", message: str = ""
) -> None:
    """Log one thing that was done to ``host``: the columns of ``commands.log`` but for its time."""
    columns = [lab or "-", host, str(status), f"{seconds:.3f}", _cut(one_line(redacted(text)), COMMAND_CHARACTERS)]
    if message:
        columns.append(_cut(one_line(redacted(message)), MESSAGE_CHARACTERS))
    logging.getLogger(f"{ROOT}.{kind}").info("%s", "\t".join(columns))


def error_name(error: BaseException) -> str:
    """The error in the status column: ``deadline``, ``lost-node``, ...; the status of a command that has one."""
    if isinstance(error, CommandError):
        return str(error.status)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()


def quoted(argv: Sequence[object]) -> str:
    """``argv`` as one line that a shell takes: quoted as :mod:`shlex` does, what is not printable as ``$'...'``."""
    return " ".join(_quoted(str(argument)) for argument in argv)


def one_line(text: str) -> str:
    """``text`` with every newline, tab and other character that is not printable escaped."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _quoted(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    return f"$'{''.join(_ESCAPES.get(character) or _escaped(character) for character in argument)}'"


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    # A byte that is no text came from the system as one of these surrogates, and goes out as that byte.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return _ESCAPES.get(character) or "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}... ({len(text)} characters)"


# --------------------------------------------------------------------------- the files


@contextlib.contextmanager
def kept(directory: Path) -> Iterator[None]:
    """Append every record to ``commands.log`` or ``harness.log`` in ``directory`` while this context lasts.

    A file that cannot be written, on a full disk for example, is one warning and no error.
    """
    commands = LineFile(directory / COMMANDS_FILE, _command_line)
    commands.addFilter(_is_command)
    others = LineFile(directory / OTHERS_FILE, _other_line)
    others.addFilter(lambda one: not _is_command(one))
    with with_handler(ROOT, commands), with_handler(ROOT, others), with_handler(SSH_LIBRARY, others, logging.WARNING):
        yield


@contextlib.contextmanager
def kept_below(directory: Path, what: str) -> Iterator[None]:
    """As :func:`kept`, in a new folder below ``directory``, named after the time (UTC), ``what`` and the process.

    Of such folders the newest :data:`FOLDERS` stay; one with nothing in it goes at once.
    """
    folder = directory / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{what}-{os.getpid()}"
    with contextlib.suppress(OSError):  # what cannot be made cannot be written to either, and that is a warning
        make(folder)
        for old in sorted(path for path in directory.iterdir() if path.is_dir())[:-FOLDERS]:
            shutil.rmtree(old, ignore_errors=True)
    try:
        with kept(folder):
            yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def with_handler(name: str, handler: logging.Handler, level: int = logging.DEBUG) -> Iterator[None]:
    """Give the logger ``name`` that handler, and let all from ``level`` on through to it, while this context lasts."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.addHandler(handler)
    if not logger.isEnabledFor(level):
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()


class LineFile(logging.Handler):
    """Appends one line for each record, at once, so that a process that is killed has left what it did.

    ``line`` makes the line.  What cannot be written is missing: the first time is a warning to ``harness.progress``.
    """

    def __init__(self, path: Path, line: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._path = path
        self._line = line
        self._file: int | None = None
        self._unfinished = False
        self._warned = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; :mod:`logging` calls this under the handler's lock."""
        try:
            self._append(f"{self._line(record)}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._warn(error)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted: reported as logging reports it
            self.handleError(record)

    def close(self) -> None:
        """Close the file."""
        self.acquire()
        try:
            if self._file is not None:
                os.close(self._file)
                self._file = None
        finally:
            self.release()
        super().close()

    def _append(self, line: bytes) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            self._unfinished = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        if self._unfinished:
            line = b"\n" + line
        written = os.write(self._file, line)
        self._unfinished = written < len(line)
        if self._unfinished:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logging.getLogger(PROGRESS).warning(
                "%s cannot be written (%s): the run goes on, and lines are missing from it", self._path, error.strerror
            )


def _is_command(one: logging.LogRecord) -> bool:
    return one.name in _COMMANDS


def _command_line(one: logging.LogRecord) -> str:
    return f"{_time(one)}\t{one.name.rpartition('.')[2]}\t{one.getMessage()}"


def _other_line(one: logging.LogRecord) -> str:
    text = one.getMessage()
    if one.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(one.exc_info)}"
    return f"{_time(one)}\t{one.levelname}\t{one.name}\t{one_line(text)}"


def _time(one: logging.LogRecord) -> str:
    return datetime.fromtimestamp(one.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

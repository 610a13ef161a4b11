"""Files that are there to be read: what somebody else put in their place is not waited for, and no end is an end.

A pipe that nobody writes into is read for ever, a device may have no end, and some do something when they are opened.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedIOBase, BufferedReader
from pathlib import Path

#: The most that is read of a file which a person or a program of theirs wrote, such as a matrix; and of one of a run's.
MOST_WRITTEN_BYTES = 16 * 2**20
MOST_STORED_BYTES = 2**28
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_file(path: Path) -> BufferedReader:
    """The file ``path``, open; ``OSError`` for what is none, with the end of a sentence as its ``strerror``.

    Does not block.
    """
    _must_be_a_file(path, path.stat().st_mode)
    # It may have been changed for another meanwhile, and then opening a pipe would wait.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _must_be_a_file(path, os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: Path, most: int = MOST_WRITTEN_BYTES) -> bytes:
    """What is in the file ``path``; ``OSError`` as :func:`open_file`, and where it is more than ``most`` bytes."""
    with open_file(path) as file:
        return read_within(file, path, most)


def read_within(file: BufferedIOBase, path: Path, most: int) -> bytes:
    """The rest of ``file``, which is from ``path``, also unpacked; ``OSError`` where it is more than ``most`` bytes."""
    content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most >> 20} MiB in it", str(path))
    return content


def _must_be_a_file(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    for is_one, what in _KINDS:
        if is_one(mode):
            raise OSError(errno.EINVAL, f"it is {what}, not a file", str(path))

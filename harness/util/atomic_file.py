"""Files that are complete or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from tempfile import TemporaryFile

from harness.errors import StoreError, UsageError


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; when this returns it is durable.

    :class:`StoreError` where it cannot be written, and what was there stays; also where it is there and could not be
    synced.  Blocks for two ``fsync``.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BufferedRandom]:
    """A file to write to, which takes the place of ``path`` at the end, as :func:`write_atomic` says; errors as there.

    Where something else ends the block, what was there stays too.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror or error}; what was kept before is still there"
        raise StoreError(why) from error
    finally:
        # Where nothing can be written, removing may be impossible too; the reason is the first error.
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_named(path: Path, content: bytes) -> None:
    """Write ``content`` to what a user named: as :func:`write_atomic` where a link leads, or into a device or a pipe.

    :class:`UsageError` for a folder.  Blocks for as long as nobody reads a pipe.
    """
    with named_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def named_file(path: Path) -> Iterator[BufferedRandom]:
    """A file to write to, which becomes what a user named, as :func:`write_named` says; errors as there."""
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder; name a file in it")
    if stat.S_ISREG(mode):
        with atomic_file(led_to(path) if path.is_symlink() else path) as file:
            yield file
        return
    try:
        # Nobody can go back in a pipe, and half of something is nothing to put into it.
        with TemporaryFile() as whole:
            yield whole
            whole.seek(0)
            with path.open("wb") as target:
                shutil.copyfileobj(whole, target)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def led_to(path: Path) -> Path:
    """Where ``path`` leads in the end; :class:`UsageError` where a link in it leads to itself."""
    try:
        end = path.resolve()
    except RuntimeError:
        end = None
    # From Python 3.13 on that is no error, and the end is such a link, or behind one.
    if end is None or any(map(os.path.islink, (end, *end.parents))):
        raise UsageError(f"{path} leads to itself by a link; name another file")
    return end


def make_directory(path: Path, *, new: bool = False) -> None:
    """Make ``path`` and what it is in; :class:`StoreError` where that cannot be, or where ``new`` and it is there."""
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        raise StoreError(f"the folder {path} cannot be made: {error.strerror or error}") from error


def require_room_for(directory: Path) -> None:
    """:class:`~harness.errors.UsageError` where the new folder ``directory`` cannot be made; it is not there then."""
    missing = []
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"nothing can be kept in {directory.parent}: {why}; name another folder") from error
    finally:
        # One in which somebody else has put something meanwhile stays.
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def sync_directory(path: Path) -> None:
    """Make the names in a directory as durable as the files' content; :class:`StoreError` where that cannot be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        why = f"{path} cannot be synced: {error.strerror or error}; what was just put there may not survive a power cut"
        raise StoreError(why) from error

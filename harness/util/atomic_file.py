"""Files that are complete or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from harness.errors import StoreError, UsageError


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; when this returns it is durable.

    :class:`StoreError` where it cannot be written, and what was there stays; also where it is there and could not be
    synced.  Blocks for two ``fsync``.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
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
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder; name a file in it")
    if stat.S_ISREG(mode):
        write_atomic(path.resolve() if path.is_symlink() else path, content)
        return
    try:
        with path.open("wb") as file:
            file.write(content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def make_directory(path: Path, *, new: bool = False) -> None:
    """Make ``path`` and what it is in; :class:`StoreError` where that cannot be, or where ``new`` and it is there."""
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        raise StoreError(f"the folder {path} cannot be made: {error.strerror or error}") from error


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

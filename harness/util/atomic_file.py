"""Files that are complete or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from harness.errors import StoreError


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

"""Files that are there whole or not at all: written beside their place, synced, renamed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from harness.errors import InfrastructureError


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; :class:`InfrastructureError` where that cannot be, and what was there stays."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror or error}; what was kept before is still there"
        raise InfrastructureError(why) from error
    finally:
        unfinished.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make the names in a directory as durable as the files' content."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

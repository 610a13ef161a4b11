"""One lab, one user at a time: the lease that a process holds while it works with the nested lab."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout

from harness.errors import InfrastructureError
from harness.paths import state_dir


@contextlib.contextmanager
def lease(what: str) -> Iterator[None]:
    """Hold the lease, or say who does.  The kernel takes it back from a process that died."""
    directory = state_dir()
    directory.mkdir(parents=True, exist_ok=True)
    holder = directory / "lease.pid"
    lock = FileLock(directory / "lease.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = holder.read_text().strip() if holder.exists() else "unknown"
        raise InfrastructureError(
            f"another harness process (pid {pid}) works with {what}; wait until it ends, or end it"
        ) from None
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()

"""One lab, one user at a time: the lease that a process holds while it works with the nested lab."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout

from harness.errors import InfrastructureError
from harness.util.paths import make, state_dir

_LOCK = "lease.lock"
_PID = "lease.pid"


@contextlib.contextmanager
def lease(what: str) -> Iterator[None]:
    """Hold the lease on ``what``; the kernel takes it back from a process that died.

    :class:`~harness.errors.InfrastructureError` at once, with the process's id, where another one holds it.
    """
    directory = make(state_dir())
    lock = FileLock(directory / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InfrastructureError(
            f"another harness process (pid {holder()}) works with {what}; wait until it ends, or end it"
        ) from None
    try:
        (directory / _PID).write_text(f"{os.getpid()}\n")
        yield
    finally:
        (directory / _PID).unlink(missing_ok=True)
        lock.release()


def holder() -> str | None:
    """The id of the process that holds the lease (``unknown`` where it left none), or None."""
    directory = state_dir()
    if not (directory / _LOCK).exists():
        return None
    lock = FileLock(directory / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with contextlib.suppress(OSError):
            return (directory / _PID).read_text().strip()
        return "unknown"
    lock.release()
    return None

"""A file that a program needs where the client is, for as long as it runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness.errors import HarnessError
from harness.remote.base import Runner

REMOVE_SECONDS = 10.0


@contextmanager
def temporary_file(runner: Runner, name: str, text: str) -> Iterator[str]:
    """The path of a file that holds ``text``, below /tmp where ``runner`` runs; it goes at the end.

    Its name cannot be guessed and ends with ``name``: others may write to that directory too.  Where the client does
    not answer any more within ``REMOVE_SECONDS`` it stays.
    """
    path = f"/tmp/drbd-harness-{secrets.token_hex(8)}-{name}"
    runner.write(path, text)
    try:
        yield path
    finally:
        with suppress(HarnessError):
            runner.run(["rm", "-f", path], timeout=REMOVE_SECONDS)

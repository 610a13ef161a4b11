"""What it means to run a command somewhere: one protocol for the controller, a node and a guest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.errors import CommandError
from harness.util.redact import redacted


@dataclass(frozen=True)
class Completed:
    """A command that ended: its argument vector, its exit status, what it printed, and how long it ran in seconds."""

    host: str
    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def message(self) -> str:
        """What it reported, on one line: its standard error, else its standard output, else its status.

        Without DRBD's shared secret, which drbdadm prints with a command of its own that failed.
        """
        return " ".join(redacted(self.stderr.strip() or self.stdout.strip() or f"status {self.status}").split())

    def expect(self, ok: Collection[int]) -> Completed:
        """Itself, or :class:`CommandError` (without DRBD's shared secret) when the status is not one of ``ok``."""
        if self.status not in ok:
            raise CommandError(self.host, self.argv, self.status, redacted(self.stdout), redacted(self.stderr))
        return self


class Runner(Protocol):
    """Something that runs argument vectors on one machine.

    ``timeout`` is in seconds and bounds the command there as well as the wait here.  A status outside ``ok``
    raises :class:`~harness.errors.CommandError`; an empty ``ok`` accepts every status.  ``lab`` is the id of the lab
    that the machine belongs to, empty where it belongs to none: it goes into the log of commands, with ``host``.
    """

    host: str
    lab: str

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Run ``argv`` to its end."""
        ...

    def write(self, path: str, text: str) -> None:
        """Make the file at ``path`` hold exactly ``text``."""
        ...

"""Answers from a table, for unit tests of pure logic that talks to a runner.  Never used by a lab."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from harness.remote.base import Completed

Answer = tuple[int, str, str]


class ScriptedRunner:
    """A :class:`~harness.remote.base.Runner` whose ``answer`` maps an argument vector to (status, stdout, stderr).

    It logs nothing, since nothing runs.
    """

    lab = ""

    def __init__(self, answer: Callable[[tuple[str, ...]], Answer], host: str = "scripted") -> None:
        self.host = host
        self.ran: list[tuple[str, ...]] = []
        self.written: dict[str, str] = {}
        self._answer = answer

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Look the answer up and record that it was asked."""
        self.ran.append(tuple(argv))
        status, stdout, stderr = self._answer(tuple(argv))
        result = Completed(self.host, tuple(argv), status, stdout, stderr, 0.0)
        return result if not ok else result.expect(ok)

    def write(self, path: str, text: str) -> None:
        """Keep the text under its path."""
        self.written[path] = text

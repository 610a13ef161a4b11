"""``--drbd-stop-at``: what is looked for was seen, and nothing behind it need be played."""

from __future__ import annotations

import pytest

from harness.config.sentences import hint
from harness.errors import UsageError
from harness.model import Result, VerdictKind
from harness.pytest_plugin.options import flag


class StopAt:
    """Which verdicts end a session; :class:`~harness.errors.UsageError` where one of them is none."""

    def __init__(self, config: pytest.Config) -> None:
        given: list[str] = config.getoption(flag("stop_at")) or []
        if wrong := next((one for one in given if one not in [*VerdictKind]), None):
            raise UsageError(f"{flag('stop_at')} is '{wrong}'{hint(wrong, VerdictKind)}")
        self._kinds = frozenset(map(VerdictKind, given))
        self._stopped = False

    def after(self, session: pytest.Session, result: Result) -> None:
        """Let nothing be played after ``result`` where it is what was waited for; the closing controls still are."""
        if result.cell.control is None and result.verdict is not None and result.verdict.among(self._kinds):
            self._stopped = True
            session.shouldfail = f"{result.cell.id} ended as {result.verdict.kind}, which --stop-at waited for"

    def status(self, status: int, *, failed: bool) -> int:
        """To stop is a failure for pytest, whose ``status`` it is; ``failed``: whether anything else was."""
        return int(pytest.ExitCode.OK) if self._stopped and not failed else status

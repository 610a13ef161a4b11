"""What the harness's own log has of the commands that a test runs.  Nothing here is a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG, "harness")
    with caplog.filtering(logging.Filter("harness")):
        # paramiko's own are none of ours.
        yield caplog


def columns(logged: pytest.LogCaptureFixture) -> list[tuple[str, str, str, str, str]]:
    """Kind, lab, host, status and command of each record."""
    found = []
    for name, _, message in logged.record_tuples:
        lab, host, status, seconds, text = message.split("\t")[:5]
        assert float(seconds) >= 0
        found.append((name.removeprefix("harness."), lab, host, status, text))
    return found

"""What a session of pytest prints: past its capturing, into none of its reports, and never a reason to stop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import pytest

from harness.util import logs
from harness.util.standard_streams import Lossy


def lose_what_nobody_reads(config: pytest.Config) -> None:
    """Let pytest's own printing lose what cannot be written any more.

    Else pytest would end where it stands as soon as its terminal or who read it is gone, and leave the lab behind.
    """
    writer = config.get_terminal_writer()
    if not isinstance(writer._file, Lossy):
        writer._file = Lossy(writer._file)


def past_capturing(config: pytest.Config) -> Callable[[str], None]:
    """What prints a line past pytest's capturing; where that cannot be, it is lost."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(line, file=Lossy(sys.stdout), flush=True)

    return write


def leave_out_of_reports(config: pytest.Config) -> None:
    """Let pytest not repeat the harness's hundreds of records in the report of each test that fails: the run has them.

    ``caplog`` and ``--log-cli-level`` show them like any others.
    """
    handler = getattr(config.pluginmanager.getplugin("logging-plugin"), "report_handler", None)
    if handler is not None:
        handler.addFilter(lambda record: not record.name.startswith(f"{logs.ROOT}."))

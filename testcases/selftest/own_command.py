"""``drbd-harness`` run in the process of a test."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from harness.cli import main


def run_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """The exit code, the standard output and the standard error of the command with ``arguments``."""
    monkeypatch.setattr(sys, "argv", ["drbd-harness", *arguments])
    code: Any = 0
    try:
        main.main()
    except SystemExit as ended:
        code = ended.code
    printed = capfd.readouterr()
    return int(code or 0), printed.out, printed.err

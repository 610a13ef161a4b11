"""Commands on the controller itself."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from harness.errors import CommandError, DeadlineError
from harness.remote.base import Completed
from harness.util import logs

#: What a program prints is read by parsers and quoted in English sentences, whatever language the user speaks.  glibc
#: heeds LANGUAGE in any locale but "C".
ENGLISH = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}


class LocalRunner:
    """A :class:`~harness.remote.base.Runner` over subprocess."""

    host = logs.CONTROLLER

    def __init__(self, lab: str = "") -> None:
        self.lab = lab

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Run ``argv`` here, without ``stdin`` with an empty standard input.

        As in a shell a program that is missing is a :class:`CommandError` with status 127, one that cannot be run 126.
        """
        with logs.command(self.host, argv, self.lab) as logged:
            result = self._run(argv, stdin, timeout)
            logged.status = result.status
        return result if not ok else result.expect(ok)

    def _run(self, argv: Sequence[str], stdin: str | None, timeout: float) -> Completed:
        began = time.monotonic()
        try:
            done = subprocess.run(
                argv, input=stdin or "", capture_output=True, encoding="utf-8", errors="replace", timeout=timeout,
                check=False, env=os.environ | ENGLISH,
            )  # fmt: skip
        except FileNotFoundError as missing:
            raise CommandError(self.host, argv, 127, "", f"{argv[0]} is not installed") from missing
        except OSError as error:
            raise CommandError(self.host, argv, 126, "", f"{argv[0]} cannot be run: {error.strerror}") from error
        except subprocess.TimeoutExpired as late:
            raise DeadlineError(f"'{argv[0]}' on the controller did not end within {timeout:.0f} s") from late
        return Completed(self.host, tuple(argv), done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    def write(self, path: str, text: str) -> None:
        """Make the file at ``path`` hold exactly ``text``."""
        Path(path).write_text(text)

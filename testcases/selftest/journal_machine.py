"""A machine whose journal is kept by the real program, in this process and in a folder of the test's.  No test."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import CodeType

from harness.lab.hardware.guard import Machine
from harness.lab.hardware.journal import Journal
from harness.lab.hardware.lease import Holder
from harness.remote.base import Completed

ADA = Holder("aa", "ada on desk", "run 1")


@functools.cache
def _compiled(text: str) -> CodeType:
    return compile(text, "journal", "exec")


class ProgramRunner:
    """Runs what it is given on standard input as the machine's Python would, and counts that."""

    host, lab = "alpha", "test"

    def __init__(self) -> None:
        self.acts: list[str] = []
        #: What is put into the program before it runs: a place at which it is killed, another boot.
        self.change: Callable[[dict[str, object]], None] = lambda names: None

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        assert argv[1:3] == ["-I", "-"] and stdin
        self.acts.append(json.loads(argv[-1])["act"])
        out, err, status, before = io.StringIO(), io.StringIO(), 0, sys.argv
        # Its last lines start it; what it is made of can be changed before.
        parts, start, rest = stdin.rpartition("\n\ntry:\n    main()")
        names: dict[str, object] = {"__name__": "program"}
        exec(_compiled(parts), names)
        self.change(names)
        try:
            sys.argv = ["-", argv[-1]]
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                exec(_compiled(start + rest), names)
        except SystemExit as ended:
            status = int(str(ended.code or 0))
        finally:
            sys.argv = before
            names.clear()
        return Completed(self.host, tuple(argv), status, out.getvalue(), err.getvalue(), 0.0)

    def write(self, path: str, text: str) -> None:
        raise AssertionError("nothing is written but by the program")


def journal(folder: Path, lab: str = "test", **options: object) -> tuple[Journal, ProgramRunner]:
    """A journal in ``folder`` as a new process of the harness has it."""
    runner = ProgramRunner()
    machine = Machine("alpha", runner)
    return Journal(machine, lab, ADA, folder=str(folder), **options), runner  # type: ignore[arg-type]

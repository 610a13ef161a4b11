"""The command that plays one cell again as it was played, to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from harness.config.user_work import FIO_JOB, OPTIONS
from harness.model import Cell, ClientKind, Run
from harness.util import resources


def replay_command(run: Run, cell: Cell) -> str:
    """``drbd-harness run ...`` with the seed of ``run``; empty where it does not say which matrix it was.

    A later repetition has its seed from the run's and its number, so those before it are played again too.  ``-k``
    takes what is in an id: other cells whose ids contain this one's are played with it.
    """
    if not run.matrix:
        return ""
    argv = ["drbd-harness", "run"]
    if cell.user_file is not None:
        argv += [OPTIONS.get(cell.workload, OPTIONS[FIO_JOB]), cell.user_file.name]
        argv += ["--client", "host"] if cell.client is ClientKind.HOST else ["--cache", str(cell.cache)]
        argv += ["--filesystem", str(cell.filesystem), "--seconds", str(cell.seconds)]
    else:
        own = (resources.matrices() / f"{run.matrix}.toml").is_file()
        argv += ["--matrix", run.matrix if own else f"{run.matrix}.toml", "-k", cell.id]
    stack, suite = run.stack_spec.get("name"), run.stack_spec.get("suite") or run.stack.suite
    argv += ["--stack", str(stack)] if stack else ["--suite", str(suite)] if suite else []
    argv += _own_drbd(run)
    argv += ["--seed", str(run.seed)] if run.seed and cell.seed else []
    argv += ["--repeat", str(cell.repetition)] if cell.repetition > 1 else []
    return shlex.join(argv)


def _own_drbd(run: Run) -> list[str]:
    """``--drbd PATH`` where it was given: no stack that comes along names a path itself, and a user's file says its."""
    drbd: Sequence[object] = (run.stack_spec.get("node") or {}).get("drbd") or ()
    of_a_file = "/" in str(run.stack_spec.get("name", ""))
    return ["--drbd", str(drbd[0])] if len(drbd) == 1 and "/" in str(drbd[0]) and not of_a_file else []

"""Programs in Python that come with the harness and run where the client is: ``harness/workloads/guest_programs``."""

from __future__ import annotations

from pathlib import Path

from harness.errors import CommandError, RefusedError, WorkloadFailedError
from harness.filesystems.base import WorkloadTarget
from harness.remote.base import Completed
from harness.workloads.fio_runner import no_space
from harness.workloads.temporary import temporary_file

PROGRAMS = Path(__file__).resolve().parent / "guest_programs"


def run_program(target: WorkloadTarget, name: str, *arguments: str, timeout: float) -> Completed:
    """Run ``NAME.py`` with Python where the client is; ``timeout`` in seconds.

    :class:`~harness.errors.WorkloadFailedError` where the disk is full, :class:`~harness.errors.RefusedError` where the
    client has no Python or the program says that what is asked for cannot be had there (status 3).
    """
    runner, text = target.runner, (PROGRAMS / f"{name}.py").read_text()
    with temporary_file(runner, f"{name}.py", text) as path:
        # 127, as a shell's: the agent of a guest runs it below timeout(1), ssh below a shell.
        try:
            done = runner.run(["python3", path, *arguments], timeout=timeout, ok=())
        except CommandError as error:
            if error.status != 127:
                raise
            raise RefusedError(runner.host, "python3 is not installed there, which this workload needs") from error
    if done.status == 127:
        raise RefusedError(done.host, "python3 is not installed there, which this workload needs")
    if done.status == 3:
        raise RefusedError(f"SQLite in {done.host}", done.message)
    if done.status and no_space(done.stderr):
        raise WorkloadFailedError(f"the disk is full: {done.message}")
    return done.expect((0,))

"""A user's own work: a fio job file, or a script that runs where the client is.

Both find these variables: ``DRBD_DEVICE``, the block device; ``DRBD_DIRECTORY``, where its filesystem is mounted, empty
where there is none; ``DRBD_FILE``, a file in that, or the device itself; ``DRBD_SECONDS``; ``DRBD_SEED``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import ClassVar

from harness.errors import CommandError, InfrastructureError, UsageError, WorkloadFailedError
from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT, Mounted
from harness.model import Cell, UserFile, Work
from harness.remote.base import Completed
from harness.workloads.base import Workload, numbers
from harness.workloads.fio_runner import no_space, run_job_file, worked
from harness.workloads.temporary import temporary_file

# The seed where none was given.
_SEED = 1
# So many lines of what a script printed last stand in a sentence, and so many are kept.
SAID_LINES, KEPT_LINES = 3, 50
# What timeout(1) ends with when it ended the program, or had to kill it.
_OUT_OF_TIME = (124, 137)
PARSE_SECONDS = 60.0

# What it prints goes to files: whoever waits for the end of a pipe would wait for what it left running, too.
_RUN = """
seconds=$1 file=$2; shift 2
chmod 700 "$file"
case $(head -c 2 "$file") in
'#!') set -- "$file" "$@" ;;
*) set -- sh "$file" "$@" ;;
esac
status=0
timeout -k 2 "$seconds" "$@" > "$file.out" 2> "$file.err" < /dev/null || status=$?
tail -c 65536 "$file.out"
tail -c 65536 "$file.err" >&2
rm -f "$file.out" "$file.err"
exit "$status"
"""

# What a user's work left running holds its filesystem: whoever has a file of it open, or stands in it.
_END_HOLDERS = r"""
for process in /proc/[0-9]*; do
    if ls -l "$process/cwd" "$process/fd" 2>/dev/null | grep -qE -e "-> $1(/|\$)"; then
        kill -9 "${process#/proc/}" || :
    fi
done
sleep 0.2
"""


def variables(filesystem: Filesystem, target: WorkloadTarget, seconds: int, seed: int) -> dict[str, str]:
    """What a user's work is told."""
    files = filesystem.offers is Offers.FILES
    return {
        "DRBD_DEVICE": target.device,
        "DRBD_DIRECTORY": filesystem.file(target, "").rstrip("/") if files else "",
        "DRBD_FILE": filesystem.file(target, "user-data") if files else target.device,
        "DRBD_SECONDS": str(seconds),
        "DRBD_SEED": str(seed or _SEED),
    }


def check_job_here(file: UserFile, option: str) -> None:
    """:class:`~harness.errors.UsageError` with fio's message where the fio of this machine does not take the job file.

    Nothing is run or written; without fio here, or where it does not end, nothing is said: the client's will say it.
    """
    if shutil.which("fio") is None:
        return
    told = dict.fromkeys(("DRBD_DEVICE", "DRBD_DIRECTORY", "DRBD_FILE"), "/nonexistent")
    try:
        done = subprocess.run(
            ["fio", "--parse-only", "-"], input=file.text, capture_output=True, encoding="utf-8", errors="replace",
            timeout=PARSE_SECONDS, check=False, env={**os.environ, **told, "DRBD_SECONDS": "10", "DRBD_SEED": "1"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode:
        raise UsageError(
            f"{option}: fio does not take the job file {file.name}: {_first_line(done.stderr, done.stdout)}"
        )


class UserWork(Workload):
    """The base of both: the cell has the file."""

    def __init__(self, filesystem: Filesystem, seed: int, file: UserFile) -> None:
        super().__init__(filesystem, seed)
        self.file = file

    @classmethod
    def of(cls, filesystem: Filesystem, cell: Cell) -> UserWork:
        """That of ``cell``, which has the user's file."""
        if cell.user_file is None:
            raise InfrastructureError(f"the cell {cell.id} has no file of the user's")
        return cls(filesystem, cell.seed, cell.user_file)

    def quiesce(self, target: WorkloadTarget) -> int:
        """Unmount; :class:`~harness.errors.WorkloadFailedError` where something that was left running is in the way."""
        try:
            return super().quiesce(target)
        except CommandError as error:
            said = _first_line(error.stderr, error.stdout)
            raise WorkloadFailedError(
                f"after {self.file.name} its filesystem cannot be taken out of use: {said}"
            ) from error

    def clean_up(self, target: WorkloadTarget) -> None:
        """End what it left running on its filesystem, and take that out of use."""
        if isinstance(self.filesystem, Mounted):
            target.sh(_END_HOLDERS, MOUNT_POINT, timeout=MARGIN_SECONDS)
        super().clean_up(target)


class FioJob(UserWork):
    """A user's fio job file; what it reads back wrongly is a wrong read, as with any."""

    name = "fio-job"
    needs = frozenset({Offers.DEVICE, Offers.FILES})

    def prepare(self, target: WorkloadTarget) -> None:
        """The filesystem, and whether fio takes the job file."""
        super().prepare(target)
        told = [f"{key}={value}" for key, value in variables(self.filesystem, target, 1, self.seed).items()]
        with temporary_file(target.runner, self.file.name, self.file.text) as path:
            done = target.runner.run(["env", *told, "fio", "--parse-only", path], timeout=PARSE_SECONDS, ok=())
        if done.status:
            said = _first_line(done.stderr, done.stdout)
            raise WorkloadFailedError(f"fio does not take the job file {self.file.name}: {said}")

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """The job file, all sections of it."""
        try:
            ran = run_job_file(
                target.runner, self.file.text, name=self.name, timeout=seconds + 2 * MARGIN_SECONDS,
                environment=variables(self.filesystem, target, seconds, self.seed),
            )  # fmt: skip
        except CommandError as error:
            said = _first_line(error.stderr, error.stdout)
            raise WorkloadFailedError(
                f"fio ended with status {error.status} on the job file {self.file.name}: {said}"
            ) from error
        work = worked(ran)
        written = sum(job.write.bytes for job in ran.result.jobs)
        return Work(work.seconds, {**work.facts, "write_bytes": float(written)}, work.read_back_errors, work.notes)


class GuestScript(UserWork):
    """A user's script.  Its argument is the mount point, or the device; it ends with 0, or has failed.

    Where its last line is a JSON object its numbers become figures of the work; ``wrong_reads`` says how much it read
    back wrongly.
    """

    name = "guest-script"
    needs: ClassVar[frozenset[Offers]] = frozenset(Offers)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Run it to its end."""
        told = variables(self.filesystem, target, seconds, self.seed)
        bound = seconds + 2 * MARGIN_SECONDS
        with temporary_file(target.runner, self.file.name, self.file.text) as path:
            argv = [
                "env", *(f"{key}={value}" for key, value in told.items()),
                "sh", "-ec", _RUN, "sh", f"{bound:.0f}", path, told["DRBD_DIRECTORY"] or target.device,
            ]  # fmt: skip
            done = target.runner.run(argv, timeout=bound + 30, ok=())
        if done.status:
            raise WorkloadFailedError(_failed(self.file, done, bound))
        printed = done.stdout.strip().splitlines()
        facts = _numbers(printed[-1] if printed else "")
        wrong = int(facts.get("wrong_reads", 0))
        return Work(facts.get("seconds", done.seconds), facts, wrong, tuple(printed[-KEPT_LINES:]))


def _failed(file: UserFile, done: Completed, bound: float) -> str:
    """How a script ended that did not end well, and what it said last."""
    lines = [line.strip() for line in (done.stderr.strip() or done.stdout.strip()).splitlines()]
    said = " | ".join(line for line in lines[-SAID_LINES:] if line) or "it printed nothing"
    if done.status in _OUT_OF_TIME and done.seconds >= bound:
        return f"the script {file.name} did not end within {bound:.0f} s: {said}"
    full = "the disk is full: " if no_space(done.stderr + done.stdout) else ""
    return f"{full}the script {file.name} ended with status {done.status}: {said}"


def _first_line(*texts: str) -> str:
    lines = (line.strip() for text in texts for line in text.splitlines())
    return next((line for line in lines if line), "it printed nothing")


def _numbers(line: str) -> Mapping[str, float]:
    try:
        return numbers(line)
    except (ValueError, AttributeError):
        return {}


def check_user_files(files: Mapping[str, UserFile], options: Mapping[str, str]) -> None:
    """What is wrong with them and can be told here, before any lab is up; see :func:`check_job_here`."""
    if FioJob.name in files:
        check_job_here(files[FioJob.name], options[FioJob.name])


__all__ = ["FioJob", "GuestScript", "UserWork", "check_job_here", "check_user_files", "variables"]

"""The one way fio is run: put the job file there, run it, read its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import CommandError, InfrastructureError, RefusedError, WorkloadFailedError
from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, WorkloadTarget
from harness.model import Work
from harness.parse.fio import FioResult, parse_fio, verify_failures
from harness.remote.base import Runner
from harness.render.fio_job import Job, Option, job_file
from harness.workloads.temporary import temporary_file

# fio ends with this after a verify found something else than was written (EILSEQ).
_WRONG_DATA = 84
_NO_SPACE = 28


# So many of fio's sentences about wrong data are kept: enough to see where it begins and what it is.
MAX_FAILURES = 64


# Where the filesystem has no direct I/O, open(2) says EINVAL, or EOPNOTSUPP; whatever else dd says is no answer.
_TRY_DIRECT = """
said=$(LC_ALL=C dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct conv=notrunc 2>&1) || case $said in
*'Invalid argument'* | *'not supported'*) echo "$said" | tail -n 1 ;;
*) echo "$said" >&2; exit 1 ;;
esac
rm -f "$1" || :
"""


@dataclass(frozen=True)
class FioRun:
    """What one run of fio did, how many pieces of wrong data it read back, and its message on each."""

    result: FioResult
    read_back_errors: int
    seconds: float
    stdout: str
    stderr: str
    failures: tuple[str, ...] = ()


def run_fio(
    runner: Runner,
    jobs: tuple[Job, ...],
    common: Mapping[str, Option] | None = None,
    *,
    name: str = "job",
    arguments: tuple[str, ...] = (),
    timeout: float = 120,
) -> FioRun:
    """Run ``jobs`` on ``runner`` (guest, node or controller) and return the typed result; as :func:`run_job_file`."""
    return run_job_file(runner, job_file(jobs, common), name=name, arguments=arguments, timeout=timeout)


def run_job_file(
    runner: Runner,
    text: str,
    *,
    name: str = "job",
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    timeout: float = 120,
) -> FioRun:
    """Run the job file ``text``, in which fio puts the variables of ``environment`` in for its ``${...}``.

    Wrong data read back is a result, not an error; a disk that is full is a
    :class:`~harness.errors.WorkloadFailedError`, anything else that makes fio fail a
    :class:`~harness.errors.CommandError`.  ``timeout`` is in seconds.
    """
    variables = [f"{key}={value}" for key, value in (environment or {}).items()]
    with temporary_file(runner, f"{name}.fio", text) as path:
        argv = [*(["env", *variables] if variables else []), "fio", "--output-format=json", *arguments, path]
        done = runner.run(argv, timeout=timeout, ok=())
    failures = verify_failures(done.stderr)
    try:
        result = parse_fio(done.stdout)
    except ValueError as unreadable:
        if done.status:
            raise CommandError(done.host, argv, done.status, done.stdout, done.stderr) from unreadable
        raise InfrastructureError(f"fio on {done.host} printed no JSON: {unreadable}") from unreadable
    full = [job.name for job in result.jobs if job.error == _NO_SPACE]
    if full or (done.status and no_space(done.stderr)):
        raise WorkloadFailedError(f"the disk is full: fio's job '{(full or [name])[0]}' found no space left")
    wrong = max(len(failures), sum(1 for job in result.jobs if job.error == _WRONG_DATA))
    if done.status and not wrong:
        raise CommandError(done.host, argv, done.status, done.stdout, done.stderr)
    return FioRun(result, wrong, done.seconds, done.stdout, done.stderr, failures)


def need_direct_io(filesystem: Filesystem, target: WorkloadTarget) -> None:
    """:class:`~harness.errors.RefusedError` where a file of the mounted ``filesystem`` cannot be written O_DIRECT."""
    if filesystem.offers is not Offers.FILES:
        return
    said = target.sh(_TRY_DIRECT, filesystem.file(target, "direct"), timeout=MARGIN_SECONDS).strip()
    if said:
        raise RefusedError(f"the filesystem {filesystem.kind}", f"no file of it can be written with O_DIRECT: {said}")


def no_space(text: str) -> bool:
    """Whether a program reported that the disk is full (ENOSPC)."""
    return "No space left on device" in text


def fio_seed(seed: int) -> dict[str, Option]:
    """The option that makes fio's offsets, buffers and order follow from ``seed``; none for 0."""
    return {"randseed": seed} if seed else {}


def worked(ran: FioRun) -> Work:
    """A run of fio as evidence: each job's writes (``NAME_write_ios``, ``NAME_write_bytes``), wrong data."""
    facts: dict[str, float] = {}
    for job in ran.result.jobs:
        facts[f"{job.name}_write_ios"] = facts.get(f"{job.name}_write_ios", 0.0) + job.write.ios
        facts[f"{job.name}_write_bytes"] = facts.get(f"{job.name}_write_bytes", 0.0) + job.write.bytes
    seconds = max((job.write.runtime_ms for job in ran.result.jobs), default=0) / 1000
    return Work(seconds or ran.seconds, facts, ran.read_back_errors, ran.failures[:MAX_FAILURES])

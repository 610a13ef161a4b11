"""fio on any machine: the job file, the typed result, what is an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import CommandError, InfrastructureError, WorkloadFailedError
from harness.remote.scripted import ScriptedRunner
from harness.render.fio_job import Job
from harness.workloads.fio_runner import run_fio

RECORDINGS = Path(__file__).parent / "recordings"
FIO_JSON = (RECORDINGS / "fio" / "write-then-verify.json").read_text()
WRONG_JSON = (RECORDINGS / "fio" / "verify-failed-three-times.txt").read_text()
WRONG_WORDS = (RECORDINGS / "fio" / "verify-failed-three-times.stderr.txt").read_text()


def fio_says(status: int, stdout: str, stderr: str = "") -> ScriptedRunner:
    return ScriptedRunner(lambda _: (status, stdout, stderr))


def test_run_fio_job_file_written_then_run() -> None:
    runner = fio_says(0, FIO_JSON)
    ran = run_fio(runner, (Job("one", {"rw": "write"}),), name="x", arguments=("--aux-path=/tmp",), timeout=5)
    ((path, text),) = runner.written.items()
    assert re.fullmatch(r"/tmp/drbd-harness-[0-9a-f]{16}-x\.fio", path) and text == "[one]\nrw=write\n"
    assert runner.ran == [("fio", "--output-format=json", "--aux-path=/tmp", path), ("rm", "-f", path)]
    assert ran.read_back_errors == 0 and ran.result.jobs[0].write.ios == 1024


def test_run_fio_verify_error_is_a_result() -> None:
    assert run_fio(fio_says(1, WRONG_JSON, WRONG_WORDS), ()).read_back_errors == 3
    assert run_fio(fio_says(1, WRONG_JSON, ""), ()).read_back_errors >= 1, "the JSON alone tells too"


@pytest.mark.parametrize(
    ("runner", "error"),
    [
        (fio_says(1, FIO_JSON, "fio: io_u error: No space left on device"), WorkloadFailedError),
        (fio_says(1, "", "fio: unrecognized option"), CommandError),
        (fio_says(127, "", "fio: not found"), CommandError),
        (fio_says(0, "", ""), InfrastructureError),
        (fio_says(0, "{}", ""), InfrastructureError),
    ],
)
def test_run_fio_other_failure_raised(runner: ScriptedRunner, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_fio(runner, (Job("one"),))

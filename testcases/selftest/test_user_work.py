"""A user's own fio job or script: read and checked before a lab is up, part of the cell, and how it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from plugin_world import Runs, World, matrix, run, suite, world

from harness.config.user_work import MOST_BYTES, read_user_file, with_user_files
from harness.drbd.resource import Resource
from harness.errors import CommandError, UsageError, WorkloadFailedError
from harness.filesystems import FILESYSTEMS
from harness.judgement.rejudge import workload_failed
from harness.model import CacheMode, Cell, Evidence, Failure, FilesystemKind, Result, UserFile, Verdict, VerdictKind
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.report.descriptions import describe
from harness.store import Store, judged_results
from harness.workloads import user_work, workload_of
from harness.workloads.base import WorkloadTarget
from harness.workloads.user_work import FioJob, GuestScript, check_job_here, variables

pytest_plugins = ("pytester",)
__all__ = ["matrix", "run", "suite", "world"]

RECORDINGS = Path(__file__).parent / "recordings" / "fio"
JOB = "[mine]\nfilename=${DRBD_FILE}\nrw=write\nsize=1m\n"
RAW, EXT4, SWAP = FilesystemKind.RAW, FilesystemKind.EXT4, FilesystemKind.SWAP
#: Of the file above, whose bytes never change.
JOB_ID = "fio-job.3984e7a8"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "my job.fio"
    path.write_text(JOB)
    return path


def file(text: str, name: str = "mine.sh") -> UserFile:
    return UserFile(name, "ab" * 32, text)


def target_of(runner: object) -> WorkloadTarget:
    return WorkloadTarget(cast(Any, runner), "/dev/vdb", cast(Resource, SimpleNamespace(blocks=32768)))


# --------------------------------------------------------------------------- the file


def test_read_user_file_name_that_a_run_can_keep_and_digest(job: Path) -> None:
    found = read_user_file(job, "--fio-job")
    assert (found.name, found.text) == ("my_job.fio", JOB)
    cell = Cell("fio-job", filesystem=EXT4, user_file=found)
    assert cell.id == f"None-ext4-fio-job.{found.digest[:8]}"
    assert replace(cell, user_file=file(JOB)).id != cell.id


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"#" * (MOST_BYTES + 1), f"has {MOST_BYTES + 1} bytes; {MOST_BYTES} are the most"),
    ],
)
def test_read_user_file_that_cannot_be_used_one_sentence(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.fio"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words) as raised:
        read_user_file(path, "--fio-job")
    assert str(raised.value).startswith(f"--fio-job: {path}")


def test_with_user_files_missing_or_for_nothing_is_an_error() -> None:
    cells = [Cell("fio-job"), Cell("steady")]
    given = with_user_files(cells, {"fio-job": file(JOB)})
    assert [cell.user_file for cell in given] == [file(JOB), None]
    with pytest.raises(UsageError, match="give it with --fio-job FILE"):
        with_user_files(cells, {})
    with pytest.raises(UsageError, match='--guest-script is given, but no cell of the matrix has workload = "guest-sc'):
        with_user_files(cells, {"fio-job": file(JOB), "guest-script": file("true")})


class Fio:
    """A fio of this machine in the place of a real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stderr: str = "", status: int = 0) -> None:
        self.asked: list[tuple[list[str], dict[str, Any]]] = []

        def run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            self.asked.append((argv, options))
            return subprocess.CompletedProcess(argv, status, "", stderr)

        monkeypatch.setattr(user_work.shutil, "which", lambda _: "/usr/bin/fio")
        monkeypatch.setattr(user_work.subprocess, "run", run)


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        ("parse-only-bad-option", "Bad option <blocksize_typo=4k>"),
        ("parse-only-bad-value", "fio: failed parsing rw=sideways"),
        ("parse-only-unknown-variable", "fio: failed parsing filename=${DRBD_NOSUCH}"),
    ],
)
def test_check_job_here_what_fio_does_not_take_is_the_users_error(
    monkeypatch: pytest.MonkeyPatch, recording: str, words: str
) -> None:
    Fio(monkeypatch, (RECORDINGS / f"{recording}.stderr.txt").read_text(), status=1)
    with pytest.raises(UsageError) as raised:
        check_job_here(file(JOB, "mine.fio"), "--fio-job")
    assert str(raised.value) == f"--fio-job: fio does not take the job file mine.fio: {words}"


def test_check_job_here_every_variable_is_known_and_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    fio = Fio(monkeypatch)
    check_job_here(file(JOB), "--fio-job")
    ((argv, options),) = fio.asked
    assert argv == ["fio", "--parse-only", "-"] and options["input"] == JOB
    assert {*variables(FILESYSTEMS[EXT4], target_of(None), 1, 1)} <= {*options["env"]}


def test_check_job_here_no_fio_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_work.shutil, "which", lambda _: None)
    check_job_here(file("nonsense"), "--fio-job")


# --------------------------------------------------------------------------- the work


def test_variables_by_filesystem() -> None:
    found = {kind: variables(FILESYSTEMS[kind], target_of(None), 10, 0) for kind in (RAW, EXT4, SWAP)}
    assert (found[RAW]["DRBD_DIRECTORY"], found[RAW]["DRBD_FILE"]) == ("", "/dev/vdb")
    assert (found[EXT4]["DRBD_DIRECTORY"], found[EXT4]["DRBD_DEVICE"]) == ("/mnt/drbd-harness", "/dev/vdb")
    assert found[EXT4]["DRBD_FILE"] == "/mnt/drbd-harness/user-data" and found[SWAP]["DRBD_DIRECTORY"] == ""
    assert found[RAW]["DRBD_SEED"] == "1"


def test_fio_job_runs_the_users_text_with_the_variables() -> None:
    printed = (RECORDINGS / "write-then-verify.json").read_text()
    runner = ScriptedRunner(lambda argv: (0, printed, ""))
    cell = Cell("fio-job", filesystem=EXT4, seed=7, user_file=file(JOB, "mine.fio"))
    workload = workload_of(cell)
    workload.prepare(target_of(runner))
    assert "--parse-only" in runner.ran[-2]
    work = workload.work(target_of(runner), 3)
    assert {*runner.written.values()} == {JOB} and work.facts["write_bytes"] > 0
    told = {word for word in runner.ran[-2] if word.startswith("DRBD_")}
    assert {"DRBD_FILE=/mnt/drbd-harness/user-data", "DRBD_SECONDS=3", "DRBD_SEED=7"} <= told


def test_fio_job_that_the_guests_fio_does_not_take_fails_before_the_work() -> None:
    said = (RECORDINGS / "parse-only-bad-option.stderr.txt").read_text()
    runner = ScriptedRunner(lambda argv: (1, "", said) if "--parse-only" in argv else (0, "", ""))
    with pytest.raises(WorkloadFailedError, match=r"does not take the job file mine\.fio: Bad option <blocksize_typo"):
        FioJob(FILESYSTEMS[RAW], 1, file(JOB, "mine.fio")).prepare(target_of(runner))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (1, (RECORDINGS / "disk-full.json").read_text(), (RECORDINGS / "disk-full.stderr.txt").read_text()),
            "the disk is full: fio's job 'a' found no space left",
        ),
        ((1, "", "fio: pid=7, err=13/file:x\nmore\n"), "fio ended with status 1 on the job file mine.fio: fio: pid=7"),
    ],
)
def test_fio_job_that_fails_is_a_failed_workload(answer: tuple[int, str, str], words: str) -> None:
    with pytest.raises(WorkloadFailedError) as raised:
        FioJob(FILESYSTEMS[RAW], 1, file(JOB, "mine.fio")).work(target_of(ScriptedRunner(lambda _: answer)), 1)
    assert words in str(raised.value)


def script(text: str) -> GuestScript:
    return GuestScript(FILESYSTEMS[RAW], 3, file(text))


HERE = target_of(LocalRunner())


@pytest.mark.parametrize("first", ["", "#!/bin/sh\n", "#!/usr/bin/env python3\nimport os; os.system('''"])
def test_guest_script_shell_or_its_own_interpreter(first: str) -> None:
    text = 'echo "$DRBD_DEVICE for $DRBD_SECONDS s, seed $DRBD_SEED"\n'
    work = script(f"{first}{text}{chr(39) * 3 + ')' if 'python' in first else ''}").work(HERE, 1)
    assert work.notes == ("/dev/vdb for 1 s, seed 3",) and work.read_back_errors == 0


def test_guest_script_argument_is_the_device_or_the_mount_point() -> None:
    assert script('echo "$# $1"').work(HERE, 1).notes == ("1 /dev/vdb",)
    on_files = GuestScript(FILESYSTEMS[EXT4], 3, file('echo "$1"'))
    assert on_files.work(HERE, 1).notes == ("/mnt/drbd-harness",)


def test_guest_script_last_line_of_numbers_are_its_figures() -> None:
    work = script("""echo '{"x": 1}'; echo '{"blocks": 12, "wrong_reads": 2, "note": "x"}'""").work(HERE, 1)
    assert work.facts == {"blocks": 12.0, "wrong_reads": 2.0} and work.read_back_errors == 2
    for last in ("[1, 2]", "12", "{", '"x"'):
        assert script(f"echo '{last}'").work(HERE, 1).facts == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo one; for i in 1 2 3 4; do echo line $i >&2; done; exit 7", "status 7: line 2 | line 3 | line 4"),
        ("echo only this; exit 1", "the script mine.sh ended with status 1: only this"),
        ("exit 3", "status 3: it printed nothing"),
        ("echo 'cp: No space left on device' >&2; false", "the disk is full: the script mine.sh ended with status 1"),
        ("nosuchprogram", "status 127: "),
    ],
)
def test_guest_script_that_fails_its_status_and_last_lines(text: str, words: str) -> None:
    with pytest.raises(WorkloadFailedError) as raised:
        script(text).work(HERE, 1)
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_guest_script_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_work, "MARGIN_SECONDS", 0.5)
    with pytest.raises(WorkloadFailedError, match=r"the script mine\.sh did not end within 2 s: began"):
        script("echo began; sleep 60").work(HERE, 1)


def test_guest_script_that_leaves_something_running_is_not_waited_for() -> None:
    began = time.monotonic()
    work = script("sleep 100 & echo $!").work(HERE, 1)
    os.kill(int(work.notes[0]), signal.SIGKILL)
    assert time.monotonic() - began < 60


def test_user_work_that_keeps_its_filesystem_busy_has_failed_and_is_ended() -> None:
    busy = (32, "", "umount: /mnt/drbd-harness: target is busy.\n")
    runner = ScriptedRunner(lambda argv: busy if "umount" in str(argv) else (0, "", ""))
    work = GuestScript(FILESYSTEMS[EXT4], 3, file("true"))
    with pytest.raises(WorkloadFailedError, match=r"after mine\.sh its filesystem cannot be taken out of use: "):
        work.quiesce(target_of(runner))
    with pytest.raises(CommandError):
        work.clean_up(target_of(runner))
    assert any("kill -9" in argv[2] and argv[-1] == "/mnt/drbd-harness" for argv in runner.ran)


# --------------------------------------------------------------------------- what comes of it


def failed(kind: str = "workload") -> dict[str, Any]:
    return {"failure": Failure(kind, "work", "the script mine.sh ended with status 7: line 4")}


def test_workload_failed_only_where_it_is_why_there_is_no_answer() -> None:
    evidence = Evidence(Cell("guest-script"), 1, "", **failed())
    verdict = Verdict(VerdictKind.INCONCLUSIVE, "work: ...")
    assert workload_failed(Result(evidence.cell, verdict, evidence)) == evidence.failure.message  # type: ignore[union-attr]
    corrupt = replace(verdict, kind=VerdictKind.CORRUPT)
    assert workload_failed(Result(evidence.cell, corrupt, evidence)) is None
    other = replace(evidence, failure=Failure("command", "work", "x"))
    assert workload_failed(Result(evidence.cell, verdict, other)) is None
    assert workload_failed(Result(evidence.cell, None, None)) is None


def test_description_names_the_users_file(job: Path) -> None:
    cell = Cell("fio-job", filesystem=EXT4, cache=CacheMode.NONE, user_file=read_user_file(job, ""))
    assert describe(cell).startswith("fio-job (my_job.fio) on ext4")


def test_option_fio_job_plays_two_cache_modes_and_keeps_the_file(
    run: Runs, matrix: Path, world: World, job: Path
) -> None:
    del matrix
    ran = run("--drbd-fio-job", str(job))
    assert ran.status == 0 and world.played[5:7] == [f"none-ext4-{JOB_ID}", f"writeback-ext4-{JOB_ID}"]
    job.unlink()
    cells = [cell for cell in Store.open(ran.folder / "runs", "latest").run().cells if cell.control is None]
    assert [cell.user_file and cell.user_file.text for cell in cells] == [JOB, JOB]
    # Nothing but the run is needed to go on with it.
    again = run("--drbd-resume", "latest")
    assert again.status == 0 and judged_results(again.store)


def test_option_choices_make_the_cells(run: Runs, matrix: Path, world: World, job: Path) -> None:
    del matrix
    choices = ["--drbd-cache=directsync", "--drbd-filesystem=raw", "--drbd-filesystem=ext4", "--drbd-seconds=33"]
    ran = run("--drbd-fio-job", str(job), *choices)
    cells = [cell for cell in ran.store.run().cells if cell.control is None]
    assert [(cell.id, cell.seconds) for cell in cells] == [
        (f"directsync-{JOB_ID}", 33),
        (f"directsync-ext4-{JOB_ID}", 33),
    ]
    ran = run("--drbd-fio-job", str(job), "--drbd-client=host")
    assert world.played[-1].startswith("host-") and f"host-ext4-{JOB_ID}" in world.played


def test_option_guest_script_that_fails_is_failed_exit_code_1(
    run: Runs, matrix: Path, world: World, tmp_path: Path
) -> None:
    del matrix
    path = tmp_path / "mine.sh"
    path.write_text("exit 7\n")
    (cell_id,) = (f"none-ext4-guest-script.{read_user_file(path, '').digest[:8]}",)
    world.finds[cell_id] = failed()
    ran = run("--drbd-guest-script", str(path), "--drbd-cache=none")
    assert ran.status == 1 and ran.outcomes == {"passed": 5, "failed": 1}
    assert f"{cell_id}: the script mine.sh ended with status 7: line 4" in ran.out
    world.finds[cell_id] = failed("command")
    ran = run("--drbd-guest-script", str(path), "--drbd-cache=none")
    assert ran.status == 2, "the machinery's failure is an error"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--drbd-fio-job=gone.fio"], "--drbd-fio-job: gone.fio cannot be read"),
        (["--drbd-matrix=smoke", "--drbd-fio-job={job}"], 'no cell of the matrix has workload = "fio-job"'),
        (["--drbd-fio-job={job}", "--drbd-cache=fast"], "'fast' is no value of 'cache'"),
        (["--drbd-fio-job={job}", "--drbd-filesystem=swap"], "'fio-job' does not go with filesystem = \"swap\""),
        (["--drbd-fio-job={job}", "--drbd-client=host", "--drbd-cache=none"], "which has no QEMU"),
        (["--drbd-cache=none"], "--drbd-cache is only for a job or a script of yours without a matrix"),
        (["--drbd-matrix=smoke", "--drbd-seconds=3"], "--drbd-seconds is only for a job or a script of yours"),
    ],
)
def test_options_that_do_not_fit_one_sentence_exit_code_4(
    run: Runs, matrix: Path, world: World, job: Path, options: list[str], words: str
) -> None:
    del matrix
    ran = run(*(option.format(job=job) for option in options))
    assert ran.status == 4 and words in ran.err and not world.labs
    assert "Traceback" not in ran.err


def test_matrix_with_the_workload_takes_the_file(run: Runs, matrix: Path, world: World, job: Path) -> None:
    text = 'schema = 1\n[[cells]]\nworkload = "fio-job"\ncache = "none"\nfilesystem = ["raw", "ext4"]\n'
    matrix.write_text(text)
    assert run("--drbd-matrix", str(matrix), "--drbd-fio-job", str(job)).status == 0
    assert world.played[5:7] == [f"none-{JOB_ID}", f"none-ext4-{JOB_ID}"]
    ran = run("--drbd-matrix", str(matrix))
    assert ran.status == 4 and "give it with --fio-job FILE" in ran.err

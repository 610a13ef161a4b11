"""What a workload finds after a crash: is it mounted, what fsck says, and is what was written read back."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from workload_machine import (
    COMBINATIONS,
    EXT4,
    FIO_JSON,
    SWAP,
    WRONG_JSON,
    WRONG_WORDS,
    Below,
    made,
    runner,
    script,
    target,
)

from harness.drbd.resource import Resource
from harness.errors import CommandError
from harness.filesystems import FILESYSTEMS, mounted
from harness.filesystems.base import CheckResult
from harness.model import FilesystemCheck, FilesystemKind
from harness.remote.base import Completed
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.render.fio_job import Job, Option
from harness.workloads import fio
from harness.workloads.base import Recovered, WorkloadTarget
from harness.workloads.fio import Buffered

__all__ = ["runner", "target"]


def crashed(mount: tuple[int, str, str], fsck: tuple[int, str, str], read: tuple[int, str, str]) -> ScriptedRunner:
    """A machine whose mount, fsck and fio say what they are told."""
    answers = {"mount": mount, "e2fsck": fsck, "fio": read}

    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        program = "mount" if argv[0] == "sh" and "mount -t" in argv[2] else argv[0]
        return answers.get(program, (0, "", ""))

    return ScriptedRunner(answer)


CLEAN_FSCK = (0, "Pass 5\n/dev/vdb1: 11/100 files, 200/400 blocks\n", "e2fsck 1.47\n")


def test_recover_without_data_nothing_done(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    for name, kind in COMBINATIONS:
        if kind in (FilesystemKind.RAW, SWAP):
            assert made(name, kind).recover(target) == Recovered()
    assert runner.ran == [], "nothing may write to what is to be looked at"


@pytest.mark.parametrize("name", ["buffered", "mmap", "truncate", "inflight-modify"])
def test_recover_ext4_mounted_then_checked(name: str) -> None:
    runner = crashed((0, "", ""), CLEAN_FSCK, (0, FIO_JSON, ""))
    found = made(name, EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(True, "", CheckResult(0, "/dev/vdb1: 11/100 files, 200/400 blocks"), 0)
    assert found.check.found is FilesystemCheck.CLEAN
    ran = [script(argv) if argv[0] == "sh" else " ".join(argv) for argv in runner.ran]
    steps = [next(at for at, step in enumerate(ran) if word in step) for word in ("mount -t ext4", "umount", "e2fsck")]
    assert steps == sorted(steps) and "e2fsck -fn /dev/vdb1" in ran, "fsck changes nothing"
    assert not any("mkfs" in step for step in ran)


def test_recover_buffered_data_read_back() -> None:
    runner = crashed((0, "", ""), CLEAN_FSCK, (1, WRONG_JSON, WRONG_WORDS))
    assert (
        made("buffered", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9)))).wrong_reads == 3
    )


def test_recover_fsck_errors_status_and_message() -> None:
    runner = crashed((0, "", ""), (4, "Pass 1\n/dev/vdb1: ***** ERRORS *****\n", ""), (0, FIO_JSON, ""))
    found = made("inflight-modify", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(True, "", CheckResult(4, "/dev/vdb1: ***** ERRORS *****"), 0)
    assert found.check.found is FilesystemCheck.DAMAGED


def test_recover_mount_fails_reported_nothing_read() -> None:
    said = "mount: wrong fs type\n       dmesg(1) may have more\n"
    runner = crashed((32, "", said), (8, "bad superblock\n", ""), (0, FIO_JSON, ""))
    found = made("buffered", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(False, "mount: wrong fs type dmesg(1) may have more", CheckResult(8, "bad superblock"), 0)
    assert "fio" not in {argv[0] for argv in runner.ran}


def test_recover_mount_not_tried_is_no_finding() -> None:
    runner = crashed((2, "", "there is no block device /dev/vdb1\n"), CLEAN_FSCK, (0, FIO_JSON, ""))
    with pytest.raises(CommandError, match="there is no block device"):
        made("buffered", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))


def test_recover_fsck_unable_says_why() -> None:
    errors = "e2fsck 1.47.0 (5-Feb-2023)\ne2fsck: Device or resource busy while trying to open /dev/vdb1\n"
    runner = crashed((0, "", ""), (8, "Possibly in use\n\n", errors), (0, FIO_JSON, ""))
    check = made("mmap", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9)))).check
    assert check == CheckResult(8, "e2fsck: Device or resource busy while trying to open /dev/vdb1")
    assert check.found is FilesystemCheck.UNCHECKED and CheckResult().found is None


class Unmounted:
    """Runs fio here and passes over everything that mounts."""

    host = "controller"

    def __init__(self, options: str) -> None:
        self._here = LocalRunner()
        self._options = options

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        if argv[0] != "fio":
            return Completed(self.host, tuple(argv), 0, "", "", 0.0)
        path = self._options + Path(argv[-1]).name
        return self._here.run([*argv[:-1], path], timeout=timeout, ok=ok)

    def write(self, path: str, text: str) -> None:
        self._here.write(self._options + Path(path).name, text)


class Slow(Buffered):
    """As on a machine that does not write all of it in the time it is given."""

    def _job(self) -> Job:
        job = super()._job()
        options: dict[str, Option] = {**job.options, "rate_iops": "1000000,400"}
        return replace(job, options=options)


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
def test_verify_pattern_slow_machine_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fio, "MOUNT_POINT", str(tmp_path))
    monkeypatch.setattr(mounted, "MOUNT_POINT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    target = WorkloadTarget(Unmounted(f"{tmp_path}/"), "/dev/null", cast(Resource, Below(32768)))
    Buffered(FILESYSTEMS[EXT4]).prepare(target)
    workload = Slow(FILESYSTEMS[EXT4])
    work = workload.work(target, 1)
    assert work.read_back_errors == 0
    assert workload.quiesce(target) == 0, "what was never written is no wrong data"

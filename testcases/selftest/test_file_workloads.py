"""Workloads on files that bring programs of their own: what those do, and what is made of what they report."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.drbd.resource import Resource
from harness.errors import CommandError, RefusedError, WorkloadFailedError
from harness.filesystems.base import CheckResult, Offers
from harness.filesystems.mounted import Mounted
from harness.judgement.losses import data_loss_findings
from harness.model import Cell, Crash, CrashRecovery, Evidence, FilesystemKind
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.workloads import workload_of
from harness.workloads.base import Workload, WorkloadTarget
from harness.workloads.database import SqliteJournal, SqliteWal, acknowledged
from harness.workloads.files import AppendDelete, FileStorm, SmallFiles
from harness.workloads.fio_runner import need_direct_io
from harness.workloads.python_program import PROGRAMS, run_program

STORM, DATABASE = PROGRAMS / "file_storm.py", PROGRAMS / "database.py"
#: Seconds of work that are enough on a busy machine.
ENOUGH = "2"


class Folder(Mounted):
    """A folder here in the place of a filesystem."""

    kind = FilesystemKind.EXT4
    offers = Offers.FILES
    method = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, target: WorkloadTarget) -> None:
        pass

    def mount(self, target: WorkloadTarget) -> None:
        pass

    def unmount(self, target: WorkloadTarget) -> None:
        pass

    def file(self, target: WorkloadTarget, name: str) -> str:
        return f"{self.folder}/{name}"

    def check(self, target: WorkloadTarget) -> CheckResult:
        return CheckResult(0, "clean")


@pytest.fixture
def target() -> WorkloadTarget:
    return WorkloadTarget(LocalRunner(), "/dev/null", cast(Resource, SimpleNamespace(blocks=102400)))


def run(program: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(program), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", [AppendDelete, SmallFiles])
def test_file_storm_here_counts_and_reads_everything_back(
    kind: type[FileStorm], tmp_path: Path, target: WorkloadTarget
) -> None:
    workload = kind(Folder(tmp_path), 7)
    workload.prepare(target)
    work = workload.work(target, int(ENOUGH))
    assert work.read_back_errors == 0 and work.notes == ()
    assert work.facts["files_deleted"] > 0 and work.facts["files_checked"] > 0
    assert workload.quiesce(target) == 0 and workload.findings == []


def test_small_files_flipped_byte_or_lost_file_found(tmp_path: Path, target: WorkloadTarget) -> None:
    workload = SmallFiles(Folder(tmp_path), 7)
    workload.work(target, int(ENOUGH))
    first, second = sorted(path for path in tmp_path.rglob("*") if path.is_file())[:2]
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.unlink()
    assert workload.quiesce(target) == 2
    assert any(finding.startswith(f"{first}: ") and "checksum" in finding for finding in workload.findings)
    assert any("files are there where" in finding for finding in workload.findings)


def test_append_delete_record_missing_at_the_end_found(tmp_path: Path) -> None:
    assert run(STORM, "append-delete", str(tmp_path), "5", "3").returncode == 0
    kept = next(path for path in sorted(tmp_path.iterdir()) if path.name.startswith("kept-"))
    kept.write_bytes(kept.read_bytes()[:-10])
    done = run(STORM, "check", str(tmp_path))
    assert json.loads(done.stdout)["files_wrong"] == 1 and str(kept) in done.stderr


def test_file_storm_same_seed_same_files(tmp_path: Path) -> None:
    found = importlib.util.spec_from_file_location("file_storm", STORM)
    assert found is not None and found.loader is not None
    storm = importlib.util.module_from_spec(found)
    found.loader.exec_module(storm)
    made = []
    for number, seed in enumerate((5, 5, 6)):
        folder = tmp_path / str(number)
        one = storm.SmallFiles(1, str(folder), 0.0, seed)
        for _ in range(20):
            one.step()
        made.append({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert made[0] == made[1] != made[2]


def test_file_storm_variables_in_place_of_arguments(tmp_path: Path) -> None:
    variables = {"DRBD_DIRECTORY": str(tmp_path), "DRBD_SECONDS": "1", "DRBD_SEED": "3"}
    assert run(STORM, "small-files", env=variables).returncode == 0
    assert run(STORM, "tidy", env=variables).returncode == 4


def test_file_storm_disk_full_is_a_failed_workload(target: WorkloadTarget, tmp_path: Path) -> None:
    full = "file_storm.py: No space left on device: /mnt/drbd-harness/small-1/3/19\n"
    runner = ScriptedRunner(lambda argv: (1, "", full))
    with pytest.raises(WorkloadFailedError, match=r"the disk is full: .*No space left on device"):
        SmallFiles(Folder(tmp_path)).work(replace(target, runner=runner), 1)


def test_file_storm_no_python_refused_other_failures_raised(target: WorkloadTarget, tmp_path: Path) -> None:
    for status, error in ((127, RefusedError), (1, CommandError)):
        runner = ScriptedRunner(lambda argv, status=status: (status, "", "timeout: failed to run command 'python3'"))
        with pytest.raises(error):
            SmallFiles(Folder(tmp_path)).prepare(replace(target, runner=runner))


# --------------------------------------------------------------------------- the database


@pytest.mark.parametrize("kind", [SqliteWal, SqliteJournal])
def test_database_here_all_that_was_acknowledged_is_there(
    kind: type[SqliteWal], tmp_path: Path, target: WorkloadTarget
) -> None:
    workload = kind(Folder(tmp_path), 7)
    workload.prepare(target)
    work = workload.work(target, int(ENOUGH))
    assert work.facts["transactions"] > 0 and work.read_back_errors == 0
    assert workload.quiesce(target) == 0 and workload.findings == []
    database = sqlite3.connect(tmp_path / "database")
    assert database.execute("PRAGMA journal_mode").fetchone() == (workload.journal,)
    assert database.execute("SELECT number FROM state").fetchone() == (work.facts["transactions"],)
    database.close()


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, int]:
    """A database that was at work, and how many transactions it acknowledged."""
    path = tmp_path / "database"
    assert run(DATABASE, "make", str(path), "wal").returncode == 0
    done = run(DATABASE, "work", str(path), "wal", ENOUGH, "3")
    return path, json.loads(done.stdout)["transactions"]


def findings(path: Path, at_least: int) -> list[str]:
    done = run(DATABASE, "check", str(path), str(at_least))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["wrong"] == len(done.stderr.splitlines())
    return done.stderr.splitlines()


def test_database_check_lost_transactions_counted(written: tuple[Path, int]) -> None:
    path, count = written
    assert findings(path, count) == findings(path, 0) == []
    (lost,) = findings(path, count + 3)
    assert lost.startswith(f"3 of {count + 3} acknowledged transactions are lost")


def test_database_check_changed_row_found(written: tuple[Path, int]) -> None:
    path, count = written
    database = sqlite3.connect(path)
    database.execute("UPDATE rows SET payload = payload || 'x' WHERE number = (SELECT max(number) FROM rows)")
    database.commit()
    database.close()
    (wrong,) = findings(path, count)
    assert "has a wrong checksum" in wrong


def test_database_check_missing_row_found(written: tuple[Path, int]) -> None:
    path, count = written
    database = sqlite3.connect(path)
    database.execute("DELETE FROM rows WHERE number = (SELECT max(number) FROM rows)")
    database.commit()
    database.close()
    assert findings(path, count) == [f"the rows are not those of transaction {count}, the last that is there"]


@pytest.mark.parametrize("fill", [b"", b"\0", b"\xff"])
def test_database_check_overwritten_file_found(written: tuple[Path, int], fill: bytes) -> None:
    path, count = written
    content = path.read_bytes()
    path.write_bytes(fill * len(content))
    assert findings(path, count)


def test_database_check_overwritten_page_found(written: tuple[Path, int]) -> None:
    path, count = written
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    path.write_bytes(content)
    assert findings(path, count)


def test_database_check_file_gone_found(tmp_path: Path) -> None:
    assert findings(tmp_path / "database", 3) == [
        f"the database {tmp_path}/database is gone, and 3 transactions were acknowledged"
    ]


def test_database_no_such_journal_refused(tmp_path: Path, target: WorkloadTarget) -> None:
    runner = ScriptedRunner(lambda argv: (3, "", "SQLite keeps journal_mode 'delete' here, not 'wal'\n"))
    with pytest.raises(RefusedError, match="SQLite keeps journal_mode 'delete' here"):
        SqliteWal(Folder(tmp_path)).prepare(replace(target, runner=runner))


# --------------------------------------------------------------------------- the database and a crash


def test_acknowledged_newest_line_that_is_whole() -> None:
    lines = [f"sqlite-ack {number} {number * 31 % 9973}\n" for number in range(1, 400)]
    console = "[    1.2] EXT4-fs mounted\n" + "".join(lines)
    assert acknowledged(console) == 399
    assert acknowledged(console + "sqlite-ack 4000 31") == 399, "a torn line"
    assert acknowledged(console.replace("sqlite-ack 399", "sqlite-a[ 3.1] hung task\nck 399")) == 398
    assert acknowledged("") == acknowledged("sqlite-ack 12 1\n") == 0


def test_database_acknowledgements_on_the_console_only_with_a_crash(tmp_path: Path, target: WorkloadTarget) -> None:
    console = tmp_path / "console"
    console.touch()
    path = tmp_path / "database"
    run(DATABASE, "make", str(path), "wal")
    done = run(DATABASE, "work", str(path), "wal", ENOUGH, "3", str(console))
    assert acknowledged(console.read_text()) == json.loads(done.stdout)["transactions"]
    for crash, heard in ((None, False), (Crash.QEMU, True)):
        runner = ScriptedRunner(lambda argv: (0, '{"transactions": 3}', ""))
        cell = Cell("sqlite-wal", filesystem=FilesystemKind.EXT4, crash=crash)
        workload_of(cell).work(replace(target, runner=runner), 1)
        assert ("/dev/console" in runner.ran[-2]) is heard


def test_database_recovered_what_the_console_said_is_demanded(
    written: tuple[Path, int], target: WorkloadTarget
) -> None:
    path, count = written
    workload: Workload = SqliteWal(Folder(path.parent), crashes=True)
    workload.hear_console(f"sqlite-ack {count} {count * 31 % 9973}\n")
    recovered = workload.recover(target)
    assert (recovered.mounted, recovered.wrong_reads, recovered.findings) == (True, 0, ())
    assert recovered.looked_at == f"PRAGMA integrity_check, all rows, and {count} acknowledged transactions"
    workload.hear_console(f"sqlite-ack {count + 1} {(count + 1) * 31 % 9973}\n")
    recovered = workload.recover(target)
    assert recovered.wrong_reads == 1
    crash = CrashRecovery(Crash.QEMU, wrong_reads=recovered.wrong_reads, findings=recovered.findings, mounted=True)
    evidence = Evidence(Cell("sqlite-wal", crash=Crash.QEMU), 1, "", crash_recovery=crash)
    assert data_loss_findings(evidence) == (
        "after the crash the client read back something else than it wrote, 1 time(s): "
        f"1 of {count + 1} acknowledged transactions are lost: the last that is there is {count}",
    )


# --------------------------------------------------------------------------- O_DIRECT


@pytest.mark.parametrize("workload", ["steady", "inflight-modify", "fio-verify", "fio-direct"])
def test_direct_workload_filesystem_without_direct_io_refused(workload: str, target: WorkloadTarget) -> None:
    # What dd says of a file in /proc, which has no direct I/O.
    said = "dd: failed to open '/mnt/drbd-harness/direct': Invalid argument"
    runner = ScriptedRunner(lambda argv: (0, f"{said}\n" if "oflag=direct" in str(argv) else "", ""))
    with pytest.raises(RefusedError, match=r"ext4 refused: no file of it can be written with O_DIRECT: dd: failed to"):
        workload_of(Cell(workload, filesystem=FilesystemKind.EXT4)).prepare(replace(target, runner=runner))


def test_need_direct_io_here_leaves_no_file(tmp_path: Path, target: WorkloadTarget) -> None:
    need_direct_io(Folder(tmp_path), target)
    assert not [*tmp_path.iterdir()]
    # A file that cannot be opened at all says nothing about direct I/O.
    with pytest.raises(CommandError, match="No such file or directory"):
        need_direct_io(Folder(Path("/proc/self/task")), target)


def test_need_direct_io_file_that_has_none_refused(target: WorkloadTarget) -> None:
    class File(Folder):
        def file(self, target: WorkloadTarget, name: str) -> str:
            return "/proc/self/comm"

    with pytest.raises(RefusedError, match="Invalid argument"):
        need_direct_io(File(Path()), target)


def test_run_program_that_fails_its_file_is_removed(target: WorkloadTarget) -> None:
    before = {*Path("/tmp").glob("drbd-harness-*-database.py")}
    with pytest.raises(CommandError):
        run_program(replace(target, runner=LocalRunner()), "database", "nothing-it-knows", timeout=60)
    assert {*Path("/tmp").glob("drbd-harness-*-database.py")} <= before

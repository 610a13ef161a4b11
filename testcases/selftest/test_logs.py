"""The log of what ran: its columns, its quoting, its files, and what happens where it cannot be written."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import CommandError, DeadlineError, LostGuestError, LostNodeError
from harness.util import logs

# What an argument of a program can be: anything without a NUL; bytes that are no text come as surrogates.
ARGUMENT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PRINTABLE = ARGUMENT.filter(str.isprintable)
COLUMN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


class Collector(logging.Handler):
    """Remembers the messages it was given."""

    def __init__(self, level: int = logging.DEBUG) -> None:
        super().__init__(level)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """The messages of every logger of the harness."""
    collector = Collector()
    with logs.with_handler(logs.ROOT, collector):
        yield collector.found


def lines(directory: Path, name: str = logs.COMMANDS_FILE) -> list[list[str]]:
    """The columns of each line of a log."""
    return [line.split("\t") for line in (directory / name).read_text(encoding="utf-8").splitlines()]


# --------------------------------------------------------------------------- one record


def test_command_that_ends_has_lab_host_status_seconds_and_argv(heard: list[str]) -> None:
    with logs.command("nodea", ["drbdadm", "up", "r 0"], "3fa2c1") as logged:
        logged.status = 11
    lab, host, status, seconds, argv = heard[0].split("\t")
    assert (lab, host, status, argv) == ("3fa2c1", "nodea", "11", "drbdadm up 'r 0'")
    assert re.fullmatch(r"\d+\.\d{3}", seconds) and float(seconds) < 5


def test_command_without_a_lab_has_a_dash(heard: list[str]) -> None:
    with logs.command("controller", ["true"]) as logged:
        logged.status = 0
    assert heard[0].split("\t")[:3] == ["-", "controller", "0"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (DeadlineError("it did not\nend"), "deadline"),
        (LostNodeError("gone"), "lost-node"),
        (LostGuestError("gone"), "lost-guest"),
        (CommandError("controller", ["x"], 127, "", "x is not installed"), "127"),
        (KeyboardInterrupt(), "interrupted"),
        (OSError(28, "No space left on device"), "os"),
    ],
)
def test_command_that_raises_has_the_name_of_the_error_and_its_message(
    heard: list[str], error: BaseException, name: str
) -> None:
    with pytest.raises(type(error)), logs.command("nodea", ["x"]):
        raise error
    columns = heard[0].split("\t")
    assert columns[2] == name
    assert columns[5:] == ([logs.one_line(str(error))] if str(error) else [])


def test_timed_call_that_ends_is_ok(heard: list[str]) -> None:
    with logs.timed("libvirt", "nodea", "attachDeviceFlags\ncell-7", "3fa2c1"):
        pass
    assert heard[0].split("\t")[2] == "ok" and heard[0].endswith(r"attachDeviceFlags\ncell-7")


# --------------------------------------------------------------------------- quoting and cutting


@given(st.lists(PRINTABLE, min_size=1, max_size=5))
def test_quoted_printable_arguments_come_back_from_shlex(argv: list[str]) -> None:
    assert shlex.split(logs.quoted(argv)) == argv


@given(st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"")), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_quoted_arguments_of_any_bytes_come_back_from_a_shell(arguments: list[bytes]) -> None:
    line = logs.quoted([argument.decode("utf-8", "surrogateescape") for argument in arguments])
    assert line.isprintable()
    shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert shell.stdout.split(b"\0")[:-1] == arguments


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_quoted_line_is_one_line_without_tabs_whatever_is_in_it(argv: list[str]) -> None:
    line = logs.quoted(argv)
    assert line.isprintable() and len(line.splitlines()) <= 1 and line.encode()


def test_long_command_is_cut_and_its_length_is_given(heard: list[str]) -> None:
    argv = ["sh", "-c", "x" * 5000]
    with logs.command("nodea", argv):
        pass
    text = heard[0].split("\t")[4]
    assert text == f"{shlex.join(argv)[: logs.COMMAND_CHARACTERS]}... (5006 characters)"


def test_long_message_is_cut(heard: list[str]) -> None:
    with pytest.raises(LostNodeError), logs.command("nodea", ["true"]):
        raise LostNodeError("x" * 5000)
    assert len(heard[0].split("\t")[5]) < 600


# --------------------------------------------------------------------------- the files of a run


def test_kept_separates_commands_from_all_other_records(tmp_path: Path) -> None:
    with logs.kept(tmp_path):
        with logs.command("nodea", ["true"], "lab1") as logged:
            logged.status = 0
        with logs.timed("connection", "nodea", "ssh root@127.0.0.1:1"):
            pass
        logs.progress("starting the guest")
        logging.getLogger("harness.engine").debug("a detail\nof two lines")
        logging.getLogger("paramiko.transport").error("Socket exception")
    commands, others = lines(tmp_path), lines(tmp_path, logs.OTHERS_FILE)
    assert [(kind, lab, host, status, text) for _, kind, lab, host, status, _, text in commands] == [
        ("command", "lab1", "nodea", "0", "true"), ("connection", "-", "nodea", "ok", "ssh root@127.0.0.1:1"),
    ]  # fmt: skip
    assert [columns[1:] for columns in others] == [
        ["INFO", "harness.progress", "starting the guest"], ["DEBUG", "harness.engine", r"a detail\nof two lines"],
        ["ERROR", "paramiko.transport", "Socket exception"],
    ]  # fmt: skip


def test_kept_times_are_iso_8601_in_utc_with_milliseconds(tmp_path: Path) -> None:
    with logs.kept(tmp_path):
        logs.progress("now")
    time = lines(tmp_path, logs.OTHERS_FILE)[0][0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert abs(datetime.fromisoformat(time).timestamp() - datetime.now().timestamp()) < 60


def test_kept_traceback_is_on_the_line_of_its_record(tmp_path: Path) -> None:
    with logs.kept(tmp_path):
        try:
            json.loads("{")
        except ValueError:
            logging.getLogger("harness.engine").exception("a bug")
    (columns,) = lines(tmp_path, logs.OTHERS_FILE)
    assert columns[1] == "ERROR" and r"a bug\nTraceback" in columns[3] and "JSONDecodeError" in columns[3]


def test_kept_writes_each_line_at_once(tmp_path: Path) -> None:
    with logs.kept(tmp_path):
        with logs.command("nodea", ["true"]):
            pass
        assert len(lines(tmp_path)) == 1


def test_kept_again_appends_behind_an_unfinished_line(tmp_path: Path) -> None:
    (tmp_path / logs.COMMANDS_FILE).write_text("complete\ncut off in the mid")
    for _ in range(2):
        with logs.kept(tmp_path), logs.command("nodea", ["true"]):
            pass
    found = (tmp_path / logs.COMMANDS_FILE).read_text().splitlines()
    assert found[:2] == ["complete", "cut off in the mid"] and len(found) == 4


def test_kept_leaves_the_loggers_as_they_were(tmp_path: Path) -> None:
    def state() -> list[object]:
        loggers = map(logging.getLogger, (logs.ROOT, logs.SSH_LIBRARY))
        return [(one.level, list(one.handlers)) for one in loggers]

    before = state()
    with pytest.raises(KeyboardInterrupt), logs.kept(tmp_path):
        assert state() != before
        raise KeyboardInterrupt
    assert state() == before
    logs.progress("to nobody")
    assert not (tmp_path / logs.OTHERS_FILE).exists()


def test_kept_lines_of_two_threads_are_not_mixed(tmp_path: Path) -> None:
    def work(host: str) -> None:
        for number in range(200):
            with logs.command(host, [host * 50, str(number)], host):
                pass

    with logs.kept(tmp_path):
        threads = [threading.Thread(target=work, args=(host,)) for host in ("nodea", "nodeb")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for host in ("nodea", "nodeb"):
        assert [columns[-1] for columns in lines(tmp_path) if columns[3] == host] == [
            f"{host * 50} {number}" for number in range(200)
        ]


@given(COLUMN, st.lists(ARGUMENT, max_size=5), COLUMN)
def test_kept_line_has_seven_columns_and_a_message_whatever_was_run(
    tmp_path_factory: pytest.TempPathFactory, message: str, argv: list[str], text: str
) -> None:
    directory = tmp_path_factory.mktemp("run")
    with logs.kept(directory):
        with pytest.raises(LostNodeError), logs.command("nodea", argv):
            raise LostNodeError(message)
        logs.progress(text)
    assert [len(columns) for columns in lines(directory)] == [8]
    assert [len(columns) for columns in lines(directory, logs.OTHERS_FILE)] == [4]


# --------------------------------------------------------------------------- the files of a command


def test_kept_below_makes_a_folder_named_after_time_command_and_process(tmp_path: Path) -> None:
    with logs.kept_below(tmp_path / "logs", "lab-up"), logs.command("nodea", ["true"]):
        pass
    (folder,) = (tmp_path / "logs").iterdir()
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-lab-up-{os.getpid()}", folder.name) and len(lines(folder)) == 1


def test_kept_below_leaves_no_empty_folder_and_only_the_newest(tmp_path: Path) -> None:
    for number in range(logs.FOLDERS + 5):
        (tmp_path / f"20261124T0000{number:02}Z-lab-up-1").mkdir()
    with logs.kept_below(tmp_path, "lab-up"):
        pass
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == logs.FOLDERS - 1 and left[0] == "20261124T000006Z-lab-up-1"


# --------------------------------------------------------------------------- no room


def test_kept_on_a_full_disk_is_one_warning_and_no_error(tmp_path: Path) -> None:
    (tmp_path / logs.COMMANDS_FILE).symlink_to("/dev/full")
    warned = Collector(logging.WARNING)
    with logs.kept(tmp_path), logs.with_handler(logs.PROGRESS, warned):
        for _ in range(3):
            with logs.command("nodea", ["true"]):
                pass
    assert len(warned.found) == 1
    assert warned.found[0].startswith(f"{tmp_path}/commands.log cannot be written (No space left on device)")
    assert [columns[3] for columns in lines(tmp_path, logs.OTHERS_FILE)] == warned.found


def test_kept_in_a_folder_that_is_not_there_is_one_warning_a_file(tmp_path: Path) -> None:
    warned = Collector(logging.WARNING)
    with logs.kept(tmp_path / "none"), logs.with_handler(logs.PROGRESS, warned):
        for _ in range(3):
            with logs.command("nodea", ["true"]):
                pass
            logs.progress("x")
    assert [Path(text.split(" ")[0]).name for text in warned.found] == [logs.COMMANDS_FILE, logs.OTHERS_FILE]


def test_record_that_nobody_keeps_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("harness.engine").warning("nobody listens")
    assert capfd.readouterr() == ("", "")

"""Running commands on the controller, or by a table of answers, and what is logged of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from logged_commands import columns, logged

from harness.errors import CommandError, DeadlineError
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner

__all__ = ["logged"]


# --------------------------------------------------------------------------- here


def test_local_run_arguments_unchanged() -> None:
    done = LocalRunner().run(["printf", "%s|", "a b", "$HOME", "'", "*", ""])
    assert done.stdout == "a b|$HOME|'|*||"
    assert (done.host, done.status, done.stderr) == ("controller", 0, "") and done.seconds >= 0


def test_local_run_stdin_delivered_and_closed() -> None:
    assert LocalRunner().run(["cat"], stdin="ä\nb").stdout == "ä\nb"


def test_local_run_binary_output_decoded() -> None:
    assert LocalRunner().run(["printf", r"a\377b"]).stdout == "a\ufffdb"


def test_local_run_of_a_user_with_another_language_is_english(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8"), ("LANGUAGE", "de_DE:de")):
        monkeypatch.setenv(name, value)
    assert LocalRunner().run(["sh", "-c", 'echo "$LC_ALL|$LANGUAGE|ü"']).stdout == "C.UTF-8||ü\n"


def test_local_run_status_not_ok_command_error() -> None:
    fails = ["sh", "-c", "echo out; echo first >&2; echo last words >&2; exit 3"]
    with pytest.raises(CommandError) as caught:
        LocalRunner().run(fails)
    error = caught.value
    assert (error.host, error.status, error.stdout) == ("controller", 3, "out\n")
    assert error.argv == tuple(fails) and error.stderr == "first\nlast words\n"
    assert str(error).endswith("ended with status 3: last words")
    assert LocalRunner().run(fails, ok=(0, 3)).status == 3
    assert LocalRunner().run(fails, ok=()).status == 3
    with pytest.raises(CommandError):
        LocalRunner().run(["true"], ok=(1,))


def test_command_error_of_a_long_script_is_one_line_that_shows_which_it_is() -> None:
    script = "\nset -e\n" + "step && other step\n" * 100
    error = CommandError("nodea", ["sh", "-ec", script, "sh", "x"], 2, "", "sh: 5: Illegal number\n")
    text = str(error)
    assert text.startswith("on nodea, 'sh -ec set -e step && other step ") and "\n" not in text and len(text) < 240
    assert text.endswith(" ...' ended with status 2: sh: 5: Illegal number") and error.argv[2] == script


def test_local_run_missing_program_status_127() -> None:
    with pytest.raises(CommandError, match="status 127: no-such-program is not installed"):
        LocalRunner().run(["no-such-program", "x"])


def test_local_runner_program_that_cannot_be_run_is_status_126(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no program")
    with pytest.raises(CommandError, match=f"status 126: {program} cannot be run: Permission denied"):
        LocalRunner().run([str(program)])


def test_local_run_too_long_deadline_error() -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="'sleep' on the controller did not end within 0 s"):
        LocalRunner().run(["sleep", "30"], timeout=0.1)
    assert time.monotonic() - began < 10


def test_local_write_any_text_exact(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("something much longer")
    LocalRunner().write(str(path), "short\n")
    assert path.read_bytes() == b"short\n"


def test_local_runner_without_input_has_an_empty_one() -> None:
    assert LocalRunner().run(["cat"], timeout=10).stdout == ""


# --------------------------------------------------------------------------- from a table


def test_scripted_run_answers_and_records() -> None:
    runner = ScriptedRunner(lambda argv: (0, "pong", "") if argv == ("ping",) else (7, "", "what?"))
    assert runner.run(["ping"]).stdout == "pong"
    with pytest.raises(CommandError, match="on scripted, 'other x' ended with status 7"):
        runner.run(["other", "x"])
    assert runner.run(["other"], ok=()).status == 7
    runner.write("/etc/x", "text")
    assert runner.ran == [("ping",), ("other", "x"), ("other",)] and runner.written == {"/etc/x": "text"}


# --------------------------------------------------------------------------- what is logged


def test_local_runner_logs_each_command_with_its_status(logged: pytest.LogCaptureFixture) -> None:
    LocalRunner().run(["cat"], stdin="nobody's business")
    with pytest.raises(CommandError):
        LocalRunner("lab1").run(["sh", "-c", "exit 3"])
    LocalRunner().run(["sh", "-c", "exit 4"], ok=())
    assert columns(logged) == [
        ("command", "-", "controller", "0", "cat"),
        ("command", "lab1", "controller", "3", "sh -c 'exit 3'"),
        ("command", "-", "controller", "4", "sh -c 'exit 4'"),
    ]
    assert "nobody's business" not in logged.text


def test_local_runner_logs_a_missing_program_and_a_deadline(logged: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CommandError):
        LocalRunner().run(["no-such-program"])
    with pytest.raises(DeadlineError):
        LocalRunner().run(["sleep", "30"], timeout=0.1)
    assert [(status, text) for *_, status, text in columns(logged)] == [
        ("127", "no-such-program"), ("deadline", "sleep 30"),
    ]  # fmt: skip
    assert logged.messages[1].endswith("\t'sleep' on the controller did not end within 0 s")
    assert 0.1 <= float(logged.messages[1].split("\t")[3]) < 10


def test_scripted_runner_logs_nothing(logged: pytest.LogCaptureFixture) -> None:
    ScriptedRunner(lambda _: (0, "", "")).run(["true"])
    assert not logged.records

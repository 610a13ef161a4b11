"""The command, whichever it is: one sentence for what is wrong, the right exit code, an interrupt, a locale, a log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from judged_evidence import oracles
from stored_run import GOLDEN, apart, command, stored

from harness import images
from harness.cli import main
from harness.remote.local import LocalRunner
from harness.util import logs

__all__ = ["apart", "command"]


# --------------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--nonsense",), "--nonsense"),
        (("judge", "--nonsense"), "--nonsense"),
        (("judge",), "RUN"),
        (("jugde", "latest"), "jugde"),
        (("judge", "run7"), "there is no run 'run7' in runs"),
        (("judge", "latest"), "there is no run in runs"),
        (("report", "run7"), "there is no run 'run7'"),
        (("compare", "run7", "run8"), "there is no run 'run7'"),
        (("run", "--device-mib", "much"), "--device-mib"),
        (("images", "build", "--drbd", ""), "--drbd: 'drbd' is empty"),
        (("images", "prune", "--drbd", ""), "--drbd: 'drbd' is empty"),
        (("run", "--resume", "run7"), "there is no run 'run7'"),
        (("run", "--resume", "run7", "--matrix", "quick"), "leave them out"),
        (("run", "--resume", "run7", "--repeat", "3"), "leave --repeat and --seed out"),
        (("run", "--resume", "run7", "--shard", "1/2"), "and --shard"),
        (("run", "--repeat", "0"), "--repeat"),
        (("run", "--shard", "0/3"), "--shard is '0/3'; it is one part of several"),
        (("run", "--shard", "4/3"), "--shard is '4/3'; it is one part of several"),
        (("run", "--shard", "x"), "--shard is 'x'; it is one part of several"),
        (("merge",), "RUN"),
        (("merge", "run7", "run8"), "there is no run 'run7' in runs"),
        (("list", "--matrix", "quikc"), "did you mean 'quick'?"),
    ],
)
def test_command_wrong_request_one_sentence_and_exit_code_4(
    command: Any, arguments: tuple[str, ...], part: str
) -> None:
    code, out, err = command(*arguments)
    assert code == 4, out + err
    assert err.startswith("drbd-harness: ") and part in err
    assert err.count("\n") == 1 and out == "", "one sentence"


@pytest.mark.parametrize("arguments", [(), ("images",), ("lab",)])
def test_command_that_is_not_named_help_and_one_sentence(command: Any, arguments: tuple[str, ...]) -> None:
    code, out, err = command(*arguments)
    assert code == 4 and "Commands" in out
    assert err == "drbd-harness: which command is meant? (drbd-harness --help lists what there is)\n"


def test_help_and_version_exit_code_0(command: Any) -> None:
    assert command("version")[0] == 0
    code, out, _ = command("--help")
    assert code == 0 and "judge" in out and "doctor" in out
    assert command("judge", "--help")[0] == 0


def test_command_interrupted_one_sentence(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    assert command("version") == (2, "", "drbd-harness: interrupted\n")


def test_command_interrupted_inside_one_sentence(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(root: Path) -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.store.run_ids", interrupted)
    code, _, err = command("list")
    assert (code, err) == (2, "drbd-harness: interrupted\n")


# --------------------------------------------------------------------------- as a process


def test_process_exit_code_reaches_the_shell() -> None:
    stored(writeback=oracles({5}, {5}))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", "judge", "run1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_command_on_a_processor_without_what_numpy_needs_is_one_sentence(tmp_path: Path) -> None:
    said = "NumPy was built with baseline optimizations: \n(X86_V2) but your machine doesn't support: \n(X86_V2)."
    (tmp_path / "numpy.py").write_text(f"raise RuntimeError({said!r})\n")
    argv = [sys.executable, "-c", "from harness.cli.main import main; main()", "--help"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "x86-64-v2" in done.stderr


@pytest.mark.parametrize("arguments", [("report", "--markdown"), ("report", "--csv"), ("judge",)])
def test_command_in_a_locale_without_unicode_ends_as_in_any_other(arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    program = Path(sys.executable).with_name("drbd-harness")

    def told(encoding: str) -> bytes:
        settings = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
        asked = [str(program), command, str(GOLDEN / "full-drbd-8.4"), *options]
        done = subprocess.run(asked, env=os.environ | settings, capture_output=True, timeout=120, check=False)
        assert done.returncode == (0 if command == "report" else 2), "42 of its cells were not run"
        assert b"Traceback" not in done.stderr
        return done.stdout

    as_ascii = told("ascii")
    if command == "report":
        assert as_ascii == told("utf-8")
    else:
        assert as_ascii.isascii()


# --------------------------------------------------------------------------- the log of commands without a run


def test_images_build_that_fails_shows_progress_and_keeps_its_log(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ensure_stack(*_: Any) -> None:
        logs.progress("node image, trixie: unpacking")
        LocalRunner().run(["sh", "-c", "exit 3"])

    monkeypatch.setattr(images, "ensure_stack", ensure_stack)
    code, _, err = command("images", "build")
    assert code == 2 and "  node image, trixie: unpacking\n" in err
    (folder,) = (tmp_path / "state" / "logs").iterdir()
    assert "-images-build-" in folder.name
    assert (folder / "commands.log").read_text().rstrip("\n").endswith("\tsh -c 'exit 3'")
    assert "\tnode image, trixie: unpacking\n" in (folder / "harness.log").read_text()

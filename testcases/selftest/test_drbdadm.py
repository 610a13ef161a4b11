"""A drbdadm that gives its drbdsetup up after 5 s: that one is waited for, and what may be asked again is."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from harness.drbd.drbdadm import run_drbdadm
from harness.errors import CommandError
from harness.remote.local import LocalRunner
from harness.remote.scripted import Answer, ScriptedRunner

# As drbd-utils 9.22 printed it on a slow node.
SETUP = "drbdsetup-84 disconnect ipv4:192.168.77.1:7789 ipv4:192.168.77.2:7789"
GIVEN_UP = f"Command '{SETUP}' did not terminate within 5 seconds\n"


def slow(looks: int, later: Answer = (0, "", "")) -> ScriptedRunner:
    """A node whose first drbdadm gives up; its drbdsetup is seen ``looks`` times, and then comes ``later``."""
    left = [looks]
    asked: list[str] = []

    def answer(argv: tuple[str, ...]) -> Answer:
        if argv[0] == "pgrep":
            left[0] -= 1
            return (0, "4711\n", "") if left[0] >= 0 else (1, "", "")
        asked.append(argv[0])
        return (20, "", GIVEN_UP) if len(asked) == 1 else later

    return ScriptedRunner(answer)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.parametrize("command", ["disconnect", "connect", "verify", "invalidate-remote", "new-current-uuid"])
def test_given_up_command_that_is_done_once_counts_as_done_when_its_drbdsetup_ended(command: str) -> None:
    runner = slow(2)
    assert run_drbdadm(runner, ["drbdadm", command, "r0"]).status == 0
    assert [argv[0] for argv in runner.ran] == ["drbdadm", "pgrep", "pgrep", "pgrep"]


@pytest.mark.parametrize("command", ["adjust", "primary", "secondary", "net-options", "down"])
def test_given_up_command_that_may_be_repeated_is_repeated_behind_its_drbdsetup(command: str) -> None:
    runner = slow(1, later=(17, "", "refused"))
    assert run_drbdadm(runner, ["drbdadm", command, "r0"], ok=()).message == "refused"
    assert [argv[0] for argv in runner.ran] == ["drbdadm", "pgrep", "pgrep", "drbdadm"]


def test_drbdsetup_that_never_ends_is_drbdadms_own_message() -> None:
    with pytest.raises(CommandError, match="did not terminate within 5 seconds"):
        run_drbdadm(slow(10**6), ["drbdadm", "disconnect", "r0"], timeout=0.05)


def test_other_refusals_are_not_waited_for() -> None:
    runner = ScriptedRunner(lambda argv: (20, "", "r0: not defined in your config"))
    with pytest.raises(CommandError, match="not defined"):
        run_drbdadm(runner, ["drbdadm", "disconnect", "r0"])
    assert len(runner.ran) == 1


def test_machine_without_pgrep_tells_no_end_and_it_is_drbdadms_own_message() -> None:
    missing = ScriptedRunner(lambda argv: (127, "", "not found") if argv[0] == "pgrep" else (20, "", GIVEN_UP))
    with pytest.raises(CommandError, match="did not terminate within 5 seconds"):
        run_drbdadm(missing, ["drbdadm", "disconnect", "r0"], timeout=0.05)


def test_what_looks_for_drbdsetup_does_not_find_itself() -> None:
    runner = slow(0)
    run_drbdadm(runner, ["drbdadm", "disconnect", "r0"])
    pattern = runner.ran[1][-1]
    assert pattern.startswith("[d]rbdsetup") and SETUP not in pattern


def test_real_pgrep_finds_a_drbdsetup_that_runs_and_not_the_shell_it_is_called_from(tmp_path: Path) -> None:
    runner = slow(0)
    run_drbdadm(runner, ["drbdadm", "disconnect", "r0"])
    # As over ssh: what looks is called by a shell whose command line has the pattern too.
    look = ["sh", "-c", f"{shlex.join(runner.ran[1])}; exit $?"]
    assert LocalRunner().run(look, ok=()).status == 1
    (tmp_path / "disconnect").write_text("read line\n")
    with subprocess.Popen(SETUP.split(), executable="/bin/sh", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert LocalRunner().run(look).stdout.split() == [str(process.pid)]
        process.communicate(b"\n")

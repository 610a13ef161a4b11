"""The power of two real machines: agents that speak as cluster managers' do, commands, password files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli import main as cli
from harness.config.inventory import Host, load
from harness.errors import DeadlineError, HarnessError, InfrastructureError, RefusedError, UsageError
from harness.lab.hardware import power
from harness.lab.hardware.power import MachinePower, read_password
from harness.util import logs

PASSWORD = 'corr"ect horse'
# As fence agents do: options by standard input, XML of the options, 0 and 2 for a status; unknown options are written
# to standard error as they came.  What it was told is kept, with its command line and its environment.
AGENT = """\
#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
told = dict(line.rstrip("\\n").split("=", 1) for line in sys.stdin)
with open(here / "told", "a") as file:
    file.write(json.dumps([sys.argv[1:], told, dict(os.environ)]) + "\\n")
action, state = told.pop("action"), here / "power"
if action == "metadata":
    print('<?xml version="1.0" ?><resource-agent name="fence_test"><parameters>')
    print("".join(f'<parameter name="{one}"/>' for one in ("action", "ip", "plug", "password")))
    print("</parameters></resource-agent>")
    sys.exit(0)
mood = (here / "mood").read_text() if (here / "mood").exists() else ""
if mood == "fails":
    print("2026-11-29 14:01:05,610 ERROR: Unable to log in with", told.get("password"), file=sys.stderr)
    sys.exit("2026-11-29 14:01:05,610 ERROR: Please use '-h' for usage")
if action == "status":
    print("Status: " + state.read_text().upper())
    sys.exit({"on": 0, "off": 2}[state.read_text()])
if mood != "does nothing":
    state.write_text(action)
"""
COMMAND = """\
#!/bin/sh
# $1 is a secret of the user's, the last word what to do.
here=$(dirname "$0")
[ "$(cat "$here/mood" 2> /dev/null)" = fails ] && { echo "cannot log in with $1" >&2; exit 5; }
case $2 in
    status) echo "Chassis Power is $(cat "$here/power")" ;;
    *) echo "$2" > "$here/power" ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the search path with an agent and a command, both of a machine that has power."""
    for name, text in (("fence_test", AGENT), ("switch", COMMAND)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "power").write_text("on")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "password").chmod(0o600)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(power, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(power, "SETTLE_SECONDS", 0.3)
    return tmp_path


BY_AGENT = 'agent = "fence_test"\noptions = {ip = "192.0.2.9", plug = "1"}\npassword_file = "password"'
BY_COMMAND = 'command = ["./switch", "hunter22"]'


def inventory(folder: Path, alpha: str, beta: str = "") -> Path:
    hosts = "".join(
        f'[hosts.{name}]\nansible_host = "192.0.2.{number}"\nreplication_address = "10.20.0.{number}"\n'
        f'replication_nic = "eno2"\nstorage = {{ volume_group = "vg0" }}\n'
        + (f"[hosts.{name}.power]\n{entry}\n" if entry else "")
        for number, (name, entry) in enumerate((("alpha", alpha), ("beta", beta)), 1)
    )
    path = folder / "machines.toml"
    path.write_text(f"schema = 1\n{hosts}")
    return path


def hosts(folder: Path, alpha: str, beta: str = "") -> tuple[Host, Host]:
    return load(inventory(folder, alpha, beta)).hosts


@pytest.fixture
def of(folder: Path) -> Callable[[str], MachinePower]:
    return lambda alpha: MachinePower(hosts(folder, alpha), "lab")


@pytest.mark.parametrize("entry", [BY_AGENT, BY_COMMAND])
def test_power_off_and_on_and_its_status(of: Callable[[str], MachinePower], folder: Path, entry: str) -> None:
    own = of(entry)
    assert own.status("alpha") is True
    own.off("alpha")
    assert (folder / "power").read_text().strip() == "off" and own.status("alpha") is False
    with pytest.raises(InfrastructureError, match="the power of alpha is off already"):
        own.off("alpha")
    own.on("alpha")
    own.on("alpha")
    assert own.status("alpha") is True and (folder / "power").read_text().strip() == "on"


def test_agent_is_told_all_by_standard_input(of: Callable[[str], MachinePower], folder: Path) -> None:
    of(BY_AGENT).off("alpha")
    told = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    assert [one[1]["action"] for one in told] == ["metadata", "status", "off", "status"]
    assert told[2][1] == {"action": "off", "ip": "192.0.2.9", "plug": "1", "password": PASSWORD}
    assert "password" not in told[0][1], "who asks for the options tells no secret"
    assert all(arguments == [] and PASSWORD not in "".join(env.values()) for arguments, _, env in told)


@pytest.mark.parametrize("entry", [BY_AGENT, BY_COMMAND])
@pytest.mark.parametrize("act", ["status", "off", "on"])
def test_nothing_of_a_secret_is_in_a_log_or_an_error(
    of: Callable[[str], MachinePower], folder: Path, entry: str, act: str
) -> None:
    (folder / "mood").write_text("fails")
    own = of(entry)
    with logs.kept(folder), pytest.raises(InfrastructureError) as caught:
        getattr(own, act)("alpha")
    sentence = str(caught.value)
    assert "alpha" in sentence and "(hidden)" in sentence and "\n" not in sentence
    shown = sentence + repr(caught.value.__dict__) + repr(vars(own)) + (folder / logs.COMMANDS_FILE).read_text()
    assert PASSWORD not in shown.replace(entry, "") and "horse" not in shown
    log = (folder / logs.COMMANDS_FILE).read_text()
    assert ("fence_test action=" in log or "switch " in log) and "hunter22" not in sentence + log


def test_power_whose_status_does_not_change_is_said(of: Callable[[str], MachinePower], folder: Path) -> None:
    own = of(BY_AGENT)
    (folder / "mood").write_text("does nothing")
    with pytest.raises(InfrastructureError, match="of alpha was switched off by fence_test, and is still on after 0 s"):
        own.off("alpha")
    (folder / "power").write_text("off")
    with pytest.raises(InfrastructureError, match="is still off after 0 s; switch it on by hand"):
        own.on("alpha")


def test_power_that_is_not_given_back_at_once_is_asked_for_again(
    of: Callable[[str], MachinePower], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = of(BY_COMMAND)
    (folder / "power").write_text("off")
    (folder / "mood").write_text("fails")
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 2:
            (folder / "mood").unlink()

    monkeypatch.setattr(power, "SETTLE_SECONDS", 60.0)
    monkeypatch.setattr(power, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    own.on("alpha")
    assert len(asked) == 2 and (folder / "power").read_text().strip() == "on"
    (folder / "mood").write_text("fails")
    monkeypatch.setattr(power, "SETTLE_SECONDS", 0.0)
    with pytest.raises(InfrastructureError, match="alpha stays without power, switch it on by hand: cannot log"):
        own.on("alpha")


def test_command_that_leaves_something_running_has_ended_with_itself(
    of: Callable[[str], MachinePower], folder: Path
) -> None:
    (folder / "starts").write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {folder}/child\necho on\n")
    (folder / "starts").chmod(0o755)
    began = time.monotonic()
    assert of('command = ["./starts"]').status("alpha")
    assert time.monotonic() - began < 50
    os.kill(int((folder / "child").read_text()), signal.SIGKILL)


def test_command_that_hangs_is_ended_with_all_that_it_started(
    of: Callable[[str], MachinePower], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "hangs").write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {folder}/child\nwait\n")
    (folder / "hangs").chmod(0o755)
    monkeypatch.setattr(power, "CALL_SECONDS", 3.0)
    with pytest.raises(DeadlineError, match="'hangs status' for the power of alpha did not end within 3 s, and was"):
        of('command = ["./hangs"]').status("alpha")
    child = Path("/proc") / (folder / "child").read_text().strip()
    for _ in range(500):
        # Whose parent is gone is waited for by whoever it has now.
        if not child.exists() or ") Z " in (child / "stat").read_text():
            return
        time.sleep(0.01)
    pytest.fail("what the command started goes on")


# --------------------------------------------------------------------------- what is wrong is one sentence


def test_machine_without_power_is_refused_by_name(folder: Path) -> None:
    own = MachinePower(hosts(folder, BY_AGENT))
    own.require("alpha")
    for act in (own.status, own.off, own.on, own.require):
        with pytest.raises(
            RefusedError, match="the inventory refused: it has no 'power' for beta, so that nothing can"
        ):
            act("beta")
    with pytest.raises(RefusedError, match="for alpha and beta"):
        MachinePower(hosts(folder, "")).require()
    assert (own.way("alpha"), own.way("beta")) == ("fence_test", "")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('agent = "fence_none"', r"by fence_none, which is not on this machine .package fence-agents or "),
        (BY_AGENT.replace("plug", "prug"), "fence_test, which switches the power of alpha, knows no option 'prug'"),
        ('command = ["./none"]', "the power of alpha is switched by /.*/none, which is not on this machine$"),
        ('command = ["echo", "why"]', "says neither 'on' nor 'off' when it is asked for its status, but 'why status'"),
        ('command = ["true"]', "says neither 'on' nor 'off'"),
        (BY_AGENT.replace('"password"', '"none"'), "the password file /.*/none cannot be read: No such file"),
    ],
)  # fmt: skip
def test_power_that_cannot_be_asked_is_one_sentence(
    of: Callable[[str], MachinePower], entry: str, sentence: str
) -> None:
    with pytest.raises(HarnessError, match=sentence):
        of(entry).status("alpha")


def test_agent_that_takes_no_password_gets_none(of: Callable[[str], MachinePower], folder: Path) -> None:
    (folder / "fence_test").write_text(AGENT.replace(', "password")', ")"))
    with pytest.raises(UsageError, match="fence_test, which switches the power of alpha, takes no password"):
        of(BY_AGENT).status("alpha")
    assert PASSWORD not in (folder / "told").read_text()
    (folder / "fence_test").write_text("#!/bin/sh\necho no agent\n")
    with pytest.raises(InfrastructureError, match="fence_test does not say which options it has: no agent"):
        of(BY_AGENT).status("alpha")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('agent = "fence_x"\noptions = {debug_file = "/tmp/x"}', "with it an agent writes passwords to a log"),
        ('agent = "fence_x"\noptions = {action = "off"}', "the harness says what is to be done"),
        ('agent = "fence_x"\noptions = {ip = "a\\naction=off"}', "the option 'ip' of an agent, or its value"),
        ('agent = "fence_x"\noptions = {"a=b" = "x"}', "the option 'a=b' of an agent"),
        ('agent = "fence_x"\npassword = "s3cret"', "'password' is no key"),
    ],
)
def test_entry_that_is_wrong_is_one_sentence_without_what_is_secret(folder: Path, entry: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        hosts(folder, entry)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (b"x\n", 0o640, "can be read by others than its owner; chmod 600 /"),
        (b"x\n", 0o604, "can be read by others than its owner"),
        (b"\n", 0o600, "has to have one line, the password"),
        (b"", 0o400, "has to have one line"),
        (b"one\ntwo\n", 0o600, "has to have one line"),
        (b"\xff\n", 0o600, "is no text in UTF-8"),
    ],
)
def test_password_file_that_is_wrong_is_one_sentence(tmp_path: Path, content: bytes, mode: int, sentence: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(UsageError, match=sentence):
        read_password(path)


def test_password_file_of_another_kind_or_user_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="is no file"):
        read_password(tmp_path / "pipe")
    path = tmp_path / "password"
    path.write_bytes(b" two blanks  \r\n")
    path.chmod(stat.S_IRUSR)
    assert read_password(path) == " two blanks  "
    if os.geteuid() == 0:
        os.chown(path, 65534, -1)
        with pytest.raises(UsageError, match="belongs to another user"):
            read_password(path)


@pytest.mark.parametrize("value", ["plain", " blanks ", '"quoted"', '"', 'a"b', "a=b", "\tx"])
def test_value_arrives_as_an_agent_reads_it(value: str) -> None:
    # As fencing.py of the fence agents has it.
    script = """import re, sys
line = sys.stdin.read().strip() + "="
print(end=re.sub('^"(.*)"$', "\\\\1", line.split("=", 1)[1][:-1]))"""
    done = subprocess.run(
        ["python3", "-c", script], input=f"x={power._quoted(value)}\n", capture_output=True, text=True
    )
    assert done.stdout == value


# --------------------------------------------------------------------------- the command


def test_inventory_shows_the_power_of_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(folder / "state"))
    path = inventory(folder, BY_AGENT)

    def ran() -> int:
        monkeypatch.setattr("sys.argv", ["drbd-harness", "inventory", str(path), "--power-status"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    assert ran() == 0
    assert capsys.readouterr().out == (
        "alpha: on, by fence_test\nbeta: no 'power' in the inventory; cells that cut it are REFUSED\n"
    )
    inventory(folder, BY_COMMAND, BY_AGENT)
    (folder / "mood").write_text("fails")
    assert ran() == 2
    assert capsys.readouterr().out == (
        "alpha: the power of alpha cannot be asked for its status: cannot log in with (hidden)\n"
        "beta: the power of beta cannot be asked for its status: Unable to log in with (hidden)\n"
    )

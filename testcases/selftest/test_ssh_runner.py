"""Running commands over ssh with a pinned host key: arguments, streams, a connection that is lost, what is logged."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest
from logged_commands import columns, logged
from paramiko.common import cMSG_DISCONNECT
from sshd import Sshd

from harness.errors import CommandError, DeadlineError, LostNodeError
from harness.lab.nested.keys import SshPort, known_hosts, new_key_pair, write_private
from harness.remote import ssh
from harness.remote.ssh import SshRunner
from harness.util.deadline import Deadline

__all__ = ["logged"]


# --------------------------------------------------------------------------- over ssh


@dataclass
class Place:
    """A server, and the files of a client that may use it."""

    sshd: Sshd
    folder: Path

    def runner(self, *, key: str = "user_key", hosts: str = "known_hosts", before: tuple[str, ...] = ()) -> SshRunner:
        """A client, not connected yet."""
        known = self.folder / hosts
        return SshRunner(
            "127.0.0.1", self.sshd.port, key=self.folder / key, known_hosts=known, name="nodea", lab="lab1",
            before=before,
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("ssh")
    user, stranger, host, other = (new_key_pair(name) for name in ("user", "stranger", "nodea", "other"))
    sshd = Sshd(host, user.public)
    write_private(folder / "user_key", user.private)
    write_private(folder / "stranger_key", stranger.private)
    a, b = SshPort("nodea", sshd.port), SshPort("nodeb", sshd.port + 1)
    (folder / "known_hosts").write_text(known_hosts({a: host.public, b: other.public}))
    (folder / "swapped_hosts").write_text(known_hosts({a: other.public, b: host.public}))
    (folder / "no_hosts").write_text("")
    yield Place(sshd, folder)
    sshd.close()


@pytest.fixture(scope="module")
def node(place: Place) -> Iterator[SshRunner]:
    runner = place.runner()
    runner.connect(10)
    yield runner
    runner.close()


def test_ssh_run_arguments_unchanged(node: SshRunner, place: Place) -> None:
    arguments = ["a b", "$HOME", "'", '"', "*", "", "; false", "a\nb", "`id`", "ä", "\\"]
    done = node.run(["printf", "%s|", *arguments])
    assert done.stdout == "".join(f"{argument}|" for argument in arguments)
    assert (done.host, done.argv[0], done.status) == ("nodea", "printf", 0)
    assert place.sshd.commands[-1].startswith("timeout -k 2 60 printf "), "bounded there as well as here"


def test_ssh_run_behind_another_command_keeps_arguments_input_and_bound(place: Place) -> None:
    runner = place.runner(before=("env", "WORD=a b"))
    runner.connect(10)
    done = runner.run(["sh", "-c", 'printf "%s|" "$WORD" "$@"; cat', "sh", "$HOME", "it's"], stdin="in\nput")
    assert done.stdout == "a b|$HOME|it's|in\nput"
    assert place.sshd.commands[-1].startswith("env 'WORD=a b' timeout -k 2 60 sh -c ")
    stream = runner.stream(["sh", "-c", 'echo "$WORD streaming"'], "words")
    while stream.ended is None:
        time.sleep(0.01)
    assert stream.since(0) == ["a b streaming"]
    runner.close()


def test_ssh_run_outputs_and_status_returned(node: SshRunner) -> None:
    fails = ["sh", "-c", "echo out; echo err >&2; exit 5"]
    with pytest.raises(CommandError, match=r"^on nodea, .* ended with status 5: err$"):
        node.run(fails)
    done = node.run(fails, ok=())
    assert (done.status, done.stdout, done.stderr) == (5, "out\n", "err\n")


def test_ssh_run_stdin_and_write_exact(node: SshRunner, tmp_path: Path) -> None:
    assert node.run(["cat"], stdin="ä\n" * 20000).stdout == "ä\n" * 20000
    target = tmp_path / "with a space"
    node.write(str(target), "text without an end")
    assert target.read_text() == "text without an end"


def test_ssh_run_of_a_command_that_reads_no_input_is_its_status(node: SshRunner) -> None:
    done = node.run(["sh", "-c", ": streaming; echo disk full >&2; exit 3"], stdin="x" * 8_000_000, ok=())
    assert (done.status, done.stderr) == (3, "disk full\n"), "it ended before its input had arrived"


def test_ssh_run_too_long_deadline_error(node: SshRunner) -> None:
    with pytest.raises(DeadlineError, match=r"'sleep 20' on nodea did not end within 1 s"):
        node.run(["sleep", "20"], timeout=1)
    # A program may end with that status by itself.
    assert node.run(["sh", "-c", "exit 124"], ok=()).status == 124


def test_ssh_stream_lines_then_end(node: SshRunner) -> None:
    stream = node.stream(["sh", "-c", ": streaming; echo one; echo two; printf rest"], "log")
    assert stream.name == "log on nodea"
    deadline = Deadline.after(20, "the end")
    assert stream.wait(lambda line: line if line == "two" else None, 0, deadline) == ("two", 2)
    with pytest.raises(LostNodeError, match="log on nodea ended while waiting for the end"):
        stream.wait(lambda line: None, 0, deadline)
    assert stream.since(0) == ["one", "two", "rest"]


def test_ssh_connect_other_host_key_rejected_at_once(place: Place) -> None:
    before = place.sshd.connections
    with pytest.raises(LostNodeError, match="no ssh to nodea at 127"):
        place.runner(hosts="swapped_hosts").connect(4)
    assert place.sshd.connections == before + 1, "a wrong key will not become right"


def test_ssh_connect_unknown_host_key_rejected(place: Place) -> None:
    with pytest.raises(LostNodeError, match="not found in known_hosts"):
        place.runner(hosts="no_hosts").connect(0)


def test_ssh_connect_key_not_accepted_rejected_at_once(place: Place) -> None:
    before = place.sshd.connections
    with pytest.raises(LostNodeError, match="Authentication failed"):
        place.runner(key="stranger_key").connect(4)
    assert place.sshd.connections == before + 1


def test_ssh_connect_refused_retried_until_patience_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runner = SshRunner("127.0.0.1", port, key=Path("/nokey"), known_hosts=Path(os.devnull), name="nodeb")
    began = time.monotonic()
    with pytest.raises(LostNodeError, match=f"no ssh to nodeb at 127.0.0.1:{port}"):
        runner.connect(0.6)
    assert time.monotonic() - began >= 0.5


def test_ssh_run_not_connected_lost_node(place: Place) -> None:
    with pytest.raises(LostNodeError, match="nodea is not connected"):
        place.runner().run(["true"])


def test_ssh_connection_lost_command_and_streams_end(place: Place) -> None:
    runner = place.runner()
    runner.connect(10)
    stream = runner.stream(["sh", "-c", ": streaming; echo up; exec sleep 5"], "log")
    stream.wait(lambda line: line or None, 0, Deadline.after(10, "the first line"))
    place.sshd.transports[-1].close()
    with pytest.raises(LostNodeError, match="ended while waiting for"):
        stream.wait(lambda line: None, 1, Deadline.after(10, "more"))
    with pytest.raises(LostNodeError):
        runner.run(["true"])
    runner.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "it was closed at the other end"),
        ("Received eof for nonexistent channel 3.", "Disconnect (code 2): Received eof for nonexistent channel 3."),
    ],
)
def test_ssh_connection_that_the_other_end_closes_says_why(place: Place, said: str | None, told: str) -> None:
    runner = place.runner()
    runner.connect(10)
    stream = runner.stream(["sh", "-c", ": streaming; echo up; exec sleep 5"], "log")
    stream.wait(lambda line: line or None, 0, Deadline.after(10, "the first line"))
    there = place.sshd.transports[-1]
    if said is not None:
        message = paramiko.Message()
        message.add_byte(cMSG_DISCONNECT)
        message.add_int(2)
        message.add_string(said)
        message.add_string("")
        there._send_message(message)
    there.close()
    with pytest.raises(LostNodeError):
        stream.wait(lambda line: None, 1, Deadline.after(10, "more"))
    with pytest.raises(LostNodeError, match=f"the ssh connection to nodea was lost: {re.escape(told)}"):
        runner.run(["true"])
    runner.connect(10)
    assert runner.run(["true"]).status == 0
    runner.close()


def test_ssh_node_that_gives_no_sign_of_life_ends_command_and_streams(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The connections of the tests before are watched too.
    monkeypatch.setattr(ssh, "KEEPALIVE_SECONDS", 0.05)
    runner = place.runner()
    runner.connect(10)
    stream = runner.stream(["sh", "-c", ": streaming; echo up; exec sleep 20"], "log")
    stream.wait(lambda line: line or None, 0, Deadline.after(10, "the first line"))
    monkeypatch.setattr(ssh, "SILENT_SECONDS", 0.5)
    threading.Timer(0.3, place.sshd.silent.append, [place.sshd.transports[-1]]).start()
    began = time.monotonic()
    with pytest.raises(LostNodeError, match="nodea has answered nothing for 0 s"):
        runner.run(["sleep", "20"])
    assert time.monotonic() - began < 10 and runner.silent == "nodea has answered nothing for 0 s"
    with pytest.raises(LostNodeError, match="nodea has answered nothing for 0 s"):
        stream.wait(lambda line: None, 1, Deadline.after(10, "more"))
    with pytest.raises(LostNodeError, match="nodea has answered nothing for 0 s"):
        runner.run(["true"])
    place.sshd.silent.clear()
    runner.close()
    monkeypatch.setattr(ssh, "SILENT_SECONDS", 30.0)
    runner.connect(10)
    assert runner.silent is None and runner.run(["echo", "back"]).stdout == "back\n"
    runner.close()


def test_ssh_run_that_nobody_answers_is_the_last_over_that_connection(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "GRACE_SECONDS", 0.3)
    runner = place.runner()
    runner.connect(10)
    stream = runner.stream(["sh", "-c", ": streaming; echo up; exec sleep 20"], "log")
    stream.wait(lambda line: line or None, 0, Deadline.after(10, "the first line"))
    began = time.monotonic()
    # So short a time is none to the program `timeout`, which then does not end the command.
    with pytest.raises(LostNodeError, match="'sleep' on nodea was not answered"):
        runner.run(["sleep", "20"], timeout=0.2)
    for _ in range(20):
        with pytest.raises(LostNodeError, match="the ssh connection to nodea was lost"):
            runner.run(["true"])
    with pytest.raises(LostNodeError, match="ended while waiting for more"):
        stream.wait(lambda line: None, 1, Deadline.after(10, "more"))
    assert time.monotonic() - began < 8, "each of them would wait as long as the first"
    runner.connect(10)
    assert runner.run(["echo", "back"]).stdout == "back\n"
    runner.close()


# --------------------------------------------------------------------------- what is logged


def test_ssh_runner_logs_commands_and_files_without_their_text(
    node: SshRunner, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CommandError):
        node.run(["sh", "-c", "cat > /dev/null; exit 5"], stdin="secret")
    node.write(str(tmp_path / "x"), "shared-secret")
    assert columns(logged) == [
        ("command", "lab1", "nodea", "5", "sh -c 'cat > /dev/null; exit 5'"),
        ("command", "lab1", "nodea", "0", f"sh -c 'cat > \"$1\"' sh {tmp_path}/x"),
    ]
    assert "secret" not in logged.text


def test_ssh_runner_logs_a_deadline_and_a_lost_node(place: Place, logged: pytest.LogCaptureFixture) -> None:
    runner = place.runner()
    runner.connect(10)
    with pytest.raises(DeadlineError):
        runner.run(["sleep", "20"], timeout=1)
    runner.close()
    with pytest.raises(LostNodeError):
        runner.run(["true"])
    with pytest.raises(LostNodeError):
        runner.stream(["cat", "/dev/kmsg"], "log")
    where = f"ssh root@127.0.0.1:{place.sshd.port}"
    assert columns(logged) == [
        ("connection", "lab1", "nodea", "ok", where),
        ("command", "lab1", "nodea", "deadline", "sleep 20"),
        ("command", "lab1", "nodea", "lost-node", "true"),
        ("command", "lab1", "nodea", "lost-node", "cat /dev/kmsg"),
    ]
    assert logged.messages[-1].endswith("\tnodea is not connected")


def test_ssh_runner_logs_the_start_and_the_end_of_a_stream(node: SshRunner, logged: pytest.LogCaptureFixture) -> None:
    stream = node.stream(["sh", "-c", ": streaming; echo one"], "log")
    with pytest.raises(LostNodeError):
        stream.wait(lambda line: None, 0, Deadline.after(20, "the end"))
    text = "sh -c ': streaming; echo one'"
    assert columns(logged) == [
        ("command", "lab1", "nodea", "started", text), ("command", "lab1", "nodea", "ended", text),
    ]  # fmt: skip


def test_ssh_runner_logs_a_connection_that_is_rejected(place: Place, logged: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LostNodeError):
        place.runner(hosts="no_hosts").connect(0)
    assert [(kind, status) for kind, _, _, status, _ in columns(logged)] == [("connection", "lost-node")]
    assert "not found in known_hosts" in logged.messages[0]

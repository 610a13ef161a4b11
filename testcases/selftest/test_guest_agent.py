"""Commands in a guest through qemu-guest-agent."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import libvirt_qemu
import pytest
from fake_libvirt import LibvirtSaid
from scripted_libvirt import bounded

from harness.errors import CommandError, DeadlineError, InfrastructureError, LostGuestError, LostNodeError
from harness.remote import guest_agent as module
from harness.remote.guest_agent import GuestAgent
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline


class Domain:
    """A domain whose agent is this object; ``status`` is what guest-exec-status says in the end."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.timeouts: list[int] = []
        self.status: dict[str, Any] = {"exited": True, "exitcode": 0}
        self.pending = 0
        self.silent = 0
        self.files: dict[str, bytearray] = {}
        self.active = True
        self.fails: Callable[[str], bool] = lambda _: False
        self.message = "Guest agent is not responding"
        self.unanswered: Callable[[], object] = lambda: None

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.active)

    def answer(self, request: str, timeout: int) -> str:
        asked = json.loads(request)
        command, arguments = asked["execute"], asked.get("arguments", {})
        self.asked.append((command, arguments))
        self.timeouts.append(timeout)
        if self.silent or self.fails(command):
            self.silent = max(0, self.silent - 1)
            self.unanswered()
            raise LibvirtSaid(self.message)
        return json.dumps({"return": getattr(self, command.replace("-", "_"))(**{
            name.replace("-", "_"): value for name, value in arguments.items()
        })})  # fmt: skip

    def guest_ping(self) -> dict[str, Any]:
        return {}

    def guest_exec(self, **_: Any) -> dict[str, Any]:
        return {"pid": 42}

    def guest_exec_status(self, pid: int) -> dict[str, Any]:
        assert pid == 42
        if self.pending:
            self.pending -= 1
            return {"exited": False}
        return self.status

    def guest_file_open(self, path: str, mode: str) -> int:
        assert mode == "w"
        self.files[path] = bytearray()
        return 1000

    def guest_file_write(self, handle: int, buf_b64: str) -> dict[str, Any]:
        assert handle == 1000
        data = base64.b64decode(buf_b64)
        list(self.files.values())[-1].extend(data)
        return {"count": len(data), "eof": False}

    def guest_file_close(self, handle: int) -> dict[str, Any]:
        assert handle == 1000
        return {}

    def commands(self) -> list[str]:
        return [command for command, _ in self.asked]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Domain:
    monkeypatch.setattr(
        libvirt_qemu, "qemuAgentCommand", lambda domain, request, timeout, flags: domain.answer(request, timeout)
    )
    return Domain()


@pytest.fixture
def agent(domain: Domain) -> GuestAgent:
    return GuestAgent(lambda: bounded(domain))


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_agent_run_command_bounded_with_path_output_returned(agent: GuestAgent, domain: Domain) -> None:
    domain.status = {"exited": True, "exitcode": 0, "out-data": encoded(b"a\xff\n"), "err-data": encoded(b"warn\n")}
    domain.pending = 2
    done = agent.run(["mkswap", "/dev/vdb x"], timeout=12)
    assert (done.host, done.argv, done.status) == ("guest", ("mkswap", "/dev/vdb x"), 0)
    assert (done.stdout, done.stderr) == ("a\ufffd\n", "warn\n")
    command, arguments = domain.asked[0]
    assert command == "guest-exec" and arguments["capture-output"] is True
    assert [arguments["path"], *arguments["arg"]] == ["timeout", "-k", "2", "12", "mkswap", "/dev/vdb x"]
    assert any(one.startswith("PATH=") and "/sbin" in one for one in arguments["env"])
    assert "input-data" not in arguments
    assert domain.commands()[1:] == ["guest-exec-status"] * 3


def test_agent_run_bound_in_the_guest_has_the_patience_too(
    agent: GuestAgent, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "8")
    agent.run(["fio"], timeout=90)
    assert domain.asked[0][1]["arg"] == ["-k", "2", "720", "fio"]


def test_agent_run_stdin_handed_over(agent: GuestAgent, domain: Domain) -> None:
    agent.run(["cat"], stdin="ä\n")
    assert base64.b64decode(domain.asked[0][1]["input-data"]).decode() == "ä\n"


def test_agent_run_status_not_ok_command_error(agent: GuestAgent, domain: Domain) -> None:
    domain.status = {"exited": True, "exitcode": 3, "err-data": encoded(b"no\n")}
    with pytest.raises(CommandError, match="on guest, 'false' ended with status 3: no"):
        agent.run(["false"])
    assert agent.run(["false"], ok=()).status == 3
    assert agent.run(["false"], ok=(3,)).status == 3


def test_agent_run_killed_by_signal_status_128_plus_signal(agent: GuestAgent, domain: Domain) -> None:
    domain.status = {"exited": True, "signal": 11}
    assert agent.run(["x"], ok=()).status == 139


@pytest.mark.parametrize("stream", ["out", "err"])
def test_agent_run_output_that_the_agent_cut_off_is_no_output(agent: GuestAgent, domain: Domain, stream: str) -> None:
    domain.status = {"exited": True, "exitcode": 0, "out-data": encoded(b"half"), f"{stream}-truncated": True}
    with pytest.raises(InfrastructureError, match="'cat' in guest printed more than its agent keeps"):
        agent.run(["cat"], ok=())


def test_agent_run_timeout_deadline_error_status_124_alone_not(agent: GuestAgent, domain: Domain) -> None:
    domain.status = {"exited": True, "exitcode": 124}
    assert agent.run(["x"], ok=()).status == 124, "it came at once: the program's own"
    with pytest.raises(DeadlineError, match="'x y' in guest did not end within 0 s"):
        agent.run(["x", "y"], timeout=0)


def test_agent_run_end_never_reported_deadline_error(
    agent: GuestAgent, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0)
    domain.pending = 10**6
    with pytest.raises(DeadlineError, match="the end of 'x' in guest did not happen"):
        agent.run(["x"], timeout=0.1)


def test_agent_call_no_answer_lost_guest(agent: GuestAgent, domain: Domain) -> None:
    domain.silent = 1
    with pytest.raises(LostGuestError, match="the agent of guest did not do guest-exec: Guest agent is not responding"):
        agent.run(["true"])


SILENT = "Guest agent is not responding: Guest agent didn't respond to "
UNSENT, UNANSWERED = f"{SILENT}synchronization within '5' seconds", f"{SILENT}command within '60' seconds"


def test_agent_call_unsent_retried(agent: GuestAgent, domain: Domain) -> None:
    domain.message, domain.silent = UNSENT, 3
    assert agent.run(["true"]).status == 0
    assert domain.commands() == ["guest-exec"] * 4 + ["guest-exec-status"]


@pytest.mark.parametrize(("patience", "calls"), [("1", 3), ("4", 10)])
def test_agent_call_unsent_retried_until_timeout(
    agent: GuestAgent, domain: Domain, monkeypatch: pytest.MonkeyPatch, patience: str, calls: int
) -> None:
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", patience)
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    domain.message, domain.silent = UNSENT, 10**6
    # What libvirt waits for the synchronization.
    domain.unanswered = lambda: now.append(now.pop() + 5)
    with pytest.raises(LostGuestError, match=r"did not do guest-ping: .*synchronization"):
        agent.call("guest-ping", timeout=12)
    assert domain.commands() == ["guest-ping"] * calls and domain.timeouts == [12 * int(patience)] * calls


def test_agent_call_sent_never_retried(agent: GuestAgent, domain: Domain) -> None:
    domain.message, domain.silent = UNANSWERED, 1
    with pytest.raises(LostGuestError, match=r"did not do guest-exec: .*respond to command"):
        agent.run(["mkswap", "/dev/vdb"])
    assert domain.commands() == ["guest-exec"], "it may be running"


def test_agent_call_unsent_domain_gone_not_retried(agent: GuestAgent, domain: Domain) -> None:
    domain.message, domain.silent = UNSENT, 10**6
    domain.unanswered = lambda: setattr(domain, "active", len(domain.asked) < 3)
    with pytest.raises(LostGuestError):
        agent.call("guest-ping")
    assert domain.commands() == ["guest-ping"] * 3


@pytest.mark.parametrize("size", [0, 1, 48 * 1024, 48 * 1024 + 1, 200_000])
def test_agent_write_any_text_exact_in_bounded_pieces(agent: GuestAgent, domain: Domain, size: int) -> None:
    text = ("0123456789ä" * (size // 11 + 1))[:size]
    agent.write("/etc/x", text)
    assert domain.files["/etc/x"].decode() == text
    assert domain.commands()[0] == "guest-file-open" and domain.commands()[-1] == "guest-file-close"
    assert all(len(arguments.get("buf-b64", "")) <= 64 * 1024 for _, arguments in domain.asked)


def test_agent_write_error_file_closed(agent: GuestAgent, domain: Domain) -> None:
    domain.fails = lambda command: command == "guest-file-write"
    with pytest.raises(LostGuestError, match="guest-file-write"):
        agent.write("/etc/x", "text")
    assert domain.commands()[-1] == "guest-file-close"


def test_agent_call_after_migration_new_domain(domain: Domain) -> None:
    other = Domain()
    at = [domain]
    agent = GuestAgent(lambda: bounded(at[0]))
    agent.run(["true"])
    at[0] = other
    agent.run(["true"])
    assert domain.commands() == other.commands() == ["guest-exec", "guest-exec-status"]


# --------------------------------------------------------------------------- held


def test_agent_held_other_threads_wait_then_go_on(agent: GuestAgent, domain: Domain) -> None:
    asked = BackgroundTask(lambda: agent.run(["true"]), "another")
    assert asked.ended(20)
    with agent.held():
        before = len(domain.asked)
        other = BackgroundTask(lambda: agent.run(["true"]), "another")
        assert not other.ended(0.05) and len(domain.asked) == before, "its answer would be lost on the way"
        agent.call("guest-ping")
        assert domain.commands()[-1] == "guest-ping", "who holds it may ask"
    assert other.result(Deadline.after(20, "the other")).status == 0


def test_agent_active_asked_in_turn(agent: GuestAgent) -> None:
    assert agent.active()
    with agent.held():
        other = BackgroundTask(agent.active, "another")
        assert not other.ended(0.05), "two threads over one connection may wait for ever"
        assert agent.active(), "who holds it may ask"
    assert other.result(Deadline.after(20, "the other"))


def test_agent_run_held_time_extends_deadline(
    agent: GuestAgent, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.1)
    release = threading.Event()
    holds = threading.Event()

    def hold() -> None:
        with agent.held():
            holds.set()
            assert release.wait(20)

    domain.pending = 10**6
    running = BackgroundTask(lambda: agent.run(["x"], timeout=0.2), "a command")
    holding = BackgroundTask(hold, "the migration")
    assert holds.wait(20)
    assert not running.ended(0.5), "it has used up its 0.3 s, but not on its own account"
    domain.pending = 0
    release.set()
    assert holding.ended(20)
    assert running.result(Deadline.after(20, "the command")).status == 0


def test_agent_run_lab_that_is_lost_is_not_waited_for(domain: Domain) -> None:
    domain.pending = 1_000_000
    silent: list[str] = []
    agent = GuestAgent(lambda: bounded(domain), lost=lambda: silent[0] if silent else None)
    threading.Timer(0.3, lambda: silent.append("nodeb has answered nothing for 30 s")).start()
    began = time.monotonic()
    with pytest.raises(LostNodeError, match="guest is not waited for any longer: nodeb has answered nothing for 30 s"):
        agent.run(["sleep", "600"], timeout=600)
    assert time.monotonic() - began < 20


def test_agent_held_error_released(agent: GuestAgent) -> None:
    with pytest.raises(ZeroDivisionError), agent.held():
        raise ZeroDivisionError
    assert BackgroundTask(lambda: agent.run(["true"]), "another").result(Deadline.after(20, "it")).status == 0


# --------------------------------------------------------------------------- until it answers


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def test_agent_wait_ready_later_answer_returns(agent: GuestAgent, domain: Domain, no_sleep: list[float]) -> None:
    domain.silent = 3
    agent.wait_ready(Deadline.after(10, "the agent"))
    assert domain.commands() == ["guest-ping"] * 4 and len(no_sleep) == 3
    assert all(1 <= timeout <= 5 for timeout in domain.timeouts), "one silent question must not eat the deadline"


def test_agent_wait_ready_domain_ended_lost_guest(agent: GuestAgent, domain: Domain, no_sleep: list[float]) -> None:
    domain.silent, domain.active = 10**6, False
    with pytest.raises(LostGuestError, match="guest ended before its agent answered"):
        agent.wait_ready(Deadline.after(10, "the agent"))
    assert no_sleep == []


def test_agent_wait_ready_no_answer_deadline_error(agent: GuestAgent, domain: Domain) -> None:
    domain.silent = 10**6
    with pytest.raises(DeadlineError, match="the agent did not happen within 0 s"):
        agent.wait_ready(Deadline.after(0.05, "the agent"))


def test_agent_call_domain_vanished_lost_guest(agent: GuestAgent, domain: Domain) -> None:
    def gone() -> int:
        raise LibvirtSaid("Domain not found")

    domain.silent = 10**6
    domain.isActive = gone  # type: ignore[method-assign]
    with pytest.raises(LostGuestError):
        agent.wait_ready(Deadline.after(0.5, "the agent"))


# --------------------------------------------------------------------------- what is logged


def test_agent_logs_each_command_with_its_status_and_no_input(
    agent: GuestAgent, domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    domain.pending = 3
    agent.run(["cat"], stdin="nobody's business")
    domain.status = {"exited": True, "exitcode": 3}
    with pytest.raises(CommandError):
        agent.run(["false", "a b"])
    GuestAgent(lambda: bounded(domain), "guest2", "lab1").write("/etc/x", "nobody's business")
    assert [line[:3] + line[4:] for line in (message.split("\t") for message in caplog.messages)] == [
        ["-", "guest", "0", "cat"], ["-", "guest", "3", "false 'a b'"],
        ["lab1", "guest2", "0", "guest-file-write /etc/x"],
    ]  # fmt: skip
    assert {name for name, *_ in caplog.record_tuples} == {"harness.command"} and "business" not in caplog.text


def test_agent_logs_a_deadline_and_a_lost_guest(
    agent: GuestAgent, domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    domain.status = {"exited": True, "exitcode": 124}
    with pytest.raises(DeadlineError):
        agent.run(["sleep", "9"], timeout=0)
    domain.fails = lambda command: command == "guest-exec"
    with pytest.raises(LostGuestError):
        agent.run(["true"])
    assert [message.split("\t")[2] for message in caplog.messages] == ["deadline", "lost-guest"]
    assert "did not do guest-exec" in caplog.messages[1]


def test_agent_logs_that_it_was_waited_for_once(
    agent: GuestAgent, domain: Domain, caplog: pytest.LogCaptureFixture, no_sleep: list[float]
) -> None:
    caplog.set_level(logging.DEBUG, "harness")
    domain.silent = 3
    agent.wait_ready(Deadline.after(60, "the agent"))
    assert [(name, message.split("\t")[2]) for name, _, message in caplog.record_tuples] == [("harness.libvirt", "ok")]

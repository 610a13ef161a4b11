"""A guest's QEMU is ended by libvirt, or by its process, which is a real one here."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import libvirt
import pytest

from harness.errors import CommandError, LostNodeError
from harness.guest import ending
from harness.lab.node import Node
from harness.remote.local import LocalRunner

NAME = "guest"


class OneNode:
    """A node whose commands run here, and whose libvirt says ``answer`` to every question."""

    name = "nodea"

    def __init__(self, answer: Exception) -> None:
        self.runner = LocalRunner()
        self.answer = answer

    @property
    def monitor_connection(self) -> object:
        raise self.answer


def node(answer: Exception | None = None) -> Node:
    return cast(Node, OneNode(answer or LostNodeError("libvirt on nodea was lost")))


@pytest.fixture(autouse=True)
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert ending.PID_FILE in ending._KILL
    monkeypatch.setattr(ending, "_KILL", ending._KILL.replace(ending.PID_FILE, f"{tmp_path}/$1.pid"))
    return tmp_path / f"{NAME}.pid"


@pytest.fixture
def process(pid_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One that was stopped, as a hung QEMU may be."""
    with subprocess.Popen(["sleep", "60"]) as started:
        pid_file.write_text(str(started.pid))
        os.kill(started.pid, signal.SIGSTOP)
        # It is gone only when its parent has asked for its end, which on a node libvirt's or systemd's does.
        threading.Thread(target=started.wait, daemon=True).start()
        yield started
        started.kill()


def test_kill_stopped_process_has_ended_when_it_returns(process: subprocess.Popen[bytes]) -> None:
    ending.kill(node(), NAME)
    assert process.wait(5) == -signal.SIGKILL


def test_kill_without_a_process_raises(pid_file: Path) -> None:
    with pytest.raises(CommandError, match="no QEMU of guest runs"):
        ending.kill(node(), NAME)


def test_end_libvirt_lost_ends_the_process(process: subprocess.Popen[bytes]) -> None:
    assert ending.end(node(), NAME)
    assert process.wait(5) == -signal.SIGKILL


def test_end_libvirt_not_to_be_asked_ends_the_process(process: subprocess.Popen[bytes]) -> None:
    assert ending.end(node(AssertionError("libvirt was asked")), NAME, by_libvirt=False)
    assert process.wait(5) == -signal.SIGKILL


def test_end_without_a_process_has_ended() -> None:
    assert ending.end(node(), NAME)


def test_end_domain_unknown_to_libvirt_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = libvirt.libvirtError("no domain")
    monkeypatch.setattr(unknown, "get_error_code", lambda: libvirt.VIR_ERR_NO_DOMAIN)
    monkeypatch.setattr(ending, "_KILL", "exit 1")
    assert ending.end(node(unknown), NAME)


def test_end_process_that_stays_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "KILL_SECONDS", 0.2)
    monkeypatch.setattr(ending, "_KILL", "sleep 5")
    assert not ending.end(node(), NAME)

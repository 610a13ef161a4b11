"""How the controller's libvirt is reached: daemons that ended, the address of whoever asks, an ordinary user's own."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.doctor import session
from harness.errors import HarnessError, InfrastructureError
from harness.lab.nested import libvirt_daemon
from harness.util.deadline import Deadline


def test_answers_of_a_dead_daemons_socket_is_false(tmp_path: Path) -> None:
    one = libvirt_daemon.Daemon("libvirtd", tmp_path / "sock")
    assert not libvirt_daemon._answers(one)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(one.socket))
        listener.listen()
        assert libvirt_daemon._answers(one)
    assert one.socket.exists()
    assert not libvirt_daemon._answers(one)


def test_wait_for_a_daemon_that_ends_raises_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "libvirtd"
    program.write_text("#!/bin/sh\necho 'error : cannot bind' >&2\nexit 6\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    with ExitStack() as undo:
        started = libvirt_daemon._start(libvirt_daemon.Daemon("libvirtd", tmp_path / "sock"), undo)
        with pytest.raises(InfrastructureError, match="libvirtd ended with status 6: error : cannot bind"):
            libvirt_daemon._wait_for(started, Deadline.after(5, "an answer"))


def test_has_systemd_looks_for_its_directory(tmp_path: Path) -> None:
    assert libvirt_daemon.has_systemd(tmp_path)
    assert not libvirt_daemon.has_systemd(tmp_path / "missing")


def test_default_uri_follows_the_environment_then_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(libvirt_daemon.URI_OVERRIDE, "qemu+ssh://somewhere/system")
    assert libvirt_daemon.default_uri() == "qemu+ssh://somewhere/system"
    monkeypatch.delenv(libvirt_daemon.URI_OVERRIDE)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert libvirt_daemon.default_uri() == "qemu:///session"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert libvirt_daemon.default_uri() == "qemu:///system"


def test_connect_without_a_libvirt_is_a_harness_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="libvirt does not answer"):
        libvirt_daemon.connect(f"qemu+unix:///system?socket={tmp_path}/none")


@pytest.mark.parametrize(
    ("environment", "fits"),
    [
        ({"HOME": "/home/Jürgen Müller"}, True),
        ({"HOME": "/home/EXAMPLE.ORG/firstname.lastname-of-somebody"}, False),
        ({"HOME": "/home/EXAMPLE.ORG/firstname.lastname-of-somebody", "XDG_CONFIG_HOME": "/var/tmp/x"}, True),
        ({"HOME": "/" + "ü" * 18}, True),
        ({"HOME": "/" + "ü" * 19}, False),
    ],
)
def test_monitor_socket_fits_into_a_socket_address_or_says_so(environment: dict[str, str], fits: bool) -> None:
    socket_path = session.monitor_socket(environment)
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(str(socket_path))
        except FileNotFoundError:
            can_be = True
        except OSError:
            can_be = False
    why = session.why_too_long(socket_path)
    assert (why is None, can_be) == (fits, fits)
    if why:
        assert f"paths of {len(os.fsencode(socket_path))} bytes, and {session.LONGEST_SOCKET} are the most" in why

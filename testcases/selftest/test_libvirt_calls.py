"""Calls of libvirt that hang: the transport of their connection is ended, and each returns with an error by itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest
from scripted_libvirt import HangingLibvirt

from harness.errors import DeadlineError, HungCallError, LostLibvirtError, LostNodeError
from harness.lab.nested import libvirt_daemon
from harness.remote import libvirt_calls as module
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline, poll
from harness.util.paths import programs

URI = "qemu+ssh://nodea/system"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingLibvirt]:
    made = HangingLibvirt(tmp_path / "sock")
    monkeypatch.setattr(libvirt, "open", made.open)
    monkeypatch.setattr(module, "CALL_SECONDS", 0.2)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.2)
    yield made
    made.stop()


def took(call: Callable[[], object], kind: type[Exception]) -> tuple[float, str]:
    """After how many seconds ``call`` raised an error of that kind, and its sentence."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    return time.monotonic() - began, str(caught.value)


def test_call_that_hangs_ends_the_transport_and_names_call_host_and_seconds(world: HangingLibvirt) -> None:
    connection = LibvirtConnection.open(URI, "nodea")
    world.hangs = {"getLibVersion"}
    seconds, sentence = took(connection.getLibVersion, HungCallError)
    assert sentence == "libvirt on nodea did not answer getLibVersion within 0 s" and seconds < 5
    assert world.opened[0].ended and world.opened[0].waiting == 0, "it has returned by itself"
    assert not connection.alive and not world.crashed


def test_call_over_a_connection_that_was_ended_is_a_lost_libvirt(world: HangingLibvirt) -> None:
    connection = LibvirtConnection.open(URI, "nodea")
    connection.end()
    _, sentence = took(connection.getLibVersion, LostLibvirtError)
    assert sentence == "the connection to libvirt on nodea had ended before getLibVersion"
    assert world.opened[0].calls == ["open"]


def test_call_under_which_the_connection_ends_is_a_lost_libvirt(
    world: HangingLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 60)
    connection = LibvirtConnection.open(URI, "nodea")
    world.hangs = {"getLibVersion"}
    threading.Timer(0.05, lambda: world.opened[0].wire.shutdown(socket.SHUT_RDWR)).start()
    _, sentence = took(connection.getLibVersion, LostLibvirtError)
    assert sentence == (
        "libvirt on nodea was lost during getLibVersion: End of file while reading data: Input/output error"
    )


def test_call_to_a_machine_that_is_lost_meanwhile_is_not_waited_for(
    world: HangingLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 60)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    silent: list[str] = []
    connection = LibvirtConnection.open(URI, "nodea", lost=lambda: silent[0] if silent else None)
    world.hangs = {"getLibVersion"}
    threading.Timer(0.1, lambda: silent.append("nodea has answered nothing for 30 s")).start()
    seconds, sentence = took(connection.getLibVersion, LostNodeError)
    assert seconds < 10 and world.opened[0].waiting == 0
    assert sentence == (
        "libvirt on nodea was not waited for any longer during getLibVersion: nodea has answered nothing for 30 s"
    )


def test_open_that_hangs_ends_by_itself(world: HangingLibvirt) -> None:
    world.hangs = {"open"}
    seconds, sentence = took(lambda: LibvirtConnection.open(URI, "nodea", seconds=0.2), HungCallError)
    assert sentence == "libvirt on nodea did not answer the opening of a connection within 0 s" and seconds < 5
    assert world.opened[0].waiting == 0


def test_call_of_a_domain_is_bounded_as_one_of_its_connection(
    world: HangingLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = LibvirtConnection.open(URI, "nodea")
    monkeypatch.setattr(module, "CALL_SECONDS", 60)
    domain = connection.lookupByName("guest")
    monkeypatch.setattr(module, "CALL_SECONDS", 0.2)
    world.hangs = {"destroy"}
    assert took(domain.destroy, HungCallError)[1] == "libvirt on nodea did not answer destroy within 0 s"


def test_migration_has_no_time_of_its_own_and_ends_with_its_connection(
    world: HangingLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 60)
    source, target = LibvirtConnection.open(URI, "nodea"), LibvirtConnection.open(URI, "nodeb")
    domain = source.lookupByName("guest")
    world.hangs = {"migrate3"}
    task = BackgroundTask(lambda: domain.migrate3(target, {}, 0), "the migration")
    assert not task.ended(0.5)
    source.end()
    assert task.ended(5)
    with pytest.raises(LostLibvirtError, match="libvirt on nodea was lost during migrate3: End of file"):
        task.result(Deadline.after(1, "it"))


@pytest.mark.parametrize("end", ["source", "target"])
def test_close_never_happens_under_a_running_call(
    world: HangingLibvirt, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 60)
    monkeypatch.setattr(module, "RETURN_SECONDS", 1.0)
    connections = {"source": LibvirtConnection.open(URI, "nodea"), "target": LibvirtConnection.open(URI, "nodeb")}
    domain = connections["source"].lookupByName("guest")
    world.hangs = {"migrate3"}
    task = BackgroundTask(lambda: domain.migrate3(connections["target"], {}, 0), "the migration")
    poll(lambda: world.opened[0].waiting or None, Deadline.after(5, "its begin"), every=0.01)
    connections[end].close()
    assert not world.crashed
    closed = [one.closed for one in world.opened]
    assert closed == [end == "source", False], "the target's is still used by what does not return"
    connections["source"].end()
    assert task.ended(5)


def test_close_that_hangs_returns(world: HangingLibvirt) -> None:
    connection = LibvirtConnection.open(URI, "nodea")
    world.hangs = {"close"}
    began = time.monotonic()
    connection.close()
    assert time.monotonic() - began < 5 and world.opened[0].closed and not world.crashed


def test_open_asks_for_keepalive_that_notices_a_silent_daemon_within_half_a_minute(world: HangingLibvirt) -> None:
    LibvirtConnection.open(URI, "nodea")
    interval, count = world.opened[0].keepalive
    assert 20 <= interval * (count + 1) <= 30


def test_transport_of_another_connection_is_left_alone(world: HangingLibvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = LibvirtConnection.open(URI, "nodea"), LibvirtConnection.open(URI, "nodea")
    world.hangs = {"getLibVersion"}
    took(one.getLibVersion, HungCallError)
    assert not world.opened[1].ended
    world.hangs = set()
    monkeypatch.setattr(module, "CALL_SECONDS", 60)
    assert other.alive and other.getLibVersion() == 11_003_000


# --------------------------------------------------------------------------- a real daemon


# In the place of ssh: whatever its arguments are, it leads to that daemon.
# Not by a '#!' of its own: the path of a Python in a checkout may have blanks.
RELAY = """#!/bin/sh
exec '{python}' -c "$(sed 1,2d "$0")"
import os, socket, threading
daemon = socket.socket(socket.AF_UNIX)
daemon.connect("{path}")
def there():
    while data := os.read(0, 65536):
        daemon.sendall(data)
    os._exit(0)
threading.Thread(target=there, daemon=True).start()
while data := daemon.recv(65536):
    os.write(1, data)
"""


@pytest.fixture(params=["unix", "ssh"])
def daemon(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A libvirtd of an ordinary user's with folders of its own, and a URI of its test driver; nobody else knows it."""
    program = libvirt_daemon.find_daemon("libvirtd")
    if program is None:
        pytest.skip("libvirtd is not installed")
    # The path of a socket may not be long.
    folder = Path(tempfile.mkdtemp(prefix="drbd-harness-"))
    names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    argv = [str(program)]
    if os.geteuid() == 0:
        # As root it would be the system's, and take that one's domains for its own.
        os.chown(folder, 65534, 65534)
        # What libvirt runs in the place of ssh has none of root's privileges.
        folder.chmod(0o755)
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
    path = folder / "libvirt/libvirt-sock"
    environment = {"PATH": programs(), **dict.fromkeys(names, str(folder))}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, env=environment, stdout=quiet, stderr=quiet) as process:
        try:
            poll(lambda: path.exists() or None, Deadline.after(60, "the socket of libvirtd"))
            relay = folder / "relay"
            relay.write_text(RELAY.format(python=sys.executable, path=path))
            relay.chmod(0o755)
            uris = {"unix": f"test+unix:///default?socket={path}", "ssh": f"test+ssh://nodea/default?command={relay}"}
            yield process, uris[request.param]
        finally:
            process.kill()
    shutil.rmtree(folder)


def test_daemon_that_was_stopped_is_found_by_keepalive(
    daemon: tuple[subprocess.Popen[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, uri = daemon
    monkeypatch.setattr(module, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(module, "KEEPALIVE_COUNT", 2)
    connection = LibvirtConnection.open(uri, "nodea")
    assert [domain.name() for domain in connection.listAllDomains()] == ["test"]
    process.send_signal(signal.SIGSTOP)
    seconds, sentence = took(connection.listAllDomains, LostLibvirtError)
    assert "connection closed due to keepalive timeout" in sentence and seconds < 20 and not connection.alive
    connection.close()


def test_daemon_that_was_stopped_costs_no_more_than_the_time_of_a_call(
    daemon: tuple[subprocess.Popen[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, uri = daemon
    connection = LibvirtConnection.open(uri, "nodea")
    monkeypatch.setattr(module, "CALL_SECONDS", 0.5)
    process.send_signal(signal.SIGSTOP)
    assert took(connection.listAllDomains, DeadlineError)[0] < 5
    assert not any(task.running for task in connection._running), "it has returned by itself"
    assert took(lambda: LibvirtConnection.open(uri, "nodea", seconds=0.5), DeadlineError)[0] < 5
    connection.close()


def test_daemon_that_was_killed_is_a_lost_libvirt(daemon: tuple[subprocess.Popen[bytes], str]) -> None:
    process, uri = daemon
    connection = LibvirtConnection.open(uri, "controller")
    process.kill()
    process.wait()
    assert took(connection.listAllDomains, LostLibvirtError)[1].startswith("libvirt on controller was lost during")
    connection.close()

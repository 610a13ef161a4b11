"""libvirt's daemons where nobody else looks after them: started, not there, ending, silent; and ended again."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest
from fake_libvirt import LibvirtSaid
from nested_parts import SPEC, STACK
from scripted_libvirt import ScriptedLibvirt

from harness.errors import DeadlineError, HarnessError, HungCallError, InfrastructureError
from harness.lab.nested import libvirt_daemon
from harness.lab.nested.lease import holder
from harness.lab.nested.libvirt_daemon import Daemon, ensure_libvirt
from harness.lab.nested.provider import nested_lab
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util.deadline import Deadline, poll

# Not by a '#!' of its own: the path of a Python in a checkout may have blanks.
LISTENS = """#!/bin/sh
exec '{python}' -c "$(sed 1,2d "$0")"
import os, socket, time
open("{folder}/{name}.pid", "w").write(str(os.getpid()))
one = socket.socket(socket.AF_UNIX)
if os.path.exists("{folder}/{name}"):
    os.unlink("{folder}/{name}")
one.bind("{folder}/{name}")
one.listen()
time.sleep(60)
"""
SILENT = LISTENS.replace("one.listen()\n", "")
ENDS = "#!/bin/sh\necho 'error : virPidFileAcquirePath:422 : Failed to acquire pid file' >&2\nexit 6\n"


@dataclass
class Machine:
    """One without systemd; ``programs`` are the daemons that are installed."""

    folder: Path
    world: ScriptedLibvirt
    programs: dict[str, Path] = field(default_factory=dict)

    def installs(self, name: str, program: str) -> None:
        self.programs[name] = self.folder / f"{name}.program"
        self.programs[name].write_text(program.format(python=sys.executable, folder=self.folder, name=name))
        self.programs[name].chmod(0o755)

    def running(self) -> set[str]:
        pids = {path.stem: path.read_text() for path in self.folder.glob("*.pid")}
        return {name for name, pid in pids.items() if pid and Path(f"/proc/{pid}").exists()}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    # The path of a socket may not be long.
    made = Machine(Path(tempfile.mkdtemp(prefix="drbd-harness-")), ScriptedLibvirt())
    made.installs("virtlogd", LISTENS)
    made.installs("libvirtd", LISTENS)
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    monkeypatch.delenv(libvirt_daemon.URI_OVERRIDE, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(libvirt_daemon, "has_systemd", lambda: False)
    monkeypatch.setattr(libvirt_daemon, "find_daemon", made.programs.get)
    monkeypatch.setattr(libvirt_daemon, "LOG_DAEMON", Daemon("virtlogd", made.folder / "virtlogd"))
    names = ("libvirtd", "virtqemud")
    monkeypatch.setattr(libvirt_daemon, "MAIN_DAEMONS", tuple(Daemon(name, made.folder / name) for name in names))
    monkeypatch.setattr(libvirt, "open", made.world.open)
    yield made
    for path in made.folder.glob("*.pid"):
        pid = int(path.read_text())
        if Path(f"/proc/{pid}").exists() and str(made.folder) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, 9)
    shutil.rmtree(made.folder)


def test_ensure_libvirt_starts_both_daemons_and_ends_them(machine: Machine) -> None:
    with ensure_libvirt() as libvirt_:
        assert [one.daemon.name for one in libvirt_.started] == ["virtlogd", "libvirtd"]
        assert machine.running() == {"virtlogd", "libvirtd"}
    assert machine.running() == set() and machine.world.connections == 0


def test_ensure_libvirt_that_is_to_be_kept_leaves_them(machine: Machine) -> None:
    with ensure_libvirt(keep=True):
        pass
    assert machine.running() == {"virtlogd", "libvirtd"}


def fails(machine: Machine, kind: type[HarnessError]) -> str:
    """What a lab says that cannot come up; afterwards no daemon runs, and the lease is free."""
    with pytest.raises(kind) as caught, nested_lab(SPEC, STACK):
        pytest.fail("there is no lab")
    poll(lambda: True if not machine.running() else None, Deadline.after(10, "the end of what was started"))
    assert holder() is None and machine.world.connections == 0
    return str(caught.value)


def test_lab_without_a_daemon_says_so(machine: Machine) -> None:
    del machine.programs["libvirtd"]
    assert fails(machine, HarnessError) == "libvirt's daemon (libvirtd or virtqemud) is not installed"


@pytest.mark.parametrize("name", ["virtlogd", "libvirtd"])
def test_lab_whose_daemon_ends_at_once_tells_its_last_line(machine: Machine, tmp_path: Path, name: str) -> None:
    machine.installs(name, ENDS)
    assert fails(machine, InfrastructureError) == (
        f"{name} ended with status 6: error : virPidFileAcquirePath:422 : Failed to acquire pid file "
        f"({tmp_path}/state/{name}.log)"
    )


@pytest.mark.parametrize("name", ["virtlogd", "libvirtd"])
def test_lab_whose_daemon_never_answers_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(libvirt_daemon, "START_SECONDS", 3)
    machine.installs(name, SILENT)
    began = time.monotonic()
    assert fails(machine, DeadlineError) == "an answer of libvirt's daemon did not happen within 3 s"
    assert time.monotonic() - began < 30


def test_lab_whose_libvirt_refuses_the_connection_ends_what_it_started(machine: Machine) -> None:
    def refuse() -> None:
        raise LibvirtSaid("authentication failed: access denied")

    machine.world.opens = refuse
    message = fails(machine, InfrastructureError)
    assert message == "libvirt does not answer at qemu:///system: authentication failed: access denied"


# --------------------------------------------------------------------------- it goes away while a lab is up


def kills(machine: Machine, name: str) -> str:
    """Kill that daemon, as its connections notice, and nothing answers before it was started again."""
    pid = (machine.folder / f"{name}.pid").read_text()
    os.kill(int(pid), 9)

    def refuse_without() -> None:
        if name not in machine.running() or (machine.folder / f"{name}.pid").read_text() == pid:
            raise LibvirtSaid("Failed to connect socket: Connection refused")

    machine.world.opens = refuse_without
    return pid


def test_connection_of_a_daemon_that_was_killed_is_opened_anew_and_the_daemon_started(machine: Machine) -> None:
    with ensure_libvirt() as found:
        first = found.connection()
        assert found.connection() is first
        pid = kills(machine, "libvirtd")
        found.started[-1].process.wait()
        first.raw.closed = True
        again = found.connection()
        assert again is not first and again.alive and again.numOfDomains() == 0
        assert [one.daemon.name for one in found.started] == ["virtlogd", "libvirtd", "libvirtd"]
        assert (machine.folder / "libvirtd.pid").read_text() != pid
        found.close()
    assert machine.running() == set(), "the second one too"


def test_daemon_of_ours_that_hangs_is_killed_and_started_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ensure_libvirt() as found:
        hung, opened = found.started[-1].process, LibvirtConnection.open

        def never(uri: str, host: str) -> LibvirtConnection:
            if hung.poll() is None:
                raise HungCallError("libvirt on controller did not answer the opening of a connection within 60 s")
            return opened(uri, host)

        monkeypatch.setattr(LibvirtConnection, "open", never)
        assert found.connection().alive and hung.poll() == -9
        assert machine.running() == {"virtlogd", "libvirtd"}
        found.close()


def test_daemon_of_somebody_elses_that_hangs_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(uri: str, host: str) -> LibvirtConnection:
        raise HungCallError("libvirt on controller did not answer the opening of a connection within 60 s")

    with ensure_libvirt() as found:
        ours, found.started[:] = list(found.started), []
        with monkeypatch.context() as patch, pytest.raises(HungCallError):
            patch.setattr(LibvirtConnection, "open", never)
            found.connection()
        assert machine.running() == {"virtlogd", "libvirtd"}
        found.started[:] = ours

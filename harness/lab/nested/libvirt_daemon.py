"""A libvirt that answers: the one that is there, or one of our own for as long as it is needed.

Where systemd runs, libvirt is its business.  Where nothing looks after it (a container, a rescue system),
virtlogd and libvirtd are started here, in sessions of their own, with a timeout: they end by themselves about a minute
after the last client and the last domain, so that nothing stays behind even if this process is killed.

The system's virtlogd does not count the consoles it logs as a reason to live, only its clients.  So libvirtd inherits
a connection to it, and virtlogd lives as long as libvirtd does, and libvirtd as long as a domain.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import libvirt
from filelock import FileLock

from harness.errors import HarnessError, HungCallError, InfrastructureError
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util import logs
from harness.util.deadline import Deadline, poll
from harness.util.paths import make, state_dir

URI_OVERRIDE = "DRBD_HARNESS_LIBVIRT_URI"
SYSTEM = "qemu:///system"
SESSION = "qemu:///session"
IDLE_SECONDS = 30
START_SECONDS = 150
"""The first start of a libvirt on a machine probes every QEMU there is, which can take most of a minute."""

_PLACES = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/libexec", "/usr/lib/libvirt")
_SOCKETS = Path("/run/libvirt")


class DaemonDownError(InfrastructureError):
    """The system's libvirt does not run where that is systemd's business; ``remedy`` is the command that starts it."""

    def __init__(self, why: Exception, remedy: str) -> None:
        super().__init__(f"{why}; start it with: {remedy}")
        self.remedy = remedy


@dataclass(frozen=True)
class Daemon:
    """A daemon of libvirt by its name, and the socket that it answers on."""

    name: str
    socket: Path


@dataclass(frozen=True)
class Started:
    """A daemon that this process started: by ``argv``, at ``began`` (:func:`time.monotonic`), logging into ``log``."""

    daemon: Daemon
    process: subprocess.Popen[bytes]
    log: Path
    argv: tuple[str, ...]
    began: float


@dataclass
class Libvirt:
    """The libvirt to use; ``started`` are the daemons that had to be started for it, by now."""

    uri: str
    started: list[Started] = field(default_factory=list)
    _connection: LibvirtConnection | None = None

    def open(self) -> LibvirtConnection:
        """A connection of the caller's own.  Where the daemon went away meanwhile, it is started again as at first; so
        is one that was started from here and hangs.
        """
        try:
            return connect(self.uri)
        except HungCallError:
            if not self._end_hanging():
                raise
        except InfrastructureError as error:
            logs.progress(f"libvirt is started again: {error}")
        with FileLock(state_dir() / "libvirt.lock", timeout=START_SECONDS):
            self.started += _make_it_answer(self.uri)
        return connect(self.uri)

    def connection(self) -> LibvirtConnection:
        """One connection for as long as it lasts, opened anew (:meth:`open`) where its end was noticed.

        Domains that were started with AUTODESTROY end with the one over which they were started.
        """
        if self._connection is None or not self._connection.alive:
            self._connection = self.open()
        return self._connection

    def close(self) -> None:
        """Close the connection that :meth:`connection` opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end_hanging(self) -> bool:
        """End the main daemon if it was started from here; the domains go on.  Whether it was."""
        ours = [one for one in self.started if one.daemon in MAIN_DAEMONS and one.process.poll() is None]
        for one in ours:
            logs.progress(f"{one.daemon.name} does not answer any more, and is ended")
            one.process.kill()
            one.process.wait()
        return bool(ours)


LOG_DAEMON = Daemon("virtlogd", _SOCKETS / "virtlogd-sock")
MAIN_DAEMONS = (
    Daemon("libvirtd", _SOCKETS / "libvirt-sock"),
    Daemon("virtqemud", _SOCKETS / "virtqemud-sock"),
)


@contextmanager
def ensure_libvirt(*, keep: bool = False) -> Iterator[Libvirt]:
    """A libvirt that answers while this context lasts.

    Daemons that had to be started are ended with it, unless ``keep`` is asked for, a domain still runs or another
    harness uses them: then they end by themselves when they have nothing left to do.
    """
    uri = default_uri()
    with ExitStack() as undo:
        users = undo.enter_context(_one_more_user())
        with FileLock(make(state_dir()) / "libvirt.lock", timeout=START_SECONDS):
            started = _make_it_answer(uri)
        found = Libvirt(uri, started)
        if not keep:
            undo.callback(_end, uri, found.started, users)
        with ExitStack() as held:
            held.enter_context(closing(connect(uri)))
            held.enter_context(_log_daemons_client())
            yield found


def default_uri() -> str:
    """The connection that fits this user: the system's libvirt for root, else the user's own."""
    return os.environ.get(URI_OVERRIDE) or (SYSTEM if os.geteuid() == 0 else SESSION)


def connect(uri: str) -> LibvirtConnection:
    """Open ``uri``, or say in one sentence why not; libvirt's own printing of errors is switched off.

    :class:`~harness.errors.HungCallError` when it answers nothing, after a minute.
    """
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        return LibvirtConnection.open(uri, logs.CONTROLLER)
    except libvirt.libvirtError as error:
        raise InfrastructureError(f"libvirt does not answer at {uri}: {error}") from error


def find_daemon(name: str) -> Path | None:
    """A daemon's program, also where it is not in the search path."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))
    return Path(found) if found else None


def has_systemd(marker: Path = Path("/run/systemd/system")) -> bool:
    """Whether systemd runs this machine, by its own criterion (``sd_booted``)."""
    return marker.is_dir()


def start_command() -> str:
    """What a user of a machine with systemd types to start libvirt."""
    unit = "virtqemud.socket" if find_daemon("virtqemud") and not find_daemon("libvirtd") else "libvirtd"
    return f"{'' if os.geteuid() == 0 else 'sudo '}systemctl start {unit}"


# --------------------------------------------------------------------------- starting


def _make_it_answer(uri: str) -> list[Started]:
    """Start what has to be started for ``uri`` to answer; nothing at all where that is someone else's business."""
    ours = uri == SYSTEM and os.geteuid() == 0 and not has_systemd()
    if not ours or os.environ.get(URI_OVERRIDE):
        try:
            connect(uri).close()
        except InfrastructureError as error:
            if uri == SYSTEM and has_systemd():
                raise DaemonDownError(error, start_command()) from error
            raise
        return []
    deadline = Deadline.after(START_SECONDS, "an answer of libvirt's daemon")
    with ExitStack() as undo:
        started: list[Started] = []
        if not _answers(LOG_DAEMON) and find_daemon(LOG_DAEMON.name):
            started.append(_start(LOG_DAEMON, undo))
            _wait_for(started[-1], deadline)
        if not any(_answers(daemon) for daemon in MAIN_DAEMONS):
            with _log_daemons_client() as client:
                started.append(_start(_installed_daemon(), undo, inherit=(client.fileno(),)))
            _wait_for(started[-1], deadline)
        with closing(connect(uri)):
            undo.pop_all()
        return started


def _installed_daemon() -> Daemon:
    for daemon in MAIN_DAEMONS:
        if find_daemon(daemon.name):
            return daemon
    raise HarnessError("libvirt's daemon (libvirtd or virtqemud) is not installed")


def _start(daemon: Daemon, undo: ExitStack, inherit: tuple[int, ...] = ()) -> Started:
    """Start ``daemon`` in a session of its own: a Ctrl-C for us is none for it."""
    program = find_daemon(daemon.name)
    assert program is not None
    log = make(state_dir()) / f"{daemon.name}.log"
    argv = (str(program), "--timeout", str(IDLE_SECONDS))
    with log.open("ab") as output, logs.command(logs.CONTROLLER, argv) as logged:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=inherit,
            start_new_session=True,
        )
        logged.status = "started"
    started = Started(daemon, process, log, argv, time.monotonic())
    undo.callback(_terminate, started)
    return started


def _wait_for(started: Started, deadline: Deadline) -> None:
    def ready() -> bool | None:
        if (status := started.process.poll()) is not None:
            last = (started.log.read_text(errors="replace").strip() or "no output").splitlines()[-1]
            raise InfrastructureError(f"{started.daemon.name} ended with status {status}: {last} ({started.log})")
        return True if _answers(started.daemon) else None

    poll(ready, deadline, every=0.05)


def _answers(daemon: Daemon) -> bool:
    """Whether something listens on the daemon's socket; a socket file left by a dead one does not count."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(daemon.socket))
        except OSError:
            return False
        return True


@contextmanager
def _log_daemons_client() -> Iterator[socket.socket]:
    """Be virtlogd's client, where there is one to be the client of: its timeout does not run meanwhile."""
    with socket.socket(socket.AF_UNIX) as client:
        with suppress(OSError):
            client.connect(str(LOG_DAEMON.socket))
        yield client


# --------------------------------------------------------------------------- ending


@contextmanager
def _one_more_user() -> Iterator[IO[bytes]]:
    """Count this process among libvirt's users for as long as it lives: a shared lock, which the kernel gives back."""
    with (make(state_dir()) / "libvirt.users").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield users


def _end(uri: str, started: list[Started], users: IO[bytes]) -> None:
    """End what was started, the log daemon last, if nobody else needs it."""
    if not started:
        return
    with FileLock(state_dir() / "libvirt.lock", timeout=START_SECONDS):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if _domains(uri):
            return
        for one in reversed(started):
            _terminate(one)


def _domains(uri: str) -> int:
    """How many domains run; none, where libvirt no longer answers."""
    try:
        with closing(connect(uri)) as connection:
            return int(connection.numOfDomains())
    except (InfrastructureError, libvirt.libvirtError):
        return 0


def _terminate(started: Started) -> None:
    started.process.terminate()
    try:
        started.process.wait(10)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
    seconds = time.monotonic() - started.began
    logs.record("command", logs.CONTROLLER, logs.quoted(started.argv), "ended", seconds)

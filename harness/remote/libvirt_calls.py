"""The one place through which the harness's calls to libvirt go, each of them bounded.

libvirt itself waits for an answer as long as it takes, which may be for ever: where a machine or a daemon was stopped,
or a QEMU does not answer its monitor.  So each call runs in a thread of its own.  One that does not return in time has
the transport of its connection ended, the socket to the daemon or to the ssh process: then libvirt sees the end of it
and the call returns with an error by itself.  A connection is never closed while a call over it is running, at which
libvirt would crash.  Whoever needs a connection that was ended opens another.

A daemon that answers nothing at all is noticed sooner: libvirt's own keepalive messages are on, for which its event
loop runs in a thread.  They also wake a thread whose call was queued behind another's and never sent, a fault of
libvirt 9.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from harness.errors import HungCallError, LostLibvirtError, LostNodeError
from harness.util import logs
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline, patience

# A daemon that is silent for 25 s (five times 5 s) is gone.  It answers from its main loop whatever its calls wait for;
# an emulated node that was as busy as one gets was seen to answer within 7 s.
KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 4
# What a call may take while the daemon is there: it waits for QEMU.  The longest of some thousand took 7 s.
CALL_SECONDS = 60.0
# A QEMU is started, by a libvirt that may probe all there are first: 104 s were seen.  In a node 15 s.
CREATE_SECONDS = 150.0
OPEN_SECONDS = 60.0
CLOSE_SECONDS = 10.0
# From the end of the transport to the return of the call, and how often is looked whether the machine is lost.
RETURN_SECONDS = 5.0
LOOK_SECONDS = 0.5
# An agent's command has a time of its own; libvirt may wait as long as this before for an earlier one to end.
AGENT_TURN_SECONDS = 45.0

# What may have to find out first what the QEMUs there can do.
_PROBING = ("createXML", "getDomainCapabilities")
_OBJECTS = ("lookupByName", "createXML", "migrate3", "secretDefineXML")
_opening = threading.Lock()
_loop: list[threading.Thread] = []


class Bounded:
    """An object of libvirt's, with its methods by their own names, and those of ``libvirt_qemu`` besides.

    What they raise is libvirt's; :class:`~harness.errors.HungCallError` when one did not return in time and
    :class:`~harness.errors.LostLibvirtError` when the connection ended under it.  ``migrate3`` has no time of its own:
    whoever calls it ends the connection (:meth:`LibvirtConnection.end`) when it has taken too long.
    """

    def __init__(self, raw: Any, connection: LibvirtConnection | None = None) -> None:
        self.raw = raw
        self._over = connection

    @property
    def connection(self) -> LibvirtConnection:
        """What its calls go over."""
        assert self._over is not None
        return self._over

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        function = getattr(self.raw, name, None) or functools.partial(getattr(libvirt_qemu, name), self.raw)
        return functools.partial(self.connection.call, name, function)


class LibvirtConnection(Bounded):
    """A connection to the libvirt of ``host``; its methods are those of ``virConnect`` (see :class:`Bounded`).

    Several threads may use it.  ``lost`` says why the machine is lost, None while it is not: then no call waits longer.
    """

    def __init__(
        self, raw: Any, transport: Collection[int], host: str, lost: Callable[[], str | None] = lambda: None
    ) -> None:
        super().__init__(raw)
        self.host = host
        # The socket's inode number: that of a descriptor may be another file's when the connection has ended.
        self._transport = frozenset(transport)
        self._lost = lost
        self._running: list[BackgroundTask[Any]] = []
        self._beginning = threading.Lock()
        self._ended = False

    @property
    def connection(self) -> LibvirtConnection:
        """Itself."""
        return self

    @classmethod
    def open(
        cls,
        uri: str,
        host: str,
        lab: str = "",
        *,
        seconds: float = OPEN_SECONDS,
        lost: Callable[[], str | None] = lambda: None,
    ) -> LibvirtConnection:
        """Open ``uri``, the libvirt of ``host``, with keepalive; ``lab`` is for the log.

        libvirt's own error where it is refused; :class:`~harness.errors.HungCallError` after ``seconds``.
        """
        with _opening, logs.timed("connection", host, uri, lab):
            _run_event_loop()
            before = _sockets()
            task: BackgroundTask[Any] = BackgroundTask(lambda: libvirt.open(uri), f"the connection to {uri}")
            _wait(task, "the opening of a connection", host, seconds, lost, lambda: _shut_down(_sockets() - before))
            raw = task.result(Deadline.after(RETURN_SECONDS, "the connection"))
            made = cls(raw, _sockets() - before, host, lost)
            # A driver without a daemon has nobody to ask.
            with contextlib.suppress(libvirt.libvirtError):
                made.setKeepAlive(KEEPALIVE_SECONDS, round(KEEPALIVE_COUNT * patience()))
            return made

    @property
    def alive(self) -> bool:
        """Whether its end was not noticed yet; asks nobody."""
        return not self._ended and bool(self.raw.isAlive())

    def end(self) -> None:
        """End its transport: calls that are running return with an error; returns at once."""
        self._ended = True
        _shut_down(self._transport)

    def close(self) -> None:
        """Close it; takes at most 20 s.  Calls that are still running are ended; one that does not return keeps it
        open, which is the lesser evil.
        """
        with self._beginning:
            self._ended = True
        if any(task.running for task in self._running):
            self.end()
        until = time.monotonic() + RETURN_SECONDS
        if not all(task.ended(max(0.0, until - time.monotonic())) for task in self._running):
            return
        closing: BackgroundTask[Any] = BackgroundTask(self.raw.close, f"the end of the connection to {self.host}")
        if not closing.ended(CLOSE_SECONDS):
            self.end()
            closing.ended(RETURN_SECONDS)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function``, libvirt's ``name``, returns; see :class:`Bounded` for what it raises."""
        plain = [one.raw if isinstance(one, Bounded) else one for one in arguments]
        # A migration goes over two.
        used = [self, *(one for one in arguments if isinstance(one, LibvirtConnection))]
        with contextlib.ExitStack() as beginning:
            for one in used:
                beginning.enter_context(one._beginning)
                if one._ended:
                    raise LostLibvirtError(f"the connection to libvirt on {one.host} had ended before {name}")
            task: BackgroundTask[Any] = BackgroundTask(lambda: function(*plain), f"libvirt's {name} on {self.host}")
            for one in used:
                one._running = [*(other for other in one._running if other.running), task]
        _wait(task, name, self.host, _seconds(name, arguments), self._lost, self.end)
        try:
            found = task.result(Deadline.after(RETURN_SECONDS, name))
        except libvirt.libvirtError as error:
            if self.alive:
                raise
            raise LostLibvirtError(f"libvirt on {self.host} was lost during {name}: {error}") from None
        if name == "listAllDomains":
            return [Bounded(one, self) for one in found]
        return Bounded(found, used[-1]) if name in _OBJECTS else found


def _seconds(name: str, arguments: tuple[Any, ...]) -> float | None:
    if name == "migrate3":
        return None
    if name == "qemuAgentCommand":
        return float(arguments[1]) + AGENT_TURN_SECONDS
    return CREATE_SECONDS if name in _PROBING else CALL_SECONDS


def _wait(
    task: BackgroundTask[Any],
    name: str,
    host: str,
    seconds: float | None,
    lost: Callable[[], str | None],
    end: Callable[[], None],
) -> None:
    """Wait until ``task`` has ended; where it takes too long, ``end`` is called, whereupon it returns by itself."""
    began = time.monotonic()
    if seconds is not None:
        seconds *= patience()
    while not task.ended(LOOK_SECONDS if seconds is None else min(LOOK_SECONDS, seconds)):
        why = lost()
        if why is None and (seconds is None or time.monotonic() - began < seconds):
            continue
        end()
        task.ended(RETURN_SECONDS)
        if why is not None:
            raise LostNodeError(f"libvirt on {host} was not waited for any longer during {name}: {why}")
        raise HungCallError(f"libvirt on {host} did not answer {name} within {seconds:.0f} s")


# ------------------------------------------------------------------------------------------ the transport


def _sockets() -> frozenset[int]:
    """The inode numbers of all connected stream sockets of the Unix domain that this process has: libvirt tells nobody
    which is its own, so that is the one that is new after it was opened.
    """
    found = set()
    for descriptor in _descriptors():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family == socket.AF_UNIX and one.type == socket.SOCK_STREAM:
                one.getpeername()
                found.add(os.fstat(one.fileno()).st_ino)
    return frozenset(found)


def _shut_down(inodes: Collection[int]) -> None:
    if len(inodes) != 1:
        # Another thread opened one of its own meanwhile, which is none of our business.
        return
    for descriptor in _descriptors():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if os.fstat(one.fileno()).st_ino in inodes:
                one.shutdown(socket.SHUT_RDWR)


def _descriptors() -> list[int]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode):
                found.append(int(entry.name))
    return found


def _run_event_loop() -> None:
    """Run libvirt's event loop for as long as this process lives; it has to be there before the first connection."""
    if _loop:
        return
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError:
                time.sleep(LOOK_SECONDS)

    _loop.append(threading.Thread(target=run, name="libvirt's event loop", daemon=True))
    _loop[0].start()

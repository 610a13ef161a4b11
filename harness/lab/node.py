"""A node: a machine that carries one replica, whoever made it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import libvirt

from harness.errors import DeadlineError, HarnessError, LostNodeError
from harness.model.changes import Change, ChangeKind
from harness.parse.kernel_log import KernelLine, parse_kmsg
from harness.parse.log_flood import LogSift
from harness.remote.libvirt_calls import LibvirtConnection
from harness.remote.ssh import SshRunner
from harness.remote.stream import LineStream
from harness.util.deadline import Deadline

CONNECT_SECONDS = 60.0
CONNECT_AGAIN_SECONDS = 5.0
MARKER_SECONDS = 30.0


# Who reads /dev/kmsg too slowly gets EPIPE, at which cat ends; then it is opened again, where it begins with the oldest
# record that there still is.  A cat that was killed, by the end of its output too, is not started again.
_FOLLOW = r"while cat /dev/kmsg 2> /dev/null; [ $? -lt 128 ]; do printf '\n' || exit; sleep 0.1; done"


class KernelLog:
    """A node's kernel log from the moment it was opened, with markers of the harness's own in it.

    The source is ``/dev/kmsg`` on the node, followed for as long as the connection.  Records that the kernel overwrote
    before they were read are missing in it, which their numbers show.  It is bounded: what repeats itself is left out
    and counted (:mod:`harness.parse.log_flood`).  Any thread may read it.
    """

    def __init__(self, runner: SshRunner) -> None:
        self._runner = runner
        self._numbers = itertools.count(1)
        # The log of a lab that stays up holds the markers of the runs before.
        self._reader = secrets.token_hex(3)
        self._sift = LogSift()
        # The first lines are the boot's, from wherever the kernel's ring buffer begins.
        self.stream: LineStream = runner.stream(["sh", "-c", _FOLLOW], "kernel log", self._sift)

    def mark(self, what: str) -> int:
        """Write a marker and wait until it came back; everything logged before it has then arrived.

        Returns the cursor behind the marker.  :class:`~harness.errors.DeadlineError` when it does not come back within
        30 s, :class:`~harness.errors.LostNodeError` when the connection ended.
        """
        marker = f"drbd-harness: {what} #{self._reader}.{next(self._numbers)}"
        cursor = self.stream.cursor()
        self._runner.run(["sh", "-c", 'echo "$1" > /dev/kmsg', "sh", marker])
        deadline = Deadline.after(MARKER_SECONDS, f"the marker in the kernel log of {self._runner.host}")
        _, behind = self.stream.wait(lambda line: True if line.endswith(marker) else None, cursor, deadline)
        return behind

    def begin(self, cursor: int) -> None:
        """Keep nothing before the marker that ``cursor`` is behind, and count anew what repeats itself from now on."""
        self.stream.forget(cursor - 1)
        self._sift.begin()

    def counted(self, cursor: int) -> tuple[KernelLine, ...]:
        """:meth:`lines` with the marker that ``cursor`` is behind: from it on no number may be missing."""
        return self.lines(max(0, cursor - 1))

    def raw(self, cursor: int) -> str:
        """The log from ``cursor`` on as /dev/kmsg printed it, as far as it has arrived."""
        return "\n".join(self.stream.since(cursor)) + "\n"

    def lines(self, cursor: int) -> tuple[KernelLine, ...]:
        """The log from ``cursor`` on, as far as it has arrived."""
        return parse_kmsg(self.raw(cursor))


class LowerGuard(Protocol):
    """Stands before whatever writes to the lower device of a machine that is somebody's, or to its metadata."""

    def require(self, what: str) -> None:
        """Look whose the lower device is at this moment, before ``what`` is done to it; blocks for some seconds.

        :class:`~harness.errors.ProtectedError` unless it is the harness's own, and nobody else uses it.
        """
        ...

    def create_metadata(self) -> None:
        """Look in the same way, and make DRBD's metadata on it."""
        ...


class ChangeJournal(Protocol):
    """What is written down, on a machine that is somebody's, before it is changed there."""

    def note_all(self, *changes: Change) -> None:
        """``changes`` are about to be made, in this order; on the machine's disk when this returns.

        :class:`~harness.errors.RefusedError` or :class:`~harness.errors.ProtectedError` where one may not be.
        """
        ...

    def has_noted(self, kind: ChangeKind, what: str) -> bool:
        """Whether it was noted by this process, whatever it was to become."""
        ...

    def forget(self) -> None:
        """The machine may have booted: what it took back has to be noted again before it is changed again."""
        ...


@dataclass
class Node:
    """One node, and the connections to it: ssh, its kernel log, two to its libvirt.

    ``link`` is its replication NIC, ``address`` the address on it, ``lower`` the block device for its replica.
    ``image`` is the file behind that device where the controller can read it.  ``host_name`` is what the machine calls
    itself, where that is not ``name``.  On a machine that is somebody's there is a ``guard`` of the lower device, and a
    ``journal`` of all that is changed; without that, a NIC that is not the lab's (``own_link``) is neither delayed nor
    are its features set.  Log and libvirt are connected to at
    their first use, and again at the first use after :meth:`forget`, :meth:`reconnect` or :meth:`close`.  Commands may
    be run from several threads; see :attr:`monitor_connection` for libvirt.
    """

    name: str
    runner: SshRunner
    link: str
    address: str
    lower: str
    libvirt_uri: str
    image: Path | None = None
    host_name: str = ""
    guard: LowerGuard | None = field(default=None, repr=False)
    own_link: bool = True
    journal: ChangeJournal | None = field(default=None, repr=False)
    #: Whether it has no power, as far as was done from here.
    away: bool = False
    _log: KernelLog | None = field(default=None, repr=False)
    _libvirt: LibvirtConnection | None = field(default=None, repr=False)
    _monitor_connection: LibvirtConnection | None = field(default=None, repr=False)

    def note(self, *changes: Change) -> None:
        """Before ``changes`` are made: written down where the machine is somebody's (:class:`ChangeJournal`)."""
        if self.journal is not None:
            self.journal.note_all(*changes)

    @property
    def somebodys(self) -> bool:
        """Whether the machine is somebody's: nothing on it is started anew, and nothing of theirs is read."""
        return self.journal is not None

    @property
    def drbd_name(self) -> str:
        """What DRBD's configuration has to call it."""
        return self.host_name or self.name

    def require_lower(self, what: str) -> None:
        """Before ``what`` is done to the lower device: :class:`~harness.errors.ProtectedError` where it may be
        somebody's.
        """
        if self.guard is not None:
            self.guard.require(what)

    @property
    def log(self) -> KernelLog:
        """Its kernel log; :class:`~harness.errors.LostNodeError` when it does not answer."""
        if self._log is None:
            self._log = KernelLog(self.runner)
        return self._log

    def listen_again(self) -> bool:
        """Let the next use of its kernel log read it anew where whoever read it has ended; whether that was so.

        Not in the middle of a cell, whose cursors are of the log that was.
        """
        if self._log is None or self._log.stream.ended is None:
            return False
        self._log = None
        return True

    @property
    def monitor_connection(self) -> LibvirtConnection:
        """A second connection, for a thread that watches while another one's long call is under way over the first.

        Two threads over one connection may wait for each other for some seconds: with libvirt 9 the later one's call
        was not always sent (seen once in some ten thousand calls; it wakes the earlier one, which is not asleep yet and
        misses it).  :class:`~harness.errors.LostNodeError` when its libvirt does not answer.
        """
        if self._monitor_connection is not None:
            # Used so seldom that its end may not have been noticed: it is tried, as isAlive() would not tell.
            with contextlib.suppress(libvirt.libvirtError, HarnessError):
                self._monitor_connection.getLibVersion()
                return self._monitor_connection
        self._monitor_connection = self._connect()
        return self._monitor_connection

    def require_libvirt(self) -> None:
        """:class:`~harness.errors.LostNodeError` where its libvirt does not answer; within two minutes, if it hangs."""
        self.monitor_connection  # noqa: B018 - which is tried

    def _connect(self) -> LibvirtConnection:
        try:
            return LibvirtConnection.open(self.libvirt_uri, self.name, self.runner.lab, lost=lambda: self.runner.silent)
        except (libvirt.libvirtError, DeadlineError) as error:
            raise LostNodeError(f"no libvirt on {self.name}: {error}") from None

    @property
    def libvirt(self) -> LibvirtConnection:
        """A connection to its own libvirt, opened again where its end was noticed.

        :class:`~harness.errors.LostNodeError` when its libvirt does not answer.
        """
        if self._libvirt is None or not self._libvirt.alive:
            self._libvirt = self._connect()
        return self._libvirt

    def reconnect(self) -> None:
        """Connect to a node for the first time, or anew after it was away; its old connections are let go of.

        ssh is tried for 60 s, for a node that is still starting; :class:`~harness.errors.LostNodeError` after that, and
        at once where its host key is not the pinned one.
        """
        self.forget()
        self.runner.connect(CONNECT_SECONDS)
        self.away = False

    def connect_again(self) -> bool:
        """Connect anew where only the ssh connection has ended: not to a node that was silent, or has no power.

        What was read over it (kernel log, events) has ended with it.  Blocks for at most some 40 s; False where that is
        no help.
        """
        if self.away or self.runner.silent is not None:
            return False
        self._log = None
        if self.journal is not None:
            # It may have booted without being told to.
            self.journal.forget()
        self.runner.close()
        try:
            self.runner.connect(CONNECT_AGAIN_SECONDS)
        except LostNodeError:
            return False
        return True

    def forget(self) -> None:
        """Let go of every connection to a node that is away; whoever still uses one gets an error from it.

        Returns at once.  Those to libvirt are not closed: another thread may be in the middle of a call over one, which
        returns with an error by itself.
        """
        for connection in (self._libvirt, self._monitor_connection):
            if connection is not None:
                connection.end()
        self.away = True
        if self.journal is not None:
            self.journal.forget()
        self._libvirt = self._monitor_connection = None
        self._log = None
        self.runner.close()

    def close(self) -> None:
        """End every connection to the node, within at most 40 s; what another thread is waiting for ends with an
        error.
        """
        self.close_libvirt()
        self._log = None
        self.runner.close()

    def close_libvirt(self) -> None:
        """End those to its libvirt alone."""
        for connection in (self._libvirt, self._monitor_connection):
            if connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()
        self._libvirt = self._monitor_connection = None

"""A node: a machine that carries one replica, whoever made it."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from harness.errors import LostNodeError
from harness.parse.kernel_log import KernelLine, parse_kmsg
from harness.remote.ssh import SshRunner
from harness.remote.stream import LineStream
from harness.util import logs
from harness.util.deadline import Deadline


class KernelLog:
    """A node's kernel log from the moment it was opened, with markers of our own in it."""

    def __init__(self, runner: SshRunner) -> None:
        self._runner = runner
        self._numbers = itertools.count(1)
        # The log of a lab that stays up holds the markers of the runs before.
        self._reader = secrets.token_hex(3)
        # Where the kernel's own numbering starts is not ours to know: the first lines are the boot's.
        self.stream: LineStream = runner.stream(["cat", "/dev/kmsg"], "kernel log")

    def mark(self, what: str) -> int:
        """Write a marker and wait until it came back; everything logged before it has then arrived.

        Returns the cursor behind the marker.
        """
        marker = f"drbd-harness: {what} #{self._reader}.{next(self._numbers)}"
        cursor = self.stream.cursor()
        self._runner.run(["sh", "-c", 'echo "$1" > /dev/kmsg', "sh", marker])
        deadline = Deadline.after(30, f"the marker in the kernel log of {self._runner.host}")
        _, behind = self.stream.wait(lambda line: True if line.endswith(marker) else None, cursor, deadline)
        return behind

    def raw(self, cursor: int) -> str:
        """The log from ``cursor`` on as /dev/kmsg printed it."""
        return "\n".join(self.stream.since(cursor)) + "\n"

    def lines(self, cursor: int) -> tuple[KernelLine, ...]:
        """The log from ``cursor`` on."""
        return parse_kmsg(self.raw(cursor))


@dataclass
class Node:
    """One node, connected.

    ``link`` is its replication NIC, ``address`` the address on it, ``lower`` the block device for its replica.
    ``image`` is the file behind that device where the controller can read it.
    """

    name: str
    runner: SshRunner
    link: str
    address: str
    lower: str
    libvirt_uri: str
    image: Path | None = None
    _log: KernelLog | None = field(default=None, repr=False)
    _libvirt: libvirt.virConnect | None = field(default=None, repr=False)
    _monitor_connection: libvirt.virConnect | None = field(default=None, repr=False)

    @property
    def log(self) -> KernelLog:
        """Its kernel log, opened at the first use."""
        if self._log is None:
            self._log = KernelLog(self.runner)
        return self._log

    @property
    def monitor_connection(self) -> libvirt.virConnect:
        """Another connection, to look on while another thread's long call is under way over :attr:`libvirt`.

        Two threads over one may wait for ever: with libvirt 9 the later one's call was never sent (seen once in some
        ten thousand calls; it wakes the earlier one, which is not asleep yet and does not hear it).
        """
        if self._monitor_connection is not None:
            # Used so seldom that nobody may have noticed its end: it is tried, and not only asked whether it is alive.
            with contextlib.suppress(libvirt.libvirtError):
                self._monitor_connection.getLibVersion()
                return self._monitor_connection
        self._monitor_connection = self._connect()
        return self._monitor_connection

    def _connect(self) -> libvirt.virConnect:
        try:
            with logs.timed("connection", self.name, self.libvirt_uri, self.runner.lab):
                return libvirt.open(self.libvirt_uri)
        except libvirt.libvirtError as error:
            raise LostNodeError(f"no libvirt on {self.name}: {error}") from None

    @property
    def libvirt(self) -> libvirt.virConnect:
        """A connection to its own libvirt, opened at the first use and again when it was lost."""
        if self._libvirt is None or not self._libvirt.isAlive():
            self._libvirt = self._connect()
        return self._libvirt

    def forget(self) -> None:
        """Let go of every connection to a node whose power is gone; whoever still uses one gets an error from it.

        libvirt's is not closed here: another thread may be in the middle of a call over it, and libvirt would crash.
        """
        self._libvirt = self._monitor_connection = None
        self._log = None
        self.runner.close()

    def close(self) -> None:
        """End every connection to the node."""
        for connection in (self._libvirt, self._monitor_connection):
            if connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()
        self._libvirt = self._monitor_connection = None
        self._log = None
        self.runner.close()

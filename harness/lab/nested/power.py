"""The power of a nested lab's nodes: off without a warning, and on again from the same disks."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

import libvirt
from lxml import etree

from harness.errors import HarnessError, InfrastructureError
from harness.lab.nested import boot
from harness.lab.nested.libvirt_daemon import MAIN_DAEMONS, Libvirt
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util import logs

KILL_SECONDS = 10.0


class Power:
    """Switches domains by name.  ``connection`` says over which one, each time; ``directory`` is the lab's.

    ``autodestroy``: what is switched on ends with the connection, however this process ends.  ``daemon``: the libvirt
    behind ``connection``.
    """

    def __init__(
        self,
        connection: Callable[[], LibvirtConnection],
        directory: Path,
        *,
        autodestroy: bool,
        daemon: Libvirt | None = None,
    ) -> None:
        self._connection = connection
        self._daemon = daemon
        self._directory = directory
        self._flags = libvirt.VIR_DOMAIN_START_AUTODESTROY if autodestroy else 0
        self._descriptions: dict[str, str] = {}
        #: The stopped domains, and the process of each.
        self._stopped: dict[str, int] = {}

    def off(self, name: str) -> None:
        """End the domain at once, as a power cut does; what it is made of is remembered.

        :class:`~harness.errors.InfrastructureError` when libvirt does not, or it is off already.
        """
        try:
            domain = self._connection().lookupByName(name)
            self._descriptions[name] = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
            with self._timed(f"destroy {name}"):
                domain.destroy()
        except libvirt.libvirtError as error:
            raise InfrastructureError(f"{name} was not switched off: {error}") from None

    def on(self, name: str) -> None:
        """Start it again as it was and wait until it has booted (see :func:`~harness.lab.nested.boot.wait`)."""
        description = self._descriptions[name]
        console = _console(description)
        if console.exists():
            # The new boot begins an empty file; the consoles of the boots before are kept beside it.
            before = sum(1 for _ in self._directory.glob(f"{console.stem}.*{console.suffix}"))
            console.rename(console.with_name(f"{console.stem}.{before + 1}{console.suffix}"))
        try:
            with self._timed(f"createXML {name}"):
                self._connection().createXML(description, self._flags)
        except libvirt.libvirtError as error:
            raise InfrastructureError(f"{name} was not switched on again: {error}") from None
        boot.wait(self._connection(), {name: console})

    def stop(self, name: str) -> None:
        """Stop the domain's QEMU with SIGSTOP, which neither it nor libvirt is told of.

        :class:`~harness.errors.InfrastructureError` when there is no such process, or it is somebody else's.
        """
        pid = _qemu_of(name)
        try:
            with logs.timed("command", logs.CONTROLLER, f"SIGSTOP to the QEMU of {name}", self._directory.name):
                os.kill(pid, signal.SIGSTOP)
        except OSError as error:
            raise InfrastructureError(f"the QEMU of {name} was not stopped: {error.strerror}") from None
        self._stopped[name] = pid

    def go_on(self) -> None:
        """Let every QEMU that was stopped go on; one that has ended since is no error."""
        for name, pid in self._stopped.items():
            with contextlib.suppress(OSError, InfrastructureError):
                # Its number may be another process's by now.
                if _qemu_of(name) == pid:
                    os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def kill_libvirt(self, mine: Collection[str]) -> bool:
        """Kill libvirt's main daemon, where this process started it and it has no domains but ``mine``; whether it did.

        With it go its connections; the domains go on.
        """
        started = () if self._daemon is None else self._daemon.started
        daemons = [one for one in started if one.daemon in MAIN_DAEMONS]
        try:
            others = {domain.name() for domain in self._connection().listAllDomains()} - {*mine} if daemons else set()
        except libvirt.libvirtError as error:
            raise InfrastructureError(f"libvirt does not say which domains run: {error}") from None
        if not daemons or others:
            return False
        for one in daemons:
            with logs.timed("command", logs.CONTROLLER, f"SIGKILL to {one.daemon.name}", self._directory.name):
                one.process.kill()
                one.process.wait(KILL_SECONDS)
        return True

    def _timed(self, call: str) -> AbstractContextManager[logs.Outcome]:
        # The folder of a lab is named by its id.
        return logs.timed("libvirt", logs.CONTROLLER, call, self._directory.name)


def destroy(connection: Callable[[], LibvirtConnection], name: str, lab: str) -> None:
    """End a domain of ``lab`` that may have ended by itself, or never began; where libvirt is lost, by its process."""
    try:
        with logs.timed("libvirt", logs.CONTROLLER, f"destroy {name}", lab):
            connection().lookupByName(name).destroy()
    except libvirt.libvirtError:
        return
    except HarnessError as error:
        logs.progress(f"the QEMU of {name} is killed: {error}")
        with contextlib.suppress(OSError, InfrastructureError):
            os.kill(_qemu_of(name), signal.SIGKILL)


def _qemu_of(name: str) -> int:
    """The process of the domain's QEMU, which libvirt tells its name."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            # Read at once: a process may end at any time.
            if any(part.startswith(f"guest={name},".encode()) for part in entry.read_bytes().split(b"\0")):
                return int(entry.parent.name)
    raise InfrastructureError(f"there is no QEMU of {name} on this machine")


def _console(description: str) -> Path:
    log = etree.fromstring(description.encode()).find("devices/serial/log")
    if log is None or not log.get("file"):
        raise InfrastructureError("the node has no console file")
    return Path(str(log.get("file")))

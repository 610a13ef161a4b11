"""The controller's libvirt, scripted: its domains "boot" as far as the script says.  Nothing here is a test.

What a domain is made of is read from its XML, as libvirt does: its console, its seed, the port that leads to its sshd.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt
from fake_libvirt import LibvirtSaid
from lxml import etree
from sshd import ScriptedSshd

from harness.lab.nested.boot import READY
from harness.lab.nested.keys import KeyPair, new_key_pair
from harness.remote.libvirt_calls import Bounded, LibvirtConnection
from harness.remote.scripted import Answer
from harness.util import paths

# As QEMU 7.2 prints it, behind what libvirt puts before the output of a QEMU that did not start.
PORT_TAKEN = (
    "internal error: process exited while connecting to monitor: 2026-11-28T19:38:00.123456Z qemu-system-x86_64: "
    "-netdev user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:{0}-:22: Could not set up host forwarding rule "
    "'tcp:127.0.0.1:{0}-:22'\n"
)
LINK_PORT_TAKEN = (
    "internal error: process exited while connecting to monitor: 2026-11-28T19:38:00.123456Z qemu-system-x86_64: "
    "-netdev socket,udp=127.0.0.1:{1},localaddr=127.0.0.1:{0},id=hostnet0: can't bind ip=127.0.0.1 to socket: "
    "Address already in use\n"
)

# What a node prints of its versions, of whatever else nothing.
VERSIONS = "kernel=6.12.57\ndrbd=8.4.11\nqemu=10.0.2\nlibvirt=11.3.0\n"


def read_only_versions(argv: tuple[str, ...]) -> Answer:
    """A node on which every command succeeds."""
    return 0, VERSIONS if "uname -r" in " ".join(argv) else "", ""


@dataclass
class ScriptedLibvirt:
    """``starts`` and ``boots`` are called with a domain's side, ``a`` or ``b``, and may raise what goes wrong there.

    ``boots`` returns what the domain prints on its console; ``answers`` is what a side's sshd is asked.  ``stranger``:
    another host key than the lab's answers on the port of that side; ``silent``: nobody does.
    """

    starts: Callable[[str], object] = lambda side: None
    boots: Callable[[str], bytes] = lambda side: b"booting\n" + READY + b"\n"
    answers: Callable[[str], Callable[[tuple[str, ...]], Answer]] = lambda side: read_only_versions
    stranger: str = ""
    silent: str = ""
    running: dict[str, ScriptedDomain] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    opens: Callable[[], object] = lambda: None

    def open(self, uri: str) -> Any:
        """In the place of ``libvirt.open``."""
        self.opens()
        self.connections += 1
        return ScriptedConnection(self)

    def stop(self) -> None:
        """End what a test left running."""
        for domain in list(self.running.values()):
            domain.destroy()


@dataclass
class HangingLibvirt:
    """A libvirt whose calls may hang: they wait for an answer at the socket of their connection, as libvirt does, and
    return with an error at its end.

    ``hangs`` names the calls that get no answer; nobody ever takes the connections from the listening socket at
    ``path``, as with a daemon that was stopped.  ``crashed``: a connection was closed under a running call.
    """

    path: Path
    hangs: set[str] = field(default_factory=set)
    domain: Any = None
    crashed: bool = False
    opened: list[HangingConnection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen(20)

    def open(self, uri: str) -> HangingConnection:
        """In the place of ``libvirt.open``."""
        self.opened.append(HangingConnection(self))
        self.opened[-1].called("open")
        return self.opened[-1]

    def stop(self) -> None:
        """End every connection."""
        self.listening.close()
        for one in self.opened:
            one.wire.close()


class HangingConnection:
    def __init__(self, world: HangingLibvirt) -> None:
        self.world = world
        self.wire = socket.socket(socket.AF_UNIX)
        self.wire.connect(str(world.path))
        self.ended = self.closed = False
        self.waiting = 0
        self.calls: list[str] = []

    def called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.world.hangs:
            self.waiting += 1
            self.ended = self.wire.recv(1) == b""
            self.waiting -= 1
        if self.ended or self.closed:
            raise LibvirtSaid("End of file while reading data: Input/output error", libvirt.VIR_ERR_SYSTEM_ERROR)

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return int(not self.ended)

    def setKeepAlive(self, interval: int, count: int) -> int:  # noqa: N802 - libvirt's name
        self.keepalive = (interval, count)
        return 0

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
        self.called("getLibVersion")
        return 11_003_000

    def lookupByName(self, name: str) -> HangingDomain:  # noqa: N802 - libvirt's name
        self.called("lookupByName")
        return HangingDomain(self)

    def close(self) -> int:
        if self.waiting:
            self.world.crashed = True
        self.closed = True
        self.called("close") if "close" in self.world.hangs else None
        return 0


class HangingDomain:
    """What the domain of the script does, where the call gets through."""

    def __init__(self, over: HangingConnection) -> None:
        self._over = over

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self._over.called(name)
            return getattr(self._over.world.domain, name)(*arguments)

        return call


class Alive:
    """A connection over which nothing is asked."""

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return 1


def bounded(domain: object) -> Bounded:
    """A scripted domain as the harness has it."""
    return Bounded(domain, LibvirtConnection(Alive(), (), "nodea"))


@dataclass
class ScriptedConnection:
    world: ScriptedLibvirt
    tied: list[ScriptedDomain] = field(default_factory=list)
    closed: bool = False

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return int(not self.closed)

    def setKeepAlive(self, interval: int, count: int) -> int:  # noqa: N802 - libvirt's name
        return 0

    def createXML(self, xml: str, flags: int) -> ScriptedDomain:  # noqa: N802 - libvirt's name
        domain = ScriptedDomain(self.world, etree.fromstring(xml.encode()))
        self.world.asked.append(f"create {domain.side}")
        self.world.starts(domain.side)
        domain.start()
        if flags & libvirt.VIR_DOMAIN_START_AUTODESTROY:
            self.tied.append(domain)
        return domain

    def lookupByName(self, name: str) -> ScriptedDomain:  # noqa: N802 - libvirt's name
        if name not in self.world.running:
            raise LibvirtSaid(f"Domain not found: no domain with matching name '{name}'", libvirt.VIR_ERR_NO_DOMAIN)
        return self.world.running[name]

    def listAllDomains(self) -> list[ScriptedDomain]:  # noqa: N802 - libvirt's name
        self.world.asked.append("list")
        return list(self.world.running.values())

    def numOfDomains(self) -> int:  # noqa: N802 - libvirt's name
        return len(self.world.running)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.world.connections -= 1
        for domain in self.tied:
            if domain.known_as in self.world.running:
                domain.destroy()


class ScriptedDomain:
    """A node as its XML describes it."""

    def __init__(self, world: ScriptedLibvirt, xml: etree._Element) -> None:
        self.world = world
        self.known_as = str(xml.findtext("name"))
        self.side = self.known_as[-1]
        text = etree.tostring(xml, encoding="unicode")
        (self.ssh_port,) = (int(port) for port in re.findall(r"hostfwd=tcp:127\.0\.0\.1:(\d+)-:22", text))
        local = xml.find("devices/interface/source/local")
        assert local is not None
        self.link_port = int(str(local.get("port")))
        self.console = Path(str(xml.find("devices/serial/log").get("file")))  # type: ignore[union-attr]
        self.seed = next(
            Path(str(disk.find("source").get("file")))  # type: ignore[union-attr]
            for disk in xml.iterfind("devices/disk")
            if disk.findtext("serial") == "seed"
        )
        self.sshd: ScriptedSshd | None = None

    def start(self) -> None:
        """Boot: bind what QEMU binds, print on the console, answer over ssh."""
        key = new_key_pair("a stranger") if self.world.stranger == self.side else self._host_key()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            try:
                link.bind(("127.0.0.1", self.link_port))
            except OSError:
                raise LibvirtSaid(LINK_PORT_TAKEN.format(self.link_port, 0)) from None
        if self.world.silent != self.side:
            try:
                self.sshd = ScriptedSshd(key, self._on_seed("authorized_keys"), self.ssh_port)
            except OSError:
                raise LibvirtSaid(PORT_TAKEN.format(self.ssh_port)) from None
            self.sshd.answer = self.world.answers(self.side)
        self.world.running[self.known_as] = self
        self.console.write_bytes(self.world.boots(self.side))

    def _host_key(self) -> KeyPair:
        return KeyPair(self._on_seed("ssh_host_ed25519_key"), self._on_seed("ssh_host_ed25519_key.pub"))

    def _on_seed(self, name: str) -> str:
        debugfs = shutil.which("debugfs", path=paths.programs())
        assert debugfs is not None
        argv = [debugfs, "-R", f"cat /{name}", str(self.seed)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def name(self) -> str:
        return self.known_as

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.known_as in self.world.running)

    def destroy(self) -> None:
        self.world.asked.append(f"destroy {self.side}")
        if self.sshd is not None:
            self.sshd.close()
        if self.world.running.pop(self.known_as, None) is None:
            raise LibvirtSaid("Requested operation is not valid: domain is not running")

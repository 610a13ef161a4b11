"""A resource as it is configured in the kernel: what ``drbdsetup show`` prints, and the parameter of DRBD's module.

DRBD 8.4 and 9 print one grammar.  8.4 has one peer and puts its options beside the hosts; 9 has a section for each
connection.  Only 9 prints it as JSON too, so the text is read for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.model import BITMAP_BLOCK_SIZES, Protocol, Quorum, ReplicationProfile, Transport
from harness.util.redact import redacted

_TOKEN = re.compile(r'#[^\n]*|"((?:[^"\\]|\\.)*)"|([{};])|([^\s{};"#]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BOOLEAN = {"yes": True, "no": False, "Y": True, "N": False, "1": True, "0": False, "": False}


@dataclass
class _Section:
    """``NAME ARGUMENT... { statements and sections }``; a statement is its fields, the first of them its name."""

    head: tuple[str, ...] = ()
    statements: list[tuple[str, ...]] = field(default_factory=list)
    sections: list[_Section] = field(default_factory=list)

    def named(self, name: str) -> Iterator[_Section]:
        """The sections directly inside that have this name."""
        return (section for section in self.sections if section.head[:1] == (name,))

    def value(self, name: str) -> tuple[str, ...] | None:
        """The fields behind the last statement of this name; None without one."""
        return next((found[1:] for found in reversed(self.statements) if found[0] == name), None)

    def options(self) -> dict[str, str]:
        """Its statements as options: one without a value means ``yes``, of two with one name the last counts."""
        return {found[0]: " ".join(found[1:]) if len(found) > 1 else "yes" for found in self.statements}


def _parse(text: str) -> _Section:
    """All of ``text`` as one section without a head.  What is torn is left out; no text is an error."""
    top = _Section()
    open_sections = [top]
    fields: list[str] = []
    for token in _TOKEN.finditer(text):
        quoted, mark, word = token.groups()
        if quoted is not None:
            fields.append(_ESCAPED.sub(r"\1", quoted))
        elif word is not None:
            fields.append(word)
        elif mark == "{":
            section = _Section(tuple(fields))
            open_sections[-1].sections.append(section)
            open_sections.append(section)
            fields = []
        elif mark is not None:
            if mark == ";" and fields:
                open_sections[-1].statements.append(tuple(fields))
            elif mark == "}" and len(open_sections) > 1:
                open_sections.pop()
            fields = []
    return top


# --------------------------------------------------------------------------- the whole resource


@dataclass(frozen=True)
class Address:
    """Where one side of a connection listens: an IP address and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True)
class ShownVolume:
    """A volume on this node.  ``disk`` is the path of its lower device, None without one."""

    number: int
    minor: int
    disk: str | None


@dataclass(frozen=True)
class ShownConnection:
    """A connection to a peer, by its first path.

    ``net`` are its options as printed: without ``--show-defaults`` those that are not the default.
    """

    local: Address
    remote: Address
    net: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ShownResource:
    """A resource as one node has it in its kernel."""

    name: str
    volumes: tuple[ShownVolume, ...]
    connections: tuple[ShownConnection, ...]


def shown_resource(text: str, name: str) -> ShownResource:
    """The resource ``name`` in the output of ``drbdsetup show``, with or without ``--show-defaults``.

    :class:`ValueError` if the resource is not in ``text`` or lacks
    what DRBD always prints.
    """
    resource = next((section for section in _parse(text).named("resource") if section.head[1:] == (name,)), None)
    if resource is None:
        raise ValueError(f"drbdsetup shows no resource '{name}'")
    here = next(resource.named("_this_host"), _Section())
    volumes = tuple(_volume(section) for section in here.named("volume"))
    peer = next(resource.named("_remote_host"), None)
    if peer is not None:  # 8.4
        only = ShownConnection(_address(here.value("address")), _address(peer.value("address")), _net(resource))
        return ShownResource(name, volumes, (only,))
    return ShownResource(name, volumes, tuple(_connection(section) for section in resource.named("connection")))


def _volume(section: _Section) -> ShownVolume:
    device = section.value("device")
    if len(section.head) != 2 or device is None or device[:-1] != ("minor",):
        raise ValueError("drbdsetup shows a volume without a number or a minor")
    disk = section.value("disk")
    path = disk[0] if disk and disk != ("none",) else None
    return ShownVolume(_number(section.head[1]), _number(device[-1]), path)


def _connection(section: _Section) -> ShownConnection:
    path = next(section.named("path"), _Section())
    return ShownConnection(_address(path.value("_this_host")), _address(path.value("_remote_host")), _net(section))


def _net(section: _Section) -> tuple[tuple[str, str], ...]:
    return tuple(option for net in section.named("net") for option in net.options().items())


def _address(fields: tuple[str, ...] | None) -> Address:
    """``ipv4 192.168.77.1:7789`` or ``ipv6 [fe80::1]:7789``."""
    host, colon, port = fields[-1].rpartition(":") if fields else ("", "", "")
    if not host or not colon:
        raise ValueError("drbdsetup shows a connection without an address and a port")
    return Address(host.removeprefix("[").removesuffix("]"), _number(port))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"drbdsetup shows '{text}' where a number belongs")
    return int(text)


# --------------------------------------------------------------------------- how it replicates

# What a replication profile sets, and what is changed while a resource runs so that two nodes may be Primary.
_PROFILE = frozenset({"protocol", "data-integrity-alg", "allow-two-primaries", "ping-timeout", "transport", "tls"})
# What DRBD 9.3 logs of a device's bitmap, as often as it is attached.
_BITMAP = re.compile(r"resync bitmap: bits=(\d+) bits_4k=(\d+)\b", re.ASCII)


def lasting_net(options: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Those of ``options`` that no replication profile sets and that are not DRBD's own notes (``_name``)."""
    return tuple((name, value) for name, value in options if name not in _PROFILE and not name.startswith("_"))


def net_options(show: str) -> dict[str, str]:
    """The options of all ``net`` sections, wherever they are nested, unquoted; of two with one name the last counts.

    Without ``--show-defaults`` DRBD prints only what is not the default.  An option without a value means ``yes``.
    DRBD 8.4 forgets them when it disconnects: then there is no such section.
    """
    return options_in(show, "net")


def options_in(show: str, *names: str) -> dict[str, str]:
    """The options of all sections with one of ``names``, wherever they are nested; of two with one name the last."""
    options: dict[str, str] = {}
    left = [_parse(show)]
    while left:
        section = left.pop()
        if section.head[:1] and section.head[0] in names:
            options |= section.options()
        left.extend(reversed(section.sections))
    return options


def profile_of(show: str, disable_sendpage: str, scatter_gather: bool | None, bitmap: str = "") -> ReplicationProfile:
    """The replication that is really in force, from the output of ``drbdsetup show RESOURCE``.

    ``disable_sendpage`` is the text of ``/sys/module/drbd/parameters/disable_sendpage``, empty where there is none.
    ``scatter_gather``: of the replication NICs; None (not known) counts as on.  ``bitmap`` is the line that the kernel
    logged of the device's bitmap; without one its blocks have 4 KiB.  ``two_primaries`` is whether DRBD would
    allow them.  :class:`ValueError` if ``show`` has no resource, which must not pass for one with nothing but
    defaults, or if a value is none that DRBD prints.
    """
    if not re.search(r"^\s*resource\s", show, re.MULTILINE):
        raise ValueError(f"drbdsetup shows no resource: '{redacted(show.strip())}'")
    options, own = net_options(show), options_in(show, "options")
    return ReplicationProfile(
        protocol=Protocol(options.get("protocol", "C")),
        integrity=options.get("data-integrity-alg", ""),
        disable_sendpage=_yes("disable_sendpage", disable_sendpage.strip()),
        scatter_gather=scatter_gather is not False,
        two_primaries=_yes("allow-two-primaries", options.get("allow-two-primaries", "no")),
        transport=Transport(options.get("transport") or "tcp"),
        tls=_yes("tls", options.get("tls", "no")),
        quorum=Quorum(own.get("quorum", "off")),
        auto_promote=_yes("auto-promote", own.get("auto-promote", "yes")),
        bitmap_block_size=_bitmap_block_size(bitmap),
    )


def _bitmap_block_size(line: str) -> str:
    found = _BITMAP.search(line)
    if found is None or not int(found[1]):
        return BITMAP_BLOCK_SIZES[0]
    # The last bit of either is for less than a whole block.
    wanted = int(found[2]) / int(found[1])
    return min(BITMAP_BLOCK_SIZES, key=lambda size: abs(2 ** BITMAP_BLOCK_SIZES.index(size) - wanted))


def _yes(name: str, value: str) -> bool:
    if value not in _BOOLEAN:
        raise ValueError(f"'{name}' is '{value}', neither yes nor no")
    return _BOOLEAN[value]

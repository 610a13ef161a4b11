"""What ``programs/taken.py`` printed on a machine: the names and numbers that are in use there already.

:class:`ValueError` with one sentence for whatever is not understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_COMMENT = re.compile(r"#[^\n]*")
_RESOURCE = re.compile(r'^[ \t]*resource\s+"?([^\s"{]+)"?\s*\{', re.MULTILINE)
_DEVICE = re.compile(r'\bdevice\s+(?:"?/dev/drbd(\d+)"?\s*;|(?:"?[^\s";]+"?\s+)?minor\s+(\d+))')
_PORT = re.compile(r'\baddress\s+(?:(?:ipv4|ipv6|ssocks|sdp)\s+)?"?(?:\[[^\]]+\]|[\w.-]+):(\d+)')
_TOKEN = re.compile(r'#[^\n]*|"(?:[^"\\]|\\.)*"|[{};]|[^\s{};"#]+')
_LISTENS = "0A"


@dataclass(frozen=True)
class TakenResource:
    """A resource of DRBD's, up or only configured.

    ``file`` is where it is configured, empty where it is only up, ``first_line`` the first one of that file.
    """

    name: str
    minors: frozenset[int]
    ports: frozenset[int]
    file: str = ""
    first_line: str = ""


@dataclass(frozen=True)
class Taken:
    """What is in use on one machine.  ``domains`` is None where libvirt does not say; ``handlers`` are those that the
    configuration of DRBD has for every resource.
    """

    resources: tuple[TakenResource, ...]
    minors: frozenset[int]
    ports: frozenset[int]
    mappings: Mapping[str, str]
    files: frozenset[str]
    domains: frozenset[str] | None
    firewall: str
    handlers: frozenset[str] = frozenset()


def taken(text: str) -> Taken:
    """All that was printed."""
    try:
        return _taken(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"what the machine printed of its names and ports lacks something: {error!r}") from None


def _taken(found: Mapping[str, Any]) -> Taken:
    resources = tuple(_resources(found["drbd"], ""))
    for path, text in sorted(found["files"].items()):
        resources += tuple(_resources(text, path))
    devices = {int(name[4:]) for name in found["devices"] if name[4:].isdigit()}
    listed = found["domains"]
    domains = frozenset(listed["out"].split()) if listed["status"] == 0 else None
    return Taken(
        resources=resources,
        minors=frozenset(devices | {minor for one in resources for minor in one.minors}),
        ports=frozenset(_listening(found["sockets"])) | {port for one in resources for port in one.ports},
        mappings=dict(found["mappings"]),
        files=frozenset(found["files"]),
        domains=frozenset() if listed["status"] is None else domains,
        firewall=_firewall(found),
        handlers=frozenset(name for text in found["files"].values() for name in _handlers(text)),
    )


def _resources(text: str, path: str) -> Iterator[TakenResource]:
    """The resources in a text of drbd.conf's grammar, which ``drbdsetup show`` prints too."""
    first_line = text.split("\n", 1)[0]
    text = _COMMENT.sub("", text)
    heads = list(_RESOURCE.finditer(text))
    ends = [*(one.start() for one in heads[1:]), len(text)]
    for head, behind in zip(heads, ends, strict=False):
        own = text[head.end() : behind]
        yield TakenResource(
            name=head.group(1),
            minors=frozenset(int(one or other) for one, other in _DEVICE.findall(own)),
            ports=frozenset(map(int, _PORT.findall(own))),
            file=path,
            first_line=first_line,
        )


def _handlers(text: str) -> Iterator[str]:
    """The handlers of a section ``common``, which are run for each resource that has none of that name itself."""
    inside: list[str] = []
    statement: list[str] = []
    for token in _TOKEN.findall(text):
        if token == "{":
            inside.append(statement[0] if statement else "")
        elif token == "}":
            del inside[-1:]
        elif token == ";" and inside == ["common", "handlers"] and statement:
            yield statement[0]
        elif token != ";" and not token.startswith("#"):
            statement.append(token)
            continue
        elif token != ";":
            continue
        statement = []


def _listening(tables: str) -> Iterator[int]:
    """The local ports of ``/proc/net/tcp`` and ``tcp6`` that somebody listens on."""
    for line in tables.splitlines():
        words = line.split()
        if len(words) > 3 and words[3] == _LISTENS:
            yield int(words[1].rpartition(":")[2], 16)


def _firewall(found: Mapping[str, Any]) -> str:
    """Who decides what comes in: ``firewalld``, ``iptables``, ``nft``; empty where nothing is kept out."""
    if found["firewalld"]["out"].strip() == "running":
        return "firewalld"
    rules = found["iptables"]["out"].splitlines()
    if any(line.startswith("-A") for line in rules) or "-P INPUT DROP" in rules:
        return "iptables"
    if re.search(r"\bhook input\b", found["nft"]["out"]) and re.search(r"\b(drop|reject)\b", found["nft"]["out"]):
        return "nft"
    return ""

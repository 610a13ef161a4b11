"""How DRBD really replicates: what ``drbdsetup show`` prints, and the parameter of its module."""

from __future__ import annotations

import re

from harness.model import Protocol, ReplicationProfile

_TOKEN = re.compile(r'#[^\n]*|"((?:[^"\\]|\\.)*)"|([{};])|([^\s{};"#]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BOOLEAN = {"yes": True, "no": False, "Y": True, "N": False, "1": True, "0": False, "": False}


def net_options(show: str) -> dict[str, str]:
    """The options of all ``net`` sections, wherever they are nested, unquoted; of two with one name the last counts.

    Without ``--show-defaults`` DRBD prints only what is not the default.  An option without a value means ``yes``.
    DRBD 8.4 forgets them when it disconnects: then there is no such section.
    """
    options: dict[str, str] = {}
    sections: list[str] = []
    words: list[str] = []
    for token in _TOKEN.finditer(show):
        quoted, mark, word = token.groups()
        if quoted is not None:
            words.append(_ESCAPED.sub(r"\1", quoted))
        elif word is not None:
            words.append(word)
        elif mark == "{":
            sections.append(words[0] if words else "")
            words = []
        elif mark is not None:
            if mark == ";" and words and sections[-1:] == ["net"]:
                options[words[0]] = " ".join(words[1:]) if len(words) > 1 else "yes"
            elif mark == "}" and sections:
                sections.pop()
            words = []
    return options


def profile_of(show: str, disable_sendpage: str, scatter_gather: bool | None) -> ReplicationProfile:
    """The replication that is really in force, from the output of ``drbdsetup show RESOURCE``.

    ``disable_sendpage`` is the text of ``/sys/module/drbd/parameters/disable_sendpage``, empty where there is none.
    ``scatter_gather``: of the replication NICs; None (not known) counts as on.  ``two_primaries`` is whether DRBD would
    allow them.  :class:`ValueError` if ``show`` has no resource, which must not pass for one with nothing but
    defaults, or if a value is none that DRBD prints.
    """
    if not re.search(r"^\s*resource\s", show, re.MULTILINE):
        raise ValueError(f"drbdsetup shows no resource: {show.strip()!r}")
    options = net_options(show)
    return ReplicationProfile(
        protocol=Protocol(options.get("protocol", "C")),
        integrity=options.get("data-integrity-alg", ""),
        disable_sendpage=_yes("disable_sendpage", disable_sendpage.strip()),
        scatter_gather=scatter_gather is not False,
        two_primaries=_yes("allow-two-primaries", options.get("allow-two-primaries", "no")),
    )


def _yes(name: str, value: str) -> bool:
    if value not in _BOOLEAN:
        raise ValueError(f"'{name}' is {value!r}, neither yes nor no")
    return _BOOLEAN[value]

"""Names of hosts and addresses taken out of a text that somebody wants to show to others; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address

ADDRESS = "(address)"
HOST = "(host)"

_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\w.]*\w\.\d)")
_MAC = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:])")
_COLONS = re.compile(r"(?<![\w:])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:%\w+)?")
# With two dots at least, and a last part of letters: a name of one dot is a file's as often as a host's.
_DOMAIN = re.compile(r"(?<![\w.@/-])(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.){2,}[A-Za-z]{2,}(?![\w.-])")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*")


def anonymizer(hosts: Iterable[str], keep: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that takes addresses (IPv4, IPv6, MAC, mail), ``hosts`` and full domain names out of a text.

    Each of ``hosts`` becomes ``(host 1)``, ``(host 2)``, ... so that they are told apart.  ``keep`` are texts that stay
    though they look like a name.
    """
    names = sorted({name for name in hosts if len(name) > 1}, key=lambda name: (-len(name), name))
    numbers = {name.lower(): number for number, name in enumerate(sorted(names), 1)}
    kept = frozenset(keep)
    any_name = re.compile(
        rf"(?<![A-Za-z0-9_])(?:{'|'.join(map(re.escape, names))})(?![A-Za-z0-9_])", re.IGNORECASE
    ) if names else None  # fmt: skip

    def anonymous(text: str) -> str:
        if text in kept:
            return text
        text = _MAIL.sub(ADDRESS, text)
        text = _MAC.sub(ADDRESS, text)
        text = _COLONS.sub(_ipv6, text)
        text = _IPV4.sub(ADDRESS, text)
        text = _DOMAIN.sub(lambda found: found[0] if found[0] in kept else HOST, text)
        if any_name is not None:
            text = any_name.sub(lambda found: f"(host {numbers[found[0].lower()]})", text)
        return text

    return anonymous


def _ipv6(found: re.Match[str]) -> str:
    candidate = found[0].split("%")[0].rstrip(".")
    if not candidate.strip(":"):
        return found[0]
    try:
        ip_address(candidate.rstrip(":") if candidate.endswith(":") and not candidate.endswith("::") else candidate)
    except ValueError:
        return found[0]
    return ADDRESS

"""The host keys of machines that somebody else set up: compared by a person, pinned, and from then on the only ones.

``known_hosts`` files are OpenSSH's, so that ssh itself, which libvirt uses, trusts the same keys.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
from pathlib import Path

import paramiko

from harness.errors import HostKeyError, LostNodeError, UsageError
from harness.util.atomic_file import write_atomic
from harness.util.deadline import patience

_SECONDS = 30.0
_ERRORS = (paramiko.SSHException, OSError, EOFError)


def fingerprint(key: paramiko.PKey) -> str:
    """As ``ssh-keygen -l`` prints it: ``SHA256:`` and 43 characters."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip('=')}"


def pinned(known_hosts: Path, address: str, port: int) -> dict[str, paramiko.PKey]:
    """The keys in the file for that address, by their types; :class:`~harness.errors.HostKeyError` for a file that
    cannot be read.
    """
    if not known_hosts.exists():
        return {}
    try:
        keys = paramiko.HostKeys(str(known_hosts))
    except _ERRORS as error:
        raise HostKeyError(f"the pinned host keys in {known_hosts} cannot be read: {error}") from None
    return dict(keys.lookup(_name(address, port)) or {})


def presented(name: str, address: str, port: int, prefer: tuple[str, ...] = ()) -> paramiko.PKey:
    """The key that the machine shows now, of a type in ``prefer`` if it has one; nobody logs in.

    Within a minute; :class:`~harness.errors.LostNodeError` where no sshd answers.
    """
    seconds = _SECONDS * patience()
    with contextlib.ExitStack() as undo:
        try:
            connection = undo.enter_context(socket.create_connection((address, port), timeout=seconds))
            transport = undo.enter_context(contextlib.closing(paramiko.Transport(connection)))
            transport.banner_timeout = seconds
            options = transport.get_security_options()
            options.key_types = tuple(sorted(options.key_types, key=lambda kind: kind not in _algorithms(prefer)))
            transport.start_client(timeout=seconds)
            return transport.get_remote_server_key()
        except _ERRORS as error:
            why = getattr(error, "strerror", None) or error
            raise LostNodeError(f"no ssh to {name} at {address}:{port}: {why}") from None


def require_pinned(name: str, address: str, port: int, known_hosts: Path, pin_command: str) -> None:
    """:class:`~harness.errors.HostKeyError` unless the machine shows a key that is pinned in ``known_hosts``.

    ``pin_command`` is the command that pins one, without the fingerprint.
    """
    known = pinned(known_hosts, address, port)
    key = presented(name, address, port, tuple(known))
    where, shown = f"{name} ({address} port {port})", f"{key.get_name()} {fingerprint(key)}"
    if not known:
        raise HostKeyError(
            f"{where} shows a host key that nobody pinned, {shown}: compare it with what 'for key in "
            f"/etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done' prints on its own console, and if it is "
            f"there: {pin_command}{fingerprint(key)}"
        )
    if key not in known.values():
        others = ", ".join(fingerprint(one) for one in known.values())
        raise HostKeyError(
            f"{where} shows another host key, {shown}, than the one that was pinned, {others}: another machine answers "
            f"there, or it was installed anew; if you know why, remove its line from {known_hosts} and pin the new key"
        )


def pin(name: str, address: str, port: int, known_hosts: Path, wanted: str) -> None:
    """Pin the key that the machine shows, if ``wanted`` is its fingerprint; a key that is pinned already stays.

    :class:`~harness.errors.HostKeyError` where it is another one.
    """
    if not wanted.startswith("SHA256:"):
        raise UsageError(f"'{wanted}' is no fingerprint of a host key, such as SHA256: and 43 characters")
    key = presented(name, address, port)
    if fingerprint(key) != wanted:
        raise HostKeyError(
            f"{name} ({address} port {port}) shows the host key {key.get_name()} {fingerprint(key)}, not {wanted}: "
            "nothing was pinned"
        )
    known = pinned(known_hosts, address, port)
    if key in known.values():
        return
    if known:
        raise HostKeyError(
            f"another host key of {name} is pinned in {known_hosts}: remove its line first, if you know why it changed"
        )
    before = known_hosts.read_text() if known_hosts.exists() else ""
    line = f"{_name(address, port)} {key.get_name()} {key.get_base64()}\n"
    write_atomic(known_hosts, f"{before}{line}".encode())


def _algorithms(types: tuple[str, ...]) -> set[str]:
    """The algorithms in which keys of these types may be shown: an RSA key is shown with a newer digest."""
    return {*types, *(("rsa-sha2-512", "rsa-sha2-256") if "ssh-rsa" in types else ())}


def _name(address: str, port: int) -> str:
    return address if port == 22 else f"[{address}]:{port}"

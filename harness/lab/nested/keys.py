"""Keys of one lab: made for it, pinned before the first boot, removed with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 pair in OpenSSH's formats."""

    private: str
    public: str


def new_key_pair(comment: str) -> KeyPair:
    """A fresh pair; ``comment`` ends the public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(private, f"{public} {comment}\n")


def write_private(path: Path, text: str) -> None:
    """Write a private key that nobody else can read at any moment."""
    path.touch(mode=0o600)
    path.write_text(text)


@dataclass(frozen=True)
class SshPort:
    """The port on loopback that leads to one node's sshd."""

    name: str
    port: int


#: What ssh is told of every machine: pinned keys alone, nobody is asked, and one that is gone is noticed.
PINNED_ONLY = """\
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  PasswordAuthentication no
  BatchMode yes
  ControlPath none
  ServerAliveInterval 5
  ServerAliveCountMax 6
  LogLevel ERROR
"""
_EVERY_NODE = """\
Host {names}
  HostName 127.0.0.1
  User root
  IdentityFile "{directory}/user_key"
  IdentitiesOnly yes
  UserKnownHostsFile "{directory}/known_hosts"
{pinned_only}"""
_ONE_NODE = """\
Host {name}
  Port {port}
  HostKeyAlias {name}
"""


def ssh_config(directory: Path, ports: Sequence[SshPort]) -> str:
    """An ssh_config for the nodes of the lab in ``directory``."""
    # In quotes a blank is no end, but a percent sign still begins a token.
    quoted = str(directory).replace("%", "%%")
    every = _EVERY_NODE.format(directory=quoted, pinned_only=PINNED_ONLY, names=" ".join(one.name for one in ports))
    return every + "".join(_ONE_NODE.format(name=one.name, port=one.port) for one in ports)


def ssh_wrapper(directory: Path) -> str:
    """The script that is ``ssh`` with the configuration of the lab in ``directory``."""
    return f'#!/bin/sh\nexec ssh -F {shlex.quote(f"{directory}/ssh_config")} "$@"\n'


def libvirt_uri(name: str, wrapper: Path) -> str:
    """The libvirt of the node ``name`` by way of ssh, which the script ``wrapper`` is."""
    return f"qemu+ssh://{name}/system?command={quote(str(wrapper))}&no_tty=1"


def known_hosts(keys: Mapping[SshPort, str]) -> str:
    """The pinned public host keys, under the names that ssh and paramiko look for."""
    lines = []
    for one, key in keys.items():
        kind, data = key.split()[:2]
        lines.append(f"{one.name},[127.0.0.1]:{one.port} {kind} {data}\n")
    return "".join(lines)

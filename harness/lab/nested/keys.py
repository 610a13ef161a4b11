"""Keys of one lab: made for it, pinned before the first boot, gone with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


SSH_CONFIG = """\
Host nodea nodeb
  HostName 127.0.0.1
  User root
  IdentityFile "{directory}/user_key"
  IdentitiesOnly yes
  UserKnownHostsFile "{directory}/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  PasswordAuthentication no
  BatchMode yes
  ControlPath none
  ServerAliveInterval 5
  ServerAliveCountMax 6
  LogLevel ERROR
Host nodea
  Port {port_a}
  HostKeyAlias nodea
Host nodeb
  Port {port_b}
  HostKeyAlias nodeb
"""


def ssh_config(directory: Path, port_a: int, port_b: int) -> str:
    """An ssh_config for the two nodes of the lab in ``directory``."""
    return SSH_CONFIG.format(directory=directory, port_a=port_a, port_b=port_b)


def known_hosts(port_a: int, key_a: str, port_b: int, key_b: str) -> str:
    """The pinned host keys, under the names that ssh and paramiko look for."""
    lines = []
    for name, port, key in (("nodea", port_a, key_a), ("nodeb", port_b, key_b)):
        kind, data = key.split()[:2]
        lines.append(f"{name},[127.0.0.1]:{port} {kind} {data}\n")
    return "".join(lines)

"""The libvirt of two real machines by way of ssh itself, with the keys and the pinned host keys of their inventory."""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.config.inventory import Host, Inventory
from harness.lab.nested.keys import PINNED_ONLY, libvirt_uri

_EVERY_MACHINE = """\
Host {names}
  UserKnownHostsFile "{known_hosts}"
{pinned_only}"""
_ONE_MACHINE = """\
Host {name}
  HostName {address}
  Port {port}
  User {user}
"""
# libvirt names the machine in an argument of its own; what follows is what runs there, which an ordinary user cannot.
_WRAPPER = """\
#!/bin/sh
as_root={as_root}
for one do
    shift
    set -- "$@" "$one"
    if [ -n "$as_root" ] && [ "$one" = {name} ]; then
        set -- "$@" $as_root
        as_root=
    fi
done
exec ssh -F {config} "$@"
"""


def write_libvirt_access(inventory: Inventory, folder: Path) -> tuple[str, str]:
    """Write to ``folder`` what it takes to reach the libvirt of both machines; its URI on each.

    No key is copied.  The machines are called by names that nobody else's configuration has.
    """
    names = {host.name: f"drbd-harness-{side}" for side, host in zip("ab", inventory.hosts, strict=True)}
    quoted = str(inventory.known_hosts).replace("%", "%%")
    config = folder / "ssh_config"
    parts = [_EVERY_MACHINE.format(names=" ".join(names.values()), known_hosts=quoted, pinned_only=PINNED_ONLY)]
    parts += [_of(host, names[host.name]) for host in inventory.hosts]
    config.write_text("".join(parts))
    return _uri(inventory.a, names, config), _uri(inventory.b, names, config)


def _of(host: Host, name: str) -> str:
    text = _ONE_MACHINE.format(name=name, address=host.address, port=host.port, user=host.user)
    if host.key is not None:
        key = str(host.key).replace("%", "%%")
        text += f'  IdentityFile "{key}"\n  IdentitiesOnly yes\n'
    return text


def _uri(host: Host, names: dict[str, str], config: Path) -> str:
    wrapper = config.with_name(f"ssh-{names[host.name]}")
    as_root = "" if host.user == "root" else "sudo -n --"
    text = _WRAPPER.format(as_root=shlex.quote(as_root), name=names[host.name], config=shlex.quote(str(config)))
    wrapper.write_text(text)
    wrapper.chmod(0o755)
    return libvirt_uri(names[host.name], wrapper)

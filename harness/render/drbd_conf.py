"""The resource file that both nodes get, and the description it is rendered from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import jinja2

from harness.model import BITMAP_BLOCK_SIZES, Protocol, Quorum, ReplicationProfile, Transport

# The first line of each file the harness writes; a file without it is somebody else's and is never overwritten by a
# resource that was taken over.
SIGNATURE = "# Written by drbd-harness; changes are lost."


@dataclass(frozen=True)
class ResourceNode:
    """One side of a resource: its host name, its replication address, its lower device."""

    name: str
    address: str
    disk: str


@dataclass(frozen=True)
class ResourceSpec:
    """A DRBD resource with one volume over two nodes, and how long its steps may take.

    ``number`` is that volume's: 0, but in a resource of somebody's that has several.

    ``nodes`` may stay empty until the nodes are known; :func:`resource_file` needs both.  ``net``, ``disk`` and
    ``options`` (the resource's own) are further options by name; the defaults verify a small device as quickly as it
    goes.  ``bitmap_block_size`` is what its metadata is made with.  ``mapping`` is the name of the device-mapper table
    that carries the lower device, so that it can be delayed and broken under a running resource; empty: there is none,
    and it cannot.  ``mapping_uuid`` is the identity that it is made with on a machine that is somebody's; empty: none.
    ``size_mib`` is how much of the lower device that table shows, 0 for all of it.  ``directory`` is where resource
    files are kept on the nodes.  ``secret`` is what the nodes authenticate each other with, in no ``repr``; empty:
    they do not.
    ``silenced`` are the handlers that a section ``common`` of the machines' owner has: they are not run for this
    resource, nor is anything else done that he wants when one of his loses its peer or its disk; None where the
    machines are the harness's own.
    ``connect_seconds`` bounds a first connection and each single command, ``verify_seconds`` one online verify,
    ``resync_seconds`` one resync of the whole device.
    """

    name: str = "r0"
    minor: int = 0
    port: int = 7789
    nodes: tuple[ResourceNode, ...] = ()
    net: tuple[tuple[str, str], ...] = ()
    disk: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    bitmap_block_size: str = BITMAP_BLOCK_SIZES[0]
    mapping: str = "drbd-lower"
    mapping_uuid: str = ""
    size_mib: int = 0
    directory: str = "/etc/drbd.d"
    secret: str = field(default="", repr=False)
    connect_seconds: float = 60.0
    verify_seconds: float = 120.0
    resync_seconds: float = 120.0
    silenced: tuple[str, ...] | None = None
    number: int = 0

    @property
    def device(self) -> str:
        """The path of its block device on either node."""
        return f"/dev/drbd{self.minor}"

    @property
    def volume(self) -> str:
        """Its volume as drbdadm names it."""
        return f"{self.name}/{self.number}"

    @property
    def path(self) -> str:
        """The path of its resource file on either node."""
        return f"{self.directory}/{self.name}.res"

    @property
    def table(self) -> tuple[str, ...]:
        """The size of its device-mapper table in MiB, 0 for all of the lower device, and its identity if it has one."""
        return (str(self.size_mib), *filter(None, [self.mapping_uuid]))

    @property
    def mapped(self) -> str:
        """The path of the lower device where a device-mapper table carries it; empty without one."""
        return f"/dev/mapper/{self.mapping}" if self.mapping else ""


# Without these a verify of 1 GiB takes 80 s under emulation; with them 20-29 MB/s were measured.
VERIFY_NET = (("protocol", "C"), ("verify-alg", "crc32c"), ("max-buffers", "8k"))
# In Debian's kernels since bullseye, as in DRBD's examples; it has a part in the handshake only.
AUTHENTICATION = "sha256"
# DRBD takes 63 characters and a zero (SHARED_SECRET_MAX).
SECRET_CHARACTERS = 63
VERIFY_DISK = (("c-plan-ahead", "0"), ("c-max-rate", "700M"), ("resync-rate", "700M"))
# DRBD's own defaults.  What stands in ``common`` is for every resource that says nothing itself: a machine would be
# fenced or halted because a test cuts a link or breaks a disk.
_NO_FENCING, _NO_HALT = ("fencing", "dont-care"), ("on-io-error", "detach")
# A machine that boots with the file of a run that was killed would else wait for the other one for ever.
_WAITS = ("wfc-timeout", "degr-wfc-timeout", "outdated-wfc-timeout")

_TEMPLATE = jinja2.Environment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
).from_string("""\
{{ signature }}
resource {{ spec.name }} {
  net {
{% for key, value in net %}
    {{ key }} {{ value }};
{% endfor %}
{% if spec.secret %}
    shared-secret "{{ spec.secret }}";
{% endif %}
  }
{% if spec.options %}
  options {
{% for key, value in spec.options %}
    {{ key }} {{ value }};
{% endfor %}
  }
{% endif %}
  disk {
{% for key, value in disk %}
    {{ key }} {{ value }};
{% endfor %}
  }
{% if spec.silenced is not none %}
  startup {
{% for key in waits %}
    {{ key }} 1;
{% endfor %}
  }
{% if spec.silenced %}
  handlers {
{% for name in spec.silenced %}
    {{ name }} "/bin/true";
{% endfor %}
  }
{% endif %}
{% endif %}
{% for node in spec.nodes %}
  on {{ node.name }} {
{% if node_ids %}
    node-id {{ loop.index0 }};
{% endif %}
    device {{ spec.device }} minor {{ spec.minor }};
    disk {{ node.disk }};
    meta-disk internal;
    address {{ node.address }}:{{ spec.port }};
  }
{% endfor %}
}
""")


def resource_file(spec: ResourceSpec, *, node_ids: bool) -> str:
    """``spec`` in the syntax of drbd.conf, below :data:`SIGNATURE`.

    ``node_ids``: number the nodes, which DRBD 9 demands and 8.4 does not understand.  :class:`ValueError` unless
    ``spec`` has exactly two nodes and a secret that DRBD takes.
    """
    if len(spec.nodes) != 2:
        raise ValueError(f"resource '{spec.name}' has {len(spec.nodes)} nodes; a resource file needs two")
    if not re.fullmatch(rf"[\x21-\x7e]{{0,{SECRET_CHARACTERS}}}", spec.secret) or set(spec.secret) & set('"\\'):
        raise ValueError(f"resource '{spec.name}' has a shared secret of other characters, or more, than DRBD takes")
    authentication = {"cram-hmac-alg": AUTHENTICATION} if spec.secret else {}
    of_net, of_disk = dict(VERIFY_NET), dict(VERIFY_DISK)
    if spec.silenced is not None:
        # DRBD 9 has moved it.
        (of_net if node_ids else of_disk).update([_NO_FENCING])
        of_disk.update([_NO_HALT])
    net = tuple({**of_net, **authentication, **dict(spec.net)}.items())
    disk = tuple({**of_disk, **dict(spec.disk)}.items())
    return _TEMPLATE.render(signature=SIGNATURE, spec=spec, net=net, disk=disk, node_ids=node_ids, waits=_WAITS)


def replicating(spec: ResourceSpec, net: tuple[tuple[str, str], ...], replication: ReplicationProfile) -> ResourceSpec:
    """``spec`` with the options ``net`` and those that make it replicate as ``replication`` says, and no others."""
    return replace(spec, net=(*net, *profile_options(replication)), options=resource_options(replication))


def profile_options(replication: ReplicationProfile) -> tuple[tuple[str, str], ...]:
    """The options of the net section that make a resource replicate as ``replication`` says; none for the defaults."""
    options: list[tuple[str, str]] = []
    if replication.protocol is not Protocol.C:
        options.append(("protocol", replication.protocol.value))
    if replication.integrity:
        options.append(("data-integrity-alg", replication.integrity))
    if replication.permits_two_primaries:
        options.append(("allow-two-primaries", "yes"))
    if replication.transport is not Transport.TCP:
        options.append(("transport", replication.transport.value))
    if replication.tls:
        options.append(("tls", "yes"))
    return tuple(options)


def resource_options(replication: ReplicationProfile) -> tuple[tuple[str, str], ...]:
    """The same of the options section; none for the defaults, and so none that DRBD 8.4 does not know."""
    options: list[tuple[str, str]] = []
    if replication.quorum is not Quorum.OFF:
        options.append(("quorum", replication.quorum.value))
    if not replication.auto_promote:
        options.append(("auto-promote", "no"))
    return tuple(options)

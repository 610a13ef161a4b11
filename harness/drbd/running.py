"""A resource that runs already: read from a node, and taken over only where the harness can work with it.

Only reads; nothing on the nodes is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.drbd.dialect import DrbdDialect, dialect_of
from harness.errors import InfrastructureError
from harness.lab.node import Node
from harness.model import SECTOR_BYTES, NodeSettings, ReplicationProfile, State
from harness.parse.delays import dm_origin, dm_sectors
from harness.parse.drbd_show import Address, ShownConnection, ShownResource, lasting_net, profile_of, shown_resource
from harness.parse.drbd_status import parse_version
from harness.parse.system import offloads
from harness.render.drbd_conf import SIGNATURE, ResourceNode, ResourceSpec

#: The parameter of DRBD's module that makes it copy pages before it sends them.
SENDPAGE_PARAMETER = "/sys/module/drbd/parameters/disable_sendpage"

_SHOW = 'drbdsetup show "$1"; echo "== file"; head -n 1 "$2" 2>/dev/null'
_PROFILE = """
drbdsetup show --show-defaults "$1"
echo "== parameter"; cat "$2" 2>/dev/null
echo "== stable_writes"; cat "/sys/block/drbd$4/queue/stable_writes" 2>/dev/null
echo "== bitmap"; dmesg | grep "drbd$4: resync bitmap: " | tail -n 1
echo "== link"; ethtool -k "$3"
"""
_LOWER = """
set -e
disk=$(readlink -f "$1"); lower=$(readlink -f "$2")
cat "/sys/class/block/${lower##*/}/dev"
if [ "$disk" = "$lower" ]; then echo same; else dmsetup table "${1#/dev/mapper/}"; fi
"""


@dataclass(frozen=True)
class RunningResource:
    """A resource as one node runs it.

    ``signed``: its resource file begins with the harness's signature.  ``mapped_mib``: how much of the lower device is
    DRBD's, by the table between them; 0 without one.
    """

    node: Node
    version: str
    dialect: DrbdDialect
    minor: int
    disk: str
    connection: ShownConnection
    replication: ReplicationProfile
    state: State
    signed: bool
    mapped_mib: int


def read_settings(node: Node, name: str, minor: int) -> NodeSettings:
    """How resource ``name`` of this ``minor`` on ``node`` replicates, from DRBD, its module, its queue and the link.

    One round trip of at most 60 s; raises :class:`InfrastructureError` where it cannot be read.
    """
    argv = ["sh", "-c", _PROFILE, "sh", name, SENDPAGE_PARAMETER, node.link, str(minor)]
    show, _, rest = node.runner.run(argv, ok=()).stdout.partition("== parameter\n")
    rest, _, link = rest.partition("== link\n")
    parameter, _, stable = rest.partition("== stable_writes\n")
    stable, _, bitmap = stable.partition("== bitmap\n")
    gather = offloads(link).get("scatter-gather")
    try:
        profile = profile_of(show, parameter, gather, bitmap)
        return NodeSettings(profile, node.link, gather, stable.strip() == "1" if stable.strip() else None)
    except ValueError as error:
        raise InfrastructureError(f"how {node.name} replicates cannot be read back: {error}") from error


def read_running(node: Node, spec: ResourceSpec) -> RunningResource:
    """The resource named in ``spec`` as ``node`` runs it; its minor, port and options are read, not compared.

    Five round trips of at most 60 s each.  Raises :class:`InfrastructureError` where it is not there, has not exactly
    volume 0 and one peer, is not connected over ``node.address``, or keeps its data elsewhere than on ``node.lower``.
    """
    name = spec.name
    version, shown, first_line = _read_configured(node, spec)
    dialect = dialect_of(version)
    if [volume.number for volume in shown.volumes] != [0]:
        raise InfrastructureError(
            f"{name} on {node.name} has {len(shown.volumes)} volumes; the harness works with volume 0 and no other"
        )
    (volume,) = shown.volumes
    state = _read_state(node, dialect, ResourceSpec(name, volume.minor))
    if state.connection != "Connected":
        raise InfrastructureError(f"{name} on {node.name} is {state.connection}: connect its two nodes first")
    if len(shown.connections) != 1:
        raise InfrastructureError(f"{name} on {node.name} has {len(shown.connections)} peers; the harness needs one")
    (connection,) = shown.connections
    if connection.local.host != node.address:
        raise InfrastructureError(
            f"{name} on {node.name} replicates from {connection.local.host}, and not from {node.address}, the address "
            f"on {node.link}, which is the link that the harness delays and cuts"
        )
    if volume.disk is None:
        raise InfrastructureError(f"{name} on {node.name} has no lower device: attach it first")
    mapped_mib = _require_lower(node, name, volume.disk)
    replication = read_settings(node, name, volume.minor).replication
    return RunningResource(
        node, version, dialect, volume.minor, volume.disk, connection, replication, state, first_line == SIGNATURE,
        mapped_mib,
    )  # fmt: skip


def _read_configured(node: Node, spec: ResourceSpec) -> tuple[str, ShownResource, str]:
    """The module's version, the resource in the kernel, and the first line of its resource file."""
    loaded = node.runner.run(["cat", "/proc/drbd"], ok=())
    if loaded.status:
        raise InfrastructureError(f"DRBD is not loaded on {node.name}: there is no {spec.name} to take over")
    answer = node.runner.run(["sh", "-c", _SHOW, "sh", spec.name, spec.path], ok=()).stdout
    show, _, first_line = answer.partition("== file\n")
    try:
        return parse_version(loaded.stdout), shown_resource(show, spec.name), first_line.strip()
    except ValueError as error:
        raise InfrastructureError(f"there is no {spec.name} to take over on {node.name}: {error}") from error


def _read_state(node: Node, dialect: DrbdDialect, spec: ResourceSpec) -> State:
    try:
        return dialect.parse_status(node.runner.run(dialect.read_status(spec)).stdout, spec)[0]
    except ValueError as error:
        raise InfrastructureError(f"the status of {spec.name} on {node.name} cannot be read: {error}") from error


def _require_lower(node: Node, name: str, disk: str) -> int:
    """The lab compares ``node.lower`` and a control overwrites it: DRBD has to write to it, block for block.

    How many MiB of it DRBD has, by the table between them; 0 without one.
    """
    number, _, below = node.runner.run(["sh", "-c", _LOWER, "sh", disk, node.lower], ok=()).stdout.partition("\n")
    if not number or (below.strip() != "same" and dm_origin(below) != number.strip()):
        raise InfrastructureError(
            f"{name} on {node.name} keeps its data on {disk}, which is not {node.lower}, the device that is compared"
        )
    return 0 if below.strip() == "same" else dm_sectors(below) * SECTOR_BYTES // 2**20


def require_agreement(name: str, a: RunningResource, b: RunningResource) -> None:
    """Raise :class:`InfrastructureError` with all that differs, unless both nodes run the same resource."""
    pairs: dict[str, tuple[object, object]] = {
        "the generation of DRBD": (a.dialect.generation, b.dialect.generation),
        "the minor": (a.minor, b.minor),
        "the port": (a.connection.local.port, b.connection.local.port),
        f"the address of {a.node.name}": (_text(a.connection.local), _text(b.connection.remote)),
        f"the address of {b.node.name}": (_text(a.connection.remote), _text(b.connection.local)),
        "how it replicates": (_profile(a), _profile(b)),
        f"the role of {a.node.name}": (a.state.local_role, b.state.peer_role),
        f"the role of {b.node.name}": (a.state.peer_role, b.state.local_role),
    }
    differing = [f"{what} ({one} and {other})" for what, (one, other) in pairs.items() if one != other]
    # Only their names: one of them may be the shared secret.
    options = set(lasting_net(a.connection.net)) ^ set(lasting_net(b.connection.net))
    differing += [f"the net option {name}" for name in sorted({name for name, _ in options})]
    if differing:
        raise InfrastructureError(
            f"{name} cannot be taken over: {a.node.name} and {b.node.name} disagree about {', '.join(differing)}"
        )


def _profile(running: RunningResource) -> str:
    return running.replication.suffix().removeprefix("-") or "plain"


def _text(address: Address) -> str:
    return f"{address.host} port {address.port}"


def adopted_spec(spec: ResourceSpec, a: RunningResource, b: RunningResource) -> ResourceSpec:
    """``spec`` with what was read of two that agree.

    It has no mapping unless both lower devices are the one that ``spec`` names: any other table is not the harness's
    to replace.
    """
    nodes = tuple(ResourceNode(one.node.drbd_name, one.connection.local.host, one.disk) for one in (a, b))
    mapped = all(one.disk == spec.mapped for one in (a, b))
    # Apart from the options, which are printed here and there.  An algorithm without a secret authenticates nobody.
    secret = dict(a.connection.net).get("shared-secret", "")
    apart = {"shared-secret"} if secret else {"shared-secret", "cram-hmac-alg"}
    net = tuple((name, value) for name, value in lasting_net(a.connection.net) if name not in apart)
    return replace(
        spec, minor=a.minor, port=a.connection.local.port, nodes=nodes, net=net, secret=secret,
        bitmap_block_size=a.replication.bitmap_block_size,
        mapping=spec.mapping if mapped else "", size_mib=a.mapped_mib if a.mapped_mib == b.mapped_mib else 0,
    )  # fmt: skip

"""How DRBD replicates: puts the resource into a cell's replication profile and reads back what is really in force."""

from __future__ import annotations

from dataclasses import replace

from harness.drbd import roles
from harness.drbd.resource import Resource, both
from harness.errors import InfrastructureError, RefusedError
from harness.lab.node import Node
from harness.model import Protocol, ReplicationProfile
from harness.parse.drbd_net import profile_of
from harness.parse.system import offloads
from harness.util.deadline import Deadline

_PARAMETER = "/sys/module/drbd/parameters/disable_sendpage"


def apply(resource: Resource, replication: ReplicationProfile) -> None:
    """Make ``resource`` replicate as ``replication`` says; nothing is done where it does so already.

    The resource has to be healthy and unused.  Raises :class:`RefusedError` with the words of whoever said no.
    """
    if resource.replication == replication:
        if replication.two_primaries:
            # The cell before ended with one.
            roles.promote(resource, resource.b)
        return
    before = resource.replication
    resource.replication = None
    both(lambda node: _apply_kernel_settings(node, replication), resource.a, resource.b)
    # A connection keeps what the NIC could do when it was made.
    if (
        before is None
        or _options(before) != _options(replication)
        or before.scatter_gather != replication.scatter_gather
    ):
        resource.spec = replace(resource.spec, net=(*resource.net, *_options(replication)))
        for node in (resource.a, resource.b):
            resource.write_configuration(node)
        # A digest or another protocol has to come to both at once, so the connection is made anew.
        for node in (resource.a, resource.b):
            resource.drbdadm(node, "disconnect")
        for node in (resource.a, resource.b):
            resource.drbdadm(node, "adjust")
        if not roles.wait_healthy_or_standalone(
            resource, Deadline.after(roles.SETTLE_SECONDS, "the connection with the new replication profile")
        ):
            raise RefusedError("DRBD", f"the nodes did not connect with {dict(_options(replication))}")
    resource.replication = replication
    if replication.two_primaries:
        roles.promote(resource, resource.b)
    else:
        roles.set_single_primary(resource, resource.a)


def reapply_volatile(resource: Resource, node: Node) -> None:
    """What a boot of ``node`` took away of the profile in force: all that is not in its resource file."""
    _apply_kernel_settings(node, resource.replication or ReplicationProfile())


def observed(resource: Resource, node: Node) -> ReplicationProfile:
    """What is in force on ``node``, read back from DRBD, its module and the link."""
    script = """
    drbdsetup show --show-defaults "$1"
    echo "== parameter"; cat "$2" 2>/dev/null
    echo "== link"; ethtool -k "$3"
    """
    said = node.runner.run(["sh", "-c", script, "sh", resource.spec.name, _PARAMETER, node.link], ok=()).stdout
    show, _, rest = said.partition("== parameter\n")
    parameter, _, link = rest.partition("== link\n")
    try:
        return profile_of(show, parameter, offloads(link).get("scatter-gather"))
    except ValueError as unreadable:
        raise InfrastructureError(f"how {node.name} replicates cannot be read back: {unreadable}") from unreadable


def _options(replication: ReplicationProfile) -> tuple[tuple[str, str], ...]:
    options: list[tuple[str, str]] = []
    if replication.protocol is not Protocol.C:
        options.append(("protocol", replication.protocol.value))
    if replication.integrity:
        options.append(("data-integrity-alg", replication.integrity))
    if replication.two_primaries:
        options.append(("allow-two-primaries", "yes"))
    return tuple(options)


def _apply_kernel_settings(node: Node, replication: ReplicationProfile) -> None:
    """What is not DRBD's configuration: the parameter of its module, the feature of the NIC."""
    script = """
    if [ -e "$1" ]; then echo "$2" > "$1"; elif [ "$2" = Y ]; then echo "this DRBD has no parameter $1" >&2; exit 1; fi
    ethtool -K "$3" sg "$4"
    """
    sendpage, gather = "Y" if replication.disable_sendpage else "N", "on" if replication.scatter_gather else "off"
    done = node.runner.run(["sh", "-ec", script, "sh", _PARAMETER, sendpage, node.link, gather], ok=())
    if done.status:
        raise RefusedError(node.name, done.stderr.strip() or f"status {done.status}")

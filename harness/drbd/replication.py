"""How DRBD replicates: puts the resource into a cell's arm and reads back what is really in force."""

from __future__ import annotations

from dataclasses import replace

from harness.drbd import roles
from harness.drbd.resource import Resource, both
from harness.errors import InfrastructureError, RefusedError
from harness.lab.node import Node
from harness.model import Arm, Protocol
from harness.parse.drbd_net import arm_of
from harness.parse.system import offloads
from harness.util.deadline import Deadline

_PARAMETER = "/sys/module/drbd/parameters/disable_sendpage"


def put(resource: Resource, arm: Arm) -> None:
    """Make ``resource`` replicate as ``arm`` says; nothing is done where it does so already.

    The resource has to be healthy and unused.  Raises :class:`RefusedError` with the words of whoever said no.
    """
    if resource.arm == arm:
        if arm.two_primaries:
            # The cell before ended with one.
            roles.promote(resource, resource.b)
        return
    before = resource.arm
    resource.arm = None
    both(lambda node: _below(node, arm), resource.a, resource.b)
    # A connection keeps what the NIC could do when it was made.
    if before is None or _options(before) != _options(arm) or before.scatter_gather != arm.scatter_gather:
        resource.spec = replace(resource.spec, net=(*resource.net, *_options(arm)))
        for node in (resource.a, resource.b):
            resource.write_configuration(node)
        # A digest or another protocol has to come to both at once, so the connection is made anew.
        for node in (resource.a, resource.b):
            resource.adm(node, "disconnect")
        for node in (resource.a, resource.b):
            resource.adm(node, "adjust")
        if not roles.settled(resource, Deadline.after(roles.SETTLE_SECONDS, "the connection in the new arm")):
            raise RefusedError("DRBD", f"the nodes did not connect with {dict(_options(arm))}")
    resource.arm = arm
    if arm.two_primaries:
        roles.promote(resource, resource.b)
    else:
        roles.only(resource, resource.a)


def again(resource: Resource, node: Node) -> None:
    """What a boot of ``node`` took away of the arm in force: all that is not in its resource file."""
    _below(node, resource.arm or Arm())


def observed(resource: Resource, node: Node) -> Arm:
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
        return arm_of(show, parameter, offloads(link).get("scatter-gather"))
    except ValueError as unreadable:
        raise InfrastructureError(f"how {node.name} replicates cannot be read back: {unreadable}") from unreadable


def _options(arm: Arm) -> tuple[tuple[str, str], ...]:
    options: list[tuple[str, str]] = []
    if arm.protocol is not Protocol.C:
        options.append(("protocol", arm.protocol.value))
    if arm.integrity:
        options.append(("data-integrity-alg", arm.integrity))
    if arm.two_primaries:
        options.append(("allow-two-primaries", "yes"))
    return tuple(options)


def _below(node: Node, arm: Arm) -> None:
    """What is not DRBD's configuration: the parameter of its module, the feature of the NIC."""
    script = """
    if [ -e "$1" ]; then echo "$2" > "$1"; elif [ "$2" = Y ]; then echo "this DRBD has no parameter $1" >&2; exit 1; fi
    ethtool -K "$3" sg "$4"
    """
    sendpage, gather = "Y" if arm.disable_sendpage else "N", "on" if arm.scatter_gather else "off"
    done = node.runner.run(["sh", "-ec", script, "sh", _PARAMETER, sendpage, node.link, gather], ok=())
    if done.status:
        raise RefusedError(node.name, done.stderr.strip() or f"status {done.status}")

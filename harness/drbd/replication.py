"""How DRBD replicates: puts the resource into a cell's replication profile and reads back what is really in force."""

from __future__ import annotations

from dataclasses import replace

from harness.drbd import roles
from harness.drbd.resource import Resource, both
from harness.drbd.running import SENDPAGE_PARAMETER, read_settings
from harness.errors import RefusedError
from harness.lab.node import Node
from harness.model import NodeSettings, ReplicationProfile
from harness.render.drbd_conf import profile_options
from harness.util.deadline import Deadline


def apply(resource: Resource, replication: ReplicationProfile) -> None:
    """Make ``resource`` replicate as ``replication`` says; nothing is done where it does so already.

    The resource has to be healthy and unused.  Raises :class:`RefusedError` with the message of whoever refused, and
    :class:`~harness.errors.InfrastructureError`, with nothing changed, where the profile needs a resource file that is
    not the harness's.  Blocks for at most ``roles.SETTLE_SECONDS`` and single commands.  Not for two threads at once.
    """
    if resource.replication == replication:
        if replication.two_primaries:
            # The cell before ended with one.
            roles.promote(resource, resource.b)
        return
    before = resource.replication
    options_differ = before is None or profile_options(before) != profile_options(replication)
    if options_differ:
        resource.require_own_files()
    resource.replication = None
    both(lambda node: _apply_kernel_settings(node, replication), resource.a, resource.b)
    # A connection keeps what the NIC could do when it was made.
    if before is None or options_differ or before.scatter_gather != replication.scatter_gather:
        if options_differ:
            resource.spec = replace(resource.spec, net=(*resource.net, *profile_options(replication)))
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
            options = ", ".join(map(" ".join, profile_options(replication))) or "the default options"
            raise RefusedError("DRBD", f"the nodes did not connect with {options}")
    resource.replication = replication
    if replication.two_primaries:
        roles.promote(resource, resource.b)
    else:
        roles.set_single_primary(resource, resource.a)


def reapply_volatile(resource: Resource, node: Node) -> None:
    """Apply again what a boot of ``node`` took away of the profile in force: all that is not in its resource file.

    One round trip of at most 60 s; raises :class:`RefusedError` with the node's message.
    """
    _apply_kernel_settings(node, resource.replication or ReplicationProfile())


def settings(resource: Resource, node: Node) -> NodeSettings:
    """What is in force on ``node``, read back from DRBD, its module, its queue and the link.

    One round trip of at most 60 s, from any thread; raises :class:`~harness.errors.InfrastructureError` where it cannot
    be read.
    """
    return read_settings(node, resource.spec.name, resource.spec.minor)


def _apply_kernel_settings(node: Node, replication: ReplicationProfile) -> None:
    """What is not DRBD's configuration: the parameter of its module, the feature of the NIC.

    On a machine whose NIC is not the lab's both stay as they are: resources of its owner's feel them too.
    """
    if not node.own_link:
        return
    script = """
    if [ -e "$1" ]; then echo "$2" > "$1"; elif [ "$2" = Y ]; then echo "this DRBD has no parameter $1" >&2; exit 1; fi
    ethtool -K "$3" sg "$4"
    """
    sendpage, gather = "Y" if replication.disable_sendpage else "N", "on" if replication.scatter_gather else "off"
    done = node.runner.run(["sh", "-ec", script, "sh", SENDPAGE_PARAMETER, sendpage, node.link, gather], ok=())
    if done.status:
        raise RefusedError(node.name, done.stderr.strip() or f"status {done.status}")

"""How DRBD replicates: puts the resource into a cell's replication profile and reads back what is really in force."""

from __future__ import annotations

import re

from harness.drbd import changes, roles
from harness.drbd.dialect import options_of_9
from harness.drbd.resource import Resource, both
from harness.drbd.running import SENDPAGE_PARAMETER, read_settings
from harness.errors import RefusedError
from harness.lab.node import Node
from harness.model import NodeSettings, ReplicationProfile
from harness.render.drbd_conf import profile_options, replicating, resource_options
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
    _require_known(resource, replication)
    before = resource.replication
    options_differ = before is None or _options(before) != _options(replication)
    if options_differ:
        resource.require_own_files()
    resource.replication = None
    both(lambda node: _apply_kernel_settings(node, replication), resource.a, resource.b)
    # A connection keeps what the NIC could do when it was made.
    if before is None or options_differ or before.scatter_gather != replication.scatter_gather:
        if options_differ:
            resource.spec = replicating(resource.spec, resource.net, replication)
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
            names = ", ".join(map(" ".join, _options(replication))) or "the default options"
            raise RefusedError("DRBD", f"the nodes did not connect with {names}")
    resource.replication = replication
    if replication.two_primaries:
        roles.promote(resource, resource.b)
    else:
        roles.set_single_primary(resource, resource.a)


def _options(replication: ReplicationProfile) -> tuple[tuple[str, str], ...]:
    return (*profile_options(replication), *resource_options(replication))


# One round trip; drbdadm has no help for what it only passes on to drbdmeta.
_KNOWN = """
drbdadm --version | sed -n 's/^DRBDADM_VERSION=//p'
for command in new-peer net-options resource-options; do drbdsetup help "$command"; done
drbdmeta 2>&1
"""


def knows(resource: Resource, replication: ReplicationProfile) -> str:
    """Why DRBD or its drbd-utils on one of the nodes do not know what ``replication`` asks for; empty where they do.

    One round trip of at most 60 s where something is asked for that only DRBD 9 has, and none otherwise.
    """
    asked = options_of_9(replication)
    if not asked:
        return ""
    if lacking := resource.dialect.lacks(replication):
        return f"DRBD {resource.version}: {lacking}"
    if "bitmap-block-size" in asked and not _newer(resource.version, (9, 3)):
        return f"DRBD {resource.version}: it has a bitmap of 4k blocks only, as all before 9.3"
    for node in (resource.a, resource.b):
        version, _, text = node.runner.run(["sh", "-c", _KNOWN], ok=()).stdout.partition("\n")
        if unknown := [name for name in asked if f"--{name}" not in text]:
            return f"the drbd-utils {version} of {node.name}: they do not know {' and '.join(unknown)}"
    return ""


def bitmap_for(resource: Resource, replication: ReplicationProfile) -> str:
    """The bitmap's block size that ``resource`` has to be made with for ``replication``: what it has already where its
    nodes do not know what is asked, or where a guard makes the metadata, which :func:`apply` then says.
    """
    asked, there = replication.bitmap_block_size, resource.spec.bitmap_block_size
    guarded = any(node.guard is not None for node in (resource.a, resource.b))
    return there if asked == there or guarded or knows(resource, replication) else asked


def _newer(version: str, than: tuple[int, int]) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return tuple(numbers) >= than


def _require_known(resource: Resource, replication: ReplicationProfile) -> None:
    """Raise :class:`RefusedError`, with nothing changed, where the nodes do not know what is asked of them."""
    if why := knows(resource, replication):
        who, _, what = why.partition(": ")
        raise RefusedError(who, what)
    asked, there = replication.bitmap_block_size, resource.spec.bitmap_block_size
    if asked != there:
        raise RefusedError(resource.spec.name, f"its metadata has a bitmap of {there} blocks, not {asked}")


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

    On a machine whose NIC is not the lab's both stay as they are, or are changed where the inventory asks for it:
    resources of its owner's feel them too.
    """
    if not node.own_link and node.journal is None:
        return
    changes.note_kernel_settings(node, replication)
    script = """
    if [ -e "$1" ]; then echo "$2" > "$1"; elif [ "$2" = Y ]; then echo "this DRBD has no parameter $1" >&2; exit 1; fi
    ethtool -K "$3" sg "$4"
    """
    sendpage, gather = "Y" if replication.disable_sendpage else "N", "on" if replication.scatter_gather else "off"
    done = node.runner.run(["sh", "-ec", script, "sh", SENDPAGE_PARAMETER, sendpage, node.link, gather], ok=())
    if done.status:
        raise RefusedError(node.name, done.stderr.strip() or f"status {done.status}")

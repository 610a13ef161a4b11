"""What goes wrong on purpose, and how it is put right: one function for each, over the nodes alone.

Each one that injects something has a counterpart that ends it; both may be called more than once.
"""

from __future__ import annotations

import contextlib

from harness.drbd import changes, roles
from harness.drbd.resource import Resource, both
from harness.errors import RefusedError
from harness.lab.node import Node
from harness.model import DelayProfile
from harness.util.deadline import Deadline


def stand_alone(resource: Resource) -> None:
    """Both nodes give the connection up, as after a split brain that nobody looked at."""
    for node in (resource.a, resource.b):
        with contextlib.suppress(RefusedError):
            resource.drbdadm(node, "disconnect")


def cut_link(resource: Resource) -> None:
    """The link swallows everything, silently: no node is told, as when a switch dies."""
    script = changes.REQUIRE_OWN_QDISC + 'require_own_qdisc "$1"; tc qdisc replace dev "$1" root netem loss 100%'

    def cut(node: Node) -> None:
        changes.note_cut(node)
        node.runner.run(["sh", "-ec", script, "sh", node.link])

    both(cut, resource.a, resource.b)


def join_link(resource: Resource) -> None:
    """The link carries again, without any delay."""
    script = changes.REQUIRE_OWN_QDISC + 'require_own_qdisc "$1"; tc qdisc del dev "$1" root 2>/dev/null || true'

    def join(node: Node) -> None:
        if changes.touches_link(node):
            node.runner.run(["sh", "-c", script, "sh", node.link])

    both(join, resource.a, resource.b)


def break_disks(resource: Resource) -> None:
    """Both lower devices fail every request, so that DRBD has nowhere to write to."""
    both(resource.break_disk, resource.a, resource.b)


def restore_disks(resource: Resource) -> None:
    """Both lower devices work again, and DRBD takes them back where it let them go."""
    for node in (resource.a, resource.b):
        resource.apply_delays(DelayProfile(), node)
    roles.reattach(resource)
    roles.wait_healthy_or_standalone(resource, Deadline.after(roles.SETTLE_SECONDS, "the disks' return"))

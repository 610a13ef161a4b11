"""Who is Primary, and how two nodes find together again: the steps of a migration, a failover and a split brain.

At rest ``resource.a`` is the only Primary.  Each function leaves that to its caller, except :func:`home`.
"""

from __future__ import annotations

import contextlib

from harness.drbd.resource import Resource
from harness.errors import DeadlineError, HarnessError, RefusedError
from harness.lab.node import Node
from harness.model import State
from harness.util.deadline import Deadline, poll

SETTLE_SECONDS = 120.0
# What DRBD needs to notice that a silent peer is gone: ping-int (10 s) and ping-timeout, and to spare.
LOSS_SECONDS = 60.0

# States of a connection in which DRBD tries nothing by itself.
STANDALONE = ("StandAlone",)


def other(resource: Resource, node: Node) -> Node:
    """The peer of ``node``."""
    return resource.b if node is resource.a else resource.a


# DRBD gives a peer half a second for its answer to a ping.  A node that was starting a guest under emulation missed it
# just as both were Primary, and that was a split brain of our own making.  Only then: how long DRBD waits for a peer is
# how long it stays away after a lost connection too, and that is measured.  In tenths of a second.
_TWO = ("--allow-two-primaries=yes", "--ping-timeout=50")
_ONE = ("--allow-two-primaries=no", "--ping-timeout=5")


def allow_two_primaries(resource: Resource, allowed: bool, *nodes: Node) -> None:
    """Allow or forbid that both nodes are Primary, on both unless ``nodes`` are given; while it is allowed they are
    patient with each other.

    Raises :class:`RefusedError` with DRBD's words; with protocol A or B it does not allow it.
    """
    for node in nodes or (resource.a, resource.b):
        resource.drbdadm(node, "net-options", *(_TWO if allowed else _ONE))


def promote(resource: Resource, node: Node) -> None:
    """Make ``node`` Primary."""
    resource.drbdadm(node, "primary")


def demote(resource: Resource, node: Node) -> None:
    """Make ``node`` Secondary, as soon as nobody holds its device open."""
    deadline = Deadline.after(30, f"the demotion of {node.name}")

    def attempt() -> bool | None:
        try:
            resource.drbdadm(node, "secondary")
            return True
        except RefusedError as refused:
            # udev and a QEMU that is just ending hold it open for a moment.
            if "held open" not in refused.message and "opened" not in refused.message:
                raise
            return None

    poll(attempt, deadline, every=0.3)


def set_single_primary(resource: Resource, primary: Node) -> None:
    """One Primary: demote the other, promote ``primary``, forbid two."""
    demote(resource, other(resource, primary))
    promote(resource, primary)
    if resource.replication is None or not resource.replication.two_primaries:
        allow_two_primaries(resource, False)


def states(resource: Resource) -> dict[str, State]:
    """What each node says; a node that does not say anything is left out."""
    found: dict[str, State] = {}
    for node in (resource.a, resource.b):
        with contextlib.suppress(HarnessError):
            found[node.name] = resource.status(node)[0]
    return found


def connected(resource: Resource) -> bool:
    """Whether both nodes answer and say that they are connected."""
    seen = states(resource)
    return len(seen) == 2 and all(state.connection == "Connected" for state in seen.values())


def wait_healthy_or_standalone(resource: Resource, deadline: Deadline) -> bool:
    """Wait until both say Connected and UpToDate, or one gave up.

    Returns whether they are healthy; False: at least one is StandAlone, and waiting longer is of no use.
    """

    def look() -> bool | None:
        seen = [resource.status(node)[0] for node in (resource.a, resource.b)]
        if all(state.healthy for state in seen):
            return True
        alone = any(state.connection in STANDALONE for state in seen)
        # The other side may be about to give up too, or to find nobody: neither mends it.
        return False if alone else None

    return poll(look, deadline, every=0.2)


def reattach(resource: Resource) -> None:
    """Give each node that let its lower device go the device again."""
    for node in (resource.a, resource.b):
        if resource.status(node)[0].local_disk == "Diskless":
            resource.drbdadm(node, "attach")


def reconnect_discarding(resource: Resource, victim: Node, deadline: Deadline) -> None:
    """Connect two that are StandAlone or went their own way; what ``victim`` alone has is given up.

    The survivor may stay Primary.  Raises :class:`DeadlineError` when they do not find together.
    """
    survivor = other(resource, victim)
    for node in (victim, survivor):
        with contextlib.suppress(RefusedError):
            resource.drbdadm(node, "disconnect")
    demote(resource, victim)
    resource.drbdadm(victim, "connect", "--discard-my-data")
    resource.drbdadm(survivor, "connect")
    if not wait_healthy_or_standalone(resource, deadline):
        raise DeadlineError(f"{victim.name} and {survivor.name} gave up on each other again: {states(resource)}")


def restore_baseline(resource: Resource, deadline: Deadline) -> str | None:
    """Bring the resource to one Primary (``a``), Connected and UpToDate on both; ``a``'s data wins.

    Returns what had to be done, or None when it was healthy.
    """
    seen = [resource.status(node)[0] for node in (resource.a, resource.b)]
    roles_right = seen[0].local_role == "Primary" and seen[1].local_role == "Secondary"
    if all(state.healthy for state in seen) and roles_right:
        return None
    found = ", ".join(f"{state.connection} {state.local_role} {state.local_disk}" for state in seen)
    reattach(resource)
    done = "waited until both were UpToDate" if not all(state.healthy for state in seen) else "changed the roles"
    if not wait_healthy_or_standalone(resource, deadline):
        reconnect_discarding(resource, resource.b, deadline)
        done = f"connected again, {resource.b.name} gave its own changes up"
    set_single_primary(resource, resource.a)
    return f"found {found}; {done}"

"""Who is Primary, and how two nodes connect again: the steps of a migration, a failover and a split brain.

At rest ``resource.a`` is the only Primary.  Each function leaves that to its caller, except :func:`restore_baseline`.
All of them change the resource and are for one thread at a time, except :func:`states` and :func:`connected`.  Each
command blocks for at most the resource's ``connect_seconds`` and raises :class:`~harness.errors.RefusedError` with
DRBD's message, :class:`~harness.errors.LostNodeError` when the node does not answer.
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
# In which two that were told to connect have done so.
CONNECT_SECONDS = 30.0

# States of a connection in which DRBD tries nothing by itself.
STANDALONE = ("StandAlone",)

# DRBD gives a peer half a second for its answer to a ping.  A node that was starting a guest under emulation missed it
# just as both were Primary, and that was a split brain of our own making.  Only then: how long DRBD waits for a peer is
# how long it stays away after a lost connection too, and that is measured.  In tenths of a second.
_TWO_PRIMARIES = ("--allow-two-primaries=yes", "--ping-timeout=50")
_ONE_OF_TWO_ALLOWED = ("--allow-two-primaries=yes", "--ping-timeout=5")
_ONE_PRIMARY = ("--allow-two-primaries=no", "--ping-timeout=5")


def other(resource: Resource, node: Node) -> Node:
    """The peer of ``node``."""
    return resource.b if node is resource.a else resource.a


def allow_two_primaries(resource: Resource, allowed: bool, *nodes: Node) -> None:
    """Allow or forbid that both nodes are Primary, on both unless ``nodes`` are given; while it is allowed they are
    patient with each other.

    A replication profile that allows two Primaries all the time keeps its permission, not the patience.  Raises
    :class:`RefusedError` with DRBD's message; with protocol A or B it does not allow it.
    """
    profile = resource.replication
    at_rest = _ONE_OF_TWO_ALLOWED if profile is not None and profile.permits_two_primaries else _ONE_PRIMARY
    options = _TWO_PRIMARIES if allowed else at_rest
    for node in nodes or (resource.a, resource.b):
        resource.drbdadm(node, "net-options", *options)


# What is over as soon as another change of state is.
_FOR_A_MOMENT = ("In transient state", "Concurrent state changes", "Timeout in operation", "Interrupted state change")
# DRBD 9 asks the peer for a promotion, which declines while somebody, udev say, reads its device; it tells no more.
_DECLINED = ("refused by peer node", "opened read-only")
# udev and a QEMU that is just ending hold a device open for a moment.
_HELD_OPEN = ("held open", "opened")
# DRBD 9 forgets whose changes are discarded where the connection breaks in the middle of the handshake, and the next
# handshake finds a split brain again (seen with 9.3.3 on a machine that was very slow).
_DISCARDS = 3
APART_SECONDS = 15.0
PROMOTION_SECONDS = 15.0
DEMOTION_SECONDS = 30.0


def promote(resource: Resource, node: Node) -> None:
    """Make ``node`` Primary as soon as no other change of state is under way and nobody reads the peer's device.

    Blocks for at most 15 s; raises :class:`RefusedError` where DRBD does not allow it, also then.
    """
    deadline = Deadline.after(PROMOTION_SECONDS, f"the promotion of {node.name}")
    _change_role(resource, node, "primary", (*_FOR_A_MOMENT, *_DECLINED), deadline)


def demote(resource: Resource, node: Node) -> None:
    """Make ``node`` Secondary as soon as nobody holds its device open.

    Blocks for at most 30 s; raises :class:`DeadlineError` then, and :class:`RefusedError` for any other refusal.
    """
    deadline = Deadline.after(DEMOTION_SECONDS, f"the demotion of {node.name}")
    try:
        _change_role(resource, node, "secondary", (*_HELD_OPEN, *_FOR_A_MOMENT), deadline)
    except RefusedError:
        # Of what is over in a moment, and was not: it is late.
        deadline.left()
        raise


def _change_role(resource: Resource, node: Node, role: str, passing: tuple[str, ...], deadline: Deadline) -> None:
    """``drbdadm ROLE``, again until ``deadline`` while what it is refused for is one of ``passing``."""
    refusal: list[RefusedError] = []

    def attempt() -> bool | None:
        try:
            resource.drbdadm(node, role)
            return True
        except RefusedError as refused:
            if not any(text in refused.message for text in passing):
                raise
            refusal[:] = [refused]
            return None

    try:
        poll(attempt, deadline, every=0.3)
    except DeadlineError:
        if refusal:
            raise refusal[0] from None
        raise


def set_single_primary(resource: Resource, primary: Node) -> None:
    """Demote the other node, promote ``primary`` and forbid two Primaries, as :func:`allow_two_primaries` does."""
    demote(resource, other(resource, primary))
    promote(resource, primary)
    allow_two_primaries(resource, False)


def states(resource: Resource) -> dict[str, State]:
    """The state that each node reports, by its name; a node that reports none is left out.  Any thread may ask."""
    found: dict[str, State] = {}
    for node in (resource.a, resource.b):
        with contextlib.suppress(HarnessError):
            found[node.name] = resource.status(node)[0]
    return found


def connected(resource: Resource) -> bool:
    """Whether both nodes answer and report that they are Connected.  Any thread may ask."""
    found = states(resource)
    return len(found) == 2 and all(state.connection == "Connected" for state in found.values())


def wait_healthy_or_standalone(resource: Resource, deadline: Deadline) -> bool:
    """Wait until both report Connected and UpToDate, or one of them StandAlone.

    Returns whether they are healthy; False: at least one is StandAlone, and waiting longer is of no use.  Blocks until
    ``deadline``; raises :class:`DeadlineError` then, and :class:`~harness.errors.LostNodeError` when a node does not
    answer.
    """

    def check() -> bool | None:
        found = [resource.status(node)[0] for node in (resource.a, resource.b)]
        if all(state.healthy for state in found):
            return True
        standalone = any(state.connection in STANDALONE for state in found)
        # The other side may be about to become StandAlone too, or go on connecting: neither repairs it.
        return False if standalone else None

    return poll(check, deadline, every=0.2)


def reattach(resource: Resource) -> None:
    """Attach the lower device again on each node that is Diskless.

    A Primary that lost all data takes none back but the newest, which its peer's disk may have to show first: so one
    that is refused is tried again behind the other, with which it is connected by then.  Blocks for at most 30 s.
    Raises :class:`RefusedError` where that is no help.
    """
    refused = []
    for node in (resource.a, resource.b):
        if resource.status(node)[0].local_disk == "Diskless":
            try:
                resource.drbdadm(node, "attach")
            except RefusedError:
                refused.append(node)
    if refused:
        _connect_again(resource)
    for node in refused:
        resource.drbdadm(node, "attach")


def _connect_again(resource: Resource) -> None:
    """A Primary of DRBD 9 that would lose its last data by what its peer says becomes StandAlone instead."""
    for node in (resource.a, resource.b):
        if resource.status(node)[0].connection in STANDALONE:
            with contextlib.suppress(RefusedError):
                resource.drbdadm(node, "connect")
    with contextlib.suppress(DeadlineError):
        poll(
            lambda: all(one.connection == "Connected" for one in states(resource).values()) or None,
            Deadline.after(CONNECT_SECONDS, "the connection"),
            every=0.2,
        )


def reconnect_discarding(resource: Resource, victim: Node, deadline: Deadline) -> None:
    """Connect two that are StandAlone or in split brain; the changes that only ``victim`` has are discarded.

    The survivor may stay Primary.  Blocks until ``deadline``; raises :class:`DeadlineError` then, and when one of them
    becomes StandAlone again.
    """
    survivor = other(resource, victim)
    for _ in range(_DISCARDS):
        for node in (victim, survivor):
            with contextlib.suppress(RefusedError):
                resource.drbdadm(node, "disconnect")
        demote(resource, victim)
        _wait_apart(resource, deadline)
        resource.drbdadm(victim, "connect", "--discard-my-data")
        resource.drbdadm(survivor, "connect")
        if wait_healthy_or_standalone(resource, deadline):
            return
    raise DeadlineError(f"{victim.name} and {survivor.name} are StandAlone again: {_describe(states(resource))}")


def _wait_apart(resource: Resource, deadline: Deadline) -> None:
    """Wait until neither is in the middle of a disconnect: DRBD 9 refuses to connect then.  Blocks for at most 15 s."""
    with contextlib.suppress(DeadlineError):
        poll(
            lambda: None if any(one.connection == "Disconnecting" for one in states(resource).values()) else True,
            deadline.sooner(APART_SECONDS, "the end of the disconnect"),
            every=0.2,
        )


def restore_baseline(resource: Resource, deadline: Deadline) -> str | None:
    """Bring the resource to one Primary (``a``), Connected and UpToDate on both; ``a``'s data wins.

    Returns what had to be done, for the event log of a cell, or None when it was healthy.  Blocks until ``deadline``;
    raises :class:`DeadlineError` then, and :class:`~harness.errors.LostNodeError` when a node does not answer.
    """
    before = [resource.status(node)[0] for node in (resource.a, resource.b)]
    healthy = all(state.healthy for state in before)
    if healthy and before[0].local_role == "Primary" and before[1].local_role == "Secondary":
        return None
    found = ", ".join(map(_brief, before))
    reattach(resource)
    done = "changed the roles" if healthy else "waited until both were UpToDate"
    if not wait_healthy_or_standalone(resource, deadline):
        reconnect_discarding(resource, resource.b, deadline)
        done = f"connected again, the changes of {resource.b.name} discarded"
    set_single_primary(resource, resource.a)
    return f"found {found}; {done}"


def _brief(state: State) -> str:
    return f"{state.connection} {state.local_role} {state.local_disk}"


def _describe(found: dict[str, State]) -> str:
    return ", ".join(f"{name} {_brief(state)}" for name, state in found.items())

"""Both replicas connected and UpToDate again, one Primary; what DRBD noticed until then is kept first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.drbd import replication, roles
from harness.engine.capture import LogCapture
from harness.engine.context import CellContext
from harness.engine.rejoin import compare_before_rejoin
from harness.guest.domain import Guest
from harness.lab.node import Node
from harness.lab.stack import require_unchanged
from harness.model import SplitBrain, State
from harness.parse.kernel_log import split_brain
from harness.util.deadline import Deadline


def reconcile(context: CellContext, capture: LogCapture) -> None:
    """Connected and UpToDate, ``a`` the only Primary.  Where they do not manage it, ``b``'s changes are discarded.

    Blocks for at most ``roles.SETTLE_SECONDS``; :class:`~harness.errors.DeadlineError` when that was not enough.
    """
    deadline = context.deadline.sooner(roles.SETTLE_SECONDS, "the reconciliation of the replicas")
    healthy = roles.wait_healthy_or_standalone(context.resource, deadline)
    # The alarms are DRBD's; a repair that follows is ours and belongs to no figure of them.
    alarms = capture.alarms()
    if not healthy:
        _discard_changes(context, capture, context.lab.b, "at the end", deadline)
    alarms = replace(alarms, split_brain=context.split_brain)
    # A connection that was never lost and a digest that nobody asked for are no news.
    if alarms.algorithm or alarms.drops or alarms.detections or alarms.split_brain or alarms.resynced_kib:
        context.note(alarms=alarms)
    cell = context.cell
    if not healthy or cell.has_canary or cell.replication.two_primaries or context.evidence.migrations:
        roles.set_single_primary(context.resource, context.lab.a)


def reconcile_after(
    context: CellContext, capture: LogCapture, victim: Node, when: str, guest: Guest | None = None
) -> None:
    """Wait until both are UpToDate again; where they do not manage it by themselves ``victim``'s changes are discarded.

    ``guest``: one that may still write.  Blocks for at most ``roles.SETTLE_SECONDS``, whatever the cell has left.
    """
    deadline = Deadline.after(roles.SETTLE_SECONDS, f"the reconciliation {when}")
    if not roles.wait_healthy_or_standalone(context.resource, deadline):
        _discard_changes(context, capture, victim, when, deadline, guest)


def _discard_changes(
    context: CellContext, capture: LogCapture, victim: Node, when: str, deadline: Deadline, guest: Guest | None = None
) -> None:
    """A node is StandAlone: keep what both reported, what the kernels logged of it and how much differs; then connect.

    The first one of a cell is its evidence; each is an event.
    """
    resource = context.resource
    states = roles.states(resource)
    for node in context.nodes:
        # What a Secondary has is written, and it lets nobody open its device.
        if node.name in states and states[node.name].local_role == "Primary":
            resource.sync(node)
    compared = compare_before_rejoin(context, victim, f"{when}, before {victim.name}'s changes were discarded", guest)
    differing = compared.comparison.differing_blocks if compared is not None else None
    confirmed = any(split_brain(lines) for lines in capture.kernel_logs())
    what = "split brain" if confirmed else "a node is StandAlone, without a split brain in the kernel log"
    context.log_event(
        f"{when}: {what} ({_reported(states)}); "
        f"{'an unknown number of' if differing is None else differing} blocks differed, "
        f"the changes of {victim.name} were discarded"
    )
    seconds = capture.digest_to_split_brain_seconds()
    found = SplitBrain(seconds, states, differing, victim.name, False, confirmed)
    context.split_brain = context.split_brain or found
    roles.reconnect_discarding(resource, victim, deadline)
    if context.split_brain is found:
        context.split_brain = replace(found, repaired=True)


def bring_back(context: CellContext, capture: LogCapture, node: Node) -> None:
    """Give a node its power back and let it rejoin the resource, as it replicated before.

    :class:`~harness.errors.StackError` where it runs other versions than before: what it says would be of those.
    """
    context.lab.power_on(node)
    require_unchanged(context.lab.lock, node)
    capture.node_is_back(node)
    context.read_returned(node)
    context.resource.rejoin(node)
    replication.reapply_volatile(context.resource, node)


def _reported(states: Mapping[str, State]) -> str:
    return "; ".join(f"{name} {one.connection} {one.local_role}/{one.peer_role}" for name, one in states.items())

"""Both backing devices are compared before two replicas that were apart become one again.

A resync copies all that DRBD holds out of sync, and after the crash of a Primary all that its activity log covers: a
divergence in there is gone before any oracle is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.drbd import roles
from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.guest.domain import Guest
from harness.lab.node import Node
from harness.model import RejoinComparison


def compare_before_rejoin(
    context: CellContext, away: Node, when: str, guest: Guest | None = None
) -> RejoinComparison | None:
    """Compare, and keep it as evidence; ``away`` is the node whose replica is going to be overwritten.

    ``guest``: one that may still write; it is paused meanwhile, for about a second and a second for each GiB of the
    device.  The cell fails where the devices cannot be compared, but it is no reason to leave a node away: None then.
    """
    other = roles.other(context.resource, away)
    with _paused(context, guest) as quiet:
        try:
            comparison = context.lab.compare(context.resource.blocks)
        except HarnessError as error:
            context.fail(error)
            return None
        marked = None
        with contextlib.suppress(HarnessError):
            marked = context.resource.status(other)[1].out_of_sync_kib
    found = RejoinComparison(when, away.name, comparison, quiet, marked)
    context.note(rejoin_comparisons=(*context.evidence.rejoin_comparisons, found))
    return found


@contextlib.contextmanager
def _paused(context: CellContext, guest: Guest | None) -> Iterator[bool]:
    """``guest`` does not run meanwhile, and what it wrote is on the disk of its node; whether that is so."""
    if guest is None or not guest.agent.active():
        yield True
        return
    # Nobody may wait for an answer of a guest that cannot give one.
    with guest.agent.held():
        quiet = True
        paused_already = guest.paused() is not None
        try:
            if not paused_already:
                guest.suspend()
            context.resource.sync(guest.node)
        except HarnessError as error:
            quiet = False
            context.log_event(f"the guest may have written while the devices were compared: {error}")
        try:
            yield quiet
        finally:
            if not paused_already and guest.paused() is not None:
                guest.resume()

"""Both backing devices are compared before two replicas that were apart become one again.

A resync copies all that DRBD holds out of sync, and after the crash of a Primary all that its activity log covers: a
divergence in there is gone before any oracle is asked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from harness.drbd import roles
from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.guest.domain import Guest
from harness.lab.backing_compare import changed_blocks
from harness.lab.node import Node
from harness.model import Comparison, RejoinComparison

# What a comparison says of itself whose one side was read when its node had its power again.
_LATER = "digests of what each machine read from its own device, {away} once it had its power again"


def compare_before_rejoin(
    context: CellContext, away: Node, when: str, guest: Guest | None = None
) -> RejoinComparison | None:
    """Compare, and keep it as evidence; ``away`` is the node whose replica is going to be overwritten.

    ``guest``: one that may still write; it is paused meanwhile, for about a second and a second for each GiB of the
    device.  The cell fails where the devices cannot be compared, but it is no reason to leave a node away: None then.
    Where ``away`` itself has to read its device, and has no power, the other side is read now and ``away``'s once it
    can be: None, and the comparison becomes evidence then.
    """
    other, blocks = roles.other(context.resource, away), context.resource.blocks
    with _paused(context, guest) as quiet:
        comparison, digests, began = None, b"", time.monotonic()
        try:
            if context.lab.readable(away):
                comparison = context.lab.compare(blocks)
            else:
                digests = context.lab.block_digests(other, blocks)
        except HarnessError as error:
            context.fail(error)
            return None
        took, marked = time.monotonic() - began, None
        with contextlib.suppress(HarnessError):
            marked = context.resource.status(other)[1].out_of_sync_kib

    def note(made: Comparison) -> RejoinComparison:
        found = RejoinComparison(when, away.name, made, quiet, marked)
        context.note(rejoin_comparisons=(*context.evidence.rejoin_comparisons, found))
        return found

    if comparison is not None:
        return note(comparison)

    def compare(of_away: bytes) -> None:
        note(Comparison(blocks, changed_blocks(digests, of_away), took, _LATER.format(away=away.name)))

    context.when_readable(away, compare)
    return None


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

"""Epochs of received writes that DRBD 8.4 never ends, and leaves on its connection: docs/drbd-write-conflict.md."""

from __future__ import annotations

import contextlib

from harness.drbd.resource import Resource, both
from harness.errors import DeadlineError
from harness.util.deadline import Deadline, poll

#: What is in flight when nobody writes any more is over by then.
SETTLE_SECONDS = 5.0


def drop_stuck(resource: Resource) -> str | None:
    """Make the connection anew where one side holds epochs that it will not end, for a later play would suffer from it.

    To be called while nothing writes.  Returns what was found and done, None where nothing was; both sides are
    Secondary and connecting behind what was done.  Blocks for at most 5 s, and four times ``connect_seconds``; raises
    :class:`~harness.errors.InfrastructureError` and :class:`~harness.errors.LostNodeError` as the resource does.
    """
    found: dict[str, int] = {}

    def ended() -> bool | None:
        nonlocal found
        found = _more_than_one(resource)
        return None if found else True

    with contextlib.suppress(DeadlineError):
        poll(ended, Deadline.after(SETTLE_SECONDS, "the end of the epochs"))
        return None
    resource.down()
    both(resource.rejoin, resource.a, resource.b)
    held = ", ".join(f"{name} ep:{number}" for name, number in found.items())
    return f"DRBD held epochs that it does not end ({held}); the resource was taken down and up"


def _more_than_one(resource: Resource) -> dict[str, int]:
    """How many epochs each node has that has more than the one that is always open."""
    found = {node.name: resource.epochs(node) for node in (resource.a, resource.b)}
    return {name: number for name, number in found.items() if number > 1}

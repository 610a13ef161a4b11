"""The two ends of a migration whose outcome nobody told: afterwards the guest runs on one node, or on none.

Nobody else may still be at work on it: a call that had not returned could yet let the guest go on at the other end.
"""

from __future__ import annotations

from enum import StrEnum

import libvirt

from harness.errors import HarnessError, LostGuestError, LostNodeError
from harness.guest.domain import Guest
from harness.guest.ending import end
from harness.lab.node import Node
from harness.util import logs


class End(StrEnum):
    """What one node has of the guest."""

    RUNS = "runs"
    WAITS = "waits"  # stopped by the migration: gone already, or not there yet
    GONE = "gone"
    UNKNOWN = "unknown"


# The reasons for a pause that are the migration's; all others are the guest's own, which runs there.
_OF_THE_MIGRATION = (
    libvirt.VIR_DOMAIN_PAUSED_UNKNOWN,
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
)


def settle(guest: Guest, source: Node, target: Node, *, returned: bool) -> str:
    """Look at both ends, end what is too much, and say in half a sentence what was found; the guest's node is right.

    ``returned``: whether the call that moved it has; where not, neither end can be trusted.  Blocks for some two
    minutes where libvirt hangs.  :class:`~harness.errors.LostGuestError` when the guest is on neither node any more,
    :class:`~harness.errors.LostNodeError` when a node cannot be asked: then it is not known to be ended there.
    """
    name = guest.spec.name
    ends = {node.name: look(node, name) for node in (source, target)}
    logs.progress(f"the migration was given up: {', '.join(f'the guest {end} on {at}' for at, end in ends.items())}")
    keep = _kept(ends[source.name], ends[target.name]) if returned else None
    lost = []
    for node, which in ((target, "target"), (source, "source")):
        seen = ends[node.name]
        if which == keep or seen is End.GONE:
            continue
        # Libvirt is not asked again where it did not answer.
        if not end(node, name, by_libvirt=seen is not End.UNKNOWN):
            lost.append(node.name)
    if lost:
        raise LostNodeError(f"a migration was given up, and {' and '.join(lost)} could not be told to end the guest")
    if keep is None:
        raise LostGuestError("a migration was given up, and the guest did not live through it on either node")
    if keep == "target":
        guest.moved(target, target.libvirt.lookupByName(name))
        return f"the guest had arrived on {target.name}"
    guest.found_again()
    if ends[source.name] is End.WAITS and guest.paused() is not None:
        guest.resume()
    return f"the guest goes on on {source.name}"


def _kept(source: End, target: End) -> str | None:
    """Which end lives on; None where that would not be safe."""
    if target is End.RUNS:
        # One that runs on both has two histories.
        return None if source is End.RUNS else "target"
    if target is End.UNKNOWN and source is not End.RUNS:
        return None
    return "source" if source in (End.RUNS, End.WAITS) else None


def look(node: Node, name: str) -> End:
    """What ``node`` has of the guest, as its libvirt knows."""
    if node.away:
        # Without power nothing runs.
        return End.GONE
    try:
        state, reason = node.monitor_connection.lookupByName(name).state()
    except libvirt.libvirtError as error:
        return End.GONE if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN else End.UNKNOWN
    except HarnessError:
        return End.UNKNOWN
    if state == libvirt.VIR_DOMAIN_PAUSED and reason in _OF_THE_MIGRATION:
        return End.WAITS
    return End.RUNS if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED) else End.WAITS

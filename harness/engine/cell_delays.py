"""The cell's delay profile, on where the client writes and nowhere else."""

from __future__ import annotations

from dataclasses import replace

from harness.engine.context import CellContext
from harness.engine.guest_disk import GuestDisk


class CellDelays:
    """Which nodes are delayed now.  On the side that does not write a delay would hold up the answers too."""

    def __init__(self, context: CellContext, guest_disk: GuestDisk) -> None:
        self._context = context
        self._guest_disk = guest_disk
        self._delayed: set[str] = set()

    def apply(self) -> None:
        """Delay the node that the client is on now, and no other; what is really on is read back."""
        profile, resource = self._context.cell.delays, self._context.resource
        if profile.undelayed:
            return
        guest = self._guest_disk.guest
        writer = guest.node if guest is not None else self._context.lab.a
        for node in self._context.nodes:
            if node is not writer and node.name in self._delayed:
                resource.apply_delays(0, 0, node)
        resource.apply_delays(profile.link_delay_ms, profile.disk_delay_ms, writer)
        self._delayed.add(writer.name)
        link, disk = resource.delays(writer)
        self._context.note(observed=replace(self._context.evidence.observed, link_delay_ms=link, disk_delay_ms=disk))

    def clear(self) -> None:
        """Take every delay off again."""
        for node in self._context.nodes:
            if node.name in self._delayed:
                self._context.resource.apply_delays(0, 0, node)
                self._delayed.remove(node.name)

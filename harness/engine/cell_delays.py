"""The cell's delay profile, on where the client writes and nowhere else; what is really on is read on both nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.engine.context import CellContext
from harness.engine.guest_disk import GuestDisk
from harness.errors import HarnessError
from harness.lab.node import Node
from harness.model import DelayProfile, DelayReading

SET, CLEARED = "before the work went on", "after the work"
LEFT = "after they were cleared"


class CellDelays:
    """Which nodes are delayed now.  On the side that does not write a delay would hold up the answers too."""

    def __init__(self, context: CellContext, guest_disk: GuestDisk) -> None:
        self._context = context
        self._guest_disk = guest_disk
        self._delayed: set[str] = set()

    def apply(self) -> None:
        """Delay the node that the client is on now, and no other; what is really on is read on both, in any cell."""
        profile, resource = self._context.cell.delays, self._context.resource
        guest = self._guest_disk.guest
        writer = guest.node if guest is not None else self._context.lab.a
        if not profile.undelayed:
            for node in self._context.nodes:
                if node is not writer and node.name in self._delayed:
                    resource.apply_delays(DelayProfile(), node)
                    self._delayed.remove(node.name)
            # Before it is tried: half of it may be on where it fails.
            self._delayed.add(writer.name)
            resource.apply_delays(profile, writer)
        found = self._note(SET)[writer.name]
        link, disk, flush = (
            (None, None, None)
            if found is None
            else (found.link_delay_ms, found.disk_delay_ms, found.flush_delay_ms)
        )  # fmt: skip
        observed = self._context.evidence.observed
        self._context.note(
            observed=replace(observed, link_delay_ms=link, disk_delay_ms=disk, flush_delay_ms=flush)
        )  # fmt: skip

    def clear(self) -> None:
        """Read what is on, then take every delay off again, whoever left it there.

        Every node is tried; the first error is raised then.
        """
        found = self._note(CLEARED)
        nodes = [node for node in self._context.nodes if node.name in self._delayed or found[node.name] != _NONE]
        if errors := self._remove(*nodes):
            raise errors[0]

    def rescue(self) -> None:
        """Take every delay off both nodes, as far as they can still be told; what may be left is noted."""
        for error in self._remove(*self._context.nodes):
            self._context.log_event(f"a delay may be left: {error}")

    def node_dies(self, node: Node) -> None:
        """A node that boots has no delay any more."""
        self._delayed.discard(node.name)

    def _remove(self, *nodes: Node) -> list[HarnessError]:
        errors: list[HarnessError] = []
        left: dict[str, DelayProfile | None] = {}
        for node in nodes:
            try:
                self._context.resource.apply_delays(DelayProfile(), node)
                self._delayed.discard(node.name)
                left[node.name] = self._read(node)
            except HarnessError as error:
                errors.append(error)
                left[node.name] = None
        if left:
            self._keep(LEFT, left)
        return errors

    def _note(self, when: str) -> dict[str, DelayProfile | None]:
        """Read the delays of both nodes and keep what was read; None where it cannot be read."""
        found = {node.name: self._read(node) for node in self._context.nodes}
        self._keep(when, found)
        return found

    def _keep(self, when: str, found: Mapping[str, DelayProfile | None]) -> None:
        delayed = next(iter(self._delayed), None)
        reading = DelayReading(when, delayed, found, over=when == LEFT)
        observed = self._context.evidence.observed
        self._context.note(observed=replace(observed, delays=(*observed.delays, reading)))

    def _read(self, node: Node) -> DelayProfile | None:
        try:
            return self._context.resource.delays(node)
        except HarnessError as error:
            self._context.log_event(f"the delays of {node.name} cannot be read: {error}")
            return None


_NONE = DelayProfile()

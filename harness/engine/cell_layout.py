"""What lies between DRBD's device and the cell's filesystem: made for the cell, and nothing of it left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from harness.engine.context import CellContext
from harness.engine.oracle_run import CANARY_RECORD
from harness.errors import CommandError, HarnessError
from harness.filesystems.base import MARGIN_SECONDS, OwnedBlock, ReplicaView, WorkloadTarget
from harness.filesystems.layers import Layer, layer_of
from harness.model import ClientKind, DiskSource, Layout

#: Says whose each of some 4 KiB blocks is, on what the filesystem sees.
Owners = Callable[[ReplicaView, Iterable[int]], Mapping[int, OwnedBlock]]

# On the node: whatever is on DRBD's device is taken out of use, also what a run that was killed left there.
_LET_GO = """
unused() {
    for point in $(awk -v d="$1" '$1 == d { print $2 }' /proc/mounts | tac); do umount "$point"; done
    if awk '{ print $1 }' /proc/swaps | grep -qx -e "$1" -e "$(readlink -f "$1")"; then swapoff "$1"; fi
}
for holder in "/sys/class/block/${1##*/}/holders/"*; do
    [ -e "$holder/dm/name" ] || continue
    name=$(cat "$holder/dm/name")
    unused "/dev/mapper/$name"
    dmsetup remove --verifyudev --retry "$name"
done
unused "$1"
"""


class CellLayout:
    """The layer of one cell, where it is, and whether it is open."""

    def __init__(self, context: CellContext) -> None:
        self._context = context
        self.layer: Layer = layer_of(context.cell)
        # Where it is being made or is in use, and what it was opened as.
        self._below: WorkloadTarget | None = None
        self._opened: WorkloadTarget | None = None

    @property
    def on_node(self) -> bool:
        """Whether it lies between DRBD and QEMU."""
        return self.layer.on_node

    def enter(self, below: WorkloadTarget) -> WorkloadTarget:
        """Make it on ``below`` and open it: what the filesystem sees, or QEMU.

        :class:`~harness.errors.RefusedError` where a module or a program that it needs is missing.
        """
        if not self.sees_through:
            return below
        self._below = below
        if self._on_the_node:
            self._let_go(below)
        try:
            self.layer.make(below)
            self._opened = self.layer.open(below)
        except CommandError:
            self.layer.require(below)
            raise
        return self._opened

    def enter_again(self, below: WorkloadTarget) -> None:
        """Open in a guest what was made there before it crashed."""
        if self.sees_through and not self.on_node:
            self._below = below
            self._opened = self.layer.open(below)

    def disk(self, below: WorkloadTarget) -> DiskSource:
        """What QEMU is given: DRBD's device, or what a layer on the node made of it, which it does when first asked."""
        if not self.on_node:
            return DiskSource(below.device)
        return self.layer.disk(self._opened or self.enter(below))

    @property
    def disk_blocks(self) -> int:
        """How many 4 KiB blocks the guest's disk has, where that is not DRBD's device; else 0."""
        return self._opened.own_blocks if self.on_node and self._opened is not None else 0

    def seen(self, below: WorkloadTarget) -> WorkloadTarget:
        """What the filesystem sees of the client's disk ``below``."""
        return below if self.on_node or self._opened is None else self._opened

    def settled(self) -> AbstractContextManager[None]:
        """While it lasts what a layer on the node holds is on the device; the guest has written all that it will."""
        return self.layer.settled(self._below) if self.on_node and self._below is not None else nullcontext()

    def close(self) -> None:
        """Take it out of use, in whatever state it is; everything of it is written then."""
        if (below := self._below) is not None:
            self.layer.close(below)
            self.gone()

    def gone(self) -> None:
        """It went with the guest that it was in."""
        self._below = self._opened = None

    def rescue(self) -> str | None:
        """Nothing of it stays on the node, after a failure; why something does, None where nothing does.

        The guest that had it is ended before.
        """
        if (below := self._below) is None:
            return None
        try:
            if self._on_the_node:
                self._let_go(below)
            self.close()
        except HarnessError as error:
            self.gone()
            return f"the layout '{self.layer.layout}' could not be closed on {below.runner.host}: {error}"
        return None

    @property
    def _canary_inside(self) -> bool:
        return self.on_node and self._context.cell.has_canary

    @property
    def _on_the_node(self) -> bool:
        return self.on_node or self._context.cell.client is ClientKind.HOST

    @staticmethod
    def _let_go(below: WorkloadTarget) -> None:
        below.sh(_LET_GO, below.device, timeout=MARGIN_SECONDS)

    # ------------------------------------------------------------------------------------------ whose a block is

    @property
    def sees_through(self) -> bool:
        """Whether the replica has to be read for it."""
        return self.layer.layout is not Layout.RAW

    @property
    def method(self) -> str:
        """How owners are found through it, to stand before how they are found in there; "" without a layer."""
        return f"{self.layer.method}, and in there " if self.layer.method else ""

    def owners(self, inside: Owners) -> Owners:
        """Owners of the device's blocks: the layer's own, and of those in it what ``inside`` knows."""
        return lambda view, blocks: self._owners(inside, view, blocks)

    def _owners(self, inside: Owners, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        if not self.sees_through:
            return inside(view, blocks)
        with self.layer.inner(view) as inner:
            places = inner.places(sorted({*blocks}))
            # The end of what a layout on the node holds is the canary's, where there is one.
            own = inner.view.blocks - (self._context.region.blocks if self._canary_inside else 0)
            within = {block: place for block, place in places.items() if isinstance(place, int) and place < own}
            # What is deepest inside is asked only where anything is in there.
            seen = ReplicaView(inner.view.runner, inner.view.path, own)
            owned = inside(seen, sorted({*within.values()})) if within else {}
            found = {block: owned[place] for block, place in within.items() if place in owned}
            for block, place in places.items():
                if isinstance(place, OwnedBlock):
                    found[block] = place
                elif place >= own:
                    found[block] = CANARY_RECORD
            return found


__all__ = ["CellLayout", "Owners"]

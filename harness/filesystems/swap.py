"""A swap area on the device, the only one in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, OwnedBlock, ReplicaView, WorkloadTarget
from harness.model import BlockOwner, FilesystemKind


class Swap(Filesystem):
    """A swap area; to mount it is ``swapon``."""

    kind = FilesystemKind.SWAP
    offers = Offers.SWAP
    programs = ("mkswap", "swapon")
    reads_replica = False
    method = "after swapoff every slot is free"

    def make(self, target: WorkloadTarget) -> None:
        """Make the swap area."""
        target.sh('mkswap "$1" >/dev/null', target.device)

    def mount(self, target: WorkloadTarget) -> None:
        """Use it."""
        target.require_swap()
        discard = "--discard " if self.online_discard else ""
        target.sh(f'swapon {discard}"$1"', target.device)

    def unmount(self, target: WorkloadTarget) -> None:
        """Free every slot."""
        target.sh('swapoff "$1"; sync', target.device, timeout=MARGIN_SECONDS)

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """After swapoff only the header (block 0) is in use."""
        slot, header = OwnedBlock(BlockOwner.FREE, "free swap slot"), OwnedBlock(BlockOwner.METADATA, "swap header")
        return {block: slot if block else header for block in blocks}

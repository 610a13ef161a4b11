"""No filesystem: the workload writes to the device itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.filesystems.base import Filesystem, Offers, OwnedBlock, ReplicaView
from harness.model import BlockOwner, FilesystemKind


class Raw(Filesystem):
    """The raw device."""

    kind = FilesystemKind.RAW
    offers = Offers.DEVICE
    reads_replica = False
    method = "a raw device holds its application's data, block by block"

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """All of it is the application's."""
        return {block: OwnedBlock(BlockOwner.ALLOCATED, "the application's data on the raw device") for block in blocks}

"""Swap space in a file on ext4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.filesystems.base import MARGIN_SECONDS, Offers, OwnedBlock, ReplicaView, WorkloadTarget
from harness.filesystems.ext4 import Ext4
from harness.filesystems.mounted import MOUNT_POINT
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemKind

FILE = "/swapfile"

# Preallocated, as people make theirs; the kernel swaps to its blocks past the filesystem, which never learns that they
# were written.  Most of the space: a storm is as large as the swap space.
_SWAP_ON = """
file=$1
if [ ! -e "$file" ]; then
    blocks=$(stat -f -c %a "$2")
    fallocate -l "$((blocks * 9 / 10 * 4096))" "$file"
    chmod 600 "$file"
    mkswap "$file" >/dev/null
    sync
fi
swapon $3 "$file"
"""


class SwapFile(Ext4):
    """A swap file on ext4, the only swap space in use; to mount it is ``mount`` and ``swapon``."""

    kind = FilesystemKind.SWAPFILE
    offers = Offers.SWAP
    needs_mib = 64
    programs = ("mkfs.ext4", "e2fsck", "fallocate", "mkswap", "swapon")
    method = "after swapoff every slot is free; which blocks are the swap file's, by dumpe2fs and debugfs"

    def mount(self, target: WorkloadTarget) -> None:
        """Mount the filesystem, make the swap file where there is none, use it."""
        target.require_swap()
        super().mount(target)
        discard = "--discard" if self.online_discard else ""
        target.sh(_SWAP_ON, f"{MOUNT_POINT}{FILE}", MOUNT_POINT, discard, timeout=MARGIN_SECONDS)

    def unmount(self, target: WorkloadTarget) -> None:
        """Free every slot and unmount the filesystem."""
        target.sh('swapoff "$1"', f"{MOUNT_POINT}{FILE}", timeout=MARGIN_SECONDS)
        super().unmount(target)

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """After swapoff only the header (the file's first block) is in use; what is no slot is ext4's."""
        return {block: _slot(one) for block, one in super().owners(view, blocks).items()}


def _slot(one: OwnedBlock) -> OwnedBlock:
    if one.path != FILE or one.offset is None:
        return one
    if one.offset < BLOCK_BYTES:
        return replace(one, owner=BlockOwner.METADATA, detail=f"swap header of {FILE}")
    return replace(one, owner=BlockOwner.FREE, detail=f"free swap slot, {FILE} at byte {one.offset}")

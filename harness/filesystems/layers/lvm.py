"""A logical volume: the only one of a volume group on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.filesystems.layers.base import LAYER_SECONDS, Inner, Layer, Place, loop, opened
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner, Layout
from harness.parse.lvm import VolumeSegment, physical_volume

#: Without a dash, which device-mapper would double.
GROUP, VOLUME = "drbdharness", "data"
# LVM's metadata, and what is left of the last extent of 4 MiB.
_OVERHEAD_MIB = 6

# LVM looks at no other device: on a node it would find the same group on the disk below DRBD too.
_MAKE = """
modprobe -q dm-mod || true
wipefs --all --quiet "$1"
# Links to a volume that went another way than by LVM; no group may have a name that is there.
rm -rf "/dev/$2"
pvcreate --quiet --quiet --yes --devices "$1" "$1"
vgcreate --quiet --quiet --yes --devices "$1" "$2" "$1"
lvcreate --quiet --quiet --yes --devices "$1" --wipesignatures n --zero n --extents 100%FREE --name "$3" "$2"
"""
_OPEN = """
modprobe -q dm-mod || true
vgchange --quiet --quiet --devices "$1" --activate y "$2"
echo "/dev/mapper/$2-$3"
blockdev --getsize64 "/dev/mapper/$2-$3"
"""
_CLOSE = '[ ! -e "/dev/mapper/$2-$3" ] || vgchange --quiet --quiet --devices "$1" --activate n "$2"'
_FIELDS = "pe_start,vg_extent_size,pvseg_start,pvseg_size,lv_name,seg_start,segtype"


class Lvm(Layer):
    """LVM in the client."""

    layout = Layout.LVM
    method = "LVM's own metadata, by pvs"
    modules = ("dm-mod",)
    programs = ("lvm",)

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """LVM's metadata, and whole extents."""
        return inner_mib + _OVERHEAD_MIB

    def make(self, target: WorkloadTarget) -> None:
        """Make the physical volume, the group and the volume, which has all of it."""
        target.sh(_MAKE, target.device, GROUP, VOLUME, timeout=LAYER_SECONDS)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """Activate the volume."""
        device, size = target.sh(_OPEN, target.device, GROUP, VOLUME, timeout=LAYER_SECONDS).split()
        return opened(target, device, int(size))

    def close(self, target: WorkloadTarget) -> None:
        """Deactivate it."""
        target.sh(_CLOSE, target.device, GROUP, VOLUME, timeout=MARGIN_SECONDS)

    @contextlib.contextmanager
    def inner(self, view: ReplicaView) -> Iterator[Inner]:
        """The volume's extents in the copy, by a loop device; nothing is activated."""
        runner = view.runner
        with contextlib.ExitStack() as stack:
            whole = stack.enter_context(loop(runner, view.path))
            argv = [
                "pvs", "--readonly", "--devices", whole, "--segments", "--reportformat", "json", "--units", "b",
                "--nosuffix", "--options", _FIELDS, whole,
            ]  # fmt: skip
            first, segments = physical_volume(runner.run(argv, timeout=LAYER_SECONDS).stdout)
            mine = [one for one in segments if one.volume == VOLUME]
            if len(mine) != 1 or mine[0].inside or mine[0].start % BLOCK_BYTES or mine[0].size % BLOCK_BYTES:
                raise ValueError(f"the volume {VOLUME} has {len(mine)} pieces on the device, not one of whole blocks")
            device = stack.enter_context(loop(runner, view.path, mine[0].start, mine[0].size))
            volume = ReplicaView(runner, device, mine[0].size // BLOCK_BYTES)
            yield Inner(volume, lambda blocks: _places(blocks, first, segments, mine[0]))


def _places(
    blocks: Sequence[int], first: int, segments: Sequence[VolumeSegment], mine: VolumeSegment
) -> Mapping[int, Place]:
    return {block: _place(block * BLOCK_BYTES, first, segments, mine) for block in blocks}


def _place(start: int, first: int, segments: Sequence[VolumeSegment], mine: VolumeSegment) -> Place:
    if start < first:
        return OwnedBlock(BlockOwner.METADATA, "LVM's metadata")
    for one in segments:
        if one.start <= start < one.start + one.size:
            if one is mine:
                return (start - one.start) // BLOCK_BYTES
            what = f"the logical volume {one.volume}" if one.volume else "extents of no logical volume"
            return OwnedBlock(BlockOwner.UNKNOWN if one.volume else BlockOwner.FREE, what)
    return OwnedBlock(BlockOwner.FREE, "behind the last extent of the physical volume")

"""A GPT with two partitions, as an installer makes it: one for a filesystem, one for swap."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from harness.errors import InfrastructureError
from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.filesystems.ext4 import Ext4
from harness.filesystems.layers.base import LAYER_SECONDS, NAME, Inner, Layer, Place, loop, opened
from harness.filesystems.owned import ByteMap, OwnedBlock
from harness.filesystems.swap import Swap
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, SECTOR_BYTES, BlockOwner, FilesystemKind, Layout
from harness.parse.partitions import Partition, PartitionTable, partition_table

#: The size of the partition that is not the cell's, in MiB.
OTHER_MIB = 32
# Before the first partition and behind the last one.
_TABLE_MIB = 2
_MIB = 2**20
# The protective MBR, the header, and room for 128 entries.
_TABLE_SECTORS = 34

_LINUX, _SWAP = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
# Without a word to the kernel, which is told when a partition is opened.
_MAKE = r"""
printf 'label: gpt\nstart=1MiB, size=%sMiB, type=%s\ntype=%s\n' "$2" "$3" "$4" |
    sfdisk --quiet --no-reread --no-tell-kernel --wipe always --wipe-partitions always "$1"
"""
# The kernel makes the partitions of a disk that may have some, and their nodes in /dev before it answers.  On DRBD's
# own device it makes none: there a table of device-mapper does what kpartx does.
_OPEN = """
name=${1##*/}
if [ "$(cat "/sys/block/$name/ext_range")" -gt 1 ]; then
    blockdev --rereadpt "$1"
    case $name in *[0-9]) device=$1p$2;; *) device=$1$2;; esac
    test -b "$device" || { echo "the kernel made no partition $device" >&2; exit 1; }
else
    partx --raw --noheadings --output START,SECTORS --nr "$2" "$1" | {
        read -r start sectors
        dmsetup create --verifyudev "$3$2" --table "0 $sectors linear $1 $start"
    }
    device=/dev/mapper/$3$2
fi
echo "$device"
blockdev --getsize64 "$device"
"""
_CLOSE = """
for mapping in "$1"1 "$1"2; do
    dmsetup info "$mapping" > /dev/null 2>&1 || continue
    dmsetup remove --verifyudev --retry "$mapping"
done
"""


class Partitioned(Layer):
    """Partition 1 is for the cell's filesystem, partition 2 for swap; both are made, the cell works on its own."""

    layout = Layout.PARTITIONED
    method = "the partition table, by sfdisk"
    programs = ("sfdisk", "partx", "blockdev")

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """The other partition, and the table twice."""
        return inner_mib + OTHER_MIB + _TABLE_MIB

    @property
    def number(self) -> int:
        """The cell's partition."""
        return 2 if self.filesystem is FilesystemKind.SWAP else 1

    def make(self, target: WorkloadTarget) -> None:
        """Make the table, and what is on the other partition."""
        mebibytes = target.own_blocks * BLOCK_BYTES // _MIB
        first = OTHER_MIB if self.number == 2 else mebibytes - OTHER_MIB - _TABLE_MIB
        if mebibytes < 2 * OTHER_MIB:
            raise InfrastructureError(f"a device of {mebibytes} MiB has no room for two partitions")
        target.sh(_MAKE, target.device, str(first), _LINUX, _SWAP, timeout=LAYER_SECONDS)
        other = self._open(target, 3 - self.number)
        (Ext4() if self.number == 2 else Swap()).make(other)
        self.close(target)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """The cell's partition, as the kernel has it."""
        return self._open(target, self.number)

    @staticmethod
    def _open(target: WorkloadTarget, number: int) -> WorkloadTarget:
        printed = target.sh(_OPEN, target.device, str(number), f"{NAME}-", timeout=LAYER_SECONDS)
        device, size = printed.split()
        return opened(target, device, int(size))

    def close(self, target: WorkloadTarget) -> None:
        """Nothing in a guest; on the node itself the mappings go."""
        target.sh(_CLOSE, f"{NAME}-", timeout=MARGIN_SECONDS)

    @contextlib.contextmanager
    def inner(self, view: ReplicaView) -> Iterator[Inner]:
        """The cell's partition in the copy, by a loop device."""
        table = partition_table(view.runner.run(["sfdisk", "--json", view.path], timeout=LAYER_SECONDS).stdout)
        found = {one.number: one for one in table.partitions}
        if sorted(found) != [1, 2] or any(one.start % BLOCK_BYTES or one.size % BLOCK_BYTES for one in found.values()):
            raise ValueError(f"there are the partitions {sorted(found)}, not 1 and 2 of whole blocks")
        mine, other = found[self.number], found[3 - self.number]
        with contextlib.ExitStack() as stack:

            def looped(one: Partition) -> ReplicaView:
                path = stack.enter_context(loop(view.runner, view.path, one.start, one.size))
                return ReplicaView(view.runner, path, one.size // BLOCK_BYTES)

            @cache
            def owners_of_the_other() -> Mapping[int, OwnedBlock]:
                blocks = range(other.size // BLOCK_BYTES)
                return (Ext4() if other.number == 1 else Swap()).owners(looped(other), blocks)

            def places(blocks: Sequence[int]) -> Mapping[int, Place]:
                found: dict[int, Place] = dict(_of_the_table(table, view.blocks).blocks(blocks))
                for block in blocks:
                    if (place := _place(block, mine, other, owners_of_the_other)) is not None:
                        found[block] = place
                return found

            yield Inner(looped(mine), places)


def _of_the_table(table: PartitionTable, blocks: int) -> ByteMap:
    """Whose the bytes are that are in no partition; the two copies of the table end in the middle of a block."""
    owners, end = ByteMap(), blocks * BLOCK_BYTES
    owners.paint(0, end, BlockOwner.FREE, "in no partition")
    owners.paint(0, _TABLE_SECTORS * SECTOR_BYTES, BlockOwner.METADATA, "the partition table")
    owners.paint(table.last, end, BlockOwner.METADATA, "the copy of the partition table at the end")
    return owners


def _place(
    block: int, mine: Partition, other: Partition, owners_of_the_other: Callable[[], Mapping[int, OwnedBlock]]
) -> Place | None:
    """Where a block is that is in a partition; None where it is in none."""
    start = block * BLOCK_BYTES
    if mine.start <= start < mine.stop:
        return (start - mine.start) // BLOCK_BYTES
    if other.start <= start < other.stop:
        owned = owners_of_the_other()[(start - other.start) // BLOCK_BYTES]
        return OwnedBlock(owned.owner, f"on partition {other.number}, which is not the cell's: {owned.detail}")
    return None

"""The size of a resource's device: changed between two cells by making the resource anew on a part of its lower device.

A smaller device is compared and verified sooner, so each cell gets no more than it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.drbd.resource import Resource, both
from harness.errors import InfrastructureError
from harness.lab.node import Node
from harness.model import BLOCK_BYTES

_MIB_BLOCKS = 2**20 // BLOCK_BYTES
# Internal metadata is 72 KiB for each GiB at most (its bitmap has a bit for each block of 4 KiB), and 36 KiB more.
_METADATA_MIB, _MIB_FOR_A_MIB_OF_METADATA = 1, 8192

# drbdmeta refuses to make a device smaller than the filesystem that it finds at the beginning, also with --force.  What
# is at the end of a device of the old or the new size is metadata, which is never alike on two nodes.
_CLEAR = r"""
set -e
name=$1 lower=$(readlink -f "$2") mebibytes=$3
shift 3
there=$(($(blockdev --getsz "$lower") / 2048))
if [ "$mebibytes" -gt "$there" ]; then
    echo "$lower has $there MiB, fewer than the $mebibytes MiB that are asked of it" >&2
    exit 1
fi
drbdsetup down "$name"
# Whoever follows the events of what was would go on for as long as the connection to the node.
pkill -f "^drbdsetup events2 --timestamps --statistics $name\$" || true
for place in "$@"; do
    dd if=/dev/zero of="$lower" bs=1M seek="${place%+*}" count="${place#*+}" oflag=direct conv=notrunc status=none
done
"""


def size_mib(resource: Resource) -> int:
    """The size of ``resource``'s device with DRBD's metadata, in MiB."""
    return resource.spec.size_mib or -(-resource.blocks // _MIB_BLOCKS)


def resize(
    resource: Resource, mebibytes: int, equal: Callable[[int], bool], bitmap_block_size: str | None = None
) -> bool:
    """Make the device of ``resource`` ``mebibytes`` MiB large, DRBD's metadata among them; what it held is gone.

    ``bitmap_block_size``: what one bit of the bitmap in the metadata is for; None leaves it as it is.

    It is taken down on both nodes and made anew, Connected and UpToDate, ``a`` Primary; nobody may have it open, and
    event streams and replication profile begin anew.  The old size's metadata becomes data, or data becomes metadata:
    both are cleared on both sides.  ``equal`` is asked whether the first so many 4 KiB blocks of both lower devices are
    alike, outside DRBD; where they are not, all of ``a`` is copied to ``b``.  Returns whether they were.

    Blocks for at most half a minute and as long as ``equal`` and :meth:`~harness.drbd.resource.Resource.create` do.
    :class:`~harness.errors.InfrastructureError` where the lower device is no mapping of the harness's,
    :class:`~harness.errors.CommandError` where it is too small, with nothing done; and what ``create`` raises.
    """
    if not resource.spec.mapping:
        raise InfrastructureError(
            f"{resource.spec.name} has {size_mib(resource)} MiB and cannot be made {mebibytes} MiB large: its lower "
            "device is no device-mapper table of the harness"
        )
    resource.require_own_files()
    places = [f"0+{_METADATA_MIB}", *(_metadata(size) for size in sorted({size_mib(resource), mebibytes}))]
    size = bitmap_block_size or resource.spec.bitmap_block_size
    resource.spec = replace(resource.spec, size_mib=mebibytes, bitmap_block_size=size)

    def clear(node: Node) -> None:
        node.require_lower("another size of the device on it")
        argv = ["sh", "-c", _CLEAR, "sh", resource.spec.name, node.lower, str(mebibytes), *places]
        node.runner.run(argv, timeout=resource.spec.connect_seconds)

    both(clear, resource.a, resource.b)
    alike = equal(mebibytes * _MIB_BLOCKS)
    resource.create(skip_initial_sync=alike)
    return alike


def _metadata(mebibytes: int) -> str:
    """Where the internal metadata of a device of that size is, as ``first+count`` in MiB."""
    count = _METADATA_MIB + mebibytes // _MIB_FOR_A_MIB_OF_METADATA
    return f"{max(0, mebibytes - count)}+{min(count, mebibytes)}"

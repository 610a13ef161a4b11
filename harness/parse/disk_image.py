"""What qemu-img tells of a disk image, and the tables of a qcow2 image itself."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

from harness.model import BLOCK_BYTES

_MAGIC = 0x514649FB
# From byte 0 on, big-endian: magic, version, backing file (2), cluster bits, size, encryption, size and place of the L1
# table, place and clusters of the refcount table, snapshots.
_HEADER = struct.Struct(">IIQIIQIIQQII")
# Of an entry of the L1 table, and of one of the refcount table: where in the file what it names begins.
_OFFSET = 0x00FF_FFFF_FFFF_FE00
# 2 MiB: of an image that the harness made each is a page.
_MOST_ENTRIES = 2**18


@dataclass(frozen=True)
class ImageExtent:
    """A run of bytes that an image holds: from ``start`` on in the guest's disk, from ``offset`` on in the file."""

    start: int
    offset: int
    size: int


def virtual_size(info_json: str) -> int:
    """The size in bytes of the disk in an image, by ``qemu-img info --output=json``; :class:`ValueError`."""
    try:
        return int(json.loads(info_json)["virtual-size"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"this is not what qemu-img tells of an image: {error}") from None


def image_extents(map_json: str) -> tuple[ImageExtent, ...]:
    """Where in the file an image holds what, by ``qemu-img map --output=json``, in the order of the file.

    What reads as zeros has no place.  :class:`ValueError` for other text.
    """
    told = json.loads(map_json)
    if not isinstance(told, list):
        raise ValueError("this is not what qemu-img tells of where an image holds what")
    try:
        found = [
            ImageExtent(int(one["start"]), int(one["offset"]), int(one["length"]))
            for one in told
            if one["data"] and one["depth"] == 0 and not one.get("compressed", False)
        ]
    except (TypeError, KeyError) as error:
        raise ValueError(f"this is not what qemu-img tells of where an image holds what: {error}") from None
    return tuple(sorted(found, key=lambda one: one.offset))


def qcow2_tables(read: Callable[[int, int], bytes]) -> frozenset[int]:
    """The 4 KiB blocks of a qcow2 file that are its header and its tables; ``read`` is given an offset and a size.

    :class:`ValueError` for another file, and where it says of itself what cannot be.
    """
    begin = read(0, _HEADER.size)
    if len(begin) < _HEADER.size:
        raise ValueError("the image has no header")
    magic, version, _, _, bits, _, _, l1_size, l1_at, refcounts_at, refcount_clusters, _ = _HEADER.unpack(begin)
    if magic != _MAGIC or version not in (2, 3) or not 12 <= bits <= 21:
        raise ValueError("this is not a qcow2 image with clusters of whole blocks")
    cluster = 1 << bits
    if l1_size > _MOST_ENTRIES or refcount_clusters * cluster > _MOST_ENTRIES * 8:
        raise ValueError("the tables of the image are larger than an image of the harness has them")
    found = {*_blocks(0, cluster), *_blocks(l1_at, l1_size * 8), *_blocks(refcounts_at, refcount_clusters * cluster)}
    for place, size in ((l1_at, l1_size * 8), (refcounts_at, refcount_clusters * cluster)):
        for (entry,) in struct.iter_unpack(">Q", read(place, size)):
            if at := entry & _OFFSET:
                found |= {*_blocks(at, cluster)}
    return frozenset(found)


def _blocks(start: int, size: int) -> range:
    return range(start // BLOCK_BYTES, -(-(start + size) // BLOCK_BYTES))

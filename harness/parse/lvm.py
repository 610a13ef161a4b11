"""What LVM tells of a physical volume."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class VolumeSegment:
    """A run of the physical volume: ``volume`` is the logical volume that has it, "" for none.

    ``start`` and ``size`` on the device, ``inside`` in the logical volume; all in bytes.
    """

    volume: str
    start: int
    size: int
    inside: int


def physical_volume(pvs_json: str) -> tuple[int, tuple[VolumeSegment, ...]]:
    """Where the first extent begins, and the segments behind it in their order.

    ``pvs_json`` is what ``pvs --segments --reportformat json --units b --nosuffix`` printed with the fields pe_start,
    vg_extent_size, pvseg_start, pvseg_size, lv_name, seg_start and segtype.  :class:`ValueError` for other text, for
    anything but one physical volume, and for a volume that is not linear.
    """
    try:
        (report,) = json.loads(pvs_json)["report"]
        found = []
        starts = set()
        for one in report["pvseg" if "pvseg" in report else "pv"]:
            first, extent = int(one["pe_start"]), int(one["vg_extent_size"])
            starts.add(first)
            if one["lv_name"] and one["segtype"] != "linear":
                raise ValueError(f"the volume {one['lv_name']} is of type {one['segtype']}, not linear")
            start, size = int(one["pvseg_start"]) * extent, int(one["pvseg_size"]) * extent
            inside = int(one["seg_start"]) if one["lv_name"] else 0
            found.append(VolumeSegment(one["lv_name"], first + start, size, inside))
        (pe_start,) = starts
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not what LVM tells of one physical volume: {error}") from None
    except ValueError as error:
        raise ValueError(f"what LVM tells cannot be used: {error}") from None
    return pe_start, tuple(sorted(found, key=lambda one: one.start))

"""What sfdisk tells of a partition table."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.model import SECTOR_BYTES


@dataclass(frozen=True)
class Partition:
    """One partition: its number, and where it is in bytes."""

    number: int
    start: int
    size: int

    @property
    def stop(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


@dataclass(frozen=True)
class PartitionTable:
    """A GPT: its partitions by place, and the bytes ``first`` to before ``last`` that partitions may have."""

    partitions: tuple[Partition, ...]
    first: int
    last: int


def partition_table(sfdisk_json: str) -> PartitionTable:
    """The GPT in what ``sfdisk --json DEVICE`` printed; :class:`ValueError` for other text, or another table.

    A partition's number is what its name has behind the device's.
    """
    try:
        table = json.loads(sfdisk_json)["partitiontable"]
        label, unit, device = table["label"], table["unit"], table["device"]
        if label != "gpt" or unit != "sectors":
            raise ValueError(f"a partition table '{label}' in {unit}, not a GPT in sectors")
        sector = int(table.get("sectorsize", SECTOR_BYTES))
        found = [
            Partition(
                int(one["node"].removeprefix(device).removeprefix("p")),
                int(one["start"]) * sector,
                int(one["size"]) * sector,
            )
            for one in table.get("partitions", [])
        ]
        first, last = int(table["firstlba"]) * sector, (int(table["lastlba"]) + 1) * sector
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not what sfdisk tells of a partition table: {error}") from None
    return PartitionTable(tuple(sorted(found, key=lambda one: one.start)), first, last)

"""What a machine says of ZFS: plain facts, no opinion of whether something may be made or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: User properties of ZFS (zfsprops(7)); a volume of the harness's has both, and neither is inherited.
LAB_PROPERTY, OWNER_PROPERTY = "drbd-harness:lab", "drbd-harness:owner"
#: What is asked for of a dataset.
PROPERTIES = ("type", "guid", "volsize", "available", "readonly", LAB_PROPERTY, OWNER_PROPERTY)


@dataclass(frozen=True)
class ZfsPool:
    """A pool; ``guid`` and ``health`` as zpool prints them."""

    name: str
    guid: str
    health: str
    read_only: bool


@dataclass(frozen=True)
class Dataset:
    """A filesystem or a volume; ``size`` (of a volume) and ``available`` in bytes.

    ``lab`` and ``owner`` are the harness's properties where they were set on it, and not inherited; else "".
    """

    name: str
    kind: str
    guid: str
    available: int
    size: int = 0
    read_only: bool = False
    lab: str = ""
    owner: str = ""


@dataclass(frozen=True)
class ZfsLook:
    """The pools, and of the dataset that was asked about and the one volume those that are there.

    ``number`` is that of the volume's device, "" where there is none.  ``error``: why ZFS does not say what there is.
    """

    pools: tuple[ZfsPool, ...] = ()
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    number: str = ""
    error: str = ""

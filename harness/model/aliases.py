"""Names of earlier versions, and what they are called now.

The one table for matrices that users wrote, for ``-k`` and ``--resume``, for comparisons and for stored runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.model.axes import CacheMode, ClientKind, Control, FilesystemKind

#: Workloads of schema 1: what is a filesystem and a workload now.
WORKLOADS: Mapping[str, tuple[FilesystemKind, str]] = {
    "idle": (FilesystemKind.RAW, "no-writes"),
    "mutator": (FilesystemKind.RAW, "inflight-modify"),
    "ext4-mutator": (FilesystemKind.EXT4, "inflight-modify"),
    "ext4-buffered": (FilesystemKind.EXT4, "buffered"),
    "ext4-mmap": (FilesystemKind.EXT4, "mmap"),
    "ext4-cut": (FilesystemKind.EXT4, "truncate"),
    "swap-reclaim": (FilesystemKind.SWAP, "reclaim"),
    "swap": (FilesystemKind.SWAP, "pressure"),
}
CONTROLS: Mapping[str, Control] = {"mutator": Control.IN_FLIGHT}

_ROWS = "|".join((*CacheMode, ClientKind.HOST))
# The longest first: 'swap-reclaim' is no 'swap'.
_FORMER_ID = re.compile(rf"({_ROWS})-({'|'.join(sorted(WORKLOADS, key=len, reverse=True))})(-.*)?")
_FORMER = {f"{kind.prefix}{workload}": name for name, (kind, workload) in WORKLOADS.items()}
_PRESENT_ID = re.compile(rf"({_ROWS})-({'|'.join(sorted(_FORMER, key=len, reverse=True))})(-.*)?")


def present_id(cell_id: str) -> str:
    """What a cell with an id of schema 1 is called now; an id of today stays as it is."""
    if _PRESENT_ID.fullmatch(cell_id) or not (found := _FORMER_ID.fullmatch(cell_id)):
        return cell_id
    row, name, rest = found.groups(default="")
    kind, workload = WORKLOADS[name]
    return f"{row}-{kind.prefix}{workload}{rest}"


def former_id(cell_id: str) -> str:
    """What a cell of today was called in schema 1; its present id where that had no other name for it."""
    found = _PRESENT_ID.fullmatch(cell_id)
    if not found:
        return cell_id
    row, name, rest = found.groups(default="")
    return f"{row}-{_FORMER[name]}{rest}"

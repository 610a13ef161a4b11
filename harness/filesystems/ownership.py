"""Whose a differing block is once everything was written: live data, or dead."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.model import Owner, Ownership
from harness.parse.ownership import in_use, inodes, paths
from harness.remote.base import Runner

# A file system is searched block by block; beyond this many the answer does not change and the cell only takes longer.
MAX_SEARCHED = 4000
# As many numbers as one command line of debugfs is asked; more are asked in turns.
_BATCH = 500


@dataclass(frozen=True)
class Owned:
    """One block's owner and what it is called there."""

    owner: Owner
    detail: str


def unknown(blocks: Iterable[int], why: str) -> Mapping[int, Owned]:
    """Nobody can say."""
    return {block: Owned(Owner.UNKNOWN, why) for block in blocks}


def application(blocks: Iterable[int]) -> Mapping[int, Owned]:
    """A raw device is the application's, block by block."""
    return {block: Owned(Owner.LIVE, "the application's data on the raw device") for block in blocks}


def swap(blocks: Iterable[int]) -> Mapping[int, Owned]:
    """After swapoff only the header (block 0) is alive."""
    return {
        block: Owned(Owner.DEAD, "free swap slot") if block else Owned(Owner.LIVE, "swap header") for block in blocks
    }


def ext4(runner: Runner, device: str, blocks: Iterable[int]) -> Mapping[int, Owned]:
    """What debugfs says of each block of an unmounted ext4 with 4 KiB blocks."""
    found: dict[int, Owned] = {}
    wanted = sorted(blocks)
    found.update(unknown(wanted[MAX_SEARCHED:], f"not searched: behind the first {MAX_SEARCHED} blocks"))
    wanted = wanted[:MAX_SEARCHED]
    for at in range(0, len(wanted), _BATCH):
        batch = wanted[at : at + _BATCH]
        owners_of = inodes(_debugfs(runner, device, f"icheck {' '.join(map(str, batch))}"))
        used = in_use(_debugfs(runner, device, *(f"testb {block}" for block in batch)))
        hit = sorted({inode for inode in owners_of.values() if inode is not None})
        names = paths(_debugfs(runner, device, f"ncheck {' '.join(map(str, hit))}")) if hit else {}
        for block in batch:
            inode = owners_of.get(block)
            if inode is not None:
                found[block] = Owned(Owner.LIVE, next(iter(names.get(inode, ())), f"inode {inode}"))
            elif used.get(block, True):
                found[block] = Owned(Owner.LIVE, "file system metadata")
            else:
                found[block] = Owned(Owner.DEAD, "free space")
    return found


def _debugfs(runner: Runner, device: str, *commands: str) -> str:
    return runner.run(["debugfs", "-f", "-", device], stdin="\n".join(commands) + "\n", timeout=60).stdout


def summary(owned: Mapping[int, Owned], method: str) -> Ownership:
    """``owned`` counted, with the distinct names of what is hit."""
    count = {owner: sum(1 for one in owned.values() if one.owner is owner) for owner in Owner}
    names = tuple(sorted({one.detail for one in owned.values()}))[:50]
    return Ownership(count[Owner.LIVE], count[Owner.DEAD], count[Owner.UNKNOWN], method, names)


def numbers(text: str) -> dict[str, float]:
    """The numbers of a one-line JSON object, by name."""
    return {key: float(value) for key, value in json.loads(text).items() if isinstance(value, int | float)}

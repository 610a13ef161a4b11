"""Marked blocks read again on both machines at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from harness.inspection.machine import InspectedNode
from harness.judgement.readings import classified
from harness.model import SECTORS_PER_BLOCK, Extent, blocks_of, extents_of
from harness.model.block_runs import lowest
from harness.model.inspection import BlockReadings

READINGS = 3
PAUSE_SECONDS = 1.0
#: So many blocks are read again, 256 MiB: of more it is enough to know what became of these.
MOST_BLOCKS = 65_536
# A slow disk under load, and the machine's Python.
_BYTES_PER_SECOND = 2 * 2**20
_START_SECONDS = 120.0


def read_again(a: tuple[InspectedNode, str], b: tuple[InspectedNode, str], marked: Iterable[Extent]) -> BlockReadings:
    """What became of the ``marked`` blocks on both lower devices (each machine with the path of its own).

    Data begin at the first byte of a lower device, wherever DRBD's metadata are.  Blocks for some seconds, and half a
    second for each MiB at most; :class:`~harness.errors.InfrastructureError` where a device cannot be read.
    """
    every = blocks_of(marked)
    blocks = lowest(every, MOST_BLOCKS)
    runs = [[one.start // SECTORS_PER_BLOCK, one.size // SECTORS_PER_BLOCK] for one in extents_of(blocks)]
    # In front of the program, as its standard input: an argument has at most 128 KiB, and these may be a megabyte.
    before = f"RUNS = {runs}\n"
    asked = {"readings": READINGS, "pause": PAUSE_SECONDS}
    seconds = _START_SECONDS + READINGS * (PAUSE_SECONDS + len(blocks) * 4096 / _BYTES_PER_SECOND)
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(node.ask, "blocks", {**asked, "path": lower}, seconds, before) for node, lower in (a, b)]
        sides = [[bytes.fromhex(one) for one in side.result()["readings"]] for side in both]
    found = classified(blocks, sides[0], sides[1], time.monotonic() - began)
    return replace(found, not_read=extents_of(every - {*blocks}))

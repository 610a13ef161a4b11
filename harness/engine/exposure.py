"""How many block writes were exposed to the race, by DRBD's own counters."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence

from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.judgement.oracles import KIB_PER_BLOCK
from harness.model import Counters, Crash


class Exposure:
    """The counters of both nodes as they were read during the cell."""

    def __init__(self, context: CellContext) -> None:
        self._context = context
        self._read: dict[str, list[Counters]] = {}

    def count(self) -> None:
        """Read the counters of both nodes; a node that does not answer keeps what was read before."""
        for node in self._context.nodes:
            with contextlib.suppress(HarnessError):
                self._read.setdefault(node.name, []).append(self._context.resource.status(node)[1])

    def blocks(self) -> int:
        """How many 4 KiB block writes DRBD sent since the cell began.

        DRBD counts what it sent anew with each connection; where one was lost, what ``a`` wrote to its disk is counted.
        After a power cut only what was sent before it.
        """
        context, alarms = self._context, self._context.evidence.alarms
        if context.cell.crash is not Crash.NODE and alarms is not None and alarms.drops:
            return _grown(self._read[context.lab.a.name], lambda one: one.disk_write_kib) // KIB_PER_BLOCK
        return sum(_grown(read, lambda one: one.sent_kib) for read in self._read.values()) // KIB_PER_BLOCK


def _grown(read: Sequence[Counters], counter: Callable[[Counters], int]) -> int:
    """How far a counter went; one that went back began anew, with its connection or its node."""
    values = [counter(one) for one in read]
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(values))

"""What the work exposed to the race: block writes that DRBD sent meanwhile, and the distinct blocks that changed.

Counted is what happens between the preparation of the workload and the moment when all of it is written.  What a
resync copies is no write of the workload's: whoever lets the replicas find together again in the middle of the work
pauses the count (:meth:`Exposure.pause`).
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.engine.capture import LogCapture
from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.filesystems.base import WorkloadTarget
from harness.judgement.oracles import KIB_PER_BLOCK
from harness.lab.backing_compare import changed_blocks
from harness.lab.node import Node
from harness.model import Counters, Crash, Written
from harness.remote.guest_system import system_of

#: The counters of one node, in the order they were read, in a time in which nothing was resynced on purpose.
Stretch = list[Counters]


class Exposure:
    """The counters of both nodes, and digests of ``a``'s blocks, as they were read around the work."""

    def __init__(self, context: CellContext, capture: LogCapture) -> None:
        self._context = context
        self._capture = capture
        self._stretches: dict[str, list[Stretch]] = {}
        self._begun = self._counting = self._ended = False
        # How often the connection was lost on purpose.
        self._announced_drops = 0
        self._written: Written | None = None
        self._digests = b""

    # ------------------------------------------------------------------------------------------ around the work

    def prepared(self, target: WorkloadTarget, writer: Node) -> None:
        """All that was prepared is written, on both replicas: digest ``a``'s blocks and look whether they are equal.

        Seconds for each GiB of the device; what waits in the caches of client and ``writer`` is written before that.
        """
        context = self._context
        with context.phase("exposure"):
            system_of(target.runner).sync(target.runner)
            context.resource.sync(writer)
            began = time.monotonic()
            self._digests = context.lab.block_digests(context.lab.a, context.resource.blocks)
            unequal = context.lab.compare(context.resource.blocks).differing
            took = time.monotonic() - began
            self._written = Written(context.lab.a.name, context.resource.blocks, (), unequal, took)

    def begin(self) -> None:
        """The work begins."""
        self._begun = True
        self.resume()

    def end(self, writer: Node | None = None) -> None:
        """Everything is written, or was when the work was cut short; only the first call counts.

        ``writer``: the node whose caches may still hold something of it; None where nothing is left to be written.
        """
        if not self._begun or self._ended:
            return
        context, written = self._context, self._written
        if writer is not None:
            context.resource.sync(writer)
        if self._counting:
            self._read()
        self._counting, self._ended = False, True
        context.note(exposed_blocks=self.blocks())
        if written is not None:
            began = time.monotonic()

            def compare(after: bytes) -> None:
                seconds = written.seconds + time.monotonic() - began
                context.note(written=replace(written, changed=changed_blocks(self._digests, after), seconds=seconds))

            context.when_readable(context.lab.a, compare)

    # ------------------------------------------------------------------------------------------ resyncs in its middle

    def pause(self, *, drops: int = 0) -> None:
        """From here on until :meth:`resume` nothing counts: the replicas are about to lose each other.

        ``drops``: how often the connection is going to be lost for it.
        """
        if self._counting:
            self._read()
            self._announced_drops += drops
            self._counting = False

    def resume(self) -> None:
        """The replicas are one again, and what had to be resynced is: what is written counts from here on."""
        if self._begun and not self._counting and not self._ended:
            for node in self._context.nodes:
                self._stretches.setdefault(node.name, []).append([])
            self._counting = True
            self._read()

    def _read(self) -> None:
        """Read the counters of both nodes; a node that does not answer keeps what was read before."""
        for node in self._context.nodes:
            with contextlib.suppress(HarnessError):
                self._stretches[node.name][-1].append(self._context.resource.status(node)[1])

    def blocks(self) -> int:
        """How many 4 KiB block writes DRBD sent while it was counted.

        DRBD counts what it sent anew with each connection.  Where one was lost that nobody announced, what ``a`` wrote
        to its disk is counted; a resync from there only reads it.
        """
        context = self._context
        if context.cell.crash is not Crash.NODE and self._capture.alarms().drops > self._announced_drops:
            stretches = self._stretches[context.lab.a.name]
            return sum(_grown(read, lambda one: one.disk_write_kib) for read in stretches) // KIB_PER_BLOCK
        everywhere = itertools.chain.from_iterable(self._stretches.values())
        return sum(_grown(read, lambda one: one.sent_kib) for read in everywhere) // KIB_PER_BLOCK


def _grown(read: Sequence[Counters], counter: Callable[[Counters], int]) -> int:
    """How far a counter went; one that went back began anew, with its connection or its node."""
    values = [counter(one) for one in read]
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(values))

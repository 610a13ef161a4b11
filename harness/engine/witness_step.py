"""The witness around a cell's work: on each node that the client may write on, from just before the work to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.drbd.witness import READY_SECONDS, REPORT_SECONDS, WitnessProgram
from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.lab.node import Node
from harness.model import Witness
from harness.parse.witness import total
from harness.util.deadline import Deadline


class WitnessStep:
    """Which writes changed in flight.  A witness that fails never fails the cell: the evidence then says why."""

    def __init__(self, context: CellContext) -> None:
        self._context = context
        self._programs: list[WitnessProgram] = []
        self._missing: list[str] = []
        self._reports: list[Witness] = []

    def start(self, *, on_both: bool = False) -> None:
        """Watch each node that may become Primary in the cell, or both; takes some seconds, at most READY_SECONDS."""
        with self._context.phase("witness"):
            started = []
            for node in self._context.nodes if on_both else self._may_write():
                with self._noting(node):
                    started.append(WitnessProgram(node, self._context.resource.spec.minor))
            deadline = self._context.deadline.sooner(READY_SECONDS, "the start of the witness")
            for program in started:
                with self._noting(program.node):
                    program.wait_ready(deadline)
                    self._programs.append(program)
            self._note()

    def read(self, writer: Node) -> None:
        """All that was written is on its way to both replicas: stop watching and keep what was counted.

        ``writer`` is the node that the client is on now; what is dirty in its page cache is part of the work.
        """
        if not self._programs:
            return
        with self._context.phase("witness"):
            with self._noting(writer):
                self._context.resource.sync(writer)
            self._stop()

    def node_dies(self, node: Node) -> None:
        """What was counted there goes with the node's power."""
        for program in [one for one in self._programs if one.node is node]:
            self._programs.remove(program)
            self._missing.append(f"{node.name} lost its power, and with it what was counted there until then")
            self._keep_printed(program)
        self._note()

    def abandon(self) -> None:
        """The cell failed: what was counted until now is kept where the nodes still answer."""
        if self._programs:
            self._stop()

    def _stop(self) -> None:
        # Its own time: a cell that used up all of its own still has counts worth keeping.
        deadline = Deadline.after(REPORT_SECONDS, "the report of the witness")
        for program in self._programs:
            with self._noting(program.node):
                self._reports.append(program.read(deadline))
            self._keep_printed(program)
        self._programs = []
        self._note()

    def _may_write(self) -> tuple[Node, ...]:
        cell, (a, b) = self._context.cell, self._context.nodes
        return (a, b) if cell.has_canary or cell.replication.two_primaries else (a,)

    @contextlib.contextmanager
    def _noting(self, node: Node) -> Iterator[None]:
        try:
            yield
        except HarnessError as error:
            self._missing.append(f"{node.name}: {error}")

    def _note(self) -> None:
        self._context.note(witness=total(self._reports, self._missing))

    def _keep_printed(self, program: WitnessProgram) -> None:
        self._context.attempt.write_raw(f"witness-{program.node.name}.txt", program.printed())

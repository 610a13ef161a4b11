"""What the machines print while a cell runs: both kernels' logs, DRBD's events, the guest's console."""

from __future__ import annotations

import contextlib
import time

from harness.config.lab_spec import GuestSpec
from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.guest.console import console_since, console_size
from harness.lab.node import Node
from harness.model import Alarms
from harness.parse.alarms import alarms_of, first_digest_to_split_brain
from harness.parse.events2 import skipped
from harness.parse.guest_console import error_lines as console_errors
from harness.parse.kernel_log import KernelLine, error_lines, left_out, missing
from harness.parse.log_flood import some_of_each_kind


class LogCapture:
    """Knows where the cell begins in each log; all maps are by the name of the node."""

    def __init__(self, context: CellContext) -> None:
        self._context = context
        self._kernel_from: dict[str, int] = {}
        # The same from where the preconditions held: what was done to reach them is no alarm of the cell.
        self._watched_from: dict[str, int] = {}
        self._events_from = 0
        self._watched_since = time.monotonic()
        # What the kernel of a node printed before its power was cut: in this cell, and since the preconditions held.
        self._before_cut: dict[str, tuple[KernelLine, ...]] = {}
        self._watched_before_cut: dict[str, tuple[KernelLine, ...]] = {}
        self._counted_before_cut: dict[str, tuple[KernelLine, ...]] = {}
        self._consoles: dict[str, int] = {}
        self._console_text: list[str] = []

    # ------------------------------------------------------------------------------------------ where it begins

    def begin(self) -> None:
        """The cell begins in both kernel logs; waits until a marker of it came back from each."""
        context = self._context
        self._kernel_from = {node.name: node.log.mark(f"{context.cell.id} begins") for node in context.nodes}
        for node in context.nodes:
            # Nobody reads what was logged before; a lab that stays up would keep it all.
            node.log.begin(self._kernel_from[node.name])
            context.resource.events(node).begin()
        # For now: where the preconditions are never reached, the alarms of the cell are those on the way to them.
        self._watched_from = dict(self._kernel_from)
        self._events_from = context.resource.events(context.lab.a).cursor()

    def preconditions_hold(self) -> None:
        """From here on what DRBD and the kernels notice is the cell's."""
        context = self._context
        self._watched_from = {node.name: node.log.mark(f"{context.cell.id} is watched") for node in context.nodes}
        self._events_from = context.resource.events(context.lab.a).cursor()
        self._watched_since = time.monotonic()

    def follow_consoles(self) -> None:
        """The guest's console is the cell's from here on, on both nodes: a test of somebody's own may move it too."""
        self._consoles = {node.name: console_size(node, self._context.lab.guest_spec) for node in self._context.nodes}

    def node_dies(self, node: Node) -> None:
        """Keep what the node's kernel logged before its power is taken away; its log begins anew with its next boot."""
        cursor = self._kernel_from.get(node.name, 0)
        self._context.attempt.write_raw(f"kmsg-{node.name}-before-power-cut.txt", node.log.raw(cursor))
        self._before_cut[node.name] = node.log.lines(cursor)
        self._counted_before_cut[node.name] = node.log.counted(cursor)
        self._watched_before_cut[node.name] = self._since_boot(node)
        self._kernel_from[node.name] = self._watched_from[node.name] = 0
        if node is self._context.lab.a:
            self._events_from = 0

    def node_is_back(self, node: Node) -> None:
        """A guest that comes to the node writes behind what its console file holds already."""
        self._consoles[node.name] = console_size(node, self._context.lab.guest_spec)

    def console_is_gone(self, node: Node) -> None:
        """The guest's console on a node that lost its power is not read any more."""
        self._consoles.pop(node.name, None)

    # ------------------------------------------------------------------------------------------ what they logged

    def kernel_logs(self) -> tuple[tuple[KernelLine, ...], tuple[KernelLine, ...]]:
        """Both kernels' logs so far, since the preconditions held; before a power cut too."""
        nodes = self._context.nodes
        a, b = ((*self._watched_before_cut.get(node.name, ()), *self._since_boot(node)) for node in nodes)
        return a, b

    def alarms(self) -> Alarms:
        """What DRBD itself noticed since the preconditions held."""
        context = self._context
        events, events_from = context.resource.events(context.lab.a).complete(self._events_from)
        return alarms_of(
            *self.kernel_logs(), events,
            resource=context.resource.spec.name, minor=context.resource.spec.minor,
            algorithm=context.cell.replication.integrity, events_from=events_from,
            watched_seconds=time.monotonic() - self._watched_since, nodes=(context.lab.a.name, context.lab.b.name),
        )  # fmt: skip

    def digest_to_split_brain_seconds(self) -> float | None:
        """From the first digest failure to the split brain, by one kernel's clock; None where there was none."""
        # Each boot has a clock of its own.
        boots = [*self._watched_before_cut.values(), *map(self._since_boot, self._context.nodes)]
        times = map(first_digest_to_split_brain, boots)
        return min((took for took in times if took is not None), default=None)

    def _since_boot(self, node: Node) -> tuple[KernelLine, ...]:
        return node.log.lines(self._watched_from.get(node.name, 0))

    # ------------------------------------------------------------------------------------------ what is kept

    def close(self) -> None:
        """Keep both kernel logs of the whole cell and look for errors and holes in them."""
        context = self._context
        found: list[str] = []
        holes = repetitions = 0
        for node in context.nodes:
            cursor = self._kernel_from.get(node.name, 0)
            node.log.mark(f"{context.cell.id} ended")
            context.attempt.write_raw(f"kmsg-{node.name}.txt", node.log.raw(cursor))
            lines = node.log.lines(cursor)
            before = self._before_cut.get(node.name, ())
            found += (f"{node.name}: {line}" for line in some_of_each_kind(error_lines((*before, *lines))))
            # Each boot counts its messages anew.
            for counted in (node.log.counted(cursor), self._counted_before_cut.get(node.name, ())):
                holes += missing(counted)
                repetitions += left_out(counted)
        context.note(
            kernel_errors=tuple(found), log_holes=holes, log_left_out=repetitions, events_lost=self._events_lost(),
            events_left_out=context.resource.events(context.lab.a).left_out,
        )  # fmt: skip

    def _events_lost(self) -> tuple[str, ...]:
        """What of the events that the alarms are made from was lost, in sentences."""
        node = self._context.lab.a
        events = self._context.resource.events(node)
        stream, lost = events.stream, skipped(events.stream.since(self._events_from))
        found = [f"{lost} events of {node.name} were skipped"] if lost else []
        found += [f"{events.lost} events of {node.name} were more than can be kept"] if events.lost else []
        return (*found, *([f"the events of {node.name} ended: {stream.ended}"] if stream.ended is not None else []))

    def keep_kernel_logs(self) -> None:
        """Keep the kernel logs as far as they arrived; asks the nodes nothing, so it works on a broken lab."""
        for node in self._context.nodes:
            with contextlib.suppress(HarnessError, OSError):
                raw = node.log.raw(self._kernel_from.get(node.name, 0))
                self._context.attempt.write_raw(f"kmsg-{node.name}.txt", raw)

    def keep_console(self) -> None:
        """Keep what the guest's console printed since it was last kept, and look for errors in it."""
        for node in self._context.nodes:
            if node.name not in self._consoles:
                continue
            printed = _printed(node, self._context.lab.guest_spec, self._consoles[node.name])
            with contextlib.suppress(HarnessError):
                self._consoles[node.name] = console_size(node, self._context.lab.guest_spec)
            if printed:
                self._console_text.append(printed)
        if self._console_text:
            everything = "".join(self._console_text)
            self._context.attempt.write_raw("guest-console.txt", everything)
            self._context.note(console_errors=console_errors(everything))

    @property
    def console_kept(self) -> str:
        """What of the guest's console was kept so far."""
        return "".join(self._console_text)


def _printed(node: Node, spec: GuestSpec, begins: int) -> str:
    try:
        printed = console_since(node, spec, begins)
    except HarnessError as error:
        return f"== the guest's console on {node.name} is unreadable: {error}\n"
    return f"== the guest's console on {node.name}\n{printed}\n" if printed.strip() else ""

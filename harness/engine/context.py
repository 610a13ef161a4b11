"""What every step of one attempt at one cell shares: lab, resource, evidence so far, phases, deadline."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from harness.drbd.resource import Resource
from harness.errors import (
    CommandError,
    DeadlineError,
    HarnessError,
    InfrastructureError,
    LostGuestError,
    LostNodeError,
    RefusedError,
    WorkloadFailedError,
)
from harness.guest.canary import Region
from harness.judgement.judge import REFUSED, WORKLOAD_FAILED
from harness.lab.base import FullLab
from harness.lab.node import Node
from harness.model import BLOCK_BYTES, Cell, Evidence, Failure, SplitBrain
from harness.store import Attempt
from harness.util.deadline import Deadline
from harness.util.logs import progress

# For the oracles and the repair of a cell: the reconciliation, then a verify and resyncs of the whole device at a
# quarter of what an emulated node does (20 to 29 MB/s).
ORACLE_SECONDS = 420.0
ORACLE_MIB_PER_SECOND = 5.0

# Where a no is an answer: DRBD to the cell's replication profile, QEMU to its disk, a client to its filesystem.
_MAY_BE_REFUSED = ("replication", "attach", "prepare")
BUG = "bug"
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (RefusedError, REFUSED),
    (LostNodeError, "lost-node"),
    (LostGuestError, "lost-guest"),
    (DeadlineError, "deadline"),
    (CommandError, "command"),
    (WorkloadFailedError, WORKLOAD_FAILED),
    (KeyboardInterrupt, "interrupted"),
    (HarnessError, "infrastructure"),
)


class CellContext:
    """One attempt at one cell over a resource that is up.  Facts gather in ``evidence``."""

    def __init__(self, lab: FullLab, resource: Resource, attempt: Attempt) -> None:
        self.lab = lab
        self.resource = resource
        self.cell: Cell = attempt.cell
        self.attempt = attempt
        self.evidence = Evidence(self.cell, attempt.number, now(), lab=lab.id, device_blocks=resource.blocks)
        # A user's guest image may take long to boot again.
        image = lab.guest_spec.image
        again = self.cell.crash is not None or not self.cell.bus.hot_plugged
        more: float = image.boot_seconds * (again + self.cell.filesystem.boots) if image.there else 0
        # And a machine that is no virtual one.
        more += lab.boot_seconds if self.cell.cuts_power else 0.0
        # Of a migration, that of the read-back too, the time is its memory's.
        moves = self.migration_seconds - self.cell.migration_deadline if self.cell.migrations else 0.0
        more += moves * (self.cell.migrations + 1)
        self.deadline = Deadline.after(self.cell.deadline + more, f"the cell {self.cell.id}")
        #: The first time that a node was StandAlone and changes had to be discarded; None where that never was.
        self.split_brain: SplitBrain | None = None
        # What waits for the digests of a replica, by the name of its node.
        self._unread: list[tuple[str, Callable[[bytes], None]]] = []
        self._phases: dict[str, float] = {}
        self._phase = "begin"

    @property
    def migration_seconds(self) -> float:
        """What each migration may take: as long as the cell says, which is meant for the harness's own small guest."""
        ratio = 1.0 if self.cell.control is not None else self.lab.guest_spec.memory_ratio
        return self.cell.migration_deadline * ratio

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both nodes, ``a`` first."""
        return self.lab.a, self.lab.b

    @property
    def region(self) -> Region:
        """The end of the device, which is the canary's in cells that have one."""
        return Region.at_end(self.resource.blocks, self.lab.guest_spec.canary_blocks)

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, so far."""
        return dict(self._phases)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside under ``name`` and name it in a failure.

        :class:`~harness.errors.DeadlineError` when the cell's time is over already.
        """
        self._phase = name
        progress(f"{self.cell.id}: {name}")
        self.deadline.left()
        began = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + time.monotonic() - began

    def begin_oracles(self) -> None:
        """From here on the time of the oracles counts, whatever is left of the cell's: it grows with the device.

        A cell that is late is compared all the same, and nothing overwrites a replica before that.
        """
        mebibytes = self.resource.blocks * BLOCK_BYTES / 2**20
        seconds = ORACLE_SECONDS + mebibytes / ORACLE_MIB_PER_SECOND
        self.deadline = Deadline.after(seconds, f"the oracles of the cell {self.cell.id}")

    def note(self, **facts: object) -> None:
        """Add facts to the evidence."""
        self.evidence = replace(self.evidence, **facts)  # type: ignore[arg-type]

    def log_event(self, what: str) -> None:
        """Keep a sentence about what was done to the lab on purpose, or how it was put right."""
        progress(f"{self.cell.id}: {what}")
        self.note(event_log=(*self.evidence.event_log, what))

    def log_fault(self, what: str) -> None:
        """The cell's fault or crash happened; keep a sentence about it."""
        self.note(fault_injected=True)
        self.log_event(what)

    def fail(self, error: BaseException) -> None:
        """Record why there is no answer; the first reason stays."""
        if self.evidence.failure is not None:
            return
        kind = next((name for kind, name in _KINDS if isinstance(error, kind)), BUG)
        if kind == BUG:
            # Its place is worth more than its message, and the evidence has room for a sentence only.
            logging.getLogger(__name__).error("a bug in the phase %s", self._phase, exc_info=error)
        if kind == REFUSED and self._phase not in _MAY_BE_REFUSED:
            # DRBD also refuses steps of ours: that is no answer about the cell.
            kind = "command"
        said = "the run was interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        self.note(failure=Failure(kind, self._phase, said or "an error without a message"))

    def when_readable(self, node: Node, then: Callable[[bytes], None]) -> None:
        """Call ``then`` with the digests of all blocks of ``node``'s lower device.

        Now, where it can be read; else once the node has its power again, before DRBD is up on it: what it holds is
        then what it held.  A node that does not come back is never read.
        """
        if self.lab.readable(node):
            then(self.lab.block_digests(node, self.resource.blocks))
        else:
            self._unread.append((node.name, then))

    def waits_for(self, node: Node) -> bool:
        """Whether something waits for ``node``'s lower device to be readable."""
        return any(name == node.name for name, _ in self._unread)

    def read_returned(self, node: Node) -> None:
        """``node`` has its power again, and DRBD is not up there yet: read what waits for that.

        The cell fails where it cannot be read, which is no reason to leave the node away.
        """
        waiting = [then for name, then in self._unread if name == node.name]
        self._unread = [(name, then) for name, then in self._unread if name != node.name]
        if not waiting:
            return
        try:
            digests = self.lab.block_digests(node, self.resource.blocks)
            for then in waiting:
                then(digests)
        except HarnessError as error:
            self.fail(error)

    def differing_blocks(self) -> int:
        """How many 4 KiB blocks of the two backing devices differ now, by a comparison outside DRBD."""
        return self.lab.compare(self.resource.blocks).differing_blocks


@contextlib.contextmanager
def unreadable_is_failure() -> Iterator[None]:
    """Turns what a parser raises into an error that ends up in the evidence, as a sentence.

    What a machine printed is no bug of ours where it prints something else than it did on those that were recorded;
    where it is one, its place is in the log.  :class:`~harness.errors.InfrastructureError` for a :class:`ValueError`.
    """
    try:
        yield
    except ValueError as error:
        logging.getLogger(__name__).error("something that a machine printed cannot be read", exc_info=error)
        said = " ".join(str(error).split())
        raise InfrastructureError(f"something that a machine printed cannot be read: {said}") from error


def now() -> str:
    """This moment, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

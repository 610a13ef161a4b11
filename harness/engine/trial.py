"""One attempt at one cell: the steps that a cell is made of, and the facts that gather on the way.

:mod:`harness.engine.cell_run` puts them in order, :mod:`harness.engine.disturbances.migrations` and
 :mod:`harness.engine.disturbances.crash` in the middle of the work.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from harness.drbd import replication, roles
from harness.drbd.resource import Resource
from harness.engine.disturbances import faults
from harness.errors import CommandError, DeadlineError, HarnessError, LostGuestError, LostNodeError, RefusedError
from harness.filesystems.base import OwnedBlock, summary
from harness.guest.canary import CanaryWatch, Region
from harness.guest.domain import AttachedDisk, Guest, console_since, console_size, observe_node
from harness.judgement.judge import REFUSED
from harness.judgement.oracles import KIB_PER_BLOCK
from harness.lab.backing_compare import owned
from harness.lab.base import Lab
from harness.lab.node import Node
from harness.model import (
    SECTORS_PER_BLOCK,
    Alarms,
    BlockOwner,
    Counters,
    Crash,
    Evidence,
    Failure,
    Fault,
    ReplicationProfile,
    SplitBrain,
    State,
    blocks_of,
)
from harness.parse.alarms import alarms_of, first_digest_to_split_brain
from harness.parse.guest_console import error_lines as console_errors
from harness.parse.kernel_log import KernelLine, error_lines, missing, split_brain
from harness.store import Attempt
from harness.util.deadline import Deadline
from harness.workloads.base import WorkloadTarget

MAX_SAMPLES = 16
DIVIDE = "/usr/lib/drbd-harness/divide"

Owning = Callable[[WorkloadTarget, list[int]], Mapping[int, OwnedBlock]]


class Trial:
    """One attempt at one cell over a resource that is up.  Facts gather in ``evidence``."""

    def __init__(self, lab: Lab, resource: Resource, attempt: Attempt, progress: Callable[[str], None]) -> None:
        self.lab = lab
        self.resource = resource
        self.cell = attempt.cell
        self.attempt = attempt
        self.evidence = Evidence(self.cell, attempt.number, _now(), lab=lab.id, device_blocks=resource.blocks)
        self.deadline = Deadline.after(self.cell.deadline, f"the cell {self.cell.id}")
        self._progress = progress
        self._phases: dict[str, float] = {}
        self._phase = "begin"
        self.guest: Guest | None = None
        self.watch: CanaryWatch | None = None
        self._disk: AttachedDisk | None = None
        # By the name of the node: where this cell begins in its kernel log, its guest console, and its counters.
        self._kernel_cursors: dict[str, int] = {}
        # The same from where the preconditions held: what was done to reach them is no alarm of the cell.
        self._watched_from: dict[str, int] = {}
        self._consoles: dict[str, int] = {}
        self._counters: dict[str, list[Counters]] = {}
        self._events_from = 0
        # What the kernel of a node said before its power was cut: in this cell, and since the preconditions held.
        self._before_cut: dict[str, tuple[KernelLine, ...]] = {}
        self._watched_before_cut: dict[str, tuple[KernelLine, ...]] = {}
        self._console_text: list[str] = []
        self._delayed_nodes: set[str] = set()
        self._began = time.monotonic()
        #: When the cell's crash happened, by :func:`time.monotonic`.
        self.crashed = 0.0
        self._faults = contextlib.ExitStack()

    # ------------------------------------------------------------------------------------------ bookkeeping

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside under ``name`` and name it in a failure."""
        self._phase = name
        self._progress(f"{self.cell.id}: {name}")
        self.deadline.left()
        began = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + time.monotonic() - began

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both nodes, ``a`` first."""
        return self.lab.a, self.lab.b

    @property
    def region(self) -> Region:
        """The end of the device, which is the canary's in cells that have one."""
        return Region.at_end(self.resource.blocks)

    def log_event(self, what: str) -> None:
        """Keep a sentence about what was done to the lab on purpose, or how it was mended."""
        self._progress(f"{self.cell.id}: {what}")
        self.note(event_log=(*self.evidence.event_log, what))

    def log_fault(self, what: str) -> None:
        """The cell's fault or crash happened; keep a sentence about it."""
        self.note(fault_injected=True)
        self.log_event(what)

    @property
    def disk(self) -> AttachedDisk | None:
        """The disk as the guest has it now."""
        return self._disk

    def note(self, **facts: object) -> None:
        """Add facts to the evidence."""
        self.evidence = replace(self.evidence, **facts)  # type: ignore[arg-type]

    def fail(self, error: BaseException) -> None:
        """Record why there is no answer; the first reason stays."""
        if self.evidence.failure is None:
            kind = _kind(error)
            if kind == REFUSED and self._phase not in _MAY_BE_REFUSED:
                # DRBD also says no to steps of ours: that is no answer about the cell.
                kind = "command"
            self.note(failure=Failure(kind, self._phase, str(error) or type(error).__name__))

    def finish(self) -> Evidence:
        """Complete the evidence and keep it."""
        if self.watch is not None:
            try:
                self.keep_canary()
            except HarnessError as error:
                self.fail(error)
            finally:
                self.watch.close()
        self.note(finished_at=_now(), phases=dict(self._phases))
        self.attempt.save(self.evidence)
        return self.evidence

    # ------------------------------------------------------------------------------------------ the steps

    def begin(self) -> None:
        """Preconditions: healthy, nothing out of sync, replicas equal; the capture of both kernel logs starts."""
        with self.phase("begin"):
            self._kernel_cursors = {node.name: node.log.mark(f"{self.cell.id} begins") for node in self.nodes}
            # For now: where the preconditions are never reached, the alarms of the cell are those on the way to them.
            self._watched_from = dict(self._kernel_cursors)
            self._events_from = self.resource.events(self.lab.a).cursor()
            if self.cell.fault is Fault.STANDALONE:
                faults.stand_alone(self.resource)
                self.log_fault("both nodes were made StandAlone before the cell")
            if mended := roles.restore_baseline(
                self.resource, self.deadline.sooner(roles.SETTLE_SECONDS, "the return to the baseline")
            ):
                self.log_event(mended)
        with self.phase("replication"):
            replication.apply(self.resource, self.cell.replication)
        with self.phase("begin"):
            state, counters = self.resource.status()
            equal = counters.out_of_sync_kib == 0 and self._differing() == 0
            if state.healthy and not equal:
                self.resource.repair(self._differing)
                state, counters = self.resource.status()
                equal = counters.out_of_sync_kib == 0 and self._differing() == 0
            self.count()
            self._watched_from = {node.name: node.log.mark(f"{self.cell.id} is watched") for node in self.nodes}
            self._events_from = self.resource.events(self.lab.a).cursor()
            self._began = time.monotonic()
            self.note(before=state, equal_before=equal)

    def take_host(self) -> WorkloadTarget:
        """The node itself is the client."""
        with self.phase("attach"):
            observed = replace(observe_node(self.lab.a, self.resource.device), replication=self._replication())
            self.note(observed=observed)
            return self._primary()

    def take_guest(self, guest: Guest) -> WorkloadTarget:
        """The guest is the client: attach the disk and read back what was really opened."""
        with self.phase("attach"):
            # On both nodes: a test of somebody's own may move the guest too.
            self._consoles = {node.name: console_size(node) for node in self.nodes}
            self.attach_disk(guest)
            assert self._disk is not None
            observed = guest.observe(self._disk, self.resource.device)
            self.note(observed=replace(observed, replication=self._replication()))
            return self.target()

    def attach_disk(self, guest: Guest) -> None:
        """Attach the disk to ``guest``, which from now on is the cell's."""
        self.guest, self._disk = guest, None
        self._disk = guest.attach(self.resource.device, self.cell)
        self._add_partitions()

    def rediscover_disk(self) -> None:
        """Find the disk in the guest again, after a reset."""
        assert self.guest is not None and self._disk is not None
        self._disk = self.guest.located(self._disk)
        self._add_partitions()

    def _add_partitions(self) -> None:
        """Where there is a canary, the kernel of the guest is told of two partitions; the disk has no table of them.

        A kernel lets nobody write to a device that it swaps to, but to the device's other partition.  The workload's
        begins where the disk does, so that its blocks have the same numbers as DRBD's.
        """
        if not self.cell.has_canary:
            return
        assert self.guest is not None and self._disk is not None
        first, rest = (blocks * SECTORS_PER_BLOCK for blocks in (self.region.first_block, self.region.blocks))
        self.guest.agent.run([DIVIDE, self._disk.path, str(first), str(rest)])

    def detach_disk(self) -> None:
        """Detach the disk from the guest, if it has it."""
        if self.guest is not None and self._disk is not None:
            self.guest.detach(self._disk)
            self._disk = None

    def drop_guest(self) -> None:
        """End the guest; the session starts another one where one is needed."""
        if self.guest is not None:
            # What it said is worth keeping, but it must not live on for that.
            with contextlib.suppress(HarnessError):
                self.keep_console()
            self.guest.destroy()
        self.guest_died()

    def guest_died(self) -> None:
        """The guest is gone with what it ran on; so is its hold on the disk."""
        self.guest, self._disk = None, None

    def target(self) -> WorkloadTarget:
        """The workload's part of the disk in the guest."""
        assert self.guest is not None and self._disk is not None
        if not self.cell.has_canary:
            return WorkloadTarget(self.guest.agent, self._disk.path, self.resource)
        return WorkloadTarget(self.guest.agent, f"{self._disk.path}1", self.resource, self.region.first_block)

    @property
    def disk_path(self) -> str:
        """The whole disk in the guest."""
        assert self._disk is not None
        return self._disk.path

    @property
    def canary_device(self) -> str:
        """The canary's partition of the disk in the guest."""
        assert self._disk is not None
        return f"{self._disk.path}2"

    def apply_delays(self) -> None:
        """The cell's delays goes on where the client writes, and nowhere else; what is really on is read back.

        On the other side it would delay the answers too, and so less would be written.
        """
        delays = self.cell.delays
        if delays.undelayed:
            return
        writer = self.guest.node if self.guest is not None else self.lab.a
        for node in self.nodes:
            if node is not writer and node.name in self._delayed_nodes:
                self.resource.apply_delays(0, 0, node)
        self.resource.apply_delays(delays.link_delay_ms, delays.disk_delay_ms, writer)
        self._delayed_nodes.add(writer.name)
        link, disk = self.resource.delays(writer)
        self.note(observed=replace(self.evidence.observed, link_delay_ms=link, disk_delay_ms=disk))

    def clear_delays(self) -> None:
        """Take the delays off again."""
        for node in self.nodes:
            if node.name in self._delayed_nodes:
                self.resource.apply_delays(0, 0, node)
                self._delayed_nodes.remove(node.name)

    def register_fault_cleanup(self, undo: Callable[[], None]) -> None:
        """A fault was inflicted; ``undo`` takes it back at the latest when the cell is over."""
        self._faults.callback(undo)

    def revert_faults(self) -> None:
        """Take back what was inflicted, the newest first."""
        self._faults.close()

    def count(self) -> None:
        """Read the counters of both nodes; a node that does not answer keeps what was read before."""
        for node in self.nodes:
            with contextlib.suppress(HarnessError):
                self._counters.setdefault(node.name, []).append(self.resource.status(node)[1])

    def _exposed_blocks(self) -> int:
        """How many block writes DRBD sent since the cell began.

        DRBD counts what it sent anew with each connection; where one was lost, what ``a`` wrote to its disk is counted.
        After a power cut only what was sent before it.
        """
        if self.cell.crash is not Crash.NODE and self.evidence.alarms is not None and self.evidence.alarms.drops:
            return _grown(self._counters[self.lab.a.name], lambda one: one.disk_write_kib) // KIB_PER_BLOCK
        return sum(_grown(read, lambda one: one.sent_kib) for read in self._counters.values()) // KIB_PER_BLOCK

    def release(self) -> None:
        """Delays off, disk detached, everything flushed, one Primary; counts what was exposed since the beginning."""
        with self.phase("detach"):
            self.clear_delays()
            self.detach_disk()
            if self.guest is not None and self.guest.node is not self.lab.a:
                self.resource.sync(self.guest.node)
                self.drop_guest()
            self.reconcile()
            self.resource.sync()
            if self.cell.crash is not Crash.NODE:
                self.count()
            self.note(exposed_blocks=self._exposed_blocks())

    def reconcile(self) -> None:
        """Both replicas connected and UpToDate, ``a`` the only Primary; keeps what DRBD noticed until then."""
        deadline = self.deadline.sooner(roles.SETTLE_SECONDS, "the reunion of the replicas")
        healthy = roles.wait_healthy_or_standalone(self.resource, deadline)
        alarms = self._alarms()
        if not healthy:
            # The alarms are DRBD's; the repair that follows is ours and belongs to no figure of them.
            split = self._resolve_split_brain(deadline)
            alarms = replace(alarms, split_brain=replace(split, after_seconds=self._until_split()))
        # A connection that was never lost and a digest that nobody asked for are no news.
        if alarms.algorithm or alarms.drops or alarms.detections or alarms.split_brain:
            self.note(alarms=alarms)
        if not healthy or self.cell.has_canary or self.cell.replication.two_primaries or self.evidence.migrations:
            roles.set_single_primary(self.resource, self.lab.a)

    def _resolve_split_brain(self, deadline: Deadline) -> SplitBrain:
        """Both went their own way: keep their words, then let ``b`` give its own changes up."""
        states = roles.states(self.resource)
        for node in self.nodes:
            # What a Secondary has is written, and it lets nobody open its device.
            if node.name in states and states[node.name].local_role == "Primary":
                self.resource.sync(node)
        differing = self._differing()
        victim = self.lab.b
        self.log_event(f"the replicas were apart ({_apart(states)}); {victim.name} gave its own changes up")
        roles.reconnect_discarding(self.resource, victim, deadline)
        return SplitBrain(None, states, differing, victim.name, True)

    def _logged(self) -> tuple[tuple[KernelLine, ...], tuple[KernelLine, ...]]:
        """Both kernels' logs so far, since the preconditions held."""
        a, b = ((*self._watched_before_cut.get(node.name, ()), *self._since_boot(node)) for node in self.nodes)
        return a, b

    def _since_boot(self, node: Node) -> tuple[KernelLine, ...]:
        return node.log.lines(self._watched_from.get(node.name, 0))

    def reconcile_after(self, victim: Node, when: str) -> None:
        """Wait until both are whole again; where they do not manage it by themselves ``victim``'s own changes go."""
        deadline = Deadline.after(roles.SETTLE_SECONDS, f"the reunion {when}")
        if roles.wait_healthy_or_standalone(self.resource, deadline):
            return
        split = any(split_brain(lines) for lines in self._logged())
        what = "split brain" if split else "the nodes gave each other up"
        self.log_event(f"{what} {when}; {victim.name} gave its own changes up")
        roles.reconnect_discarding(self.resource, victim, deadline)

    def _alarms(self) -> Alarms:
        return alarms_of(
            *self._logged(), self.resource.events(self.lab.a).stream.since(0), resource=self.resource.spec.name,
            minor=self.resource.spec.minor, algorithm=self.cell.replication.integrity, events_from=self._events_from,
            watched_seconds=time.monotonic() - self._began,
        )  # fmt: skip

    def _until_split(self) -> float | None:
        # Each boot has a clock of its own.
        boots = [*self._watched_before_cut.values(), *map(self._since_boot, self.nodes)]
        times = map(first_digest_to_split_brain, boots)
        return min((took for took in times if took is not None), default=None)

    def run_oracles(self) -> None:
        """The three oracles: verify, counter, comparison."""
        with self.phase("verify"):
            verify, raw_a, raw_b = self.resource.verify()
            self.attempt.write_raw("kmsg-verify-source.txt", raw_a)
            self.attempt.write_raw("kmsg-verify-target.txt", raw_b)
            state, counters = self.resource.status()
            self.note(verify=verify, counter_kib=counters.out_of_sync_kib, after=state)
            for node in (self.lab.a, self.lab.b):
                for what, text in self.resource.raw_status(node).items():
                    self.attempt.write_raw(f"drbd-{what}-{node.name}.txt", text)
        with self.phase("compare"):
            self.note(comparison=self.lab.compare(self.resource.blocks))

    def classify_differences(self, owning: Owning, method: str) -> None:
        """Samples and owners of what differs, and owners of what the guest read differently."""
        comparison, readback = self.evidence.comparison, self.evidence.readback
        if comparison is not None and comparison.differing:
            with self.phase("explain"):
                blocks = sorted(blocks_of(comparison.differing))
                whose = self._whose(owning, blocks)
                found = self.lab.sample(blocks[:MAX_SAMPLES])
                samples = (owned(one, whose[one.block].owner, whose[one.block].detail) for one in found)
                self.note(samples=tuple(samples), ownership=summary(whose, method))
        if readback is not None and readback.differing:
            with self.phase("explain"):
                whose = self._whose(owning, sorted(blocks_of(readback.differing)))
                self.note(readback=replace(readback, ownership=summary(whose, method)))

    def _whose(self, owning: Owning, blocks: list[int]) -> Mapping[int, OwnedBlock]:
        """The workload knows whose its blocks are; those behind them are the canary's."""
        target = self._primary()
        mine = [block for block in blocks if block < target.own_blocks]
        rest = [block for block in blocks if block >= target.own_blocks]
        return {
            **owning(target, mine),
            **{block: OwnedBlock(BlockOwner.ALLOCATED, "a record of the canary") for block in rest},
        }

    def repair(self) -> None:
        """Make the replicas equal again where they are not, and progress whether the comparison agrees."""
        comparison, counter = self.evidence.comparison, self.evidence.counter_kib
        if counter == 0 and comparison is not None and not comparison.differing:
            return
        with self.phase("repair"):
            self.note(repair=self.resource.repair(self._differing))

    def close_logs(self) -> None:
        """Keep both kernel logs of the whole cell and look for error in them."""
        found: list[str] = []
        holes = 0
        for node in self.nodes:
            cursor = self._kernel_cursors.get(node.name, 0)
            node.log.mark(f"{self.cell.id} ended")
            self.attempt.write_raw(f"kmsg-{node.name}.txt", node.log.raw(cursor))
            lines = node.log.lines(cursor)
            before = self._before_cut.get(node.name, ())
            found += (f"{node.name}: {line}" for line in error_lines((*before, *lines)))
            # Each boot counts its messages anew.
            holes += missing(lines) + missing(before)
        self.note(kernel_errors=tuple(found), log_holes=holes)

    def keep_logs(self) -> None:
        """Keep the kernel logs as far as they arrived; asks the nodes nothing, so it works on a broken lab."""
        for node in self.nodes:
            with contextlib.suppress(HarnessError, OSError):
                raw = node.log.raw(self._kernel_cursors.get(node.name, 0))
                self.attempt.write_raw(f"kmsg-{node.name}.txt", raw)

    def node_dies(self, node: Node) -> None:
        """Keep what the node said before its power is taken away; its log begins anew with its next boot."""
        cursor = self._kernel_cursors.get(node.name, 0)
        self.attempt.write_raw(f"kmsg-{node.name}-before-power-cut.txt", node.log.raw(cursor))
        self._before_cut[node.name] = node.log.lines(cursor)
        self._watched_before_cut[node.name] = self._since_boot(node)
        self._kernel_cursors[node.name] = self._watched_from[node.name] = 0
        if self.guest is not None and self.guest.node is node:
            self.keep_console()
        self._consoles.pop(node.name, None)
        if node is self.lab.a:
            self._events_from = 0

    def bring_back(self, node: Node) -> None:
        """Give a node its power back and let it rejoin the resource, as it replicated before."""
        self.lab.revive(node)
        # A guest that comes to it writes behind what its console file holds already.
        self._consoles[node.name] = console_size(node)
        self.resource.rejoin(node)
        replication.reapply_volatile(self.resource, node)

    def keep_console(self) -> None:
        """Keep what the guest's console said since it was last kept, and look for error in it."""
        for node in self.nodes:
            if node.name not in self._consoles:
                continue
            said = _said(node, self._consoles[node.name])
            with contextlib.suppress(HarnessError):
                self._consoles[node.name] = console_size(node)
            if said:
                self._console_text.append(said)
        if self._console_text:
            everything = "".join(self._console_text)
            self.attempt.write_raw("guest-console.txt", everything)
            self.note(console_errors=console_errors(everything))

    def keep_canary(self) -> None:
        """Keep every line of the canary's that reached us."""
        if self.watch is not None:
            self.attempt.write_raw("canary.txt", self.watch.said())

    def rescue(self) -> None:
        """After a failure: nothing of the cell stays on; a guest that holds the disk is ended."""
        with contextlib.suppress(HarnessError):
            self.revert_faults()
        for node in self.nodes:
            with contextlib.suppress(HarnessError):
                self.resource.apply_delays(0, 0, node)
        if self.guest is not None and (self._disk is not None or self.guest.node is not self.lab.a):
            self.drop_guest()
        with contextlib.suppress(HarnessError):
            self.reconcile()

    def _replication(self) -> ReplicationProfile:
        return replication.observed(self.resource, self.lab.a)

    def _primary(self) -> WorkloadTarget:
        blocks = self.region.first_block if self.cell.has_canary else 0
        return WorkloadTarget(self.lab.a.runner, self.resource.device, self.resource, blocks)

    def _differing(self) -> int:
        return self.lab.compare(self.resource.blocks).differing_blocks


# Where a no is an answer: DRBD to the cell's replication, QEMU to its disk.
_MAY_BE_REFUSED = ("replication", "attach")
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (RefusedError, REFUSED),
    (LostNodeError, "lost-node"),
    (LostGuestError, "lost-guest"),
    (DeadlineError, "deadline"),
    (CommandError, "command"),
    (KeyboardInterrupt, "interrupted"),
    (HarnessError, "infrastructure"),
)


def _kind(error: BaseException) -> str:
    return next((name for kind, name in _KINDS if isinstance(error, kind)), "bug")


def _said(node: Node, begins: int) -> str:
    try:
        said = console_since(node, begins)
    except HarnessError as error:
        return f"== the guest's console on {node.name} is unreadable: {error}\n"
    return f"== the guest's console on {node.name}\n{said}\n" if said.strip() else ""


def _grown(read: Sequence[Counters], counter: Callable[[Counters], int]) -> int:
    """How far a counter went; one that went back began anew, with its connection or its node."""
    values = [counter(one) for one in read]
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(values))


def _apart(states: Mapping[str, State]) -> str:
    return "; ".join(f"{name} {one.connection} {one.local_role}/{one.peer_role}" for name, one in states.items())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""One live migration of the guest, driven from here over the libvirt of both nodes.

Both nodes are Primary only for the time of it.  libvirt's safety checks stay on unless a cell asks otherwise by name.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import libvirt

from harness.drbd import roles
from harness.drbd.resource import Resource
from harness.errors import DeadlineError, HarnessError, InfrastructureError, RefusedError
from harness.guest import both_ends
from harness.guest.domain import Guest
from harness.guest.ending import end
from harness.lab.node import Node
from harness.model import Migration, MigrationOutcome
from harness.model.changes import Change, ChangeKind
from harness.parse.migration import figures
from harness.remote.libvirt_calls import RETURN_SECONDS, Bounded, LibvirtConnection
from harness.util import logs
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline, patience

SAMPLE_SECONDS = 0.25
# How long QEMU may take to let go of a migration that was told to end.
ABORT_SECONDS = 30.0

# libvirt refuses before anything moves.
_REFUSALS = (
    libvirt.VIR_ERR_MIGRATE_UNSAFE,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
)


@dataclass(frozen=True)
class MigrationRequest:
    """How a migration is wanted.

    ``seconds`` until it is aborted; ``unsafe`` passes VIR_MIGRATE_UNSAFE; ``bandwidth_mib`` per second, 0: no limit.
    """

    number: int
    seconds: float
    unsafe: bool = False
    bandwidth_mib: int = 0
    during: str = "work"


def migrate(
    guest: Guest,
    resource: Resource,
    target: Node,
    request: MigrationRequest,
    began: float,
    on_precopy: Callable[[], None] | None = None,
) -> Migration:
    """Move ``guest`` to ``target`` and report how it went; a refusal of the stack is an outcome, not an error.

    ``began`` is the moment (:func:`time.monotonic`) that the evidence counts from.  ``on_precopy`` is called once, when
    memory is under way.  Afterwards the guest's node is the only Primary, if both nodes still answer.

    Blocks until the migration has ended: at most ``request.seconds``, and 30 s for its abort; where libvirt hangs then,
    some two minutes more, in which both ends are looked at and ended but for the one on which the guest goes on.
    :class:`~harness.errors.LostGuestError` when it does so on none, :class:`~harness.errors.LostNodeError` when a node
    could not be told.  Commands that other threads run in the guest wait.  What ``on_precopy`` raises ends the
    migration and is raised here.
    """
    source = guest.node
    opened = time.monotonic()
    try:
        try:
            roles.allow_two_primaries(resource, True)
            roles.promote(resource, target)
        except RefusedError as refused:
            moved = _not_opened(resource, str(refused))
        else:
            # Two that do not see each other are both Primary whatever is allowed: the guest would read another's data.
            moved = _move(guest, target, request, on_precopy) if roles.connected(resource) else _not_opened(resource)
    finally:
        # A node that was lost on the way cannot be told; whoever recovers it sets the roles.
        with contextlib.suppress(HarnessError):
            roles.set_single_primary(resource, guest.node)
    closed = time.monotonic()
    start = moved.at or opened
    numbers = figures(moved.completed or {}, moved.samples)
    return Migration(
        request.number, source.name, target.name, moved.outcome, start - began, moved.seconds or closed - start,
        numbers.downtime_ms, numbers.iterations, numbers.transferred_bytes, numbers.memory_bytes,
        numbers.throttle_percent, closed - opened, request.during, moved.message,
    )  # fmt: skip


@dataclass
class _MigrationResult:
    """What came of the call itself."""

    outcome: MigrationOutcome
    message: str = ""
    at: float = 0.0
    seconds: float = 0.0
    completed: Mapping[str, object] | None = None
    samples: tuple[Mapping[str, object], ...] = ()


def _not_opened(resource: Resource, message: str = "") -> _MigrationResult:
    """A refusal is DRBD's answer only while the nodes are connected; else the migration failed."""
    if roles.connected(resource):
        return _MigrationResult(MigrationOutcome.REFUSED, message)
    states = "; ".join(f"{name} {one.connection} {one.local_role}" for name, one in roles.states(resource).items())
    lost = f"the nodes were not connected when both were to be Primary ({states})"
    return _MigrationResult(MigrationOutcome.FAILED, f"{lost}: {message}" if message else lost)


def _move(
    guest: Guest, target: Node, request: MigrationRequest, on_precopy: Callable[[], None] | None
) -> _MigrationResult:
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_AUTO_CONVERGE | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    if request.unsafe:
        flags |= libvirt.VIR_MIGRATE_UNSAFE
    parameters: dict[str, object] = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{target.address}"}
    if request.bandwidth_mib:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = request.bandwidth_mib
    target.note(Change(ChangeKind.DOMAIN, guest.spec.name, (guest.uuid,)))
    source, destination, seen = guest.domain, target.libvirt, guest.monitor_domain()
    where = guest.node
    began = time.monotonic()
    with guest.agent.held():
        call: BackgroundTask[Bounded] = BackgroundTask(
            lambda: _migrate3(source, destination, parameters, flags, where), f"the migration to {target.name}"
        )
        ends = _Ends(guest, where, target, call, (source.connection, destination))
        try:
            samples, timed_out = _watch(call, seen, where, target, began + request.seconds, on_precopy)
        except BaseException:
            # It must not go on behind our back.
            with contextlib.suppress(libvirt.libvirtError, HarnessError):
                _abort(seen, where)
            with contextlib.suppress(libvirt.libvirtError, HarnessError):
                # It may have been over before it could be told.
                ends.arrived(ends.result(ABORT_SECONDS))
            raise
        seconds = time.monotonic() - began
        outcome, message = MigrationOutcome.COMPLETED, ""
        try:
            # It has ended, or had its time to do so.
            ends.arrived(ends.result(SAMPLE_SECONDS))
        except libvirt.libvirtError as error:
            # Before anybody speaks with the agent again: the source's libvirtd may have been restarted.
            with contextlib.suppress(HarnessError):
                guest.found_again()
            outcome, message = _outcome(error, samples, timed_out), str(error)
        except _GivenUpError as given_up:
            message = str(given_up)
            if guest.node is where:
                outcome = MigrationOutcome.FAILED
        if outcome is not MigrationOutcome.COMPLETED:
            return _MigrationResult(outcome, message, began, seconds, None, tuple(samples))
    # The source forgets a transient domain that left; the target keeps the figures.
    completed: Mapping[str, object] | None = None
    with contextlib.suppress(libvirt.libvirtError, HarnessError):
        completed = guest.domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    return _MigrationResult(MigrationOutcome.COMPLETED, message, began, seconds, completed, tuple(samples))


class _GivenUpError(InfrastructureError):
    """Nobody told how the migration ended; both ends were looked at, and the guest's node is right."""


@dataclass(frozen=True)
class _Ends:
    """A migration under way, and both of its ends."""

    guest: Guest
    source: Node
    target: Node
    call: BackgroundTask[Bounded]
    connections: tuple[LibvirtConnection, LibvirtConnection]

    def result(self, seconds: float) -> Bounded:
        """The domain on the target; waits for so long that the call returns.

        Where libvirt says that it failed, its error.  Where nobody says so, since the call does not return or the
        connection went away under it, both ends are ended but for the one on which the guest goes on:
        :class:`_GivenUpError` then, :class:`~harness.errors.LostGuestError` when it does so on none, and
        :class:`~harness.errors.LostNodeError` when a node could not be told.
        """
        try:
            return self.call.result(Deadline.after(seconds, "the end of the migration"))
        except libvirt.libvirtError as error:
            if self.connections[1].alive:
                raise
            why: Exception = error
        except DeadlineError:
            why = DeadlineError(f"the migration to {self.target.name} was told to end and did not")
        except HarnessError as error:
            why = error
        for connection in self.connections:
            # What still goes on over them returns, and nobody is there any more to let the guest go on at an end.
            connection.end()
        returned = self.call.ended(RETURN_SECONDS)
        found = both_ends.settle(self.guest, self.source, self.target, returned=returned)
        raise _GivenUpError(f"{why}; {found}") from None

    def arrived(self, domain: Bounded) -> None:
        """The guest is on the target; what the source may still have of it is ended, for it holds DRBD's device."""
        self.guest.moved(self.target, domain)
        left = both_ends.look(self.source, self.guest.spec.name)
        if left is both_ends.End.WAITS:
            end(self.source, self.guest.spec.name)


def _watch(
    call: BackgroundTask[Bounded],
    seen: Bounded,
    source: Node,
    target: Node,
    until: float,
    on_precopy: Callable[[], None] | None,
) -> tuple[list[Mapping[str, object]], bool]:
    """Look at it until it ends; tell it to end when its time is over, or the target is lost."""
    samples: list[Mapping[str, object]] = []
    timed_out = False
    while not call.ended(SAMPLE_SECONDS):
        with contextlib.suppress(libvirt.libvirtError, HarnessError):
            stats = seen.jobStats()
            if stats.get("type"):
                samples.append(stats)
        if on_precopy is not None and samples and samples[-1].get("memory_iteration"):
            on_precopy()
            on_precopy = None
        if target.runner.silent is not None:
            until = min(until, time.monotonic() - SAMPLE_SECONDS)
        if time.monotonic() > until and not timed_out:
            # One that libvirt does not know of yet cannot be told: it is told at the next look.
            with contextlib.suppress(libvirt.libvirtError, HarnessError):
                _abort(seen, source)
                timed_out = True
        if time.monotonic() > until + ABORT_SECONDS * patience():
            break
    return samples, timed_out


def _migrate3(
    domain: Bounded, to: LibvirtConnection, parameters: Mapping[str, object], flags: int, source: Node
) -> Bounded:
    options = " ".join(f"{name}={value}" for name, value in parameters.items())
    unsafe = " unsafe" if flags & libvirt.VIR_MIGRATE_UNSAFE else ""
    with logs.timed("libvirt", source.name, f"migrate3 {options}{unsafe}", source.runner.lab):
        moved: Bounded = domain.migrate3(to, parameters, flags)
        return moved


def _abort(domain: Bounded, source: Node) -> None:
    with logs.timed("libvirt", source.name, "abortJob", source.runner.lab):
        domain.abortJob()


def _outcome(error: libvirt.libvirtError, samples: list[Mapping[str, object]], timed_out: bool) -> MigrationOutcome:
    if timed_out:
        return MigrationOutcome.ABORTED
    under_way = any(sample.get("memory_iteration") for sample in samples)
    if error.get_error_code() in _REFUSALS and not under_way:
        return MigrationOutcome.REFUSED
    return MigrationOutcome.FAILED

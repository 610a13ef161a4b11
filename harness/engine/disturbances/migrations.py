"""Live migrations while the workload is at work, faults in the middle of them, and read-backs around a last one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.drbd import faults, roles
from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.base import finished, quiesce
from harness.engine.disturbances.canary_steps import collect_canary, start_canary
from harness.engine.reconcile import bring_back, reconcile_after
from harness.engine.rejoin import compare_before_rejoin
from harness.errors import DeadlineError, HarnessError, LostGuestError, RefusedError
from harness.filesystems.base import WorkloadTarget
from harness.guest import readback
from harness.guest.migration import MigrationRequest, migrate
from harness.lab.node import Node
from harness.model import Fault, FilesystemKind, Migration, MigrationOutcome, Work
from harness.util.background import BackgroundTask
from harness.util.deadline import patience
from harness.workloads.base import Workload
from harness.workloads.swap import MOVE_BEGINS, MOVED, MOVES_FILE, NOT_MOVED, announce_move

# So little that a guest's memory never gets across.
STALL_MIB = 1
STORM_PAUSE_SECONDS = 0.5
# A storm is started over a guest's agent and then fills its memory for as long as the cell's seconds at most.
STORM_START_SECONDS = 30.0


class MigrationDisturbance:
    """The guest moves as often as the cell says; the cell's fault, if it has one, strikes in the first migration."""

    def __init__(self) -> None:
        self._began = 0.0

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """The canary starts."""
        start_canary(run, target)

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """The work in the background, the migrations in the foreground."""
        task = self.begin(work)
        if run.cell.filesystem is FilesystemKind.SWAP:
            _wait_for_storm(run, task)
        self.migrate_all(run)
        return finished(run, task)

    def begin(self, work: Callable[[], Work]) -> BackgroundTask[Work]:
        """The work goes on in the background; the migrations count from here."""
        self._began = began = time.monotonic()

        def timed() -> Work:
            done = work()
            return replace(done, took_seconds=time.monotonic() - began)

        return BackgroundTask(timed, "the workload")

    def migrate_all(self, run: CellRun) -> None:
        """Every migration of the cell, until one is refused or leaves the nodes unconnected."""
        for number in range(1, run.cell.migrations + 1):
            fault = run.cell.fault if number == 1 else None
            migration = _migrate(run, number, self._began, fault)
            if migration.outcome is MigrationOutcome.REFUSED or _unconnected(run):
                break

    def after(self, run: CellRun, workload: Workload) -> None:
        """Everything is written: stop the canary, read back around one more migration, collect what the canary kept."""
        quiesce(run, workload)
        guest = run.guest_disk.guest
        if run.canary is None or guest is None:
            return
        survived = True
        try:
            run.canary.stop(guest.agent)
        except LostGuestError as error:
            if not guest.alive():
                raise
            survived = False
            run.context.log_event(str(error))
        if run.cell.migrations and not _refused(run) and not _unconnected(run):
            with run.context.phase("readback"):
                _read_back_around_a_migration(run)
        with run.context.phase("canary"):
            collect_canary(run, survived=survived)


def migrate_once(run: CellRun) -> Migration:
    """One live migration of the cell's guest to the other node, counted from now; its evidence is kept."""
    return _migrate(run, len(run.evidence.migrations) + 1, time.monotonic(), None)


def _refused(run: CellRun) -> bool:
    return any(one.outcome is MigrationOutcome.REFUSED for one in run.evidence.migrations)


def _unconnected(run: CellRun) -> bool:
    """Whether a migration failed and left the nodes unconnected: no guest may move between them."""
    failed = [one for one in run.evidence.migrations[-1:] if one.outcome is MigrationOutcome.FAILED]
    return bool(failed) and not roles.connected(run.context.resource)


def _read_back_around_a_migration(run: CellRun) -> None:
    """The whole device, read by the guest on one node and then on the other; nothing writes in between."""
    guest, disk = run.guest_disk.present_guest, run.guest_disk
    began = time.monotonic()
    blocks = run.context.resource.blocks
    before_node = guest.node
    before = readback.read_device(guest.agent, disk.path, blocks)
    migration = _migrate(run, len(run.evidence.migrations) + 1, began, None, during="readback")
    if migration.outcome is not MigrationOutcome.COMPLETED:
        return
    after = readback.read_device(guest.agent, disk.path, blocks)
    seconds = time.monotonic() - began
    run.context.note(readback=readback.compare_readbacks(before, after, before_node.name, guest.node.name, seconds))


def _migrate(run: CellRun, number: int, began: float, fault: Fault | None, during: str = "work") -> Migration:
    guest, resource = run.guest_disk.present_guest, run.context.resource
    target = roles.other(resource, guest.node)
    # One that cannot end is aborted when its time is over, however slow the machine is.
    stalled = fault is Fault.STALL
    seconds = run.cell.migration_deadline if stalled else run.context.migration_seconds * patience()
    bandwidth = STALL_MIB if stalled else 0
    request = MigrationRequest(number, seconds, run.cell.unsafe_migration, bandwidth, during)
    with _told_of_the_move(run, during) as moved:
        migration = migrate(guest, resource, target, request, began, _on_precopy(run, fault, guest.node, target))
        moved.append(migration.outcome is MigrationOutcome.COMPLETED)
    run.context.note(migrations=(*run.evidence.migrations, migration))
    run.context.log_event(_sentence(migration))
    if fault is Fault.STALL and migration.outcome is MigrationOutcome.ABORTED:
        run.context.log_fault(f"the migration had {STALL_MIB} MiB/s and could not end")
    if fault is not None:
        _recover_from_fault(run, fault)
    elif migration.outcome is MigrationOutcome.COMPLETED and during == "work":
        run.delays.apply()
    if migration.outcome is MigrationOutcome.COMPLETED:
        run.guest_disk.observe_after_move(number)
    elif fault is None and migration.outcome is not MigrationOutcome.REFUSED and not guest.alive():
        raise LostGuestError(f"the guest was lost in migration {number}: {migration.message}")
    return migration


def _wait_for_storm(run: CellRun, task: BackgroundTask[Work]) -> None:
    """Wait until the storm has filled its memory and storms, for as long as that may take at most, or until it ends.

    A storm that is still told of a move when its time is over waits for the end of the move.
    """
    script = '[ -e "$1" ] && echo there || true'
    until = time.monotonic() + run.cell.seconds + STORM_START_SECONDS * patience()
    agent = run.guest_disk.present_guest.agent
    while time.monotonic() < until and not task.ended(STORM_PAUSE_SECONDS):
        # A guest that is short of memory may need long to start a shell.
        with contextlib.suppress(DeadlineError):
            if agent.run(["sh", "-c", script, "sh", MOVES_FILE]).stdout.strip():
                return


@contextlib.contextmanager
def _told_of_the_move(run: CellRun, during: str) -> Iterator[list[bool]]:
    """Tell a workload that wants to know that its guest moves; the body says whether it did."""
    moved: list[bool] = []
    agent = run.guest_disk.present_guest.agent
    wants = during == "work" and run.cell.filesystem is FilesystemKind.SWAP
    # A storm that was not told counts no page of this move; the guest moves all the same.
    if wants:
        with contextlib.suppress(HarnessError):
            announce_move(agent, MOVE_BEGINS)
    try:
        yield moved
    finally:
        if wants:
            with contextlib.suppress(HarnessError):
                announce_move(agent, MOVED if True in moved else NOT_MOVED)


def _sentence(migration: Migration) -> str:
    figures = f", downtime {migration.downtime_ms:.0f} ms" if migration.downtime_ms is not None else ""
    message = f": {migration.message}" if migration.message else ""
    return (
        f"migration {migration.number} from {migration.source} to {migration.target} {migration.outcome} "
        f"in {migration.seconds:.1f} s{figures}{message}"
    )


# ------------------------------------------------------------------------------------------ faults in mid-migration


def _on_precopy(run: CellRun, fault: Fault | None, source: Node, target: Node) -> Callable[[], None] | None:
    """What happens once the guest's memory is on its way."""
    context, resource = run.context, run.context.resource

    def cut() -> None:
        run.exposure.pause(drops=1)
        run.register_fault_cleanup(lambda: faults.join_link(resource))
        run.register_fault_cleanup(lambda: _compare_apart(run, "while the replication link was cut"))
        faults.cut_link(resource)
        context.log_fault("the replication link was cut in mid-migration")

    def kill() -> None:
        run.exposure.pause(drops=1)
        run.node_dies(target)
        run.register_fault_cleanup(lambda: _power_back(run, target))
        run.register_fault_cleanup(lambda: _compare_apart(run, f"while {target.name} was without power"))
        context.lab.power_off(target)
        context.log_fault(f"{target.name} lost its power in mid-migration")

    def restart() -> None:
        _restart_libvirtd(source)
        context.log_fault(f"libvirtd on {source.name} was restarted in mid-migration")

    steps = {Fault.LINK_CUT: cut, Fault.TARGET_KILL: kill, Fault.LIBVIRTD_RESTART: restart}
    return steps.get(fault) if fault is not None else None


def _restart_libvirtd(node: Node) -> None:
    """Restart libvirt's daemon on ``node`` and wait until it answers; the guest's QEMU goes on."""
    node.runner.run(["systemctl", "restart", "libvirtd"], timeout=90)
    # Asked there: over our own connection a call of another thread's may be under way.
    node.runner.run(["virsh", "-c", "qemu:///system", "version"], timeout=90, ok=())


def _compare_apart(run: CellRun, when: str) -> None:
    """What the two devices hold before the fault ends; a guest that lives on writes to its own node's alone."""
    guest, resource = run.guest_disk.guest, run.context.resource
    away = roles.other(resource, guest.node) if guest is not None else resource.b
    compare_before_rejoin(run.context, away, when, guest)


def _power_back(run: CellRun, node: Node) -> None:
    bring_back(run.context, run.capture, node)
    if run.canary is not None:
        run.canary.follow(node)


def _recover_from_fault(run: CellRun, fault: Fault) -> None:
    """After the fault: the lab whole again, the guest alive, both replicas connected, the guest's node Primary."""
    context, resource, guest = run.context, run.context.resource, run.guest_disk.present_guest
    if not guest.alive():
        raise LostGuestError(f"the guest did not live through the fault '{fault}'")
    context.log_event(f"the guest is alive on {guest.node.name}")
    # A node that could not be told to forbid two Primaries again would refuse the other's handshake.
    with contextlib.suppress(RefusedError):
        roles.allow_two_primaries(resource, False, guest.node)
    run.revert_faults()
    reconcile_after(context, run.capture, roles.other(resource, guest.node), "after the fault", guest)
    roles.set_single_primary(resource, guest.node)
    run.exposure.resume()
    run.delays.apply()

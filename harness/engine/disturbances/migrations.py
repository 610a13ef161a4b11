"""What happens to a guest while it works: live migrations, faults in the middle of them, and how it arrives."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable

from harness.drbd import roles
from harness.engine.disturbances import crash, faults
from harness.engine.trial import Trial
from harness.errors import HarnessError, InfrastructureError, LostGuestError, RefusedError
from harness.guest import readback
from harness.guest.canary import CanaryWatch, Region
from harness.guest.domain import Guest
from harness.guest.migration import MigrationRequest, migrate
from harness.lab.node import Node
from harness.model import Fault, Migration, MigrationOutcome, Work
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline, poll
from harness.workloads.base import MARGIN_SECONDS, Workload, WorkloadTarget

# So little that a guest's memory never gets across.
STALL_MIB = 1
IO_ERROR_SECONDS = 60.0


def start_canary(trial: Trial, target: WorkloadTarget) -> None:
    """Start the canary in the guest; from now on its acknowledgements reach us, whatever becomes of the guest."""
    watch = CanaryWatch(trial.nodes, Region(0, trial.region.blocks), secrets.randbits(63))
    trial.watch = watch
    for node in trial.nodes:
        watch.follow(node)
    watch.start(target.runner, trial.canary_device)


def work(trial: Trial, workload: Workload, target: WorkloadTarget) -> Work:
    """The workload's work, with what the cell wants to happen in the middle of it."""
    cell = trial.cell
    if not cell.has_canary:
        return workload.work(target, cell.seconds)
    began = time.monotonic()
    task = BackgroundTask(lambda: workload.work(target, cell.seconds), "the workload")
    if cell.crash is not None:
        return crash.inject_crash(trial, task, began)
    if cell.fault is Fault.IO_ERROR:
        _io_error(trial, task)
    for number in range(1, cell.migrations + 1):
        fault = cell.fault if number == 1 else None
        migration = _migrate(trial, number, began, fault)
        if migration.outcome is MigrationOutcome.REFUSED or _apart(trial):
            break
    # A fault, or a guest that moved slowly, may have kept the work from its answer.
    return task.result(Deadline.after(cell.seconds + 2 * MARGIN_SECONDS, "the end of the work"))


def finish_in_guest(trial: Trial) -> None:
    """Everything is written: stop the canary, read back before and after a migration, collect what the canary kept."""
    if trial.watch is None or trial.guest is None:
        return
    survived = True
    try:
        trial.watch.stop(trial.guest.agent)
    except LostGuestError as dead:
        if not trial.guest.alive():
            raise
        survived = False
        trial.log_event(str(dead))
    if trial.cell.migrations and not _refused(trial) and not _apart(trial):
        with trial.phase("readback"):
            _readback(trial)
    with trial.phase("canary"):
        collect_canary(trial, survived=survived)


def move(trial: Trial) -> Migration:
    """One live migration of the cell's guest to the other node, counted from now; its evidence is kept."""
    return _migrate(trial, len(trial.evidence.migrations) + 1, time.monotonic(), None)


def collect_canary(trial: Trial, *, survived: bool) -> None:
    """What the canary kept, read in the guest that has the disk now."""
    assert trial.watch is not None
    target = trial.target()
    trial.note(canary=trial.watch.report(target.runner, trial.canary_device, survived=survived))
    trial.keep_canary()


def _refused(trial: Trial) -> bool:
    return any(one.outcome is MigrationOutcome.REFUSED for one in trial.evidence.migrations)


def _apart(trial: Trial) -> bool:
    """Whether a migration failed and left the nodes without each other: no guest may move between them."""
    failed = [one for one in trial.evidence.migrations[-1:] if one.outcome is MigrationOutcome.FAILED]
    return bool(failed) and not roles.connected(trial.resource)


def _readback(trial: Trial) -> None:
    """The whole device, read by the guest on one node and then on the other; nothing writes in between."""
    guest = _guest(trial)
    began = time.monotonic()
    blocks = trial.resource.blocks
    before_node = guest.node
    before = readback.read_device(guest.agent, trial.disk_path, blocks)
    migration = _migrate(trial, len(trial.evidence.migrations) + 1, began, None, during="readback")
    if migration.outcome is not MigrationOutcome.COMPLETED:
        return
    after = readback.read_device(guest.agent, trial.disk_path, blocks)
    seconds = time.monotonic() - began
    trial.note(readback=readback.compared(before, after, before_node.name, guest.node.name, seconds))


def _guest(trial: Trial) -> Guest:
    if trial.guest is None:
        raise InfrastructureError("the cell has no guest any more")
    return trial.guest


def _migrate(trial: Trial, number: int, began: float, fault: Fault | None, during: str = "work") -> Migration:
    guest = _guest(trial)
    target = roles.other(trial.resource, guest.node)
    request = MigrationRequest(
        number, trial.cell.migration_deadline, trial.cell.unsafe_migration,
        STALL_MIB if fault is Fault.STALL else 0, during,
    )  # fmt: skip
    on_precopy = _on_precopy(trial, fault, guest.node, target)
    migration = migrate(guest, trial.resource, target, request, began, on_precopy)
    trial.note(migrations=(*trial.evidence.migrations, migration))
    trial.log_event(_told(migration))
    if fault is Fault.STALL and migration.outcome is MigrationOutcome.ABORTED:
        trial.log_fault(f"the migration had {STALL_MIB} MiB/s and could not end")
    if fault is not None:
        _mend(trial, fault)
    elif migration.outcome is MigrationOutcome.COMPLETED and during == "work":
        trial.apply_delays()
    elif migration.outcome in (MigrationOutcome.ABORTED, MigrationOutcome.FAILED) and not guest.alive():
        raise LostGuestError(f"the guest was lost in migration {number}: {migration.message}")
    return migration


def _told(migration: Migration) -> str:
    figures = f", downtime {migration.downtime_ms:.0f} ms" if migration.downtime_ms is not None else ""
    words = f": {migration.message}" if migration.message else ""
    return (
        f"migration {migration.number} from {migration.source} to {migration.target} {migration.outcome} "
        f"in {migration.seconds:.1f} s{figures}{words}"
    )


# ------------------------------------------------------------------------------------------ faults on the way


def _on_precopy(trial: Trial, fault: Fault | None, source: Node, target: Node) -> Callable[[], None] | None:
    """What happens once the guest's memory is on its way."""

    def cut() -> None:
        trial.register_fault_cleanup(lambda: faults.join_link(trial.resource))
        faults.cut_link(trial.resource)
        trial.log_fault("the replication link was cut in mid-migration")

    def kill() -> None:
        trial.node_dies(target)
        trial.register_fault_cleanup(lambda: _power_back(trial, target))
        trial.lab.kill(target)
        trial.log_fault(f"{target.name} lost its power in mid-migration")

    def restart() -> None:
        faults.restart_libvirtd(source)
        trial.log_fault(f"libvirtd on {source.name} was restarted in mid-migration")

    steps = {Fault.LINK_CUT: cut, Fault.TARGET_KILL: kill, Fault.LIBVIRTD_RESTART: restart}
    return steps.get(fault) if fault is not None else None


def _power_back(trial: Trial, node: Node) -> None:
    trial.bring_back(node)
    if trial.watch is not None:
        trial.watch.follow(node)


def _mend(trial: Trial, fault: Fault) -> None:
    """After the fault: the lab whole again, the guest alive, both replicas together, the guest's node Primary."""
    guest = _guest(trial)
    if not guest.alive():
        raise LostGuestError(f"the guest did not live through the fault '{fault}'")
    trial.log_event(f"the guest is alive on {guest.node.name}")
    # A node that could not be told to forbid two Primaries again would refuse the other's handshake.
    with contextlib.suppress(RefusedError):
        roles.allow_two_primaries(trial.resource, False, guest.node)
    trial.revert_faults()
    trial.reconcile_after(roles.other(trial.resource, guest.node), "after the fault")
    roles.set_single_primary(trial.resource, guest.node)
    trial.apply_delays()


def _io_error(trial: Trial, task: BackgroundTask[Work]) -> None:
    """Both disks fail in mid-work: the guest's QEMU stops it; the disks come back, and it goes on."""
    guest = _guest(trial)
    task.ended(trial.cell.seconds / 3)
    with guest.agent.held():
        trial.register_fault_cleanup(lambda: faults.mend_disks(trial.resource))
        faults.break_disks(trial.resource)
        trial.log_fault("both lower devices fail from now on")
        deadline = Deadline.after(IO_ERROR_SECONDS, "the guest's pause by an I/O error")
        why = poll(guest.paused, deadline, every=0.2)
        states = roles.states(trial.resource)
        said = "; ".join(f"{name} {one.connection} {one.local_disk}" for name, one in states.items())
        trial.log_event(f"the guest was paused: {why}; DRBD said {said}")
        trial.revert_faults()
        with contextlib.suppress(HarnessError):
            roles.set_single_primary(trial.resource, guest.node)
        guest.resume()
        trial.log_event("the disks work again, and the guest was told to go on")
    trial.apply_delays()

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
from harness.guest.migration import Wish, migrate
from harness.lab.node import Node
from harness.model import Fault, Migration, MigrationOutcome, Work
from harness.util.background import Aside
from harness.util.deadline import Deadline, poll
from harness.workloads.base import MARGIN_SECONDS, Site, Workload

# So little that a guest's memory never gets across.
STALL_MIB = 1
IO_ERROR_SECONDS = 60.0


def let_the_canary_in(trial: Trial, site: Site) -> None:
    """Start the canary in the guest; from now on its acknowledgements reach us, whatever becomes of the guest."""
    watch = CanaryWatch(trial.nodes, Region(0, trial.region.blocks), secrets.randbits(63))
    trial.watch = watch
    for node in trial.nodes:
        watch.follow(node)
    watch.start(site.runner, trial.canary_device)


def work(trial: Trial, workload: Workload, site: Site) -> Work:
    """The workload's work, with what the cell wants to happen in the middle of it."""
    cell = trial.cell
    if not cell.watched:
        return workload.work(site, cell.seconds)
    began = time.monotonic()
    aside = Aside(lambda: workload.work(site, cell.seconds), "the workload")
    if cell.crash is not None:
        return crash.strike(trial, aside, began)
    if cell.fault is Fault.IO_ERROR:
        _io_error(trial, aside)
    for number in range(1, cell.migrations + 1):
        fault = cell.fault if number == 1 else None
        migration = _migrate(trial, number, began, fault)
        if migration.outcome is MigrationOutcome.REFUSED or _apart(trial):
            break
    # A fault, or a guest that moved slowly, may have kept the work from its answer.
    return aside.result(Deadline.after(cell.seconds + 2 * MARGIN_SECONDS, "the end of the work"))


def arrive(trial: Trial) -> None:
    """Everything is written: stop the canary, let the guest read before and after a migration, hear what it kept."""
    if trial.watch is None or trial.guest is None:
        return
    survived = True
    try:
        trial.watch.stop(trial.guest.agent)
    except LostGuestError as dead:
        if not trial.guest.alive():
            raise
        survived = False
        trial.happened(str(dead))
    if trial.cell.migrations and not _refused(trial) and not _apart(trial):
        with trial.phase("readings"):
            _two_readings(trial)
    with trial.phase("canary"):
        hear(trial, survived=survived)


def move(trial: Trial) -> Migration:
    """One live migration of the cell's guest to the other node, counted from now; its evidence is kept."""
    return _migrate(trial, len(trial.evidence.migrations) + 1, time.monotonic(), None)


def hear(trial: Trial, *, survived: bool) -> None:
    """What the canary kept, read in the guest that has the disk now."""
    assert trial.watch is not None
    site = trial.site()
    trial.note(canary=trial.watch.report(site.runner, trial.canary_device, survived=survived))
    trial.keep_canary()


def _refused(trial: Trial) -> bool:
    return any(one.outcome is MigrationOutcome.REFUSED for one in trial.evidence.migrations)


def _apart(trial: Trial) -> bool:
    """Whether a migration failed and left the nodes without each other: no guest may move between them."""
    failed = [one for one in trial.evidence.migrations[-1:] if one.outcome is MigrationOutcome.FAILED]
    return bool(failed) and not roles.connected(trial.resource)


def _two_readings(trial: Trial) -> None:
    """The whole device, read by the guest on one node and then on the other; nothing writes in between."""
    guest = _guest(trial)
    began = time.monotonic()
    blocks = trial.resource.blocks
    before_node = guest.node
    before = readback.read_device(guest.agent, trial.disk_path, blocks)
    migration = _migrate(trial, len(trial.evidence.migrations) + 1, began, None, during="readings")
    if migration.outcome is not MigrationOutcome.COMPLETED:
        return
    after = readback.read_device(guest.agent, trial.disk_path, blocks)
    seconds = time.monotonic() - began
    trial.note(readings=readback.compared(before, after, before_node.name, guest.node.name, seconds))


def _guest(trial: Trial) -> Guest:
    if trial.guest is None:
        raise InfrastructureError("the cell has no guest any more")
    return trial.guest


def _migrate(trial: Trial, number: int, began: float, fault: Fault | None, during: str = "work") -> Migration:
    guest = _guest(trial)
    target = roles.other(trial.resource, guest.node)
    wish = Wish(
        number, trial.cell.migration_deadline, trial.cell.unsafe_migration,
        STALL_MIB if fault is Fault.STALL else 0, during,
    )  # fmt: skip
    midway = _midway(trial, fault, guest.node, target)
    migration = migrate(guest, trial.resource, target, wish, began, midway)
    trial.note(migrations=(*trial.evidence.migrations, migration))
    trial.happened(_told(migration))
    if fault is Fault.STALL and migration.outcome is MigrationOutcome.ABORTED:
        trial.struck(f"the migration had {STALL_MIB} MiB/s and could not end")
    if fault is not None:
        _mend(trial, fault)
    elif migration.outcome is MigrationOutcome.COMPLETED and during == "work":
        trial.widen()
    elif migration.outcome in (MigrationOutcome.ABORTED, MigrationOutcome.FAILED) and not guest.alive():
        raise LostGuestError(f"the guest was lost in migration {number}: {migration.words}")
    return migration


def _told(migration: Migration) -> str:
    figures = f", downtime {migration.downtime_ms:.0f} ms" if migration.downtime_ms is not None else ""
    words = f": {migration.words}" if migration.words else ""
    return (
        f"migration {migration.number} from {migration.source} to {migration.target} {migration.outcome} "
        f"in {migration.seconds:.1f} s{figures}{words}"
    )


# ------------------------------------------------------------------------------------------ faults on the way


def _midway(trial: Trial, fault: Fault | None, source: Node, target: Node) -> Callable[[], None] | None:
    """What happens once the guest's memory is on its way."""

    def cut() -> None:
        trial.inflict(lambda: faults.join_link(trial.resource))
        faults.cut_link(trial.resource)
        trial.struck("the replication link was cut in mid-migration")

    def kill() -> None:
        trial.node_dies(target)
        trial.inflict(lambda: _power_back(trial, target))
        trial.lab.kill(target)
        trial.struck(f"{target.name} lost its power in mid-migration")

    def restart() -> None:
        faults.restart_libvirtd(source)
        trial.struck(f"libvirtd on {source.name} was restarted in mid-migration")

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
    trial.happened(f"the guest is alive on {guest.node.name}")
    # A node that could not be told to forbid two Primaries again would refuse the other's handshake.
    with contextlib.suppress(RefusedError):
        roles.allow_two_primaries(trial.resource, False, guest.node)
    trial.mend()
    trial.reunite_after(roles.other(trial.resource, guest.node), "after the fault")
    roles.only(trial.resource, guest.node)
    trial.widen()


def _io_error(trial: Trial, aside: Aside[Work]) -> None:
    """Both disks fail in mid-work: the guest's QEMU stops it; the disks come back, and it goes on."""
    guest = _guest(trial)
    aside.ended(trial.cell.seconds / 3)
    with guest.agent.held():
        trial.inflict(lambda: faults.mend_disks(trial.resource))
        faults.break_disks(trial.resource)
        trial.struck("both lower devices fail from now on")
        deadline = Deadline.after(IO_ERROR_SECONDS, "the guest's pause by an I/O error")
        why = poll(guest.paused, deadline, every=0.2)
        states = roles.states(trial.resource)
        said = "; ".join(f"{name} {one.connection} {one.local_disk}" for name, one in states.items())
        trial.happened(f"the guest was paused: {why}; DRBD said {said}")
        trial.mend()
        with contextlib.suppress(HarnessError):
            roles.only(trial.resource, guest.node)
        guest.resume()
        trial.happened("the disks work again, and the guest was told to go on")
    trial.widen()

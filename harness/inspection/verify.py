"""An online verify that somebody asked for, and what became of the blocks that it marked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.drbd.dialect import dialect_of
from harness.drbd.events import Events
from harness.drbd.verify import run_verify
from harness.errors import HarnessError, ProtectedError
from harness.filesystems.owned import summary
from harness.inspection.look import Looked, look_again
from harness.inspection.owners import owners_on
from harness.inspection.readings import read_again
from harness.model import blocks_of
from harness.model.inspection import InspectedVolume, Inspection, VolumeSide, VolumeVerify
from harness.render.drbd_conf import ResourceSpec

#: So slow a verify is still waited for, beside the time that it takes to start: below DRBD's own c-min-rate.
_KIB_PER_SECOND = 128
_START_SECONDS = 600.0


@dataclass(frozen=True)
class Snapshot:
    """A read-only snapshot that the user made: on which machine, and its path there."""

    machine: str
    path: str


def require_verifiable(seen: Inspection, volume: InspectedVolume) -> None:
    """:class:`~harness.errors.ProtectedError` with what is in the way of a verify, and what to do about it."""
    name = seen.resource
    if not all(one.option("verify-alg") for one in seen.replication):
        how = f"write 'verify-alg crc32c;' into the section net of {name} on both machines, and run"
        raise ProtectedError(
            f"{name} has no verify-alg, and DRBD verifies nothing without one: {how} 'drbdadm adjust {name}' on both"
        )
    side = volume.sides[0]
    if not side.state.healthy:
        raise ProtectedError(
            f"volume {volume.number} of {name} is not to be verified now: {side.state}; a verify needs both connected,"
            " UpToDate and with nothing under way"
        )


def verified(
    looked: Looked, volume: InspectedVolume, snapshot: Snapshot | None, *, source: int = 0
) -> InspectedVolume:  # fmt: skip
    """``volume`` with a verify of all of it, started on the machine number ``source``.

    Marks both kernel logs, and leaves DRBD's marks.  Blocks as long as the verify takes.  Raises what the machines do:
    :class:`~harness.errors.InfrastructureError` where DRBD does not start it, or its end does not come.
    """
    one, other = looked.nodes if source == 0 else looked.nodes[::-1]
    side = volume.sides[source]
    spec = ResourceSpec(looked.seen.resource, side.minor, number=volume.number)
    dialect = dialect_of(looked.seen.machines[source].drbd)
    a, b = one.node(side.lower), other.node()
    seconds = _START_SECONDS + side.blocks * 4 / _KIB_PER_SECOND
    found, _, _ = run_verify(a, b, Events(a, spec.name, volume.number), dialect, spec, seconds)
    marked = tuple(sorted({*found.source.extents, *found.target.extents}))
    counted = max(found.source.found_blocks or 0, found.target.found_blocks or 0)
    made = VolumeVerify(found.complete, found.seconds, marked, volume.out_of_sync_kib, counted, found.skipped_blocks)
    try:
        now = look_again(looked)[volume.number]
    except HarnessError as error:
        # What a verify of hours has found is told all the same.
        lost = f"the machines could not be looked at after it: {error}"
        return replace(volume, verify=replace(made, unread=lost, no_owners=lost))
    after = replace(now, watches=volume.watches, unwatched=volume.unwatched)
    if marked:
        made = _read(looked, after, made)
        made = _owned(looked, after, made, snapshot)
    return replace(after, verify=made)


def _read(looked: Looked, volume: InspectedVolume, made: VolumeVerify) -> VolumeVerify:
    (one, other), (here, there) = looked.nodes, volume.sides
    before = _written(volume)
    try:
        readings = read_again((one, here.lower), (other, there.lower), made.marked)
    except (HarnessError, ValueError) as error:
        return replace(made, unread=str(error))
    try:
        after = _written(look_again(looked)[volume.number])
    except HarnessError:
        return replace(made, readings=readings)
    return replace(made, readings=replace(readings, written_kib=(after[0] - before[0], after[1] - before[1])))


def _written(volume: InspectedVolume) -> tuple[int, int]:
    one, other = volume.sides
    return one.written_kib, other.written_kib


def _owned(
    looked: Looked, volume: InspectedVolume, made: VolumeVerify, snapshot: Snapshot | None
) -> VolumeVerify:  # fmt: skip
    """With whose the marked blocks are, or why nobody was asked."""
    blocks = sorted(blocks_of(made.marked))
    if snapshot is not None:
        at = [node.name for node in looked.nodes].index(snapshot.machine)
        path, running = snapshot.path, any(side.in_use for side in volume.sides)
        where = f"the snapshot on {snapshot.machine}"
    else:
        if why := used_by(volume.sides):
            return replace(made, no_owners=why)
        at, running = next((n for n, side in enumerate(volume.sides) if side.state.local_role == "Primary"), 0), False
        path, where = volume.sides[at].lower, f"the disk of {looked.nodes[at].name}, which nobody uses"
    owned, method = owners_on(looked.nodes[at], path, volume.sides[at].blocks, blocks, running=running)
    return replace(made, ownership=summary(owned, method), owners_of=where)


def used_by(sides: tuple[VolumeSide, VolumeSide]) -> str:
    """Why nobody is asked whose blocks are, as a sentence; empty where the volume is used by nobody."""
    users = [
        f"{what} on {side.machine}"
        for side in sides
        for what in (*(f"the guest {disk.domain}" for disk in side.disks), *side.uses)
    ]
    if not users:
        return ""
    return (
        f"it is in use ({', '.join(users[:4])}{' and others' if len(users) > 4 else ''}): its maps change while they"
        " are read; stop who uses it, or name a read-only snapshot of the lower device with --snapshot"
    )

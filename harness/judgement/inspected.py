"""What is known of a configuration like the one that was seen: which claims apply, what kept runs say; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judgement.question_facts import Facts, tally
from harness.judgement.stacks import PlayedRun
from harness.model import CacheMode
from harness.model.inspection import Inspection, VolumeVerify

#: What ends with exit code 0, 1 and 2.
NOTHING, FOUND, UNTOLD = 0, 1, 2


@dataclass(frozen=True)
class Kept:
    """What the kept runs say of guests with one cache mode: plays harmed, plays that say something, harmed ones without
    a delay; and with which versions.
    """

    harmed: int
    plays: int
    undelayed: int
    versions: tuple[str, ...]


def kept_counts(runs: Sequence[PlayedRun], generation: str) -> Mapping[CacheMode, Kept]:
    """By the cache mode, of those ``runs`` whose DRBD is of ``generation``; with nothing else done against it."""
    mine = [run for run in runs if run.stack.drbd.startswith(f"{generation}.")]
    facts = Facts.of(mine)
    found = {}
    for mode in CacheMode:
        plays = facts.in_guest(mode)
        counted = tally(plays)
        versions = dict.fromkeys(f"DRBD {play.stack.drbd} with QEMU {play.stack.qemu}" for play in plays)
        if counted.answered:
            found[mode] = Kept(counted.hits, counted.answered, counted.undelayed_hits, tuple(versions))
    return found


def claims_for(seen: Inspection) -> tuple[str, ...]:
    """The ids of the claims that are about this configuration, in their order."""
    disks = [disk for volume in seen.volumes for disk in volume.disks]
    modes = {mode for disk in disks for mode in disk.cache.split(" or ")}
    integrity = any(one.option("data-integrity-alg") for one in seen.replication)
    asked = {
        "C1": "none" in modes,
        "C2": "directsync" in modes,
        "C3": "writethrough" in modes,
        "C7": bool(modes & {"none", "directsync"}) and not integrity,
        "C8": integrity,
        "C9": integrity and any(one.two_primaries for one in seen.replication),
        "C10": any(one.scatter_gather is False or one.disable_sendpage for one in seen.replication),
        "C11": not integrity,
        "C14": any(volume.out_of_sync_kib or volume.verify for volume in seen.volumes),
    }
    return tuple(claim for claim, applies in asked.items() if applies)


def exit_code(seen: Inspection) -> int:
    """1 where DRBD counts something out of sync, a verify marked something, or writes changed in flight; 2 where that
    cannot be told.
    """
    verifies = [volume.verify for volume in seen.volumes if volume.verify is not None]
    found = any(one.marked or one.unnamed_blocks for one in verifies)
    if found or any(volume.out_of_sync_kib for volume in seen.volumes):
        return FOUND
    if any(watch.witness.changed_writes for volume in seen.volumes for watch in volume.watches):
        return FOUND
    if any(volume.unwatched for volume in seen.volumes):
        return UNTOLD
    if any(not one.complete or one.skipped_blocks for one in verifies):
        return UNTOLD
    if any(side.state.connection != "Connected" for volume in seen.volumes for side in volume.sides):
        return UNTOLD
    return NOTHING


def answer(verify: VolumeVerify) -> str:
    """False alarms or corruption, in one sentence, as far as it can be told."""
    unnamed = verify.unnamed_blocks
    if verify.marked:
        found = _of_marked(verify)
    elif unnamed:
        found = "something differed"
    elif verify.complete:
        return "nothing differed"
    else:
        found = "nothing was found"
    if unnamed:
        found += f"; but {unnamed} more blocks differed, and DRBD's log does not say where: verify again"
    return (
        found if verify.complete else f"{found}; but the verify did not run to its end, and did not look at all of it"
    )


def _of_marked(verify: VolumeVerify) -> str:
    readings = verify.readings
    if readings is None:
        return f"whether they still differ could not be read: {verify.unread}"
    if readings.lasting:
        return f"real: {_owned(verify)}"
    if readings.changing:
        return "not told: the blocks are being written; verify again, or look when it is quiet"
    more = " as far as they were read" if readings.not_read else ""
    return f"by now all of them are equal{more}: the marks stay until a resync, which copies what is equal"


def _owned(verify: VolumeVerify) -> str:
    owners = verify.ownership
    if owners is None:
        return "blocks differ, and whose they are is not known"
    data = owners.allocated + owners.metadata + owners.journal
    if data:
        return "blocks differ that are data of files, of an application or of a filesystem"
    if owners.unknown:
        return "blocks differ, and whose they are is not known of all"
    return "blocks differ that nobody reads before they are written again"


def sides_that_win(seen: Inspection, primaries: Iterable[str]) -> Iterator[str]:
    """Which side a resync of marked blocks overwrites, per generation, in sentences."""
    a, b = (machine.name for machine in seen.machines)
    name, up = seen.resource, list(primaries)
    if seen.generation == "8.4":
        yield (
            "DRBD 8.4 copies marked blocks at the next connection, whatever made it: 'drbdadm disconnect' and"
            " 'connect', a cut of the link, a reboot"
        )
        if len(up) == 1:
            lost = b if up[0] == a else a
            yield f"then the Primary wins: what {lost} has in these blocks is replaced by what {up[0]} has"
        else:
            number = "no" if not up else "two"
            yield f"which side wins with {number} Primaries was not tried: make the one that is right Primary first"
    else:
        yield (
            f"DRBD 9 copies them when 'drbdadm invalidate-remote --reset-bitmap=no {name}' is run: the machine where it"
            " is run wins, and what the other has in these blocks is replaced"
        )
        yield (
            "a new connection with no I/O in between made 9.3.3 forget the marks and copy nothing; where the Primary"
            " had I/O meanwhile, it copies them from the Primary, by DRBD's source"
        )

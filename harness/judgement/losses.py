"""What a user of the guest lost: read back wrongly, gone from memory or disk, or read differently on either node."""

from __future__ import annotations

from harness.model import BlockOwner, CrashRecovery, Evidence, FilesystemCheck, Ownership, blocks_of
from harness.parse.fsck import fsck_meaning

# So many of a workload's sentences about what was wrong go into the answer; the evidence has more.
_MOST_SAID = 3


def data_loss_findings(evidence: Evidence) -> tuple[str, ...]:
    """What a user of the guest lost, one sentence each: by what was read back, kept, or read on either node."""
    found: list[str] = []
    wrong = evidence.work.read_back_errors if evidence.work else 0
    if wrong:
        found.append(f"the client read back something else than it wrote, {wrong} time(s)")
    crashed, canary, readback = evidence.crash_recovery, evidence.canary, evidence.readback
    if crashed is not None and crashed.wrong_reads:
        what = f": {'; '.join(crashed.findings[:_MOST_SAID])}" if crashed.findings else ""
        found.append(
            f"after the crash the client read back something else than it wrote, {crashed.wrong_reads} time(s){what}"
        )
    if crashed is not None and crashed.mounted is False:
        found.append(f"after the crash the filesystem could not be mounted: {crashed.mount_message}")
    if crashed is not None and fsck_finding(crashed)[0] is FilesystemCheck.DAMAGED:
        found.append(f"after the crash fsck ended with status {crashed.fsck_status}: {crashed.fsck_message}")
    if canary is not None and canary.total_lost:
        write_modes = [
            f"{count} of {canary.acknowledged.get(write_mode, 0)} {write_mode}"
            for write_mode, count in canary.lost.items()
            if count
        ]
        found.append(f"{canary.total_lost} acknowledged records are lost ({', '.join(write_modes)})")
    if canary is not None and canary.corrupt:
        found.append(f"{canary.corrupt} records on the disk have a wrong checksum")
    if canary is not None and canary.memory_wrong:
        found.append(
            f"{canary.memory_wrong} of {canary.memory_checked} checks of the guest's memory found a wrong record"
        )
    if readback is not None and readback.differing:
        stale = _cache_incoherent_blocks(evidence)
        if stale:
            found.append(f"{readback_sentence(evidence)}, and both replicas hold the same in {stale} of them")
        elif _known_in_use(readback.ownership):
            found.append(readback_sentence(evidence))
    return tuple(found)


def fsck_finding(crashed: CrashRecovery) -> tuple[FilesystemCheck | None, str]:
    """What fsck found after the crash, and why; None where there was nothing to check."""
    return (None, "") if crashed.fsck_status is None else fsck_meaning(crashed.fsck_status)


def _cache_incoherent_blocks(evidence: Evidence) -> int:
    """How many blocks the guest read differently although the replicas are equal there and no resync made them so.

    The guest read from a cache that did not know what DRBD has.  Whether such a block is allocated just now is chance.
    """
    readback, comparison, alarms = evidence.readback, evidence.comparison, evidence.alarms
    if readback is None or comparison is None or evidence.verify is None or not evidence.verify.complete:
        return 0
    if alarms is not None and (alarms.drops or alarms.split_brain):
        return 0
    return len(blocks_of(readback.differing) - blocks_of(comparison.differing))


def _known_in_use(own: Ownership) -> int:
    """How many of the blocks are known to hold something that somebody will read; an unknown owner proves nothing."""
    return own.allocated + own.metadata + own.journal


def readback_sentence(evidence: Evidence) -> str:
    readback = evidence.readback
    assert readback is not None
    owners = owners_text(readback.ownership)
    return (
        f"with no write in between the guest reads {readback.differing_blocks} blocks differently on {readback.after} "
        f"than on {readback.before} ({owners})"
    )


def owners_text(own: Ownership) -> str:
    counted = ((owner, getattr(own, owner.value)) for owner in BlockOwner)
    return ", ".join(f"{count} {owner}" for owner, count in counted if count) or "no owner known"

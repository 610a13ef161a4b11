"""Evidence to verdict: pure, so that a stored run can be judged again without a lab.

What a user lost outweighs everything.  Then the order of the questions is the order of what would make an answer
worthless: a refusal, a failure, something other than what was asked, oracles that disagree; only then is "nothing
found" worth a look.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.judgement.oracles import OracleAgreement, combine
from harness.judgement.stats import rate_upper
from harness.judgement.workload_proof import unproven_work
from harness.model import (
    Alarms,
    BlockOwner,
    ClientKind,
    Control,
    Controls,
    Crash,
    CrashRecovery,
    Evidence,
    Fault,
    FilesystemCheck,
    MigrationOutcome,
    Ownership,
    SplitBrain,
    Verdict,
    VerdictKind,
    blocks_of,
)
from harness.parse.fsck import fsck_meaning

REFUSED = "refused"
_ENDED_WELL = (MigrationOutcome.COMPLETED, MigrationOutcome.REFUSED)


def judge(evidence: Evidence, controls: Controls | None = None) -> Verdict:
    """The verdict on one attempt.

    ``controls`` are the outcomes of this run's controls; where one failed, or a demanded one is not there, no cell is
    CLEAN.
    """
    answer = _without_oracles(evidence) or _oracles(evidence)
    if answer.kind is VerdictKind.CLEAN and evidence.cell.control is None:
        return _downgrade_unproven_clean(answer, evidence, controls or {})
    return answer


# --------------------------------------------------------------------------- what makes the oracles' answer worthless


def _without_oracles(evidence: Evidence) -> Verdict | None:
    failure = evidence.failure
    if losses := data_loss_findings(evidence):
        differing = evidence.comparison.differing_blocks if evidence.comparison else 0
        findings = _accompanying_findings(evidence)
        reasons = tuple(finding for finding in findings if not any(finding in loss for loss in losses))
        return _verdict(VerdictKind.CORRUPT, evidence, "; ".join(losses), reasons, differing)
    if failure is not None and failure.kind == REFUSED:
        return _verdict(VerdictKind.REFUSED, evidence, failure.message)
    refused = [one for one in evidence.migrations if one.outcome is MigrationOutcome.REFUSED]
    if refused:
        sentence = f"migration {refused[0].number} was refused: {refused[0].message}"
        return _verdict(VerdictKind.REFUSED, evidence, sentence, _accompanying_findings(evidence))
    if failure is not None:
        return _inconclusive(evidence, f"{failure.phase}: {failure.message}")
    for question in (_not_as_requested, _precondition, _unanswered):
        if answer := question(evidence):
            return _inconclusive(evidence, answer)
    return None


def data_loss_findings(evidence: Evidence) -> tuple[str, ...]:
    """What a user of the guest lost, one sentence each: by what was read back, kept, or read on either node."""
    found: list[str] = []
    wrong = evidence.work.read_back_errors if evidence.work else 0
    if wrong:
        found.append(f"the client read back something else than it wrote, {wrong} time(s)")
    crashed, canary, readback = evidence.crash_recovery, evidence.canary, evidence.readback
    if crashed is not None and crashed.wrong_reads:
        found.append(
            f"after the crash the client read back something else than it wrote, {crashed.wrong_reads} time(s)"
        )
    if crashed is not None and crashed.mounted is False:
        found.append(f"after the crash the filesystem could not be mounted: {crashed.mount_message}")
    if crashed is not None and _fsck(crashed)[0] is FilesystemCheck.DAMAGED:
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
            found.append(f"{_readback_sentence(evidence)}, and both replicas hold the same in {stale} of them")
        elif _known_in_use(readback.ownership):
            found.append(_readback_sentence(evidence))
    return tuple(found)


def _fsck(crashed: CrashRecovery) -> tuple[FilesystemCheck | None, str]:
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


def _readback_sentence(evidence: Evidence) -> str:
    readback = evidence.readback
    assert readback is not None
    owners = _owners(readback.ownership)
    return (
        f"with no write in between the guest reads {readback.differing_blocks} blocks differently on {readback.after} "
        f"than on {readback.before} ({owners})"
    )


def _accompanying_findings(evidence: Evidence) -> tuple[str, ...]:
    """The reasons beside a verdict that does not rest on the oracles: what differs, and the secondary findings."""
    comparison = evidence.comparison
    if comparison is None or not comparison.differing:
        return _secondary_findings(evidence)
    differ = f"{comparison.differing_blocks} blocks differ ({_owners(evidence.ownership)})"
    return (differ, *_secondary_findings(evidence))


def _secondary_findings(evidence: Evidence) -> tuple[str, ...]:
    """What happened besides: read-backs that differ, alarms, migrations that broke, errors on the console."""
    reasons: list[str] = []
    alarms, readback = evidence.alarms, evidence.readback
    if readback is not None and readback.differing:
        reasons.append(_readback_sentence(evidence))
    if alarms is not None and (alarms.detections or alarms.drops):
        noticed = f"DRBD noticed {alarms.detections} writes whose buffer changed"
        reasons.append(f"{noticed} and lost its connection {alarms.drops} time(s)")
    broken = [one for one in evidence.migrations if one.outcome not in _ENDED_WELL]
    reasons += [f"migration {one.number} {one.outcome}: {one.message}" for one in broken]
    return (*reasons, *(f"guest: {line}" for line in evidence.console_errors))


def _owners(own: Ownership) -> str:
    counted = ((owner, getattr(own, owner.value)) for owner in BlockOwner)
    return ", ".join(f"{count} {owner}" for owner, count in counted if count) or "no owner known"


def _not_as_requested(evidence: Evidence) -> str | None:
    """What was in force is not what was requested, or could not be read back."""
    cell, seen = evidence.cell, evidence.observed
    if seen.replication is not None and seen.replication != cell.replication:
        return f"requested was {cell.replication}, but in force was {seen.replication}"
    delays = (cell.delays.link_delay_ms, cell.delays.disk_delay_ms)
    if (seen.link_delay_ms, seen.disk_delay_ms) != delays:
        in_force = f"{seen.link_delay_ms}/{seen.disk_delay_ms} ms"
        return f"the delays of link and disk were {in_force}, {delays[0]}/{delays[1]} ms were requested"
    if cell.client is ClientKind.HOST or cell.cache is None:
        return None
    wanted = {"direct": cell.cache.direct, "no-flush": cell.cache.no_flush}
    # What the guest is told is the opposite of write-through.
    wanted["writeback"] = cell.cache.guest_write_cache == "write back"
    facts: list[tuple[str, object, object]] = [
        ("O_DIRECT of QEMU's descriptor", seen.o_direct, cell.cache.direct),
        ("the guest's write_cache", seen.guest_write_cache, cell.cache.guest_write_cache),
        ("the aio mode", seen.qemu_aio, cell.aio.value),
    ]
    facts += [(f"QEMU's cache.{name}", (seen.qemu_cache or {}).get(name), value) for name, value in wanted.items()]
    for name, found, value in facts:
        if found is None:
            return f"{name} could not be read back"
        if found != value:
            return f"requested was cache={cell.cache}, aio={cell.aio}, but {name}: {found}, not {value}"
    return None


def _precondition(evidence: Evidence) -> str | None:
    before = evidence.before
    if before is None or not before.healthy:
        state = before or "its state was not read"
        return f"the resource was not Connected and UpToDate/UpToDate before the cell: {state}"
    if not evidence.equal_before:
        return "the replicas were not equal before the cell"
    return None


def _unanswered(evidence: Evidence) -> str | None:
    verify = evidence.verify
    if verify is None or not verify.complete:
        return "the start and the end of the verify were not both seen"
    if verify.skipped_blocks:
        return f"the verify skipped {verify.skipped_blocks} busy blocks"
    if evidence.log_holes:
        return f"{evidence.log_holes} kernel messages were lost, and extents may be among them"
    if evidence.comparison is None or evidence.counter_kib is None:
        return "an oracle did not answer"
    if evidence.comparison.blocks != evidence.device_blocks or not evidence.device_blocks:
        return f"the comparison covered {evidence.comparison.blocks} of {evidence.device_blocks} blocks"
    return None


# --------------------------------------------------------------------------- what the oracles found


def _oracles(evidence: Evidence) -> Verdict:
    agreed = combine(evidence)
    if agreed.dispute is not None:
        return _inconclusive(evidence, f"the oracles disagree: {agreed.dispute}")
    split = evidence.alarms.split_brain if evidence.alarms else None
    if split is not None:
        return _split_brain(evidence, split)
    if agreed.differing:
        return _diverged(evidence, agreed)
    if agreed.marked:
        return _verdict(
            VerdictKind.TRANSIENT, evidence,
            f"verify reported {agreed.marked} blocks; all were equal again once everything had been written",
            _accompanying_findings(evidence),
        )  # fmt: skip
    alarms = evidence.alarms
    if alarms is not None and (alarms.detections or (alarms.drops and not _disconnected_on_purpose(evidence))):
        if not alarms.detections and (missing := _scenario_incomplete(evidence)):
            return _inconclusive(evidence, f"the connection was lost {alarms.drops} time(s), and {missing}")
        return _verdict(VerdictKind.TRANSIENT, evidence, _healed_by_resync(alarms))
    return _verdict(VerdictKind.CLEAN, evidence, _nothing_found(evidence), _secondary_findings(evidence))


def _disconnected_on_purpose(evidence: Evidence) -> bool:
    """Whether the connection was lost because the cell cut the link or the power of a node."""
    cell = evidence.cell
    return evidence.fault_injected and (cell.crash is Crash.NODE or cell.fault in (Fault.LINK_CUT, Fault.TARGET_KILL))


def _split_brain(evidence: Evidence, split: SplitBrain) -> Verdict:
    """A split brain; that the nodes were connected again afterwards, with changes discarded, does not undo it."""
    when = "" if split.after_seconds is None else f" {split.after_seconds:.1f} s after the first digest failure"
    states = ", ".join(f"{node} {state.connection}" for node, state in split.states.items())
    differing = split.differing_blocks or 0
    sentence = (
        f"split brain{when}: {states}; {differing} blocks differed, and the changes of {split.victim} were discarded"
    )
    return _verdict(VerdictKind.DIVERGED, evidence, sentence, _accompanying_findings(evidence), differing)


def _healed_by_resync(alarms: Alarms) -> str:
    minutes = alarms.watched_seconds / 60
    often = f", {alarms.drops / minutes:.1f} a minute" if minutes else ""
    noticed = (
        f"DRBD's digest noticed {alarms.detections} writes whose buffer had changed; " if alarms.detections else ""
    )
    return f"{noticed}the connection was lost {alarms.drops} time(s){often}, and after the resyncs everything was equal"


def _diverged(evidence: Evidence, agreed: OracleAgreement) -> Verdict:
    state = evidence.after
    claim = f" while DRBD reported {state.connection}, {state.local_disk}/{state.peer_disk}" if state else ""
    exposed = f" after {evidence.exposed_blocks} exposed block writes" if evidence.exposed_blocks else ""
    sentence = f"{len(agreed.differing)} blocks differ ({_owners(evidence.ownership)}){exposed}{claim}"
    reasons = list(_secondary_findings(evidence))
    if agreed.healed:
        reasons.append(f"{agreed.healed} more blocks were reported and are equal again")
    if agreed.unnamed:
        reasons.append(f"the kernel log names {len(agreed.named)} of the {agreed.marked} blocks that verify marked")
    return _verdict(VerdictKind.DIVERGED, evidence, sentence, tuple(reasons), len(agreed.differing))


def _nothing_found(evidence: Evidence) -> str:
    if not evidence.exposed_blocks:
        return "verify, counter and comparison found nothing; no block write was exposed"
    bound = rate_upper(0, evidence.exposed_blocks)
    return (
        f"verify, counter and comparison found nothing in {evidence.exposed_blocks} exposed block writes: "
        f"at most {bound or 1.0:.2g} of them diverge (95 %)"
    )


def _downgrade_unproven_clean(clean: Verdict, evidence: Evidence, controls: Controls) -> Verdict:
    """CLEAN stands only where the lab is proven to see, and where there was something to see."""
    questions: list[Callable[[], str | None]] = [
        lambda: _controls_failed(controls),
        lambda: None if evidence.observed.scatter_gather or not evidence.cell.replication.scatter_gather else
        "the replication link has no scatter-gather: TCP copies, and writes that change in flight cannot be seen",
        lambda: "the workload exposed no block write" if _exposure_missing(evidence) else None,
        lambda: unproven_work(evidence),
        lambda: _unexpected_kernel_error(evidence),
        lambda: _scenario_incomplete(evidence),
    ]  # fmt: skip
    for question in questions:
        if doubt := question():
            return _inconclusive(evidence, f"nothing was found, but {doubt}")
    return clean


def _unexpected_kernel_error(evidence: Evidence) -> str | None:
    """The first error of a kernel that the cell did not cause on purpose."""
    if not evidence.kernel_errors or evidence.cell.fault is Fault.IO_ERROR:
        return None
    return f"a kernel reported an error: {evidence.kernel_errors[0]}"


def _scenario_incomplete(evidence: Evidence) -> str | None:
    """What of the requested disturbance did not happen, or cannot be judged; None where all of it did."""
    cell = evidence.cell
    if cell.fault is not None and not evidence.fault_injected:
        return f"the fault '{cell.fault}' was not injected"
    if evidence.readback is not None and evidence.readback.differing:
        return _readback_sentence(evidence)
    if cell.fault is None:
        for one in evidence.migrations:
            if one.outcome not in _ENDED_WELL:
                return f"migration {one.number} {one.outcome}: {one.message}"
    done = sum(1 for one in evidence.migrations if one.during == "work")
    if done < cell.migrations:
        return f"only {done} of {cell.migrations} migrations were tried"
    if cell.has_canary and evidence.canary is None:
        return "the canary has no report"
    if evidence.canary is not None and cell.crash is None and not evidence.canary.survived:
        return "the canary died" + (f": {evidence.console_errors[0]}" if evidence.console_errors else "")
    if cell.crash is not None and evidence.crash_recovery is None:
        return "the crash did not happen"
    if evidence.crash_recovery is not None:
        check, why = _fsck(evidence.crash_recovery)
        if check is FilesystemCheck.UNCHECKED:
            return f"fsck did not check the filesystem after the crash: {why}: {evidence.crash_recovery.fsck_message}"
    if evidence.console_errors and cell.fault is not Fault.IO_ERROR:
        return f"the guest's console reports an error: {evidence.console_errors[0]}"
    return None


def _controls_failed(controls: Controls) -> str | None:
    for control in Control:
        outcome = controls.get(control)
        if outcome is None and control.demanded:
            return f"the {control} control of this run has no result"
        if outcome is not None and not outcome.held:
            return f"the {control} control failed: {outcome.sentence}"
    return None


def _exposure_missing(evidence: Evidence) -> bool:
    return evidence.cell.workload != "no-writes" and evidence.exposed_blocks == 0


def _inconclusive(evidence: Evidence, sentence: str) -> Verdict:
    return _verdict(VerdictKind.INCONCLUSIVE, evidence, sentence)


def _verdict(
    kind: VerdictKind, evidence: Evidence, sentence: str, reasons: tuple[str, ...] = (), differing: int = 0
) -> Verdict:
    errors = tuple(f"kernel: {line}" for line in evidence.kernel_errors)
    # A block may diverge more than once, so the count of blocks can pass no rate on; the bound needs trials.
    upper = rate_upper(min(differing, evidence.exposed_blocks), evidence.exposed_blocks)
    return Verdict(kind, sentence, reasons + errors, differing, evidence.exposed_blocks, upper)

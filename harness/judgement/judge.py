"""Evidence to verdict: pure, so that a stored run can be judged again without a lab.

What a user lost outweighs everything.  Then the order of the questions is the order of what would make an answer
worthless: a refusal, a failure, something other than what was asked, oracles that disagree; only then is "nothing
found" worth a look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.judgement.oracles import Together, together
from harness.judgement.stats import rate_upper
from harness.model import (
    Alarms,
    ClientKind,
    Control,
    Crash,
    Evidence,
    Fault,
    MigrationOutcome,
    Ownership,
    SplitBrain,
    Verdict,
    VerdictKind,
    blocks_of,
)

REFUSED = "refused"
_ENDED_WELL = (MigrationOutcome.COMPLETED, MigrationOutcome.REFUSED)


@dataclass(frozen=True)
class ControlOutcome:
    """Whether one control held, and what was seen."""

    control: Control
    held: bool
    sentence: str


Controls = Mapping[Control, ControlOutcome]


def judge(evidence: Evidence, controls: Controls | None = None) -> Verdict:
    """The verdict on one attempt.

    ``controls`` are the outcomes of this run's controls; without all three held no cell is CLEAN.
    """
    answer = _without_oracles(evidence) or _oracles(evidence)
    if answer.kind is VerdictKind.CLEAN and evidence.cell.control is None:
        return _doubted(answer, evidence, controls or {})
    return answer


def control_outcome(evidence: Evidence) -> ControlOutcome:
    """Whether the control that ``evidence.cell`` is held."""
    control = evidence.cell.control
    if control is None:
        raise ValueError(f"{evidence.cell.id} is no control")
    verdict = judge(evidence)
    wanted = VerdictKind.CLEAN if control is Control.IDLE else VerdictKind.DIVERGED
    if verdict.kind is not wanted:
        return ControlOutcome(control, False, f"{wanted} was wanted: {verdict.sentence}")
    if control is Control.PLANTED and (missed := _planted_missed(evidence)):
        return ControlOutcome(control, False, missed)
    return ControlOutcome(control, True, verdict.sentence)


def outcomes(evidence: Sequence[Evidence]) -> Controls:
    """The controls among ``evidence`` and whether they held; the newest of each wins."""
    found = (control_outcome(one) for one in evidence if one.cell.control is not None)
    return {outcome.control: outcome for outcome in found}


# --------------------------------------------------------------------------- what makes the oracles' answer worthless


def _without_oracles(evidence: Evidence) -> Verdict | None:
    failure = evidence.failure
    if harms := harm(evidence):
        differing = evidence.comparison.differing_blocks if evidence.comparison else 0
        also = tuple(reason for reason in _also(evidence) if not any(reason in sentence for sentence in harms))
        return _verdict(VerdictKind.CORRUPT, evidence, "; ".join(harms), also, differing)
    if failure is not None and failure.kind == REFUSED:
        return _verdict(VerdictKind.REFUSED, evidence, failure.message)
    refused = [one for one in evidence.migrations if one.outcome is MigrationOutcome.REFUSED]
    if refused:
        said = f"migration {refused[0].number} was refused: {refused[0].words}"
        return _verdict(VerdictKind.REFUSED, evidence, said, _also(evidence))
    if failure is not None:
        return _inconclusive(evidence, f"{failure.phase}: {failure.message}")
    for question in (_mismatch, _precondition, _missing):
        if answer := question(evidence):
            return _inconclusive(evidence, answer)
    return None


def harm(evidence: Evidence) -> tuple[str, ...]:
    """What a user of the guest lost, each piece in a sentence: read back, kept, or read on either side of a move."""
    found: list[str] = []
    wrong = evidence.work.read_back_errors if evidence.work else 0
    if wrong:
        found.append(f"the client read back something else than it wrote, {wrong} time(s)")
    crashed, canary, readings = evidence.aftermath, evidence.canary, evidence.readings
    if crashed is not None and crashed.wrong_reads:
        found.append(
            f"after the crash the client read back something else than it wrote, {crashed.wrong_reads} time(s)"
        )
    if crashed is not None and crashed.fsck_status:
        found.append(f"after the crash fsck ended with status {crashed.fsck_status}: {crashed.fsck_words}")
    if canary is not None and canary.total_lost:
        ways = [f"{count} of {canary.acknowledged.get(way, 0)} {way}" for way, count in canary.lost.items() if count]
        found.append(f"{canary.total_lost} acknowledged records are lost ({', '.join(ways)})")
    if canary is not None and canary.corrupt:
        found.append(f"{canary.corrupt} records on the disk have a wrong checksum")
    if canary is not None and canary.memory_wrong:
        found.append(
            f"{canary.memory_wrong} of {canary.memory_checked} looks at the guest's memory found a wrong record"
        )
    if readings is not None and readings.differing:
        stale = _stale(evidence)
        if stale:
            found.append(f"{_read_twice(evidence)}, and both replicas hold the same in {stale} of them")
        elif readings.ownership.dead < readings.differing_blocks:
            found.append(_read_twice(evidence))
    return tuple(found)


def _stale(evidence: Evidence) -> int:
    """How many blocks the guest read differently although the replicas are equal there and no resync made them so.

    Whoever answered for DRBD did not know what DRBD has.  Whether such a block is in use just now is chance.
    """
    readings, comparison, alarms = evidence.readings, evidence.comparison, evidence.alarms
    if readings is None or comparison is None or evidence.verify is None or not evidence.verify.complete:
        return 0
    if alarms is not None and (alarms.drops or alarms.split_brain):
        return 0
    return len(blocks_of(readings.differing) - blocks_of(comparison.differing))


def _read_twice(evidence: Evidence) -> str:
    readings = evidence.readings
    assert readings is not None
    whose = _owners(readings.ownership)
    return (
        f"with no write in between the guest reads {readings.differing_blocks} blocks differently on {readings.after} "
        f"than on {readings.before} ({whose})"
    )


def _also(evidence: Evidence) -> tuple[str, ...]:
    """What is to be said besides by a verdict that rests on something else than the oracles."""
    comparison = evidence.comparison
    if comparison is None or not comparison.differing:
        return _besides(evidence)
    return f"{comparison.differing_blocks} blocks differ ({_owners(evidence.ownership)})", *_besides(evidence)


def _besides(evidence: Evidence) -> tuple[str, ...]:
    """What happened besides a divergence."""
    reasons: list[str] = []
    alarms, readings = evidence.alarms, evidence.readings
    if readings is not None and readings.differing:
        reasons.append(_read_twice(evidence))
    if alarms is not None and (alarms.detections or alarms.drops):
        noticed = f"DRBD noticed {alarms.detections} writes whose buffer changed"
        reasons.append(f"{noticed} and lost its connection {alarms.drops} time(s)")
    broken = [one for one in evidence.migrations if one.outcome not in _ENDED_WELL]
    reasons += [f"migration {one.number} {one.outcome}: {one.words}" for one in broken]
    return (*reasons, *(f"guest: {line}" for line in evidence.console_trouble))


def _owners(own: Ownership) -> str:
    named = (("live", own.live), ("dead", own.dead), ("unknown", own.unknown))
    return ", ".join(f"{count} {name}" for name, count in named if count) or "no owner known"


def _mismatch(evidence: Evidence) -> str | None:
    """What was opened is not what was asked, or could not be read back."""
    cell, seen = evidence.cell, evidence.observed
    if seen.arm is not None and seen.arm != cell.arm:
        return f"asked for {cell.arm}, but in force was {seen.arm}"
    asked = (cell.widener.link_delay_ms, cell.widener.disk_delay_ms)
    if (seen.link_delay_ms, seen.disk_delay_ms) != asked:
        return f"the widener was {seen.link_delay_ms}/{seen.disk_delay_ms} ms, {asked[0]}/{asked[1]} ms were asked"
    if cell.client is ClientKind.HOST or cell.cache is None:
        return None
    wanted = {"direct": cell.cache.direct, "no-flush": cell.cache.no_flush}
    # What the guest is told is the opposite of write-through.
    wanted["writeback"] = cell.cache.guest_write_cache == "write back"
    facts: list[tuple[str, object, object]] = [
        ("QEMU's descriptor has O_DIRECT", seen.o_direct, cell.cache.direct),
        ("the guest's write_cache", seen.guest_write_cache, cell.cache.guest_write_cache),
        ("the aio mode", seen.qemu_aio, cell.aio.value),
    ]
    facts += [(f"QEMU's cache.{name}", (seen.qemu_cache or {}).get(name), value) for name, value in wanted.items()]
    for name, found, value in facts:
        if found is None:
            return f"{name} could not be read back"
        if found != value:
            return f"asked for cache={cell.cache}, aio={cell.aio}, but {name}: {found}, not {value}"
    return None


def _precondition(evidence: Evidence) -> str | None:
    if evidence.before is None or not evidence.before.healthy:
        return f"the resource was not Connected and UpToDate/UpToDate before the cell: {evidence.before}"
    if not evidence.equal_before:
        return "the replicas were not equal before the cell"
    return None


def _missing(evidence: Evidence) -> str | None:
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


# --------------------------------------------------------------------------- what the oracles say


def _oracles(evidence: Evidence) -> Verdict:
    said = together(evidence)
    if said.dispute is not None:
        return _inconclusive(evidence, f"the oracles disagree: {said.dispute}")
    split = evidence.alarms.split_brain if evidence.alarms else None
    if split is not None:
        return _split(evidence, split)
    if said.differing:
        return _diverged(evidence, said)
    if said.marked:
        return _verdict(
            VerdictKind.TRANSIENT, evidence,
            f"verify reported {said.marked} blocks; all were equal again once everything had been written",
            _also(evidence),
        )  # fmt: skip
    alarms = evidence.alarms
    if alarms is not None and (alarms.detections or (alarms.drops and not _cut_off(evidence))):
        if not alarms.detections and (why := _journey_failed(evidence)):
            return _inconclusive(evidence, f"the connection was lost {alarms.drops} time(s), and {why}")
        return _verdict(VerdictKind.TRANSIENT, evidence, _healed_by_resync(alarms))
    return _verdict(VerdictKind.CLEAN, evidence, _nothing(evidence), _besides(evidence))


def _cut_off(evidence: Evidence) -> bool:
    """Whether the connection was lost because the cell cut it, or a node off."""
    cell = evidence.cell
    return evidence.struck and (cell.crash is Crash.NODE or cell.fault in (Fault.LINK_CUT, Fault.TARGET_KILL))


def _split(evidence: Evidence, split: SplitBrain) -> Verdict:
    """Both replicas went their own way; that they were put together afterwards, at a price, does not undo it."""
    when = "" if split.after_seconds is None else f" {split.after_seconds:.1f} s after the first digest failure"
    said = ", ".join(f"{node} {state.connection}" for node, state in split.states.items())
    differing = split.differing_blocks or 0
    sentence = f"split brain{when}: {said}; {differing} blocks differed, and {split.victim} gave its changes up"
    return _verdict(VerdictKind.DIVERGED, evidence, sentence, _also(evidence), differing)


def _healed_by_resync(alarms: Alarms) -> str:
    minutes = alarms.watched_seconds / 60
    often = f", {alarms.drops / minutes:.1f} a minute" if minutes else ""
    noticed = (
        f"DRBD's digest noticed {alarms.detections} writes whose buffer had changed; " if alarms.detections else ""
    )
    return f"{noticed}the connection was lost {alarms.drops} time(s){often}, and after the resyncs everything was equal"


def _diverged(evidence: Evidence, said: Together) -> Verdict:
    state = evidence.after
    claim = f" while DRBD said {state.connection}, {state.local_disk}/{state.peer_disk}" if state else ""
    exposed = f" after {evidence.exposed_blocks} exposed block writes" if evidence.exposed_blocks else ""
    sentence = f"{len(said.differing)} blocks differ ({_owners(evidence.ownership)}){exposed}{claim}"
    reasons = list(_besides(evidence))
    if said.healed:
        reasons.append(f"{said.healed} more blocks were reported and are equal again")
    if said.unnamed:
        reasons.append(f"the kernel log names {len(said.named)} of the {said.marked} blocks that verify marked")
    return _verdict(VerdictKind.DIVERGED, evidence, sentence, tuple(reasons), len(said.differing))


def _nothing(evidence: Evidence) -> str:
    if not evidence.exposed_blocks:
        return "verify, counter and comparison found nothing; no block write was exposed"
    bound = rate_upper(0, evidence.exposed_blocks)
    return (
        f"verify, counter and comparison found nothing in {evidence.exposed_blocks} exposed block writes: "
        f"at most {bound or 1.0:.2g} of them diverge (95 %)"
    )


def _doubted(clean: Verdict, evidence: Evidence, controls: Controls) -> Verdict:
    """CLEAN stands only where the lab is proven to see, and where there was something to see."""
    questions: list[Callable[[], str | None]] = [
        lambda: _controls_failed(controls),
        lambda: None if evidence.observed.scatter_gather or not evidence.cell.arm.scatter_gather else
        "the replication link has no scatter-gather: TCP copies, and the pitfall cannot be seen",
        lambda: "the workload exposed no block write" if _idle_but_should_not(evidence) else None,
        lambda: f"a kernel reported trouble: {evidence.kernel_trouble[0]}" if _unasked_trouble(evidence) else None,
        lambda: _journey_failed(evidence),
    ]  # fmt: skip
    for question in questions:
        if doubt := question():
            return _inconclusive(evidence, f"nothing was found, but {doubt}")
    return clean


def _unasked_trouble(evidence: Evidence) -> bool:
    """Whether a kernel was in trouble that the cell did not make on purpose."""
    return bool(evidence.kernel_trouble) and evidence.cell.fault is not Fault.IO_ERROR


def _journey_failed(evidence: Evidence) -> str | None:
    """Whether what was to happen to the guest did not happen, or cannot be judged."""
    cell = evidence.cell
    if cell.fault is not None and not evidence.struck:
        return f"the fault '{cell.fault}' did not strike"
    if evidence.readings is not None and evidence.readings.differing:
        return _read_twice(evidence)
    if cell.fault is None:
        for one in evidence.migrations:
            if one.outcome not in _ENDED_WELL:
                return f"migration {one.number} {one.outcome}: {one.words}"
    done = sum(1 for one in evidence.migrations if one.during == "work")
    if done < cell.migrations:
        return f"only {done} of {cell.migrations} migrations were tried"
    if cell.watched and evidence.canary is None:
        return "the canary was not heard"
    if evidence.canary is not None and cell.crash is None and not evidence.canary.survived:
        return "the canary died" + (f": {evidence.console_trouble[0]}" if evidence.console_trouble else "")
    if cell.crash is not None and evidence.aftermath is None:
        return "the crash did not happen"
    if evidence.console_trouble and cell.fault is not Fault.IO_ERROR:
        return f"the guest's console speaks of trouble: {evidence.console_trouble[0]}"
    return None


def _controls_failed(controls: Controls) -> str | None:
    for control in Control:
        outcome = controls.get(control)
        if outcome is None:
            return f"the {control} control of this run has no result"
        if not outcome.held:
            return f"the {control} control failed: {outcome.sentence}"
    return None


def _idle_but_should_not(evidence: Evidence) -> bool:
    return evidence.cell.workload != "idle" and evidence.exposed_blocks == 0


def _planted_missed(evidence: Evidence) -> str | None:
    assert evidence.verify is not None and evidence.comparison is not None
    found = {
        "verify on the source": blocks_of(evidence.verify.source.extents),
        "verify on the target": blocks_of(evidence.verify.target.extents),
        "the comparison": blocks_of(evidence.comparison.differing),
    }
    planted = blocks_of(evidence.planted)
    for oracle, blocks in found.items():
        if blocks != planted:
            return f"{oracle} found blocks {sorted(blocks)[:8]}, planted were {sorted(planted)[:8]}"
    return None


def _inconclusive(evidence: Evidence, why: str) -> Verdict:
    return _verdict(VerdictKind.INCONCLUSIVE, evidence, why)


def _verdict(
    kind: VerdictKind, evidence: Evidence, sentence: str, reasons: tuple[str, ...] = (), differing: int = 0
) -> Verdict:
    troubled = tuple(f"kernel: {line}" for line in evidence.kernel_trouble)
    # A block may diverge more than once, so the count of blocks can pass no rate on; the bound needs trials.
    upper = rate_upper(min(differing, evidence.exposed_blocks), evidence.exposed_blocks)
    return Verdict(kind, sentence, reasons + troubled, differing, evidence.exposed_blocks, upper)

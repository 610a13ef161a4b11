"""Evidence to verdict: pure, so that a stored run can be judged again without a lab.

The order of the questions: what was not in force as asked, or not read, is no answer, whatever was found; then what a
user lost; then a difference on which complete oracles agree, which no failure, refusal or later step takes back; then a
refusal; then a failure; and only then is "nothing found" worth a look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.judgement.acknowledged import with_acknowledgements
from harness.judgement.cause import cause_findings
from harness.judgement.doubts import doubts, without_ground
from harness.judgement.hazard import with_hazard
from harness.judgement.in_force import not_in_force
from harness.judgement.losses import data_loss_findings, fsck_finding, owners_text, readback_sentence
from harness.judgement.oracles import OracleAgreement, combine
from harness.judgement.planted_owner import misattributed
from harness.judgement.potency import own_potency
from harness.judgement.rates import exposed_text, nothing_found, opportunities, rate_bound
from harness.judgement.rejoin import rejoin_findings
from harness.judgement.workload_proof import unproven_work
from harness.judgement.written import unwritten_findings
from harness.model import (
    Alarms,
    Control,
    Controls,
    Crash,
    Evidence,
    Fault,
    FilesystemCheck,
    MigrationOutcome,
    SplitBrain,
    SwapOn,
    Verdict,
    VerdictKind,
)
from harness.parse.kernel_log import epoch_not_ended

#: Kinds of failure: somebody said no, and what was to be done on the device could not be.
REFUSED = "refused"
WORKLOAD_FAILED = "workload"


# A lab in which one of these differs makes differences by itself.
_MUST_BE_CLEAN = (Control.IDLE, Control.STEADY)
_ENDED_WELL = (MigrationOutcome.COMPLETED, MigrationOutcome.REFUSED)
_WRITE_CONFLICT = (
    "DRBD before 9.1.4 says so after both Primaries wrote the same block at once: docs/drbd-write-conflict.md"
)


def judge(evidence: Evidence, controls: Controls | None = None) -> Verdict:
    """The verdict on one attempt.

    ``controls`` are the outcomes of this run's controls; where one failed, or a demanded one is not there, no cell is
    CLEAN.  The potency of a CLEAN is what the cell shows by itself (:func:`~harness.judgement.potency.with_potency`).
    """
    controls = controls or {}
    answer = _answer(evidence)
    if evidence.cell.control is None:
        answer = _with_misattributed_changes(answer, evidence)
        answer = _with_failed_controls(answer, evidence, controls)
        if answer.kind is VerdictKind.CLEAN:
            answer = _downgrade_unproven_clean(answer, evidence, controls)
    return with_acknowledgements(own_potency(with_hazard(answer, evidence, controls), evidence), evidence)


def _with_misattributed_changes(answer: Verdict, evidence: Evidence) -> Verdict:
    """An instrument that does not find what was planted, or gives it to somebody else, has no answer."""
    doubt = misattributed(evidence)
    if doubt is None or answer.kind not in (VerdictKind.CLEAN, VerdictKind.TRANSIENT, VerdictKind.DIVERGED):
        return answer
    found = f"{answer.kind.lower()}: {answer.sentence}"
    return _verdict(VerdictKind.INCONCLUSIVE, evidence, doubt, (found, *answer.reasons))


def _with_failed_controls(answer: Verdict, evidence: Evidence, controls: Controls) -> Verdict:
    """A difference stands although a control failed, unless that control shows that the lab makes differences itself.

    TRANSIENT needs controls that held as CLEAN does, which :func:`_downgrade_unproven_clean` sees to.
    """
    failed = [f"the {one.control} control failed: {one.sentence}" for one in controls.values() if not one.held]
    if not failed or not (answer.kind is VerdictKind.TRANSIENT or answer.kind.finds_harm):
        return answer
    differs_by_itself = any(not one.held and one.control in _MUST_BE_CLEAN for one in controls.values())
    if differs_by_itself or answer.kind is VerdictKind.TRANSIENT:
        found = f"{answer.kind.lower()}: {answer.sentence}"
        return _verdict(VerdictKind.INCONCLUSIVE, evidence, failed[0], (*failed[1:], found, *answer.reasons))
    return replace(answer, reasons=(*failed, *answer.reasons))


def _answer(evidence: Evidence) -> Verdict:
    failure = evidence.failure
    losses = data_loss_findings(evidence)
    if _worked(evidence) and (doubt := not_in_force(evidence)):
        beside = (*losses, *_failed(evidence), *_accompanying_findings(evidence))
        return _verdict(VerdictKind.INCONCLUSIVE, evidence, doubt, tuple(dict.fromkeys(beside)))
    if losses:
        differing = evidence.comparison.differing_blocks if evidence.comparison else 0
        findings = (*_accompanying_findings(evidence), *_failed(evidence))
        reasons = tuple(finding for finding in findings if not any(finding in loss for loss in losses))
        return _verdict(VerdictKind.CORRUPT, evidence, "; ".join(losses), reasons, differing)
    split = evidence.alarms.split_brain if evidence.alarms else None
    if split is not None and split.confirmed:
        return _split_brain(evidence, split)
    unanswered = _unanswered(evidence)
    agreed = combine(evidence) if unanswered is None else None
    if _worked(evidence) and agreed is not None and agreed.dispute is None and agreed.differing:
        return _diverged(evidence, agreed)
    if failure is not None and failure.kind == REFUSED:
        return _verdict(VerdictKind.REFUSED, evidence, failure.message)
    refused = [one for one in evidence.migrations if one.outcome is MigrationOutcome.REFUSED]
    if refused:
        sentence = f"migration {refused[0].number} was refused: {refused[0].message}"
        return _verdict(VerdictKind.REFUSED, evidence, sentence, _accompanying_findings(evidence))
    if failure is not None:
        # A kernel that broke may be why: whoever reads one sentence only is to see it.
        said_too = f"; and {error}" if (error := _unexpected_kernel_error(evidence)) else ""
        return _inconclusive(evidence, f"{failure.phase}: {failure.message}{said_too}")
    if doubt := not_in_force(evidence) or unanswered:
        return _inconclusive(evidence, doubt)
    assert agreed is not None
    if agreed.dispute is not None:
        return _inconclusive(evidence, f"the oracles disagree: {agreed.dispute}")
    if split is not None:
        return _inconclusive(evidence, _stand_alone(split))
    answer = _no_difference(evidence, agreed)
    if unchecked := _fsck_unanswered(evidence):
        return _inconclusive(evidence, f"{answer.sentence}; but {unchecked}")
    return answer


def _fsck_unanswered(evidence: Evidence) -> str | None:
    """Why fsck gave no answer after the crash; None where it did, or where there was nothing to check."""
    crashed = evidence.crash_recovery
    check, why = fsck_finding(crashed) if crashed is not None else (None, "")
    if crashed is None or check is not FilesystemCheck.UNCHECKED:
        return None
    return f"fsck did not check the filesystem after the crash: {why}: {crashed.fsck_message}"


def _worked(evidence: Evidence) -> bool:
    """Whether the workload began: what was found otherwise is none of this cell's."""
    return evidence.work is not None or "work" in evidence.phases


def _failed(evidence: Evidence) -> tuple[str, ...]:
    """The failure as a reason beside a verdict that rests on something else."""
    failure = evidence.failure
    return () if failure is None else (f"{failure.phase} failed: {failure.message}",)


def _accompanying_findings(evidence: Evidence) -> tuple[str, ...]:
    """The reasons beside a verdict that does not rest on the oracles: what differs, and the secondary findings."""
    comparison = evidence.comparison
    if comparison is None or not comparison.differing:
        return _secondary_findings(evidence)
    differ = f"{comparison.differing_blocks} blocks differ ({owners_text(evidence.ownership)})"
    return (differ, *cause_findings(evidence), *unwritten_findings(evidence), *_secondary_findings(evidence))


def _secondary_findings(evidence: Evidence) -> tuple[str, ...]:
    """What happened besides: read-backs that differ, alarms, migrations that broke, errors on the console."""
    reasons: list[str] = []
    alarms, readback = evidence.alarms, evidence.readback
    if readback is not None and readback.differing:
        reasons.append(readback_sentence(evidence))
    if alarms is not None and (alarms.detections or alarms.drops):
        noticed = f"DRBD noticed {alarms.detections} writes whose buffer changed"
        reasons += [f"{noticed} and lost its connection {alarms.drops} time(s)", *alarms.causes]
    reasons += rejoin_findings(evidence)
    if unchecked := _fsck_unanswered(evidence):
        reasons.append(unchecked)
    broken = [one for one in evidence.migrations if one.outcome not in _ENDED_WELL]
    reasons += [f"migration {one.number} {one.outcome}: {one.message}" for one in broken]
    return (*reasons, *doubts(evidence), *(f"guest: {line}" for line in evidence.console_errors))


def _unanswered(evidence: Evidence) -> str | None:
    verify = evidence.verify
    if verify is None or not verify.complete:
        said = "the start and the end of the verify were not both seen"
        after = evidence.after
        return said if after is None or after.healthy else f"{said}; after it DRBD reported {after}"
    if verify.skipped_blocks:
        return f"the verify skipped {verify.skipped_blocks} busy blocks"
    if evidence.log_holes:
        return f"{evidence.log_holes} kernel messages were lost, and extents may be among them"
    if evidence.comparison is None or evidence.counter_kib is None:
        return "an oracle did not answer"
    if evidence.comparison.blocks != evidence.device_blocks or not evidence.device_blocks:
        return f"the comparison covered {evidence.comparison.blocks} of {evidence.device_blocks} blocks"
    return None


def _no_difference(evidence: Evidence, agreed: OracleAgreement) -> Verdict:
    """The oracles agree, and at the end no block differs."""
    alarms = evidence.alarms
    resynced = alarms is not None and bool(alarms.detections or alarms.drops)
    if agreed.marked and not resynced:
        sentence = f"verify reported {agreed.marked} blocks that were equal again, and nothing explains it"
        return _inconclusive(evidence, sentence)
    if agreed.marked:
        return _verdict(
            VerdictKind.TRANSIENT, evidence,
            f"verify reported {agreed.marked} blocks; all were equal again once everything had been written",
            _accompanying_findings(evidence),
        )  # fmt: skip
    if alarms is not None and (alarms.detections or (alarms.drops and not _disconnected_on_purpose(evidence))):
        if not alarms.detections and (missing := _scenario_incomplete(evidence)):
            return _inconclusive(evidence, f"the connection was lost {alarms.drops} time(s), and {missing}")
        reasons = (*alarms.causes, *rejoin_findings(evidence))
        return _verdict(VerdictKind.TRANSIENT, evidence, _healed_by_resync(alarms), reasons)
    return _verdict(VerdictKind.CLEAN, evidence, nothing_found(evidence), _secondary_findings(evidence))


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
    reasons = (*_failed(evidence), *_accompanying_findings(evidence))
    return _verdict(VerdictKind.DIVERGED, evidence, sentence, reasons, differing)


def _stand_alone(split: SplitBrain) -> str:
    states = ", ".join(f"{node} {state.connection}" for node, state in split.states.items())
    return (
        f"a node became StandAlone ({states}) without a split brain in the kernel log; {split.differing_blocks or 0} "
        f"blocks differed, and the changes of {split.victim} were discarded"
    )


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
    differ = f"{len(agreed.differing)} blocks differ ({owners_text(evidence.ownership)})"
    sentence = f"{differ}{exposed_text(evidence)}{claim}"
    reasons = [*_failed(evidence), *cause_findings(evidence), *unwritten_findings(evidence)]
    reasons += _secondary_findings(evidence)
    if agreed.healed:
        reasons.append(f"{agreed.healed} more blocks were reported and are equal again")
    if agreed.unnamed:
        reasons.append(f"the kernel log names {len(agreed.named)} of the {agreed.marked} blocks that verify marked")
    return _verdict(VerdictKind.DIVERGED, evidence, sentence, tuple(reasons), len(agreed.differing))


def _downgrade_unproven_clean(clean: Verdict, evidence: Evidence, controls: Controls) -> Verdict:
    """CLEAN stands only where the lab is proven to see, and where there was something to see."""
    questions: list[Callable[[], str | None]] = [
        lambda: _controls_failed(evidence, controls),
        lambda: None if evidence.observed.scatter_gather or not evidence.cell.replication.scatter_gather else
        "the replication link has no scatter-gather: TCP copies, and writes that change in flight cannot be seen",
        # Before the question of what was exposed: it says what the workload left undone.
        lambda: unproven_work(evidence),
        lambda: "the workload exposed no block write" if _exposure_missing(evidence) else None,
        lambda: _unexpected_kernel_error(evidence),
        lambda: _scenario_incomplete(evidence),
        lambda: without_ground(evidence),
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
        return readback_sentence(evidence)
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
    if evidence.console_errors and cell.fault is not Fault.IO_ERROR:
        return f"the guest's console reports an error: {evidence.console_errors[0]}"
    return None


def _controls_failed(evidence: Evidence, controls: Controls) -> str | None:
    for control in Control:
        outcome = controls.get(control)
        if outcome is None and control.demanded(evidence.schema, evidence.cell.client):
            return f"the {control} control of this run has no result"
        if outcome is not None and not outcome.held:
            return f"the {control} control failed: {outcome.sentence}"
    return None


def _exposure_missing(evidence: Evidence) -> bool:
    """A guest that swaps elsewhere is to write nothing here."""
    elsewhere = evidence.cell.guest_options.swap_on is not SwapOn.DRBD
    return evidence.cell.workload != "no-writes" and not elsewhere and evidence.exposed_blocks == 0


def _inconclusive(evidence: Evidence, sentence: str) -> Verdict:
    return _verdict(VerdictKind.INCONCLUSIVE, evidence, sentence)


def _verdict(
    kind: VerdictKind, evidence: Evidence, sentence: str, reasons: tuple[str, ...] = (), differing: int = 0
) -> Verdict:
    errors = tuple(f"kernel: {line}" for line in evidence.kernel_errors)
    if any(map(epoch_not_ended, evidence.kernel_errors)):
        errors = (*errors, _WRITE_CONFLICT)
    return Verdict(
        kind, sentence, reasons + errors, differing, evidence.exposed_blocks, rate_bound(evidence, differing),
        opportunities=opportunities(evidence),
    )  # fmt: skip

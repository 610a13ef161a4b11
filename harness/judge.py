"""Evidence to verdict: pure, so that a stored run can be judged again without a lab.

The order of the questions is the order of what would make an answer worthless: a refusal, a failure, corrupt
data, something other than what was asked, oracles that disagree; only then is "nothing found" worth a look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.agree import Together, together
from harness.model import (
    ClientKind,
    Control,
    Evidence,
    Verdict,
    VerdictKind,
    blocks_of,
)
from harness.stats import rate_upper

REFUSED = "refused"


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
    if failure is not None and failure.kind == REFUSED:
        return _verdict(VerdictKind.REFUSED, evidence, failure.message)
    if evidence.work is not None and evidence.work.read_back_errors:
        count = evidence.work.read_back_errors
        differing = evidence.comparison.differing_blocks if evidence.comparison else 0
        sentence = f"the client read back something else than it wrote, {count} time(s)"
        return _verdict(VerdictKind.CORRUPT, evidence, sentence, differing=differing)
    if failure is not None:
        return _inconclusive(evidence, f"{failure.phase}: {failure.message}")
    for question in (_mismatch, _precondition, _missing):
        if answer := question(evidence):
            return _inconclusive(evidence, answer)
    return None


def _mismatch(evidence: Evidence) -> str | None:
    """What was opened is not what was asked, or could not be read back."""
    cell, seen = evidence.cell, evidence.observed
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
    if said.differing:
        return _diverged(evidence, said)
    if said.marked:
        return _verdict(
            VerdictKind.TRANSIENT, evidence,
            f"verify reported {said.marked} blocks; all were equal again once everything had been written",
        )  # fmt: skip
    return _verdict(VerdictKind.CLEAN, evidence, _nothing(evidence))


def _diverged(evidence: Evidence, said: Together) -> Verdict:
    own = evidence.ownership
    owners = [f"{count} {name}" for name, count in (("live", own.live), ("dead", own.dead), ("unknown", own.unknown))
              if count]  # fmt: skip
    state = evidence.after
    claim = f" while DRBD said {state.connection}, {state.local_disk}/{state.peer_disk}" if state else ""
    exposed = f" after {evidence.exposed_blocks} exposed block writes" if evidence.exposed_blocks else ""
    sentence = f"{len(said.differing)} blocks differ ({', '.join(owners) or 'no owner known'}){exposed}{claim}"
    reasons = []
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
        lambda: None if evidence.observed.scatter_gather else
        "the replication link has no scatter-gather: TCP copies, and the pitfall cannot be seen",
        lambda: "the workload exposed no block write" if _idle_but_should_not(evidence) else None,
        lambda: f"a kernel reported trouble: {evidence.kernel_trouble[0]}" if evidence.kernel_trouble else None,
    ]  # fmt: skip
    for question in questions:
        if doubt := question():
            return _inconclusive(evidence, f"nothing was found, but {doubt}")
    return clean


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

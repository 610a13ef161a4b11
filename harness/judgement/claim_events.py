"""Whether one play of a cell shows what a claim is about; pure.

A play that has no such question in it (:data:`NO_TRIAL`) is counted neither way, nor is one whose evidence lacks what
tells: that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from harness.judgement.repetitions import HITS, TRIALS
from harness.model import Evidence, MigrationOutcome, Potency, Result, Verdict, VerdictKind
from harness.model.claim import ClaimEvent

#: The longest time from the first failure of a digest to a split brain that is still *at once*, in seconds.
AT_ONCE = 10.0


@dataclass(frozen=True)
class Aside:
    """A play that is not counted, and why: as what stands behind "set aside:"."""

    why: str


NO_TRIAL = Aside("")
NOT_PLAYED = "not played"
#: How the reason ends where a field of the evidence is missing.
LACKING = "in the evidence"
#: What only a play with a certain outcome is asked: one without an answer is none of these.
_OF_AN_OUTCOME = (
    ClaimEvent.SILENT, ClaimEvent.ONLY_VERIFY, ClaimEvent.REPAIRED_BY_RECONNECT, ClaimEvent.REPAIRED_BY_INVALIDATE
)  # fmt: skip
#: What becomes of the guest and its data.
_OF_THE_GUEST = (
    ClaimEvent.LOST, ClaimEvent.REREAD, ClaimEvent.REREAD_ALLOCATED, ClaimEvent.MISREAD, ClaimEvent.DIED
)  # fmt: skip
Shown = bool | Aside


def shown(event: ClaimEvent, result: Result) -> Shown:
    """Whether ``result`` shows ``event``.

    INCONCLUSIVE and REFUSED are no answer.  Where the question is whether blocks differ, a weak CLEAN is none either:
    nothing shows that this work could have diverged.
    """
    verdict, evidence = result.verdict, result.evidence
    if verdict is None or evidence is None:
        return NO_TRIAL if event in _OF_AN_OUTCOME else Aside(NOT_PLAYED)
    if verdict.kind not in TRIALS:
        if event in _OF_AN_OUTCOME:
            return NO_TRIAL
        return Aside("refused by the stack" if verdict.kind is VerdictKind.REFUSED else "without an answer")
    return _EVENTS[event](verdict, evidence)


def with_split_brain(event: ClaimEvent, showing: Iterable[Result]) -> str:
    """How many of the plays that show ``event``, harm to the guest, ended in a split brain; empty for none.

    What is discarded after a split brain is lost, and read differently, by that alone.
    """
    ended = [one.evidence is not None and _split(one.evidence) for one in showing]
    if not any(ended) or event not in _OF_THE_GUEST:
        return ""
    which = f"{sum(ended)} of them " if not all(ended) else "each " if len(ended) > 1 else ""
    return f", {which}in a play that ended in a split brain"


def _split(evidence: Evidence) -> bool:
    return evidence.alarms is not None and evidence.alarms.split_brain is not None


def differing(verdict: Verdict, evidence: Evidence) -> int:
    """How many blocks differed at the end; the comparison's count where the verdict is about something worse."""
    compared = evidence.comparison.differing_blocks if evidence.comparison else 0
    return max(verdict.differing_blocks, compared) if verdict.kind in HITS else 0


def _differs(verdict: Verdict, evidence: Evidence) -> Shown:
    if verdict.kind is VerdictKind.CLEAN and verdict.potency is Potency.WEAK:
        return Aside("CLEAN (weak)")
    if _split(evidence):
        return Aside("with a split brain, after which replicas differ rightly")
    return differing(verdict, evidence) > 0


def _lost(_: Verdict, evidence: Evidence) -> Shown:
    if evidence.canary is None:
        return Aside("without a canary's records in the evidence")
    return evidence.canary.total_lost > 0


def _reread(_: Verdict, evidence: Evidence) -> Shown:
    if evidence.readback is None:
        return Aside("without a read-back in the evidence")
    return evidence.readback.differing_blocks > 0


def _reread_allocated(_: Verdict, evidence: Evidence) -> Shown:
    if evidence.readback is None:
        return Aside("without a read-back in the evidence")
    return evidence.readback.ownership.allocated > 0


def _moved(evidence: Evidence) -> bool:
    return any(move.outcome is MigrationOutcome.COMPLETED for move in evidence.migrations)


def _died(_: Verdict, evidence: Evidence) -> Shown:
    if evidence.canary is None:
        return Aside("without a canary's records in the evidence")
    return not evidence.canary.survived if _moved(evidence) else NO_TRIAL


def _misread(_: Verdict, evidence: Evidence) -> Shown:
    canary, readback, work = evidence.canary, evidence.readback, evidence.work
    if not _moved(evidence):
        return NO_TRIAL
    if readback is not None and readback.ownership.allocated:
        return True
    if (canary is not None and (canary.corrupt or canary.memory_wrong)) or (work is not None and work.read_back_errors):
        return True
    return False if readback is not None else Aside("without a read-back in the evidence")


def _split_at_once(_: Verdict, evidence: Evidence) -> Shown:
    alarms = evidence.alarms
    if alarms is None:
        return Aside("without DRBD's alarms in the evidence")
    split = alarms.split_brain
    if not alarms.failures and not alarms.mismatches and split is None:
        return Aside("in which the digest had nothing to notice")
    if split is None or not split.confirmed:
        return False
    return split.after_seconds is not None and split.after_seconds <= AT_ONCE


def _silent(verdict: Verdict, evidence: Evidence) -> Shown:
    if _differs(verdict, evidence) is not True:
        return NO_TRIAL
    if evidence.after is None:
        return Aside("without DRBD's state at the end in the evidence")
    state = evidence.after
    return (state.connection, state.local_disk, state.peer_disk) == ("Connected", "UpToDate", "UpToDate")


def _only_verify(verdict: Verdict, evidence: Evidence) -> Shown:
    silent = _silent(verdict, evidence)
    if silent is not True:
        return silent
    verify, alarms = evidence.verify, evidence.alarms
    if verify is None or not verify.complete:
        return Aside("without a complete verify in the evidence")
    noticed = alarms is not None and (alarms.detections or alarms.drops or alarms.split_brain is not None)
    return bool(verify.source.extents) and not noticed


def _digest_noticed(_: Verdict, evidence: Evidence) -> Shown:
    alarms = evidence.alarms
    if alarms is None or not alarms.algorithm:
        return Aside("without a digest's alarms in the evidence")
    if alarms.detections:
        return bool(alarms.mismatches)
    changed = evidence.witness is not None and evidence.witness.watched and evidence.witness.changed_writes > 0
    diverged = evidence.comparison is not None and evidence.comparison.differing_blocks > 0
    return False if changed or diverged else Aside("in which the digest had nothing to notice, as far as is known")


def _repaired_by(method: str) -> Callable[[Verdict, Evidence], Shown]:
    """Whether this alone made all equal, by the comparison."""

    def event(_: Verdict, evidence: Evidence) -> Shown:
        repair = evidence.repair
        if repair is None or not repair.method.startswith(method):
            return NO_TRIAL
        return repair.method == method and repair.differing_after == 0

    return event


def _slow(_: Verdict, evidence: Evidence) -> Shown:
    """One play alone is neither: :mod:`harness.judgement.claim_costs` has them in pairs."""
    measured = evidence.work is not None and evidence.work.performance is not None
    return Aside("without pairs with cache=none" if measured else "without fio's figures in the evidence")


_EVENTS: Mapping[ClaimEvent, Callable[[Verdict, Evidence], Shown]] = {
    ClaimEvent.DIFFERS: _differs,
    ClaimEvent.LOST: _lost,
    ClaimEvent.REREAD: _reread,
    ClaimEvent.REREAD_ALLOCATED: _reread_allocated,
    ClaimEvent.DIED: _died,
    ClaimEvent.MISREAD: _misread,
    ClaimEvent.SPLIT_AT_ONCE: _split_at_once,
    ClaimEvent.SILENT: _silent,
    ClaimEvent.ONLY_VERIFY: _only_verify,
    ClaimEvent.DIGEST_NOTICED: _digest_noticed,
    ClaimEvent.REPAIRED_BY_RECONNECT: _repaired_by("disconnect + connect"),
    ClaimEvent.REPAIRED_BY_INVALIDATE: _repaired_by("invalidate-remote --reset-bitmap=no"),
    ClaimEvent.SLOW: _slow,
}

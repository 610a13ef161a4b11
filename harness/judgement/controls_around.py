"""Which controls count for a cell, by when they were played; pure.

A control shows what its lab could see just then.  So a cell stands between the latest one before it and the first one
after it, each of its own kind and on its own lab; and once one has failed, nothing later on that lab is proven by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.judgement.controls import control_outcome, with_outcome
from harness.judgement.judge import judge
from harness.model import Control, ControlOutcome, Controls, Evidence, Verdict, VerdictKind

# Before this schema a run played its controls once, and nothing was asked of when.
_TIMED_SINCE = 3
# The kind of a failure that is Ctrl-C, or a signal that is taken like it.
_INTERRUPTED = "interrupted"
# What stands only between controls that held.
_NEED_CONTROLS = (VerdictKind.CLEAN, VerdictKind.TRANSIENT)


@dataclass(frozen=True)
class PlayedControl:
    """The outcome of one play of a control: on which lab, and when it began (ISO 8601 in UTC)."""

    outcome: ControlOutcome
    lab: str
    started_at: str


def interrupted(evidence: Evidence) -> bool:
    """Whether somebody stopped the attempt, which says nothing about its lab."""
    return evidence.failure is not None and evidence.failure.kind == _INTERRUPTED


def played_controls(attempts: Iterable[Evidence]) -> tuple[PlayedControl, ...]:
    """The controls among ``attempts``, in the order in which they were played; what was interrupted was not."""
    controls = (one for one in attempts if one.cell.control is not None and not interrupted(one))
    found = (PlayedControl(control_outcome(one), one.lab, one.started_at) for one in controls)
    return tuple(sorted(found, key=lambda one: one.started_at))


def controls_around(evidence: Evidence, played: Sequence[PlayedControl]) -> Controls:
    """The outcomes that count for ``evidence``; ``played`` is in the order of time, of any lab.

    Each control that failed before it on its lab, else the latest before it and the first after it, of which a failed
    one wins.  One that was played only after it is not there unless it failed.
    """
    found: Controls = {}
    here = [one for one in played if one.lab == evidence.lab]
    if evidence.schema < _TIMED_SINCE:
        for one in here:
            found = with_outcome(found, one.outcome)
        return found
    for control in Control:
        mine = [one for one in here if one.outcome.control is control]
        before = [one.outcome for one in mine if one.started_at <= evidence.started_at]
        after = [one.outcome for one in mine if one.started_at > evidence.started_at][:1]
        failed = [one for one in (*before, *after) if not one.held]
        if failed or before:
            found = {**found, control: failed[0] if failed else before[-1]}
    return found


def judge_between(evidence: Evidence, played: Sequence[PlayedControl], given_up: Mapping[str, str]) -> Verdict:
    """The verdict on ``evidence`` between the controls that were ``played`` (in the order of time, of any lab).

    Where none followed, because the run was killed or its lab was rebuilt, that is a reason beside the verdict: what
    the cell itself found was complete, and its opening controls held.  Where the lab failed again and again until it
    was given up (``given_up``: why, by the lab's id) it is INCONCLUSIVE: nobody knows since when the lab was failing.
    """
    verdict = judge(evidence, controls_around(evidence, played))
    if evidence.cell.control is not None or verdict.kind not in _NEED_CONTROLS or evidence.schema < _TIMED_SINCE:
        return verdict
    followed = {
        one.outcome.control for one in played if one.lab == evidence.lab and one.started_at > evidence.started_at
    }
    demanded = [one for one in Control if one.demanded(evidence.schema, evidence.cell.client)]
    missing = [one for one in demanded if one not in followed]
    if not missing:
        return verdict
    which = "no control" if missing == demanded else f"no {' and no '.join(missing)} control"
    without = f"{which} was played after it"
    if evidence.lab not in given_up:
        return replace(verdict, reasons=(*verdict.reasons, without))
    found = f"{verdict.kind.lower()}: {verdict.sentence}"
    return replace(
        verdict,
        kind=VerdictKind.INCONCLUSIVE,
        sentence=f"{without}, for the run gave up on its lab: {given_up[evidence.lab]}",
        reasons=(found, *verdict.reasons),
        hazard=None, potency=None, potency_reason="",
    )  # fmt: skip

"""Stored evidence, judged again: needs no lab and no store."""

from __future__ import annotations

from collections.abc import Iterable

from harness.judgement.controls import control_outcome
from harness.judgement.controls_around import interrupted, judge_between, played_controls
from harness.judgement.judge import WORKLOAD_FAILED
from harness.judgement.potency import with_potency
from harness.model import Evidence, Result, Run, VerdictKind

_BADNESS = {
    VerdictKind.INCONCLUSIVE: 0,
    VerdictKind.REFUSED: 1,
    VerdictKind.CLEAN: 1,
    VerdictKind.TRANSIENT: 2,
    VerdictKind.DIVERGED: 3,
    VerdictKind.CORRUPT: 4,
}


def judged_attempts(run: Run, attempts: Iterable[Evidence]) -> list[Result]:
    """The verdict on each of ``attempts`` to ``run`` between all the controls among them, in the order given."""
    attempts = list(attempts)
    played = played_controls(attempts)
    return [Result(one.cell, judge_between(one, played, run.given_up), one) for one in attempts]


def rejudged(run: Run, attempts: Iterable[Evidence]) -> list[Result]:
    """Each repetition of each cell of ``run``, judged from all of ``attempts`` (oldest first): :func:`standing`."""
    return standing(run, judged_attempts(run, attempts))


def standing(run: Run, judged: Iterable[Result]) -> list[Result]:
    """Each repetition of each cell of ``run``, as the worst of its :func:`judged_attempts`.

    A control, which is played again and again, is what it was on the newest lab: the first that failed there, or the
    last.  Cells without evidence have no verdict; evidence of a cell that the run does not plan comes behind the plan.
    """
    found: dict[tuple[str, int], Result] = {cell.play: Result(cell, None, None) for cell in run.cells}
    controls: dict[tuple[str, int], list[Result]] = {}
    for result in judged:
        if result.cell.control is not None:
            controls.setdefault(result.cell.play, []).append(result)
        else:
            found[result.cell.play] = worse(found.get(result.cell.play, result), result)
    found |= {play: _control_that_stands(results) for play, results in controls.items()}
    return with_potency(found.values())


def _control_that_stands(plays: list[Result]) -> Result:
    # One that was interrupted takes nothing back; where there is no other it is no answer.
    plays = [one for one in plays if one.evidence and not interrupted(one.evidence)] or plays
    plays = sorted(plays, key=lambda one: one.evidence.started_at if one.evidence else "")
    newest = plays[-1].evidence
    here = [one for one in plays if one.evidence and newest and one.evidence.lab == newest.lab]
    failed = (one for one in here if one.evidence and not control_outcome(one.evidence, one.verdict).held)
    return next(failed, plays[-1])


def control_held(result: Result) -> bool:
    """Whether the control that ``result`` is of held; one without evidence did not."""
    return result.evidence is not None and control_outcome(result.evidence).held


def worse(earlier: Result, later: Result) -> Result:
    """The one of two results of a cell that stands: the worse answer; of two that are as bad, the later.

    So no later attempt erases what an earlier one found, and any answer is better than none.
    """
    return earlier if badness(earlier) > badness(later) else later


def badness(result: Result) -> int:
    """How bad an answer is, the worst highest; REFUSED is as bad as CLEAN, and no verdict is less than any."""
    return -1 if result.verdict is None else _BADNESS[result.verdict.kind]


def conclusive(result: Result) -> bool:
    """Whether a resumed run may leave this cell as it is."""
    if result.cell.control is not None:
        return control_held(result)
    return result.verdict is not None and result.verdict.answers(result.cell.expected)


def workload_failed(result: Result) -> str | None:
    """Why what was to be done on the device could not be, where the answer is missing for that reason alone.

    That is no fault of the lab's: a job or a script of the user's failed, or the disk was full.
    """
    failure = result.evidence.failure if result.evidence else None
    inconclusive = result.verdict is not None and result.verdict.kind is VerdictKind.INCONCLUSIVE
    if failure is None or failure.kind != WORKLOAD_FAILED or not inconclusive:
        return None
    return failure.message

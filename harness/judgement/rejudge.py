"""Stored evidence, judged again: needs no lab and no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.judgement.controls import outcomes
from harness.judgement.judge import judge
from harness.judgement.potency import with_potency
from harness.model import Controls, Evidence, Result, Run, VerdictKind

_BADNESS = {
    VerdictKind.INCONCLUSIVE: 0,
    VerdictKind.REFUSED: 1,
    VerdictKind.CLEAN: 1,
    VerdictKind.TRANSIENT: 2,
    VerdictKind.DIVERGED: 3,
    VerdictKind.CORRUPT: 4,
}


def controls_by_lab(attempts: Iterable[Evidence]) -> Mapping[str, Controls]:
    """The outcomes of the controls of each lab that a run used; controls prove nothing about another lab."""
    found: dict[str, list[Evidence]] = {}
    for evidence in attempts:
        found.setdefault(evidence.lab, []).append(evidence)
    return {lab: outcomes(seen) for lab, seen in found.items()}


def rejudged(run: Run, attempts: Iterable[Evidence]) -> list[Result]:
    """Each repetition of each cell of ``run``, judged from all of ``attempts`` (oldest first), the worst first.

    Cells without evidence have no verdict; evidence of a cell that the run does not plan comes behind the plan.
    """
    attempts = list(attempts)
    controls = controls_by_lab(attempts)
    found: dict[tuple[str, int], Result] = {cell.play: Result(cell, None, None) for cell in run.cells}
    for evidence in attempts:
        verdict = judge(evidence, controls.get(evidence.lab, {}))
        result = Result(evidence.cell, verdict, evidence)
        found[evidence.cell.play] = worse(found.get(evidence.cell.play, result), result)
    return with_potency(found.values())


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
    return result.verdict is not None and result.verdict.kind is not VerdictKind.INCONCLUSIVE

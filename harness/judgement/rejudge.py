"""Stored evidence, judged again: needs no lab and no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.judgement.controls import outcomes
from harness.judgement.judge import judge
from harness.model import Controls, Evidence, Result, Run, VerdictKind


def controls_by_lab(attempts: Iterable[Evidence]) -> Mapping[str, Controls]:
    """The outcomes of the controls of each lab that a run used; controls prove nothing about another lab."""
    found: dict[str, list[Evidence]] = {}
    for evidence in attempts:
        found.setdefault(evidence.lab, []).append(evidence)
    return {lab: outcomes(seen) for lab, seen in found.items()}


def rejudged(run: Run, attempts: Iterable[Evidence]) -> list[Result]:
    """Every cell of ``run``, judged from the newest of ``attempts`` (oldest first within a cell).

    Cells without evidence have no verdict; evidence of a cell that the run does not plan comes behind the plan.
    """
    attempts = list(attempts)
    controls = controls_by_lab(attempts)
    newest = {evidence.cell.id: evidence for evidence in attempts}
    cells = {cell.id: cell for cell in run.cells} | {one.cell.id: one.cell for one in newest.values()}
    results = []
    for cell_id, cell in cells.items():
        evidence = newest.get(cell_id)
        verdict = judge(evidence, controls.get(evidence.lab, {})) if evidence else None
        results.append(Result(cell, verdict, evidence))
    return results


def conclusive(result: Result) -> bool:
    """Whether a resumed run may leave this cell as it is."""
    return result.verdict is not None and result.verdict.kind is not VerdictKind.INCONCLUSIVE

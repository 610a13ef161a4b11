"""A stored run, judged again: needs no lab."""

from __future__ import annotations

from harness.judge import Controls, judge, outcomes
from harness.model import Evidence, VerdictKind
from harness.report import Result
from harness.store import Store


def controls_by_lab(store: Store) -> dict[str, Controls]:
    """The outcomes of the controls of each lab that a run used; controls prove nothing about another lab."""
    found: dict[str, list[Evidence]] = {}
    for evidence in store.every_attempt():
        found.setdefault(evidence.lab, []).append(evidence)
    return {lab: outcomes(seen) for lab, seen in found.items()}


def judged_results(store: Store) -> list[Result]:
    """Every cell of the run, judged from its newest evidence; cells without evidence have no verdict."""
    run = store.run()
    controls = controls_by_lab(store)
    newest = {evidence.cell.id: evidence for evidence in store.all_evidence()}
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

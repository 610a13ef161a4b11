"""The golden corpus: evidence of real runs, judged again.

Each folder of ``golden/`` is a stored run (some of its cells).  Its files are never rewritten;
they are of the schema that wrote them.  A verdict that changes is changed on purpose: with its reason
in ``golden/changed.toml``.
"""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path

import pytest

from harness.judgement.rejudge import judged_attempts
from harness.model import ClientKind, Control, Crash, Evidence, Fault, Verdict, VerdictKind
from harness.store import Store

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted(path.parent.name for path in GOLDEN.glob("*/run.json"))
ATTEMPTS = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.glob("*/cells/*/*/evidence.json"))


@cache
def run_of(name: str) -> dict[str, tuple[Evidence, Verdict]]:
    """The attempts of one stored run: its evidence and the verdict that today's judge has on it, by folder."""
    store = Store.open(GOLDEN, name)
    attempts = list(store.attempts())
    results = judged_attempts(store.run(), [evidence for _, evidence in attempts])
    return {
        str(directory.relative_to(GOLDEN)): (evidence, result.verdict)
        for (directory, evidence), result in zip(attempts, results, strict=True)
        if result.verdict is not None
    }


def changed() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = tomllib.loads((GOLDEN / "changed.toml").read_text()).get("changed", {})
    return found


def test_corpus_every_file_is_readable() -> None:
    assert sorted(where for name in RUNS for where in run_of(name)) == ATTEMPTS
    assert [sentence for name in RUNS for sentence in Store.open(GOLDEN, name).damaged()] == []


@pytest.mark.parametrize("where", ATTEMPTS)
def test_judge_stored_evidence_same_verdict(where: str) -> None:
    stored = json.loads((GOLDEN / where / "verdict.json").read_text())
    _, verdict = run_of(where.partition("/")[0])[where]
    stored.update(changed().get(where, {}))
    if stored.pop("rate", "") == "none":
        stored["rate_upper_95"] = None
    seen = (verdict.kind, verdict.differing_blocks, verdict.exposed_blocks, verdict.rate_upper_95)
    wanted = tuple(stored[key] for key in ("kind", "differing_blocks", "exposed_blocks", "rate_upper_95"))
    assert seen == wanted, verdict.sentence


def test_corpus_changed_verdicts_exist_and_have_reasons() -> None:
    for where, change in changed().items():
        assert where in ATTEMPTS and change["reason"] and set(change) <= {"kind", "rate", "reason"}
        stored = json.loads((GOLDEN / where / "verdict.json").read_text())
        assert change.get("rate", "none") == "none" and (stored["rate_upper_95"] is not None or "rate" not in change)
        assert stored["kind"] != change.get("kind") and len(change) > 1


def test_corpus_covers_every_verdict_control_and_disturbance() -> None:
    attempts = [one for name in RUNS for one in run_of(name).values()]
    cells = [evidence.cell for evidence, _ in attempts]
    assert {verdict.kind for _, verdict in attempts} == set(VerdictKind)
    assert {cell.control for cell in cells} >= {control for control in Control if control.demanded(2, ClientKind.GUEST)}
    assert {cell.crash for cell in cells} >= set(Crash)
    assert {cell.fault for cell in cells} >= set(Fault)
    assert any(cell.migrations for cell in cells)

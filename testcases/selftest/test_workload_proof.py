"""Whether a workload proves that it did what it is made for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.judgement.workload_proof import PROOFS, did_nothing, unproven_work
from harness.model import CacheMode, Cell, Crash, Evidence, Work
from harness.workloads import WORKLOADS

CASES = [(workload, proof.fact, proof.otherwise) for workload, proofs in PROOFS.items() for proof in proofs]


def done(workload: str) -> Work:
    """Just enough of everything."""
    return Work(8.0, {proof.fact: proof.least for proof in PROOFS[workload]})


def test_proofs_every_workload_has_an_entry() -> None:
    assert set(PROOFS) == set(WORKLOADS)
    assert [workload for workload, proofs in PROOFS.items() if not proofs] == ["no-writes", "guest-script"]
    assert all(proof.least > 0 for proofs in PROOFS.values() for proof in proofs)


@pytest.mark.parametrize("workload", PROOFS)
def test_did_nothing_just_enough_done_none(workload: str) -> None:
    assert did_nothing(workload, done(workload)) is None


@pytest.mark.parametrize(("workload", "fact", "otherwise"), CASES)
@pytest.mark.parametrize("value", [0.0, math.nan, -1.0])
def test_did_nothing_too_little_sentence(workload: str, fact: str, otherwise: str, value: float) -> None:
    work = done(workload)
    work = replace(work, facts={**work.facts, fact: value})
    sentence = f"the workload '{workload}' did not do what it is made for: {otherwise}"
    assert did_nothing(workload, work) == did_nothing(workload, work, may_lack=True) == sentence


@pytest.mark.parametrize(("workload", "fact", "otherwise"), CASES)
def test_did_nothing_figure_missing_sentence_unless_it_may_lack(workload: str, fact: str, otherwise: str) -> None:
    work = replace(done(workload), facts={name: value for name, value in done(workload).facts.items() if name != fact})
    assert f"'{fact}' is missing" in (did_nothing(workload, work) or "")
    assert did_nothing(workload, work, may_lack=True) is None


def test_did_nothing_unknown_workload_nothing_demanded() -> None:
    assert did_nothing("test_of_somebody", Work(0.0)) is None


def test_unproven_work_missing_figures_matter_since_schema_3_without_crash() -> None:
    cell = Cell("reclaim", cache=CacheMode.NONE)
    silent = Evidence(cell, 1, "2026-11-24T17:00:00Z", work=Work(8.0, {"pages_reclaimed": 7.0}), schema=3)
    assert "'pages_swapped_out' is missing" in (unproven_work(silent) or "")
    assert "'pages_swapped_out' is missing" in (unproven_work(replace(silent, work=None)) or "")
    assert unproven_work(replace(silent, schema=2)) is unproven_work(replace(silent, schema=1)) is None
    crashed = replace(silent, cell=replace(cell, crash=Crash.QEMU), work=Work(4.0))
    assert unproven_work(crashed) is None
    idle = replace(silent, schema=2, work=Work(8.0, {"pages_reclaimed": 0.0}))
    assert "no page was reclaimed" in (unproven_work(idle) or ""), "what an older schema counted counts"


@pytest.mark.parametrize(
    ("workload", "fact"), [(workload, proof.fact) for workload, proofs in PROOFS.items() for proof in proofs]
)
def test_did_nothing_one_is_enough_and_none_is_not(workload: str, fact: str) -> None:
    enough = {proof.fact: 1.0 for proof in PROOFS[workload]}
    assert did_nothing(workload, Work(1.0, enough)) is None
    assert did_nothing(workload, Work(1.0, {**enough, fact: 0.0})) is not None

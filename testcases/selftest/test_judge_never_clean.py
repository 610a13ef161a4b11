"""Evidence to verdict: what makes it INCONCLUSIVE though nothing was found: no work, no control, a kernel's error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_evidence import HELD, SWAP, assert_inconclusive, evidence, kind, observed, oracles

from harness.judgement.judge import judge
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Control,
    ControlOutcome,
    FilesystemKind,
    ReplicationProfile,
    VerdictKind,
    Work,
)


@pytest.mark.parametrize(
    ("facts", "schema", "text"),
    [
        (
            {"pages_swapped_out": 0.0},
            2,
            "nothing was found, but the workload 'pressure' did not do what it is made for",
        ),
        ({"pages_swapped_out": 0.0}, 3, "no page was written to swap"),
        ({}, 3, "'pages_swapped_out' is missing"),
    ],
)
def test_judge_workload_that_did_nothing_inconclusive(facts: dict[str, float], schema: int, text: str) -> None:
    found = replace(evidence(work=Work(8.0, facts)), schema=schema)
    assert_inconclusive(found, text)
    nothing_written = replace(evidence(work=Work(8.0, facts), exposed_blocks=0), schema=schema)
    assert_inconclusive(nothing_written, text)
    differing = replace(evidence(work=Work(8.0, facts), **oracles({5}, {5})), schema=schema)
    assert kind(differing) is VerdictKind.DIVERGED, "a difference stays one, whoever made it"


def test_judge_workload_without_figures_of_older_schema_clean() -> None:
    assert kind(replace(evidence(work=Work(8.0)), schema=2)) is VerdictKind.CLEAN


@pytest.mark.parametrize("control", Control)
def test_judge_control_missing_or_failed_never_clean(control: Control) -> None:
    missing = {name: outcome for name, outcome in HELD.items() if name is not control}
    without = f"nothing was found, but the {control} control of this run has no result"
    assert_inconclusive(evidence(), without, missing)
    if control in (Control.STEADY, Control.IN_FLIGHT_GUEST):
        assert kind(replace(evidence(), schema=2), missing) is VerdictKind.CLEAN, "there was none then"
    failed = {**HELD, control: ControlOutcome(control, False, "it saw nothing")}
    assert_inconclusive(evidence(), f"nothing was found, but the {control} control failed: it saw nothing", failed)


def test_judge_cell_of_the_node_itself_needs_no_control_through_a_guest() -> None:
    missing = {name: outcome for name, outcome in HELD.items() if name is not Control.IN_FLIGHT_GUEST}
    assert kind(evidence(Cell("fio-verify", client=ClientKind.HOST)), missing) is VerdictKind.CLEAN


def test_judge_no_controls_never_clean() -> None:
    assert_inconclusive(evidence(), "control of this run has no result", None)


@pytest.mark.parametrize("scatter_gather", [False, None])
def test_judge_no_scatter_gather_never_clean(scatter_gather: bool | None) -> None:
    seen = replace(observed(SWAP), scatter_gather=scatter_gather)
    assert_inconclusive(evidence(observed=seen), "no scatter-gather")


@pytest.mark.parametrize("scatter_gather", [False, None])
def test_judge_no_scatter_gather_as_requested_clean(scatter_gather: bool | None) -> None:
    cell = Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        replication=ReplicationProfile(scatter_gather=False),
    )
    seen = replace(observed(cell), scatter_gather=scatter_gather, replication=cell.replication)
    assert kind(evidence(cell, observed=seen)) is VerdictKind.CLEAN


def test_judge_nothing_exposed_clean_only_without_writes() -> None:
    assert_inconclusive(evidence(exposed_blocks=0), "the workload exposed no block write")
    idle = judge(evidence(Cell("no-writes", cache=CacheMode.NONE), exposed_blocks=0), HELD)
    assert (idle.kind, idle.rate_upper_95) == (VerdictKind.CLEAN, None)
    assert "no block write was exposed" in idle.sentence


def test_judge_kernel_errors_never_clean() -> None:
    errors = ("nodea: BUG: soft lockup", "nodeb: Oops")
    assert_inconclusive(evidence(kernel_errors=errors), "a kernel reported an error: nodea: BUG: soft lockup")
    verdict = judge(evidence(kernel_errors=errors, **oracles({1}, {1})), HELD)
    assert verdict.kind is VerdictKind.DIVERGED, "what is seen is seen"
    assert verdict.reasons == ("kernel: nodea: BUG: soft lockup", "kernel: nodeb: Oops")

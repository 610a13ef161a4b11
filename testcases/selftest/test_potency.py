"""How much a CLEAN is worth: by what the same work did elsewhere in the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drawn_evidence import CELLS
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_evidence import HELD, evidence, oracles
from test_witness_coverage import CONTROLS, SAW_CHANGES, WATCHED, any_watched

from harness.judgement.judge import judge
from harness.judgement.potency import with_potency
from harness.judgement.rejudge import rejudged
from harness.model import (
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    ControlOutcome,
    Crash,
    DelayProfile,
    DiskBus,
    Evidence,
    Fault,
    FilesystemKind,
    Layout,
    Potency,
    ReplicationProfile,
    Result,
    Run,
    Sabotage,
    Verdict,
    VerdictKind,
    Witness,
)

BACK = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK)
NONE = replace(BACK, cache=CacheMode.NONE)
BOTH = DelayProfile(20, 5)


def clean(cell: Cell = BACK, witness: Witness | None = None) -> Result:
    found = evidence(cell, witness=witness)
    return Result(cell, judge(found, HELD), found)


def diverged(cell: Cell = NONE, kind: VerdictKind = VerdictKind.DIVERGED, blocks: int = 3) -> Result:
    return Result(cell, Verdict(kind, "", differing_blocks=blocks), None)


def potency(*results: Result) -> tuple[Potency | None, str]:
    """That of the first."""
    verdict = with_potency(results)[0].verdict
    assert verdict is not None
    return verdict.potency, verdict.potency_reason


def test_potency_alone_weak() -> None:
    assert potency(clean()) == (
        Potency.WEAK,
        "no write is known to have changed in flight, here or in another cell with the same work",
    )


def test_potency_writes_changed_here_strong() -> None:
    for watched in (True, False):
        found = clean(witness=replace(SAW_CHANGES, watched=watched))
        assert found.verdict is not None and found.verdict.potency is Potency.STRONG, "the cell alone shows it"
        assert potency(found) == potency(found, diverged()) == (Potency.STRONG, "7 block writes changed in flight")
    assert potency(clean(witness=WATCHED))[0] is Potency.WEAK


@pytest.mark.parametrize("kind", [VerdictKind.DIVERGED, VerdictKind.CORRUPT])
def test_potency_same_work_diverged_in_another_cell_strong(kind: VerdictKind) -> None:
    reason = f"the same work ended as {kind} in {NONE.id}"
    assert potency(clean(), clean(NONE), diverged(kind=kind)) == (Potency.STRONG, reason)
    assert potency(clean(), diverged(kind=kind, blocks=0))[0] is Potency.WEAK, "what was lost is no difference"


@pytest.mark.parametrize(
    "layout", [Layout.RAW, Layout.CRYPT, Layout.CRYPT_NODE, Layout.PARTITIONED, Layout.LVM, Layout.RAW_ON_XFS]
)
def test_potency_encryption_is_below_the_same_work_and_another_layout_is_not(layout: Layout) -> None:
    shown = (
        Potency.STRONG if layout in {Layout.RAW, Layout.CRYPT, Layout.CRYPT_NODE, Layout.CRYPT_QEMU} else Potency.WEAK
    )
    assert potency(clean(replace(NONE, layout=layout)), diverged(NONE))[0] is shown


def test_potency_another_repetition_diverged_strong() -> None:
    assert potency(clean(NONE), diverged(replace(NONE, repetition=4))) == (
        Potency.STRONG,
        "the same work ended as DIVERGED in repetition 4",
    )


@pytest.mark.parametrize("behind", [CacheMode.WRITETHROUGH, CacheMode.WRITEBACK, CacheMode.UNSAFE])
@pytest.mark.parametrize("direct", [CacheMode.NONE, CacheMode.DIRECTSYNC])
def test_potency_page_cache_of_the_node_changed_says_nothing_about_the_guests_memory(
    behind: CacheMode, direct: CacheMode
) -> None:
    """Seen: with cache=unsafe the witness saw hundreds of QEMU's writes change, and cache=none became strong by it."""
    behind_cell, direct_cell = replace(BACK, cache=behind), replace(BACK, cache=direct)
    for other in (clean(behind_cell, witness=SAW_CHANGES), diverged(behind_cell)):
        assert potency(clean(direct_cell), other)[0] is Potency.WEAK
        assert potency(clean(replace(behind_cell, aio=AioMode.IO_URING)), other)[0] is Potency.STRONG
    assert potency(clean(behind_cell), clean(direct_cell, witness=SAW_CHANGES))[0] is Potency.STRONG


def test_potency_other_cell_is_named_whichever_comes_first_by_its_id() -> None:
    for this, other in ((BACK, NONE), (replace(NONE, cache=CacheMode.DIRECTSYNC), NONE)):
        assert potency(clean(this), diverged(other))[1].endswith(f" in {other.id}")
        assert potency(clean(this), clean(other, SAW_CHANGES))[1].endswith(f" in {other.id}")


def test_potency_same_work_changed_writes_in_another_cell_strong() -> None:
    other = clean(NONE, SAW_CHANGES)
    reason = f"the same work changed 7 block writes in flight in {NONE.id}"
    assert potency(clean(), other) == (Potency.STRONG, reason)
    reason = f"the same work ended as DIVERGED in {NONE.id}"
    assert potency(clean(), other, diverged()) == (Potency.STRONG, reason), "a difference says more"
    assert potency(clean(), clean(NONE, WATCHED))[0] is Potency.WEAK


@pytest.mark.parametrize("kind", [VerdictKind.TRANSIENT, VerdictKind.INCONCLUSIVE, VerdictKind.REFUSED, None])
def test_potency_other_cell_without_a_difference_weak(kind: VerdictKind | None) -> None:
    verdict = Verdict(kind, "", differing_blocks=3) if kind else None
    assert potency(clean(), Result(NONE, verdict, None))[0] is Potency.WEAK


@pytest.mark.parametrize(
    "other",
    [
        {"workload": "pressure"},
        {"filesystem": FilesystemKind.EXT4},
        {"client": ClientKind.HOST},
        {"delays": DelayProfile(20)},
        {"delays": DelayProfile(0, 5)},
        {"migrations": 2},
        {"crash": Crash.NODE},
        {"fault": Fault.LINK_CUT},
        {"replication": ReplicationProfile(two_primaries=True)},
    ],
)
def test_potency_other_work_or_what_makes_a_difference_likelier_shows_nothing(other: dict[str, Any]) -> None:
    there = replace(NONE, **other)
    assert potency(clean(), diverged(there))[0] is Potency.WEAK
    assert potency(clean(), clean(there, SAW_CHANGES))[0] is Potency.WEAK
    same = replace(BACK, **other)
    assert potency(clean_of(same), diverged(there))[0] is Potency.STRONG, "where it is here too, it does"


def clean_of(cell: Cell) -> Result:
    return Result(cell, Verdict(VerdictKind.CLEAN, ""), None)


@pytest.mark.parametrize(
    "this",
    [
        {"cache": CacheMode.UNSAFE},
        {"aio": AioMode.NATIVE},
        {"bus": DiskBus.SCSI},
        {"delays": BOTH},
        {"seconds": 60},
        {"migrations": 4},
        {"crash": Crash.RESET},
        {"fault": Fault.IO_ERROR},
        {"replication": ReplicationProfile(integrity="crc32c")},
    ],
)
def test_potency_what_is_asked_of_this_cell_beyond_the_other_does_not_matter(this: dict[str, Any]) -> None:
    assert potency(clean_of(replace(BACK, **this)), diverged())[0] is Potency.STRONG


@pytest.mark.parametrize("delays", [DelayProfile(19, 5), DelayProfile(20, 4)])
def test_potency_delays_of_the_other_longer_weak_shorter_strong(delays: DelayProfile) -> None:
    longer, shorter = replace(NONE, delays=BOTH), replace(NONE, delays=delays)
    assert potency(clean_of(replace(BACK, delays=delays)), diverged(longer))[0] is Potency.WEAK
    assert potency(clean_of(replace(BACK, delays=BOTH)), diverged(shorter))[0] is Potency.STRONG
    assert potency(clean_of(replace(BACK, delays=BOTH)), diverged(longer))[0] is Potency.STRONG


@pytest.mark.parametrize(
    ("here", "there"),
    [({"crash": Crash.NODE}, {"crash": Crash.QEMU}), ({"fault": Fault.STALL}, {"fault": Fault.LINK_CUT})],
)
def test_potency_another_disturbance_than_here_shows_nothing(here: dict[str, Any], there: dict[str, Any]) -> None:
    assert potency(clean_of(replace(BACK, **here)), diverged(replace(NONE, **there)))[0] is Potency.WEAK


@pytest.mark.parametrize("sabotage", Sabotage)
def test_potency_cell_whose_instrument_was_sabotaged_shows_nothing(sabotage: Sabotage) -> None:
    there = replace(NONE, sabotage=sabotage)
    for here in (BACK, replace(BACK, sabotage=sabotage)):
        assert potency(clean_of(here), diverged(there))[0] is Potency.WEAK
        assert potency(clean_of(here), clean(there, SAW_CHANGES))[0] is Potency.WEAK
        assert potency(clean_of(here), diverged())[0] is Potency.STRONG


def test_potency_strong_of_a_cell_whose_evidence_is_not_at_hand_stays() -> None:
    strong = Verdict(VerdictKind.CLEAN, "", potency=Potency.STRONG, potency_reason="7 block writes changed in flight")
    assert potency(Result(BACK, strong, None)) == (Potency.STRONG, strong.potency_reason)
    stale = Result(BACK, strong, evidence(BACK))
    assert potency(stale)[0] is Potency.WEAK, "what the evidence does not show is not said"


def test_potency_other_kinds_none() -> None:
    wrong = Verdict(VerdictKind.DIVERGED, "", potency=Potency.STRONG, potency_reason="stale")
    assert potency(Result(NONE, wrong, None)) == (None, "")


def test_rejudged_cells_of_a_run_show_each_others_potency() -> None:
    run = Run("run1", "quick", "2026-11-23T01:50:03Z", (BACK, NONE))
    # Of a schema that demands three controls.
    attempts = [replace(one, schema=2) for one in (evidence(BACK), evidence(NONE, **oracles({5}, {5})))]
    controls = [
        replace(one, lab="lab")
        for one in (
            evidence(Cell("no-writes", client=ClientKind.HOST, control=Control.IDLE), exposed_blocks=0),
            evidence(Cell("inflight-modify", client=ClientKind.HOST, control=Control.IN_FLIGHT), **oracles({3}, {3})),
            evidence(Cell("planted", client=ClientKind.HOST, control=Control.PLANTED), **oracles({3}, {3})),
        )
    ]
    assert controls[2].verify is not None
    controls[2] = replace(controls[2], planted=controls[2].verify.source.extents)
    back, none, *_ = rejudged(run, [*controls, *attempts])
    assert back.verdict is not None and none.verdict is not None
    assert (back.verdict.kind, none.verdict.kind) == (VerdictKind.CLEAN, VerdictKind.DIVERGED)
    assert (back.verdict.potency, none.verdict.potency) == (Potency.STRONG, None)


@settings(max_examples=100)
@given(st.lists(st.tuples(any_watched(), CONTROLS), max_size=4), st.lists(CELLS, max_size=2))
def test_potency_any_run_every_clean_has_one_and_nothing_else_changes(
    found: list[tuple[Evidence, dict[Control, ControlOutcome]]], not_run: list[Cell]
) -> None:
    results = [Result(one.cell, judge(one, controls), one) for one, controls in found]
    results += [Result(cell, None, None) for cell in not_run]
    after = with_potency(results)
    assert with_potency(after) == after, "and again the same"
    assert len(after) == len(results)
    for before, now in zip(results, after, strict=True):
        assert (now.cell, now.evidence) == (before.cell, before.evidence)
        if before.verdict is None or now.verdict is None:
            assert now.verdict is before.verdict
            continue
        bare = replace(now.verdict, potency=before.verdict.potency, potency_reason=before.verdict.potency_reason)
        assert bare == before.verdict, "no kind, no bound and no sentence changes"
        assert (now.verdict.potency is None) == (now.verdict.kind is not VerdictKind.CLEAN)
        assert bool(now.verdict.potency_reason) == (now.verdict.kind is VerdictKind.CLEAN)
        if before.verdict.potency is Potency.STRONG:
            assert now.verdict.potency is Potency.STRONG, "the rest of a run takes nothing away"


@settings(max_examples=100)
@given(st.lists(CELLS, min_size=1, max_size=5), CELLS)
def test_potency_one_more_result_never_weakens(cells: list[Cell], more: Cell) -> None:
    results = [clean_of(cell) for cell in cells]
    for before, now in zip(with_potency(results), with_potency([*results, diverged(more)]), strict=False):
        assert before.verdict is not None and now.verdict is not None
        assert before.verdict.potency is Potency.WEAK or now.verdict.potency is Potency.STRONG

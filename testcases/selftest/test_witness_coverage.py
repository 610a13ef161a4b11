"""What the witness can answer for: the hazard of a cell, its opportunities, and what the controls prove of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drawn_evidence import OUTCOMES, any_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_evidence import HELD, IDLE, IN_FLIGHT, IN_FLIGHT_GUEST, NOTICED, PLANTED, STEADY, SWAP, evidence, oracles

from harness.judgement.controls import control_outcome, outcomes
from harness.judgement.judge import judge
from harness.judgement.rates import opportunities, trials
from harness.judgement.witness_coverage import CHANGING, changed_in_flight, unproven_witness, unwatched
from harness.model import (
    Cell,
    Control,
    ControlOutcome,
    Controls,
    Evidence,
    Hazard,
    Opportunities,
    Potency,
    Verdict,
    VerdictKind,
    Witness,
    Work,
)

#: It watched 950 block writes, just enough of the 1,000 that were exposed, and none changed.
WATCHED = Witness(True, nodes=("nodea",), writes=100, bytes=950 * 4096, block_writes=950)
SAW_CHANGES = replace(WATCHED, changed_writes=5, changed_block_writes=7, changed_blocks=6)
PROVEN: Controls = {**HELD, Control.IN_FLIGHT: ControlOutcome(Control.IN_FLIGHT, True, "as it should be", True)}
WITNESSES = st.none() | st.builds(
    lambda watched, seen, changed, missed: Witness(
        watched, "" if watched else "no BTF", ("nodea",), writes=seen, block_writes=seen,
        changed_block_writes=min(changed, seen), not_watched={"no_room": missed},
    ),
    st.booleans(), st.integers(0, 4), st.integers(0, 3), st.integers(0, 1),
)  # fmt: skip
CONTROLS = st.tuples(OUTCOMES, st.booleans()).map(
    lambda both: {
        name: replace(one, witnessed=both[1] and name in CHANGING) for name, one in both[0].items()
    }
)  # fmt: skip


@st.composite
def any_watched(draw: st.DrawFn) -> Evidence:
    """Any evidence, with any witness, of a workload that may count its own opportunities."""
    found = draw(any_evidence())
    counted = draw(st.none() | st.floats(0, 6) | st.sampled_from([-1.0, float("nan"), float("inf")]))
    if found.work is not None:
        found = replace(found, work=replace(found.work, opportunities=counted, opportunity="pages reclaimed"))
    return replace(found, witness=draw(WITNESSES))


def hazard(controls: Controls = PROVEN, cell: Cell = SWAP, **changed: Any) -> tuple[Hazard | None, str]:
    """The hazard and the reasons of the verdict, as text."""
    verdict = judge(evidence(cell, **changed), controls)
    return verdict.hazard, "; ".join(verdict.reasons)


# --------------------------------------------------------------------------- hazard


def test_hazard_witness_proven_and_saw_all_writes_none() -> None:
    assert hazard(witness=WATCHED) == (Hazard.NONE, "")


@pytest.mark.parametrize("kind", ["clean", "transient"])
@pytest.mark.parametrize("watched", [True, False])
def test_hazard_changed_and_equal_at_the_end_healed(kind: str, watched: bool) -> None:
    changed: dict[str, Any] = {"alarms": replace(NOTICED, mismatches=(), failures=())} if kind == "transient" else {}
    found = evidence(witness=replace(SAW_CHANGES, watched=watched), **changed)
    verdict = judge(found, HELD)
    assert (verdict.kind.lower(), verdict.hazard) == (kind, Hazard.HEALED), "what was seen was seen, proven or not"


def test_hazard_digest_noticed_changes_healed_without_a_witness() -> None:
    assert hazard(alarms=NOTICED)[0] is Hazard.HEALED
    verdict = judge(evidence(alarms=replace(NOTICED, mismatches=(), failures=()), witness=WATCHED), PROVEN)
    assert (verdict.kind, verdict.hazard) == (VerdictKind.TRANSIENT, None), "why it lost its connection nobody knows"


def test_hazard_blocks_differ_persisted() -> None:
    for controls in (HELD, PROVEN):
        for witness in (None, WATCHED, SAW_CHANGES):
            assert hazard(controls, **oracles({5}, {5}), witness=witness)[0] is Hazard.PERSISTED
            wrong = {"work": Work(1.0, read_back_errors=1), "witness": witness}
            assert hazard(controls, **oracles({5}, {5}), **wrong)[0] is Hazard.PERSISTED
            assert hazard(controls, **wrong)[0] is None, "lost, yet no block differs: not by this"


@pytest.mark.parametrize(
    ("witness", "why"),
    [
        (replace(WATCHED, watched=False, reason="no BTF"), "is not known: no BTF"),
        (replace(WATCHED, watched=False), "is not known: the witness did not watch"),
        (replace(WATCHED, writes=0, block_writes=0), "the witness saw no write, and 1000 block writes were exposed"),
        (replace(WATCHED, block_writes=949), "the witness saw 949 of 1000 exposed block writes"),
        (replace(WATCHED, not_watched={"no_room": 2, "too_long": 1}), "3 of 103 writes were not watched"),
    ],
)
def test_hazard_writes_not_watched_not_known_with_reason(witness: Witness, why: str) -> None:
    found, reasons = hazard(witness=witness)
    assert found is None and reasons.startswith("whether writes changed in flight") and reasons.endswith(why)


def test_hazard_witness_not_proven_by_an_in_flight_control_not_known_with_reason() -> None:
    assert hazard(HELD, witness=WATCHED) == (
        None,
        "whether writes changed in flight is not known: no in-flight control shows that the witness of this lab sees "
        "changes",
    )
    for control in Control:
        controls = {**HELD, control: replace(HELD[control], witnessed=True)}
        assert (unproven_witness(controls) is None) == (control in CHANGING)


def test_hazard_nobody_watched_not_known_without_a_word() -> None:
    assert hazard(witness=None) == (None, "")
    assert unwatched(evidence()) == "nothing watched the writes"


def test_hazard_workload_that_writes_nothing_no_write_to_be_seen() -> None:
    quiet = Cell("no-writes", filesystem=SWAP.filesystem, cache=SWAP.cache)
    silent = replace(WATCHED, writes=0, block_writes=0)
    assert hazard(cell=quiet, witness=silent, exposed_blocks=0) == (Hazard.NONE, "")
    found, reasons = hazard(cell=quiet, witness=silent)
    assert found is None and "the witness saw 0 of 1000 exposed block writes" in reasons, "somebody else wrote"


@settings(max_examples=300)
@given(any_watched(), CONTROLS)
def test_hazard_any_evidence_only_as_defined(found: Evidence, controls: dict[Control, ControlOutcome]) -> None:
    verdict = judge(found, controls)
    noticed = found.alarms is not None and found.alarms.detections > 0
    if verdict.hazard is Hazard.PERSISTED:
        assert verdict.kind in (VerdictKind.DIVERGED, VerdictKind.CORRUPT) and verdict.differing_blocks
    if verdict.hazard is Hazard.HEALED:
        assert verdict.kind in (VerdictKind.CLEAN, VerdictKind.TRANSIENT)
        assert changed_in_flight(found) or noticed
    if verdict.hazard is Hazard.NONE:
        assert verdict.kind is VerdictKind.CLEAN
        assert found.witness is not None and found.witness.watched and not found.witness.total_not_watched
        assert found.witness.block_writes >= 0.95 * found.exposed_blocks
        assert not changed_in_flight(found) and not noticed
        assert any(one.witnessed for one in controls.values())
    if verdict.kind in (VerdictKind.INCONCLUSIVE, VerdictKind.REFUSED):
        assert verdict.hazard is None


@settings(max_examples=300)
@given(any_watched(), CONTROLS, WITNESSES)
def test_judge_any_witness_changes_no_kind(
    found: Evidence, controls: dict[Control, ControlOutcome], other: Witness | None
) -> None:
    unknown = {name: replace(one, witnessed=False) for name, one in controls.items()}
    seen, unseen = judge(found, controls), judge(replace(found, witness=other), unknown)
    same = [(one.kind, one.differing_blocks, one.exposed_blocks) for one in (seen, unseen)]
    assert same[0] == same[1]


@settings(max_examples=200)
@given(any_watched(), CONTROLS)
def test_judge_any_evidence_own_potency_of_clean_only(found: Evidence, controls: dict[Control, ControlOutcome]) -> None:
    verdict = judge(found, controls)
    assert (verdict.potency is None) == (verdict.kind is not VerdictKind.CLEAN) == (verdict.potency_reason == "")
    if verdict.kind is VerdictKind.CLEAN:
        assert (verdict.potency is Potency.STRONG) == (changed_in_flight(found) > 0)


# --------------------------------------------------------------------------- opportunities


def reclaimed(count: float | None, witness: Witness | None = None, **changed: Any) -> Evidence:
    work = replace(evidence().work or Work(1.0), opportunities=count, opportunity="reclaimed pages")
    return evidence(work=work, witness=witness, **changed)


@pytest.mark.parametrize(
    ("counted", "witness", "expected"),
    [
        (None, None, None),
        (526.0, None, Opportunities(526, "reclaimed pages", "the workload")),
        (0.0, None, Opportunities(0, "reclaimed pages", "the workload")),
        (None, SAW_CHANGES, Opportunities(7, "block writes that changed in flight", "the witness")),
        (None, WATCHED, Opportunities(0, "block writes that changed in flight", "the witness")),
        (6.0, SAW_CHANGES, Opportunities(7, "block writes that changed in flight", "the witness")),
        (7.0, SAW_CHANGES, Opportunities(7, "reclaimed pages", "the workload")),
        (6.0, replace(SAW_CHANGES, watched=False), Opportunities(6, "reclaimed pages", "the workload")),
        (None, replace(SAW_CHANGES, watched=False), None),
        (None, replace(WATCHED, block_writes=0), None),
        (5000.0, None, Opportunities(1000, "reclaimed pages", "the workload")),
        (-1.0, None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
    ],
)
def test_opportunities_larger_of_workload_and_witness(
    counted: float | None, witness: Witness | None, expected: Opportunities | None
) -> None:
    found = reclaimed(counted, witness)
    assert opportunities(found) == judge(found, HELD).opportunities == expected


def test_opportunities_without_a_name_have_one() -> None:
    found = opportunities(evidence(work=Work(1.0, opportunities=3.0)))
    assert found is not None and found.what == "opportunities"


def test_rate_bound_opportunities_are_the_denominator_and_the_sentence_says_so() -> None:
    verdict = judge(reclaimed(526.0), HELD)
    assert verdict.rate_upper_95 == pytest.approx(1 - 0.05 ** (1 / 526))
    assert verdict.sentence == (
        "verify and comparison found nothing in 1000 exposed block writes: at most 0.57 % of the 526 "
        "reclaimed pages diverge (95 %)"
    )
    verdict = judge(reclaimed(309.0, **oracles({5}, {5})), HELD)
    assert "after 1000 exposed block writes and 309 reclaimed pages while DRBD" in verdict.sentence
    assert verdict.rate_upper_95 == pytest.approx(0.01526, abs=1e-5)


def test_rate_bound_no_opportunity_exposed_blocks_are_the_denominator() -> None:
    for found in (reclaimed(0.0), reclaimed(None), reclaimed(None, WATCHED)):
        verdict = judge(found, HELD)
        assert verdict.rate_upper_95 == pytest.approx(1 - 0.05 ** (1 / 1000))
        assert verdict.sentence.endswith("1000 exposed block writes: at most 0.30 % of them diverge (95 %)")
        assert trials(found) == (1000, "exposed block writes")
    assert "after 1000 exposed block writes while" in judge(reclaimed(0.0, **oracles({5}, {5})), HELD).sentence


def test_rate_bound_more_blocks_than_opportunities_is_one() -> None:
    verdict = judge(reclaimed(2.0, **oracles({5, 6, 7}, {5, 6, 7})), HELD)
    assert (verdict.differing_blocks, verdict.rate_upper_95) == (3, 1.0)


@settings(max_examples=300)
@given(any_watched(), CONTROLS)
def test_opportunities_any_evidence_never_more_than_was_exposed(
    found: Evidence, controls: dict[Control, ControlOutcome]
) -> None:
    verdict = judge(found, controls)
    count, _ = trials(found)
    assert 0 <= count <= found.exposed_blocks
    assert verdict.opportunities is None or 0 <= verdict.opportunities.count <= found.exposed_blocks
    if verdict.rate_upper_95 is not None:
        assert min(verdict.differing_blocks, count) / count <= verdict.rate_upper_95 <= 1
    without = judge(replace(found, work=found.work and replace(found.work, opportunities=None), witness=None), controls)
    assert (verdict.rate_upper_95 is None) == (without.rate_upper_95 is None)
    if verdict.rate_upper_95 is not None and without.rate_upper_95 is not None:
        assert verdict.rate_upper_95 >= without.rate_upper_95, "fewer chances never make a bound tighter"


# --------------------------------------------------------------------------- controls


def control(cell: Cell, witness: Witness | None, **changed: Any) -> ControlOutcome:
    if cell.control in CHANGING:
        changed = {**oracles({3}, {3}), **changed}
    if cell.control is Control.IDLE:
        changed = {"exposed_blocks": 0, **changed}
    return control_outcome(evidence(cell, witness=witness, **changed))


@pytest.mark.parametrize("cell", [IN_FLIGHT, IN_FLIGHT_GUEST])
def test_control_outcome_in_flight_needs_a_watching_witness_to_see_changes(cell: Cell) -> None:
    blind = control(cell, WATCHED)
    assert not blind.held and not blind.witnessed
    assert blind.sentence.endswith("but its witness saw none of 950 block writes change in flight")
    seen = control(cell, SAW_CHANGES)
    assert seen.held and seen.witnessed
    assert control(cell, replace(SAW_CHANGES, changed_block_writes=1)).witnessed, "one is enough"


@pytest.mark.parametrize("cell", [STEADY, IDLE])
def test_control_outcome_nothing_may_change_in_steady_and_idle(cell: Cell) -> None:
    assert control(cell, WATCHED).held and not control(cell, WATCHED).witnessed
    for watched in (True, False):
        changed = control(cell, replace(SAW_CHANGES, watched=watched))
        assert not changed.held
        assert changed.sentence.endswith("but its witness saw 7 of 950 block writes change in flight")


@pytest.mark.parametrize("cell", [IN_FLIGHT, IN_FLIGHT_GUEST, STEADY])
def test_control_outcome_witness_that_saw_no_write_failed(cell: Cell) -> None:
    silent = control(cell, replace(WATCHED, writes=0, block_writes=0))
    assert not silent.held
    assert silent.sentence.endswith("but its witness saw no write, and 1000 block writes were exposed")
    assert not control(cell, replace(WATCHED, writes=0, block_writes=0), exposed_blocks=1).held, "one write is a write"
    assert control(IDLE, replace(WATCHED, writes=0, block_writes=0)).held, "nothing was written"


@pytest.mark.parametrize("cell", [IN_FLIGHT, IN_FLIGHT_GUEST, STEADY, IDLE])
def test_control_outcome_witness_that_could_not_run_is_no_failure_and_no_proof(cell: Cell) -> None:
    for witness in (None, Witness(False, "no BTF")):
        outcome = control(cell, witness)
        assert outcome.held and not outcome.witnessed
    partly = control(IN_FLIGHT, replace(SAW_CHANGES, watched=False))
    assert partly.held and not partly.witnessed, "what ended early proves little"


def test_control_outcome_planted_writes_nothing_through_drbd() -> None:
    found = evidence(PLANTED, **oracles({3}, {3}), exposed_blocks=0, witness=replace(WATCHED, writes=0, block_writes=0))
    planted = replace(found, planted=found.verify.source.extents if found.verify else ())
    assert control_outcome(planted).held


def test_judge_witness_of_the_in_flight_control_blind_no_cell_clean() -> None:
    blind = evidence(IN_FLIGHT, **oracles({3}, {3}), witness=WATCHED)
    verdict = judge(evidence(witness=WATCHED), {**HELD, **outcomes([blind])})
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "saw none of 950 block writes" in verdict.sentence
    sees = evidence(IN_FLIGHT, **oracles({3}, {3}), witness=SAW_CHANGES)
    assert judge(evidence(witness=WATCHED), {**HELD, **outcomes([sees])}).hazard is Hazard.NONE


@settings(max_examples=200)
@given(any_watched(), st.sampled_from(Control))
def test_control_outcome_any_evidence_held_only_where_the_witness_agrees(found: Evidence, which: Control) -> None:
    found = replace(found, cell=replace(found.cell, control=which))
    outcome, witness = control_outcome(found), found.witness
    if outcome.held and witness is not None and witness.watched:
        assert which not in CHANGING or witness.changed_block_writes
        assert not which.clean or not witness.changed_block_writes
    if outcome.witnessed:
        assert outcome.held and witness is not None and witness.watched and witness.changed_block_writes
    without: Verdict = judge(replace(found, witness=None))
    assert without.kind is judge(found).kind

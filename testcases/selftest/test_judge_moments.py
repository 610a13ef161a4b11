"""What was when and where: late migrations, delays of each node, lost connections, controls of a lab and a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_evidence import HELD, SWAP, disturbed, evidence, moved, oracles
from test_controls_around import CELL_AT, cell, control, judged, round_at
from test_doubts import moving

from harness.judgement.controls import demanded_controls
from harness.judgement.controls_around import controls_around, interrupted
from harness.judgement.doubts import doubts, without_ground
from harness.judgement.in_force import delays_not_as, not_in_force
from harness.judgement.judge import judge
from harness.judgement.workload_proof import PROOFS
from harness.model import (
    Alarms,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    Crash,
    DelayProfile,
    DelayReading,
    Failure,
    Fault,
    Result,
    VerdictKind,
    Work,
)

# --------------------------------------------------------------------------- late migrations


@pytest.mark.parametrize("workload", [name for name in PROOFS if name != "no-writes"])
def test_doubts_late_migration_takes_the_ground_whatever_the_workload(workload: str) -> None:
    assert "the only migration began when the work was over" in (without_ground(moving(31.0, workload=workload)) or "")
    assert without_ground(moving(31.0, workload="no-writes")) is None


def test_doubts_migrations_all_late_told_from_the_first() -> None:
    found = moving(32.0, 41.0)
    assert without_ground(found) == (
        "each of the 2 migrations began when the work was over already: 2.0 s after the work had ended"
    )
    assert doubts(found) == (without_ground(found),), "and not once more each"
    assert doubts(moving(31.5)) == (
        "the only migration began when the work was over already: 1.5 s after the work had ended",
    )


def test_doubts_migration_in_the_moment_the_work_ends_is_late() -> None:
    assert "0.0 s after" in (without_ground(moving(30.0)) or "")
    assert without_ground(moving(29.9)) is None


def test_doubts_migration_that_ends_with_the_work_was_under_load() -> None:
    assert doubts(moving(25.0)) == (), "it took 5 s, and the work 30 s"
    assert doubts(moving(25.5)) == ("migration 1 ended 0.5 s after the work: only its beginning was under load",)
    assert doubts(moving(1.0, 31.0)) == ("migration 2 began 1.0 s after the work had ended",)
    assert len(doubts(moving(1.0, 30.0))) == 1, "what begins with the end of the work is late, and only that"


def test_doubts_migration_between_the_readbacks_is_no_part_of_the_work() -> None:
    found = moving(1.0)
    later = replace(found, migrations=(*found.migrations, replace(found.migrations[0], during="readback", began=90.0)))
    assert doubts(later) == ()
    alone = replace(found, cell=replace(found.cell, migrations=0), migrations=later.migrations[1:])
    assert doubts(alone) == ()


# --------------------------------------------------------------------------- delays


def reading(a: tuple[int, int] | None, b: tuple[int, int] | None, over: bool = False) -> DelayReading:
    """Link and disk of both nodes; ``a`` is the one that was to be delayed."""
    nodes = {name: None if one is None else DelayProfile(*one) for name, one in (("a", a), ("b", b))}
    return DelayReading("before the work", "a", nodes, over)


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ((20, 5), (0, 0), []),
        ((19, 5), (0, 0), ["the delay of a's link was 19 ms, 20 ms were requested"]),
        ((21, 5), (0, 0), ["the delay of a's link was 21 ms, 20 ms were requested"]),
        ((0, 5), (0, 0), ["the delay of a's link was 0 ms, 20 ms were requested"]),
        ((20, 6), (0, 0), ["the delay of a's disk was 6 ms, 5 ms were requested"]),
        ((20, 5), (1, 0), ["a delay of 1 ms was left on b's link"]),
        ((20, 5), (0, 2), ["a delay of 2 ms was left on b's disk"]),
        ((0, 0), (20, 5), ["a's link was 0 ms", "a's disk was 0 ms", "20 ms was left on b's link", "b's disk"]),
        (None, (0, 0), ["the delays of a could not be read back before the work"]),
        ((20, 5), None, ["the delays of b could not be read back before the work"]),
    ],
)
def test_delays_not_as_each_node_on_its_own(
    a: tuple[int, int] | None, b: tuple[int, int] | None, told: list[str]
) -> None:
    asked = DelayProfile(20, 5)
    found = list(delays_not_as(asked, reading(a, b)))
    assert len(found) == len(told) and all(part in one for part, one in zip(told, found, strict=True))
    there = evidence(replace(SWAP, delays=asked))
    there = replace(there, observed=replace(there.observed, delays=(reading(a, b),)))
    assert not_in_force(there) == (found[0] if found else None)
    assert (judge(there, HELD).kind is VerdictKind.CLEAN) is not bool(found)


def test_delays_after_the_cell_are_no_question_of_what_was_in_force() -> None:
    there = evidence()
    left = replace(there, observed=replace(there.observed, delays=(reading((3, 0), (0, 0), over=True),)))
    assert not_in_force(left) is None
    assert doubts(left) == ("a delay of 3 ms was left on a's link (read before the work)",)


# --------------------------------------------------------------------------- lost connections


@pytest.mark.parametrize(
    ("asked", "injected", "kind"),
    [
        ({"crash": Crash.NODE}, True, VerdictKind.CLEAN),
        ({"crash": Crash.QEMU}, True, VerdictKind.TRANSIENT),
        ({"crash": Crash.RESET}, True, VerdictKind.TRANSIENT),
        ({"fault": Fault.LINK_CUT}, True, VerdictKind.CLEAN),
        ({"fault": Fault.TARGET_KILL}, True, VerdictKind.CLEAN),
        ({"fault": Fault.STALL}, True, VerdictKind.TRANSIENT),
        ({}, False, VerdictKind.TRANSIENT),
        ({}, True, VerdictKind.TRANSIENT),
        ({"fault": Fault.LINK_CUT}, False, VerdictKind.INCONCLUSIVE),
    ],
)
def test_judge_lost_connection_clean_only_where_the_cell_cut_it(
    asked: dict[str, Any], injected: bool, kind: VerdictKind
) -> None:
    there = Cell("pressure", cache=CacheMode.NONE, **asked)
    lost = {"alarms": Alarms(drops=1), "fault_injected": injected}
    found = disturbed(there, **lost) if there.has_canary else evidence(there, **lost)
    assert judge(found, HELD).kind is kind


@pytest.mark.parametrize("failure", ["deadline", "refus", "refusee", "zzz", "interrupted"])
def test_judge_failure_of_any_other_kind_is_no_refusal(failure: str) -> None:
    broken = Failure(failure, "work", "why")
    assert judge(evidence(failure=broken), HELD).kind is VerdictKind.INCONCLUSIVE
    assert judge(evidence(failure=replace(broken, kind="refused")), HELD).kind is VerdictKind.REFUSED
    assert interrupted(evidence(failure=broken)) is (failure == "interrupted")


# --------------------------------------------------------------------------- controls of a lab and of a moment


@pytest.mark.parametrize("lab", ["aaa", "zzz", ""])
def test_judge_between_controls_of_another_lab_prove_nothing(lab: str) -> None:
    here, there = round_at(20) + round_at(40), round_at(20, lab=lab) + round_at(40, lab=lab)
    assert judged(cell(), here).kind is VerdictKind.CLEAN
    assert controls_around(cell(), there) == {}
    assert judged(cell(), there).kind is VerdictKind.INCONCLUSIVE
    assert controls_around(cell(schema=2), there) == {}
    followed = judged(cell(), [*round_at(20), *round_at(40, lab=lab)])
    assert any("no control was played after it" in reason for reason in followed.reasons), "nor do they close a cell"


def test_controls_around_in_the_moment_the_cell_began_counts_as_before() -> None:
    assert set(controls_around(cell(), round_at(CELL_AT))) == set(Control)
    assert any("no control was played after it" in one for one in judged(cell(), round_at(CELL_AT)).reasons)
    both = [control(Control.IDLE, CELL_AT), control(Control.IDLE, CELL_AT + 10, held=False)]
    assert controls_around(cell(), both)[Control.IDLE].sentence == f"at {CELL_AT + 10}"


def test_controls_around_several_failed_the_first_is_told() -> None:
    failed = [control(Control.IDLE, minute, held=False) for minute in (5, 10, 40)]
    assert controls_around(cell(), failed)[Control.IDLE].sentence == "at 5"


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
def test_controls_around_before_schema_3_any_moment_counts(schema: int) -> None:
    later = round_at(CELL_AT + 10)
    assert bool(controls_around(cell(schema=schema), later)) is (schema < 3)
    closed = judged(cell(schema=schema), round_at(0))
    assert any("was played after it" in reason for reason in closed.reasons) is (schema >= 3)


def test_demanded_controls_as_the_cells_that_were_played_or_will_be() -> None:
    guest, host = Cell("pressure", cache=CacheMode.NONE), Cell("pressure", client=ClientKind.HOST)
    old, new = (replace(evidence(guest), schema=schema) for schema in (2, 3))
    three = (Control.PLANTED, Control.IN_FLIGHT, Control.IDLE)
    control_cell = Cell("planted", client=ClientKind.HOST, control=Control.PLANTED)
    alone = Result(control_cell, None, evidence(control_cell))
    assert demanded_controls([Result(guest, None, old), alone]) == three
    assert set(demanded_controls([Result(guest, None, new), alone])) == set(Control)
    assert set(demanded_controls([Result(guest, None, None), alone])) == set(Control)
    assert set(demanded_controls([Result(host, None, None)])) == set(Control) - {Control.IN_FLIGHT_GUEST}
    assert demanded_controls([Result(guest, None, old), Result(guest, None, None)]) == three
    assert demanded_controls([alone]) == demanded_controls([]) == ()


def test_judge_readback_moves_are_no_moves_of_the_work() -> None:
    there = replace(SWAP, migrations=2)
    found = disturbed(there, migrations=(moved(1), moved(2, during="readback")))
    assert "only 1 of 2 migrations were tried" in judge(found, HELD).sentence
    assert judge(evidence(work=Work(1.0)), HELD).kind is VerdictKind.INCONCLUSIVE
    assert judge(evidence(**oracles({1}, {1})), HELD).kind is VerdictKind.DIVERGED

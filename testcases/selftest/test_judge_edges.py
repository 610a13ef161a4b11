"""The judge where its questions have an edge: one more or one less, one piece missing, one of two conditions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_evidence import (
    BLOCKS,
    CANARY,
    HELD,
    MOVED,
    NOTICED,
    PLANTED,
    SPLIT,
    SWAP,
    disturbed,
    evidence,
    kind,
    moved,
    oracles,
)

from harness.judgement.controls import control_outcome
from harness.judgement.judge import judge
from harness.judgement.oracles import combine
from harness.judgement.workload_proof import PROOFS
from harness.model import (
    Alarms,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    ControlOutcome,
    Failure,
    MigrationOutcome,
    Ownership,
    Readback,
    VerdictKind,
    Work,
    extents_of,
)


@pytest.mark.parametrize("workload", [*PROOFS, "aaa-of-a-user", "zzz-of-a-user"])
def test_judge_nothing_exposed_no_clean_unless_nothing_was_to_be_written(workload: str) -> None:
    cell = Cell(workload, client=ClientKind.HOST)
    verdict = judge(evidence(cell, exposed_blocks=0), HELD)
    if workload == "no-writes":
        assert verdict.kind is VerdictKind.CLEAN
    else:
        assert verdict.kind is VerdictKind.INCONCLUSIVE and "exposed no block write" in verdict.sentence
    assert kind(evidence(cell, exposed_blocks=1)) is VerdictKind.CLEAN


def test_judge_loss_without_comparison_no_block_is_said_to_differ() -> None:
    lost = {"work": Work(1.0, read_back_errors=2)}
    verdict = judge(evidence(**lost, comparison=None), HELD)
    assert (verdict.kind, verdict.differing_blocks, verdict.hazard) == (VerdictKind.CORRUPT, 0, None)
    verdict = judge(evidence(**lost, **oracles({5, 6}, {5, 6})), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.CORRUPT, 2)


@pytest.mark.parametrize("count", [1, 2])
def test_judge_wrong_reads_counted_and_none_without_work(count: int) -> None:
    verdict = judge(evidence(work=Work(1.0, read_back_errors=count)), HELD)
    assert verdict.sentence == f"the client read back something else than it wrote, {count} time(s)"
    assert kind(evidence(Cell("no-writes", cache=CacheMode.NONE), work=None)) is VerdictKind.CLEAN


@pytest.mark.parametrize(
    ("watched", "often"), [(90.0, ", 2.0 a minute"), (60.0, ", 3.0 a minute"), (30.0, ", 6.0 a minute"), (0.0, "")]
)
def test_judge_lost_connections_how_often_a_minute(watched: float, often: str) -> None:
    verdict = judge(evidence(alarms=replace(NOTICED, watched_seconds=watched)), HELD)
    assert verdict.kind is VerdictKind.TRANSIENT
    assert f"the connection was lost 3 time(s){often}, and after" in verdict.sentence


@pytest.mark.parametrize("missing", ["comparison", "verify", "incomplete"])
def test_judge_readback_differs_without_an_oracle_nothing_is_said_of_the_replicas(missing: str) -> None:
    found = disturbed(readback=Readback(BLOCKS, "nodea", "nodeb", extents_of({5, 6}), Ownership(allocated=2)))
    assert "both replicas hold the same in 2" in judge(found, HELD).sentence
    assert found.verify is not None
    broken: dict[str, Any] = {
        "comparison": {"comparison": None},
        "verify": {"verify": None},
        "incomplete": {"verify": replace(found.verify, source=replace(found.verify.source, finished=False))},
    }[missing]
    verdict = judge(replace(found, **broken), HELD)
    assert verdict.kind is VerdictKind.CORRUPT and "both replicas" not in verdict.sentence
    without = replace(found, readback=None)
    assert kind(without) is VerdictKind.CLEAN


@pytest.mark.parametrize("missing", ["verify", "comparison", "counter_kib"])
def test_combine_one_oracle_missing_value_error(missing: str) -> None:
    with pytest.raises(ValueError, match="an oracle has no answer"):
        combine(evidence(**{missing: None}))


def test_judge_work_that_began_is_asked_for_although_it_did_not_end() -> None:
    off = replace(evidence().observed, link_delay_ms=7)
    begun = evidence(work=None, observed=off, phases={"work": 3.0}, failure=Failure("deadline", "work", "late"))
    assert "7/0 ms" in judge(begun, HELD).sentence, "what was in force counts from the beginning of the work"
    not_begun = replace(begun, phases={"attach": 3.0})
    assert judge(not_begun, HELD).sentence == "work: late"
    differs = evidence(
        work=None, phases={"work": 3.0}, failure=Failure("deadline", "work", "late"), **oracles({5}, {5})
    )
    assert kind(differs) is VerdictKind.DIVERGED
    assert kind(replace(differs, phases={})) is VerdictKind.INCONCLUSIVE, "what differed before is none of this cell's"


def test_judge_refused_migration_named_the_first_of_them() -> None:
    refused = MigrationOutcome.REFUSED
    found = disturbed(migrations=(moved(1), moved(2, refused, text="no"), moved(3, refused, text="never")))
    assert judge(found, HELD).sentence == "migration 2 was refused: no"


@pytest.mark.parametrize(("tried", "clean"), [(1, False), (2, True), (3, True)])
def test_judge_migrations_tried_fewer_than_asked_inconclusive(tried: int, clean: bool) -> None:
    found = disturbed(MOVED, migrations=tuple(moved(number) for number in range(1, tried + 1)))
    assert (kind(found) is VerdictKind.CLEAN) is clean
    if not clean:
        assert f"only {tried} of {MOVED.migrations} migrations were tried" in judge(found, HELD).sentence


@pytest.mark.parametrize("covered", [BLOCKS - 1, BLOCKS + 1, 0])
def test_judge_comparison_of_another_size_than_the_device_inconclusive(covered: int) -> None:
    whole = evidence().comparison
    assert whole is not None
    found = evidence(comparison=replace(whole, blocks=covered))
    assert f"the comparison covered {covered} of {BLOCKS} blocks" in judge(found, HELD).sentence
    nothing = evidence(comparison=replace(whole, blocks=0), device_blocks=0)
    assert "the comparison covered 0 of 0 blocks" in judge(nothing, HELD).sentence


@pytest.mark.parametrize("holes", [1, 2])
def test_judge_lost_kernel_messages_inconclusive(holes: int) -> None:
    assert f"{holes} kernel messages were lost" in judge(evidence(log_holes=holes), HELD).sentence
    assert kind(evidence(SWAP, log_holes=0)) is VerdictKind.CLEAN


@pytest.mark.parametrize("found", [{"alarms": NOTICED}, oracles({1}, {1})])
def test_judge_several_controls_failed_each_named_once_the_first_in_the_sentence(found: dict[str, Any]) -> None:
    failed = [ControlOutcome(control, False, f"{control} did not hold") for control in (Control.IDLE, Control.STEADY)]
    verdict = judge(evidence(**found), {**HELD, **{one.control: one for one in failed}})
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    told = [f"the {one.control} control failed: {one.sentence}" for one in failed]
    assert [verdict.sentence, verdict.reasons[0]] == told
    assert sum(reason in told for reason in (verdict.sentence, *verdict.reasons)) == 2


@pytest.mark.parametrize("drops", [1, 3])
def test_judge_lost_connections_a_minute_are_no_whole_number(drops: int) -> None:
    verdict = judge(evidence(alarms=replace(NOTICED, drops=drops, watched_seconds=120.0)), HELD)
    assert f", {drops / 2} a minute" in verdict.sentence


@pytest.mark.parametrize(
    ("source", "target", "one_sided"),
    [({1, 2}, {1}, 1), ({1}, {1, 2}, 1), ({1, 2}, {1, 3, 4}, 3), ({1}, set[int](), 1)],
)
def test_combine_logs_that_name_all_marked_blocks_but_not_on_both_nodes_dispute(
    source: set[int], target: set[int], one_sided: int
) -> None:
    both = source | target
    found = evidence(**oracles(both, both))
    assert found.verify is not None
    verify = replace(
        found.verify,
        source=replace(found.verify.source, extents=extents_of(source)),
        target=replace(found.verify.target, extents=extents_of(target)),
    )
    dispute = f"{one_sided} blocks of the same verify stand in the log of one node only"
    assert combine(replace(found, verify=verify)).dispute == dispute
    more = replace(found, verify=verify, counter_kib=4 * len(both) + 4)
    assert combine(more).dispute is None, "a log may name fewer blocks than are marked, and not the same"


@pytest.mark.parametrize(
    "alarms", [replace(NOTICED, mismatches=(), failures=()), replace(NOTICED, drops=0), NOTICED], ids=str
)
def test_judge_marked_blocks_explained_by_lost_connection_or_by_digest_transient(alarms: Alarms) -> None:
    assert kind(evidence(**oracles({1, 2}, set()), alarms=alarms)) is VerdictKind.TRANSIENT


@pytest.mark.parametrize(
    "owned",
    [Ownership(allocated=n, metadata=m, journal=k) for n in (0, 1) for m in (0, 1) for k in (0, 1) if n + m + k],
    ids=str,
)
def test_judge_readback_differs_any_block_in_use_corrupt(owned: Ownership) -> None:
    differing = {5, 6, 7}
    found = disturbed(
        readback=Readback(BLOCKS, "nodea", "nodeb", extents_of(differing), owned), **oracles(differing, differing)
    )
    assert kind(found) is VerdictKind.CORRUPT


@pytest.mark.parametrize(("found", "told"), [(None, "; 0 blocks differed"), (0, "; 0 blocks"), (3, "; 3 blocks")])
def test_judge_stand_alone_without_split_brain_says_how_many_blocks_differed(found: int | None, told: str) -> None:
    split = replace(SPLIT, differing_blocks=found, confirmed=False)
    verdict = judge(evidence(alarms=Alarms(split_brain=split)), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and told in verdict.sentence
    confirmed = judge(evidence(alarms=Alarms(split_brain=replace(split, confirmed=True))), HELD)
    assert (confirmed.kind, confirmed.differing_blocks) == (VerdictKind.DIVERGED, found or 0)


def test_judge_canary_died_the_first_error_of_the_console_is_told() -> None:
    found = disturbed(canary=replace(CANARY, survived=False), console_errors=("first", "second"))
    assert judge(found, HELD).sentence.endswith("the canary died: first")
    assert judge(replace(found, console_errors=()), HELD).sentence.endswith("the canary died")


def test_control_outcome_planted_missed_eight_blocks_of_each_are_told() -> None:
    many, others = {*range(0, 40, 2)}, {*range(1, 41, 2)}
    found = evidence(PLANTED, **oracles(many, many), planted=extents_of(others))
    told = f"found blocks {sorted(many)[:8]}, planted were {sorted(others)[:8]}"
    assert control_outcome(found).sentence == f"verify on the source {told}"


@pytest.mark.parametrize(
    "line",
    [
        "nodea: drbd wc: BAD! BarrierAck #7 received, expected #6!",
        "nodeb: drbd wc: ASSERTION FAILED: connection->current_epoch->list not empty",
        "nodeb: drbd r0/0 drbd0: Remote failed to answer a P_BARRIER (sent at 4295029643 jif; now=4295050752 jif)",
    ],
)
def test_epoch_that_does_not_end_is_said_to_come_from_two_that_wrote_one_block(line: str) -> None:
    found = judge(evidence(kernel_errors=("nodea: Call Trace:", line)), HELD)
    assert found.reasons[-1].endswith("docs/drbd-write-conflict.md")
    assert not any("write-conflict" in reason for reason in judge(evidence(kernel_errors=("x",)), HELD).reasons)

"""A user's questions: what the runs answer, by which cells, and what to play where they do not."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from claimed_plays import (
    DIFFER,
    FREE,
    HIT,
    LATE,
    MISS,
    NAMED,
    READ,
    SWAP,
    K,
    made,
    moved,
    pairs,
    played_by,
    result,
    run,
)
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from test_cost_ratios import cell as disk
from test_cost_ratios import result as measured
from test_mitigation_effect import BASE as REMEDY_BASE
from test_mitigation_effect import plays as repeated

from harness.judgement import questions, questions_drbd, questions_harm, questions_moves
from harness.judgement.question_facts import NOT_ASKED, Facts, QuestionAnswer, Tone
from harness.judgement.stacks import PlayedRun
from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    Comparison,
    Control,
    Crash,
    Extent,
    Fault,
    FileBlocks,
    FilesystemKind,
    Layout,
    Mitigation,
    NodeVerify,
    Ownership,
    Potency,
    Preset,
    Protocol,
    Repair,
    ReplicationProfile,
    Result,
    Run,
    Sabotage,
    SplitBrain,
    UserFile,
    Verify,
)
from harness.report.html import render_html
from harness.store import Store, judged_results

CHECKOUT = Path(__file__).parents[2]
GOLDEN = CHECKOUT / "testcases" / "selftest" / "golden"
EXT4 = replace(SWAP, filesystem=FilesystemKind.EXT4, workload="truncate")


def answer(question: questions.Question, *results: Result) -> QuestionAnswer:
    return question(Facts.of([run(*results)]))


def test_nothing_played_answers_nothing_and_says_what_to_play() -> None:
    for one in questions.answers([run()]):
        assert (one.short, one.tone, one.cells) == (NOT_ASKED, Tone.NOT_ASKED, ()) and one.sentence.endswith(".")
        assert one.play, one.question


def plays_named() -> set[str]:
    answers = [*questions.answers([run()]), *questions.answers(stored("full-drbd-8.4", "alarms-drbd-9.3.3"))]
    return {one.play for one in answers if one.play}


def stored(*names: str) -> list[PlayedRun]:
    stores = [Store.open(GOLDEN, name) for name in names]
    return [PlayedRun(one.directory.name, one.run().stack, tuple(judged_results(one))) for one in stores]


@pytest.mark.parametrize("command", sorted(plays_named()))
def test_command_of_a_question_works(command: str) -> None:
    words = shlex.split(command)
    if words[:3] == ["drbd-harness", "run", "--guest-script"]:
        assert (CHECKOUT / words[3]).is_file() and words[3].endswith(questions_harm.AS_A_USER)
    elif words[1] == "compare":
        assert words == ["drbd-harness", "compare", "RUN", "RUN"]
    else:
        assert played_by(command)


def test_first_question_is_about_cache_none() -> None:
    assert questions.answers([run()])[0].question == "Is cache=none safe on DRBD?"
    bad = answer(
        questions_harm.cache_none, result(LATE, HIT, ownership=Ownership(allocated=3, free=4)), result(EXT4, MISS)
    )
    assert (bad.short, bad.tone, bad.cells) == ("No", Tone.BAD, (LATE.id, EXT4.id))
    assert bad.sentence == (
        "With cache=none replicas differed, or data was lost or read wrongly, in 1 of 2 plays (reclaim on swap 1 of 1"
        " and truncate on ext4 0 of 1), each with delays; 3 of the differing blocks hold live data."
    )
    seen = answer(questions_harm.cache_none, result(SWAP, MISS))
    assert (seen.short, seen.tone) == ("Nothing was seen", Tone.OPEN) and "98 % is not ruled out" in seen.sentence


def test_first_answer_of_many_kinds_of_work_is_short_and_its_numbers_add_up() -> None:
    kinds = [replace(EXT4, filesystem=kind) for kind in FilesystemKind if kind is not FilesystemKind.RAW][:9]
    plays = [result(replace(kinds[8], repetition=at), HIT) for at in (1, 2)] + [result(one, MISS) for one in kinds[:8]]
    told = answer(questions_harm.cache_none, *plays).sentence
    assert f"in 2 of 10 plays (truncate on {kinds[8].filesystem} 2 of 2, " in told and "and 3 others 0 of 3)." in told
    assert "not counted" not in told, "all of them are"
    beside = [
        result(replace(SWAP, mitigation=Mitigation.STABLE_WRITES), MISS), result(replace(SWAP, fault=Fault.STALL), HIT),
        result(EXT4, MISS, potency=Potency.WEAK),
    ]  # fmt: skip
    told = answer(questions_harm.cache_none, result(SWAP, HIT), *beside).sentence
    assert told.endswith("; not counted: 1 weak CLEAN and 2 plays with something else against it, or a fault.")


def test_weak_clean_and_inconclusive_are_no_answer_to_is_it_safe() -> None:
    weak = answer(questions_harm.cache_none, result(SWAP, MISS, potency=Potency.WEAK), result(EXT4, K.INCONCLUSIVE))
    assert (weak.short, weak.tone) == ("Not answered", Tone.OPEN)
    assert "1 play CLEAN, but weak" in weak.sentence and "1 play without an answer" in weak.sentence
    cut = replace(EXT4, crash=Crash.NODE, cache=CacheMode.DIRECTSYNC)
    mode = answer(questions_harm.cache_modes, result(cut, MISS, potency=Potency.WEAK), result(SWAP, HIT))
    assert "directsync" not in mode.sentence and mode.short == "No"


@pytest.mark.parametrize(
    "cell",
    [
        replace(SWAP, layout=Layout.CRYPT),
        replace(SWAP, mitigation=Mitigation.STABLE_WRITES),
        replace(SWAP, replication=ReplicationProfile(integrity="crc32c")),
        replace(SWAP, replication=ReplicationProfile(Protocol.A)),
        replace(SWAP, fault=Fault.IO_ERROR),
        replace(SWAP, control=Control.STEADY),
        replace(SWAP, sabotage=Sabotage.SILENT_VERIFY),
        replace(SWAP, cache=CacheMode.WRITEBACK),
    ],
)
def test_cell_in_which_something_is_done_about_it_says_nothing_of_cache_none(cell: Cell) -> None:
    assert answer(questions_harm.cache_none, result(cell, MISS)).tone is Tone.NOT_ASKED


def test_mitigation_that_is_a_cache_mode_counts_for_that() -> None:
    cell = replace(SWAP, mitigation=Mitigation.WRITEBACK).with_values({"cache": CacheMode.WRITEBACK})
    assert "cache=writeback: none of 1 play harmed" in answer(questions_harm.cache_modes, result(cell, MISS)).sentence


def test_cure_is_told_against_the_same_cell_without_it() -> None:
    cured = replace(SWAP, mitigation=Mitigation.STABLE_WRITES).with_values({"guest_stable_writes": True})
    narrowed = replace(SWAP, mitigation=Mitigation.PROTOCOL_A)
    results = [result(cured, MISS), result(narrowed, HIT)]
    assert answer(questions_harm.cures, *results).tone is Tone.NOT_ASKED, "nothing shows that it would have differed"
    told = answer(questions_harm.cures, result(SWAP, HIT), *results)
    assert told.short == "Not enough plays to say", "one play each may differ by chance"
    assert "no harm was seen any more with stable-writes 0 of 1" in told.sentence
    assert "it still happened with protocol-a 1 of 1" in told.sentence
    often = [
        replace(one, cell=replace(one.cell, repetition=at))
        for at in range(1, 6)
        for one in [result(SWAP, HIT), *results]
    ]
    sure = answer(questions_harm.cures, *often)
    assert "; it still happened with protocol-a 5 of 5 plays." in sure.sentence
    fewer = [
        *repeated(REMEDY_BASE, [500] * 5),
        *repeated(replace(REMEDY_BASE, mitigation=Mitigation.DISCARD), [50] * 5),
    ]
    assert answer(questions_harm.cures, *fewer).sentence.endswith(
        "without: it happened less with discard 5 of 5 plays."
    )
    assert sure.short == "Some do" and "stable-writes 0 of 5" in sure.sentence


def verified(*blocks: int, complete: bool = True, skipped: int = 0) -> Verify:
    extents = tuple(Extent(block * 8, 8) for block in blocks)
    return Verify(NodeVerify("a", True, complete, extents), NodeVerify("b", True, True, extents), 1.0, skipped)


def disks(*blocks: int) -> Comparison:
    return Comparison(100, tuple(Extent(block * 8, 8) for block in blocks), 1.0, "x")


def test_false_alarms_are_told_by_the_disks() -> None:
    real = result(SWAP, HIT, verify=verified(1, 2), comparison=disks(1, 2))
    assert answer(questions_drbd.false_alarms, real).short == "No false alarms"
    # Where the looks do not agree the verdict is INCONCLUSIVE; the question is about just that.
    false = result(EXT4, K.INCONCLUSIVE, verify=verified(1, 2), comparison=disks(2))
    both = answer(questions_drbd.false_alarms, real, false)
    assert (
        both.short == "Some are false alarms" and "4 blocks that a verify reported in 2 plays 3 differ" in both.sentence
    )
    ended = result(SWAP, K.INCONCLUSIVE, verify=verified(1, complete=False), comparison=disks())
    assert answer(questions_drbd.false_alarms, ended).tone is Tone.NOT_ASKED


def test_verify_that_ended_early_or_skipped_is_told() -> None:
    whole, early = result(SWAP, MISS, verify=verified()), result(SWAP, K.INCONCLUSIVE, verify=verified(complete=False))
    assert answer(questions_drbd.verify_finished, whole).short == "It finished"
    assert answer(questions_drbd.verify_finished, whole, early).short == "Not each"
    assert answer(questions_drbd.verify_finished, result(SWAP, MISS, verify=verified(skipped=1))).short == "Not each"


def test_counter_without_a_difference_is_told() -> None:
    same = result(SWAP, HIT, verify=verified(1), comparison=disks(1), counter_kib=4)
    alone = result(SWAP, K.INCONCLUSIVE, verify=verified(), comparison=disks(), counter_kib=12)
    assert answer(questions_drbd.counter_alone, same).short == "Nothing was seen"
    assert answer(questions_drbd.counter_alone, same, alone).short == "Yes"


def test_blocks_come_back_only_where_the_same_cell_diverged_again() -> None:
    mended = {"repair": Repair("disconnect + connect", 1.0, 0), "equal_before": True}
    once = result(SWAP, HIT, **mended)
    again = result(replace(SWAP, repetition=2), HIT, **mended)
    assert answer(questions_drbd.come_back, once, result(EXT4, HIT, **mended)).short == "In part"
    assert answer(questions_drbd.come_back, once, again).short == "They are made anew"
    unequal = result(replace(SWAP, repetition=2), HIT, repair=mended["repair"], equal_before=False)
    assert answer(questions_drbd.come_back, once, unequal).short == "In part"


def test_owners_are_told_live_or_dead() -> None:
    files = (FileBlocks("/a", FilesystemKind.EXT4, 9), FileBlocks("/b", FilesystemKind.EXT4, 2))  # type: ignore[arg-type]
    live = result(EXT4, HIT, ownership=Ownership(allocated=11, files=files))
    dead = result(SWAP, HIT, ownership=Ownership(free=5))
    assert [answer(questions_harm.whose, *some).short for some in ([live], [dead], [live, dead])] == [
        "Live", "Dead", "Live and dead"
    ]  # fmt: skip
    assert "of files the most are in /a (9) and /b (2)" in answer(questions_harm.whose, live).sentence


DIGEST = replace(SWAP, replication=ReplicationProfile(integrity="crc32c"))
BOTH = replace(SWAP, replication=ReplicationProfile(integrity="crc32c", two_primaries=True))
NOTICED = Alarms("crc32c", mismatches=(Extent(0, 8),), failures=(Extent(0, 8),), drops=2, down_seconds=3.0)


def test_digest_is_told_by_its_drops_and_by_split_brain() -> None:
    quiet = answer(questions_drbd.digest_on, result(DIGEST, MISS, alarms=Alarms("crc32c")))
    assert (quiet.short, quiet.play) == ("Nothing was seen", "drbd-harness run --matrix alarms -k twoprimaries")
    assert answer(questions_drbd.digest_on, result(DIGEST, K.TRANSIENT, alarms=NOTICED)).short == "At a price"
    split = replace(NOTICED, split_brain=SplitBrain(0.8, {}, 5, "b", True))
    told = answer(
        questions_drbd.digest_on, result(DIGEST, K.TRANSIENT, alarms=NOTICED), result(BOTH, HIT, alarms=split)
    )
    assert told.short == "No" and "with two Primaries it ended in split brain in 1 of 1" in told.sentence
    hardware = answer(questions_drbd.broken_hardware, result(DIGEST, K.TRANSIENT, alarms=NOTICED))
    assert hardware.short == "Not by itself"
    wire = replace(NOTICED, mismatches=())
    assert answer(questions_drbd.broken_hardware, result(DIGEST, HIT, alarms=wire)).short == "Not answered"


def test_migration_is_told_by_what_the_guest_read() -> None:
    assert answer(questions_moves.migration, moved(readback=READ)).short == "Yes"
    assert answer(questions_moves.migration, moved(readback=FREE)).short == "Nothing was seen"
    assert answer(questions_moves.migration, moved()).tone is Tone.NOT_ASKED, "without a read-back nobody knows"
    copied = moved(readback=FREE)
    copied = replace(copied, cell=replace(copied.cell, cache=CacheMode.WRITEBACK))
    both = answer(questions_moves.migration, moved(readback=READ), copied)
    assert both.short == "With some cache modes" and "with cache=writeback in none of 1 play" in both.sentence
    assert answer(questions_moves.second_migration, moved(readback=READ)).tone is Tone.NOT_ASKED


def test_failover_is_told_by_acknowledged_writes() -> None:
    cut = replace(EXT4, crash=Crash.NODE)
    kept = result(cut, MISS, potency=Potency.WEAK, canary=Canary({"fsync": 9}, {"fsync": 0}))
    lost = result(replace(cut, cache=CacheMode.UNSAFE), K.CORRUPT, canary=Canary({"fsync": 9}, {"fsync": 9}))
    assert answer(questions_moves.failover, kept).short == "Nothing was seen"
    assert answer(questions_moves.failover, kept, lost).short == "With some settings"
    protocol_a = replace(cut, replication=ReplicationProfile(Protocol.A))
    sent = result(protocol_a, K.CORRUPT, canary=Canary({"fsync": 9}, {"fsync": 1}))
    told = answer(questions_moves.failover, kept, sent).sentence
    assert "cache=none with protocol A lost some in 1 of 1" in told and "cache=none in none of 1 play" in told
    assert answer(questions_harm.cache_none, sent).tone is Tone.NOT_ASKED, "that was the protocol"


def test_cost_is_told_as_ratios_with_intervals() -> None:
    told = answer(questions_moves.cost, *pairs(5, 0.5, 0.6))
    assert told.short == "As ratios" and told.cells == ("writethrough-fio-cost-flush8ms",)
    assert "cache=writethrough where a flush takes 8 ms, 4k random writes: IOPS: 0." in told.sentence


def test_cost_of_the_cache_modes_comes_first() -> None:
    cells = [disk(None), disk(Mitigation.STABLE_WRITES), disk(Mitigation.WRITEBACK), disk(None, Preset.PROXMOX_VE)]
    told = answer(questions_moves.cost, *(measured(one, at, 100) for at in (1, 2) for one in cells)).sentence
    assert told.startswith("writeback, 4k random writes: IOPS: 1 of cache=none's") and "stable-writes" in told


def test_how_often_rests_on_plays_without_delays() -> None:
    assert answer(questions_drbd.how_often, result(LATE, HIT)).tone is Tone.NOT_ASKED
    told = answer(questions_drbd.how_often, result(SWAP, HIT, comparison=DIFFER))
    assert told.short == "No interval is short enough" and told.tone is Tone.BAD
    assert f"1 of 1 plays of {SWAP.seconds} s diverged" in told.sentence
    longer = answer(questions_drbd.how_often, result(SWAP, HIT), result(replace(EXT4, seconds=SWAP.seconds + 50), HIT))
    assert f"2 of 2 plays of {SWAP.seconds} to {SWAP.seconds + 50} s diverged" in longer.sentence
    emulated = Facts.of([run(result(SWAP, HIT), stack=replace(NAMED, accelerator="tcg"))])
    assert "emulated nodes, whose rate is none of hardware" in questions_drbd.how_often(emulated).sentence


def test_unprivileged_user_is_told_by_the_script_that_comes_with_the_harness() -> None:
    script = UserFile("unprivileged.sh", "ab" * 32, "x")
    cell = replace(EXT4, workload="guest-script", user_file=script)
    assert answer(questions_harm.unprivileged, result(cell, HIT)).short == "Yes"
    assert answer(questions_harm.unprivileged, result(cell, MISS, potency=Potency.WEAK)).short == "Not answered"
    other = replace(cell, user_file=replace(script, name="mine.sh"))
    assert answer(questions_harm.unprivileged, result(other, HIT)).tone is Tone.NOT_ASKED


def test_newer_stack_is_told_by_the_cells_of_both() -> None:
    newer = replace(NAMED, drbd="9.3.3")
    same = Facts.of([run(result(SWAP, HIT)), run(result(SWAP, HIT), stack=newer)])
    assert questions_moves.newer_stack(same).short == "Nothing was seen"
    other = Facts.of([run(result(SWAP, HIT)), run(result(SWAP, MISS), stack=newer)])
    assert (questions_moves.newer_stack(other).short, questions_moves.newer_stack(other).cells) == ("Yes", (SWAP.id,))
    apart = Facts.of([run(result(SWAP, HIT)), run(result(EXT4, MISS), stack=newer)])
    assert questions_moves.newer_stack(apart).tone is Tone.NOT_ASKED
    assert questions_moves.drbd_nine(other).short == "Nothing was seen"


KINDS = st.lists(
    st.tuples(st.sampled_from([HIT, MISS, K.TRANSIENT, K.INCONCLUSIVE, K.REFUSED, K.CORRUPT, None]), st.booleans(),
              st.booleans()), max_size=8
)  # fmt: skip


@given(plays=KINDS)
def test_nothing_is_called_safe_and_harm_is_never_hidden(plays: list) -> None:  # type: ignore[type-arg]
    results = made(plays)
    first = questions.answers([run(*results)])[0]
    harmed = any(kind in (HIT, K.CORRUPT) for kind, *_ in plays)
    assert (first.short == "No") is harmed and first.short not in ("Yes", "Safe")
    ids = {one.cell.id for one in results}
    for one in questions.answers([run(*results)]):
        assert {*one.cells} <= ids and one.sentence and "  " not in one.sentence


# --------------------------------------------------------------------------- the page


@pytest.mark.parametrize("name", sorted(path.parent.name for path in GOLDEN.glob("*/run.json")))
def test_page_begins_with_the_questions_and_their_links_resolve(name: str) -> None:
    store = Store.open(GOLDEN, name)
    page = render_html(store.run(), judged_results(store), attempts=store.every_attempt())
    parsed = etree.fromstring(page.encode().partition(b"\n")[2] if page.startswith("<?") else page.encode())
    texts = ["".join(one.itertext()) for one in parsed.iter("{*}p") if one.get("class") == "question"]
    assert texts[0] == "Is cache=none safe on DRBD?" and len(texts) > 2
    anchors = {one.get("id") for one in parsed.iter() if isinstance(one.tag, str) and one.get("id")}
    links = {one.get("href") for one in parsed.iter("{*}a")}
    assert {link[1:] for link in links if link and link.startswith("#")} <= anchors


def test_page_of_a_run_without_verdicts_asks_nothing() -> None:
    assert "Is cache=none safe" not in render_html(Run("r", "quick", "", (SWAP,), NAMED), [result(SWAP, None)])

"""What may be said of a claim: by how many plays, by how they ended, by what a mode costs, and on which stacks."""

from __future__ import annotations

import random
from dataclasses import replace

from claimed_plays import HIT, LATE, MISS, NAMED, SWAP, K, claim, cost, made, pairs, result, run
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.claim_events import Aside, shown
from harness.judgement.claim_words import Word
from harness.judgement.claims import Assessment, assess, stack_letters, stacks_of
from harness.judgement.stacks import PlayedRun, StackKey, by_version, letters, short_names
from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    Control,
    DelayProfile,
    FilesystemKind,
    Potency,
    SplitBrain,
    VerdictKind,
)
from harness.model.claim import ClaimEvent, ClaimSpec, Says


def assessed(spec: ClaimSpec, *runs: PlayedRun) -> Assessment:
    return assess([spec], runs)[0]


# --------------------------------------------------------------------------- words


def test_confirmed_takes_ten_plays_of_one_cell_undelayed_and_named_hardware() -> None:
    ten = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 11)]
    assert assessed(claim(), run(*ten)).answer is Word.CONFIRMED
    assert assessed(claim("never"), run(*ten)).answer is Word.REFUTED
    assert assessed(claim(), run(*ten[:9])).answer is Word.OBSERVED
    assert assessed(claim(), run(*ten, stack=replace(NAMED, cpu=""))).answer is Word.OBSERVED
    late = [replace(one, cell=replace(one.cell, delays=LATE.delays)) for one in ten]
    found = assessed(claim(), run(*late))
    assert found.answer is Word.OBSERVED and "one without delays that shows it" in found.could_change
    assert found.numbers == "swap: observed (10 of 10), only with delays"


def test_ten_plays_of_several_cells_or_on_several_processors_confirm_nothing() -> None:
    wide = claim(ask=[{"of": "swap", "cells": [{"cache": "none", "filesystem": "swap", "any": ["aio", "workload"]}]}])
    five = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 6)]
    other = [result(replace(one.cell, workload="pressure"), HIT) for one in five]
    assert assessed(wide, run(*five, *other)).answer is Word.OBSERVED
    elsewhere = run(*five, stack=replace(NAMED, cpu="another"), name="b-run")
    found = assessed(claim(), run(*five), elsewhere)
    assert found.answer is Word.OBSERVED and "observed (10 of 10)" in found.numbers
    assert "(so far 5)" in found.could_change


def test_confirmed_by_one_cell_is_not_said_of_the_plays_of_others_or_on_other_processors() -> None:
    ten = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 11)]
    late = [replace(one, cell=replace(one.cell, delays=LATE.delays)) for one in ten[:2]]
    other = run(*late, result(replace(LATE, repetition=3), MISS), stack=replace(NAMED, cpu="another"), name="b-run")
    unknown = run(result(SWAP, HIT), stack=replace(NAMED, cpu=""), name="c-run")
    found = assessed(claim(), other, run(*ten), unknown)
    assert found.answer is Word.CONFIRMED
    assert found.numbers == (
        "swap: confirmed by one cell (10 of 10; on a processor, hardware KVM), without any delay; "
        "all plays: 13 of 14, 11 without delays, on a processor, another and others that were not recorded"
    )
    assert assessed(claim(), run(*ten)).numbers == (
        "swap: confirmed (10 of 10; on a processor, hardware KVM), without any delay"
    )
    wide = claim("never", ask=[{"of": "swap", "cells": [{"cache": "none", "filesystem": "swap", "any": "workload"}]}])
    cells = assessed(wide, run(*ten, result(replace(SWAP, workload="pressure"), MISS))).numbers
    assert "refuted by one cell (10 of 10; on a processor" in cells and "all plays: 10 of 11" in cells


def test_weak_clean_inconclusive_and_refused_count_neither_way() -> None:
    weak = result(SWAP, MISS, potency=Potency.WEAK)
    found = assessed(claim("never"), run(weak, result(SWAP, K.INCONCLUSIVE), result(SWAP, K.REFUSED)))
    assert found.answer is Word.NO_ANSWER and found.cells == ()
    assert found.numbers == (
        "swap: asked, without an answer (set aside: 1 CLEAN (weak), 1 without an answer and 1 refused by the stack)"
    )
    assert assessed(claim("never"), run(weak, result(SWAP, MISS))).parts[0].stacks[0].tally.answered == 1
    unplayed = assessed(claim("never"), run(result(SWAP, None)))
    assert unplayed.answer is Word.NOT_ASKED and "names no command ('play')" in unplayed.could_change


def test_split_brain_is_no_divergence_in_flight() -> None:
    split = Alarms(split_brain=SplitBrain(1.0, {}, 900, "b", True))
    assert isinstance(shown(ClaimEvent.DIFFERS, result(SWAP, HIT, alarms=split)), Aside)


def test_lost_in_plays_that_ended_in_a_split_brain_says_so() -> None:
    split = Alarms(split_brain=SplitBrain(1.0, {}, 900, "b", True))
    lost = result(replace(SWAP, repetition=1), K.CORRUPT, canary=Canary(lost={"fsync": 3}))
    torn = result(replace(SWAP, repetition=2), K.CORRUPT, alarms=split, canary=Canary(lost={"fsync": 3}))
    again = replace(torn, cell=replace(SWAP, repetition=3))
    kept = result(replace(SWAP, repetition=4), MISS, alarms=split, canary=Canary(lost={"fsync": 0}))
    spec = claim("never", ask=[{"of": "lost", "event": "lost", "cells": [{"any": "*"}]}])
    told = [assessed(spec, run(*some, kept)).numbers for some in ([lost], [torn], [torn, again], [lost, torn])]
    end = "without any delay"
    assert told[0].endswith(end)
    assert told[1].endswith(f"{end}, in a play that ended in a split brain")
    assert told[2].endswith(f"{end}, each in a play that ended in a split brain")
    assert told[3].endswith(f"{end}, 1 of them in a play that ended in a split brain")


def test_claim_that_needs_all_is_not_asked_where_a_part_is_not() -> None:
    other = {"of": "files", "cells": [{"cache": "none", "filesystem": "ext4", "workload": "truncate"}]}
    spec = claim(needs_all=True)
    both = replace(spec, asks=(*spec.asks, *claim(ask=[other]).asks))
    found = assessed(both, run(result(SWAP, HIT)))
    assert found.answer is Word.NOT_ASKED and "what was not asked: files" in found.could_change
    assert assessed(replace(both, needs_all=False), run(result(SWAP, HIT))).answer is Word.OBSERVED
    never = replace(both, asks=(both.asks[0], replace(both.asks[1], says=Says.NEVER)))
    files = replace(SWAP, filesystem=FilesystemKind.EXT4, workload="truncate")
    assert assessed(never, run(result(SWAP, HIT), result(files, MISS))).answer is Word.OBSERVED
    assert assessed(never, run(result(SWAP, HIT), result(files, HIT))).answer is Word.COUNTEREXAMPLE


def test_rates_are_told_by_undelayed_plays_on_hardware_only() -> None:
    plays = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 13)]
    assert assessed(claim("often"), run(*plays)).answer is Word.CONFIRMED
    assert assessed(claim("rarely"), run(*plays)).answer is Word.REFUTED
    assert assessed(claim("often"), run(*plays[:2])).answer is Word.NO_ANSWER
    emulated = assessed(claim("often"), run(*plays, stack=replace(NAMED, accelerator="tcg")))
    assert emulated.answer is Word.NO_ANSWER and "whose timing is none of hardware" in emulated.numbers
    assert "without delays on nodes that are not emulated" in emulated.could_change
    late = [replace(one, cell=replace(one.cell, delays=LATE.delays)) for one in plays]
    assert "12 with delays, which say nothing about how often" in assessed(claim("often"), run(*late)).numbers
    misses = [result(replace(SWAP, repetition=at), MISS) for at in range(1, 41)]
    assert assessed(claim("rarely"), run(*misses)).answer is Word.CONFIRMED
    assert assessed(claim("often"), run(*misses)).answer is Word.REFUTED


KINDS = st.sampled_from([HIT, MISS, K.TRANSIENT, K.INCONCLUSIVE, K.REFUSED, K.CORRUPT, None])
PLAYS = st.lists(st.tuples(KINDS, st.booleans(), st.booleans()), max_size=14)


@given(plays=PLAYS, says=st.sampled_from(["happens", "never"]), seed=st.integers())
def test_words_hold_what_they_promise(plays: list[tuple[VerdictKind | None, bool, bool]], says: str, seed: int) -> None:
    results = made(plays)
    found = assessed(claim(says), run(*results))
    hits = sum(one.verdict is not None and one.verdict.differing_blocks > 0 for one in results)
    answered = sum(kind is not None and kind not in (K.INCONCLUSIVE, K.REFUSED) for kind, *_ in plays)
    weak = sum(kind is MISS and weak for kind, _, weak in plays)
    tallies = [one.tally for part in found.parts for one in part.stacks]
    assert sum(one.hits for one in tallies) == hits and sum(one.answered for one in tallies) == answered - weak
    if found.answer in (Word.CONFIRMED, Word.REFUTED):
        assert answered - weak >= 10 and any(kind is HIT and not late for kind, late, _ in plays)
    assert (found.answer in (Word.OBSERVED, Word.CONFIRMED, Word.COUNTEREXAMPLE, Word.REFUTED)) is (hits > 0)
    assert (found.answer is Word.NOT_ASKED) is all(kind is None for kind, *_ in plays)
    assert found.could_change
    shuffled = list(results)
    random.Random(seed).shuffle(shuffled)
    assert assessed(claim(says), run(*shuffled)).answer is found.answer
    control = result(replace(SWAP, control=Control.IN_FLIGHT), HIT)
    assert assessed(claim(says), run(*results, control)) == found


@given(first=PLAYS, second=PLAYS)
def test_another_run_takes_back_no_counterexample(first: list, second: list) -> None:  # type: ignore[type-arg]
    one, other = run(*made(first)), run(*made(second), stack=replace(NAMED, drbd="9.3.3"), name="b-run")
    alone, both = (assessed(claim("never"), *runs) for runs in ([one], [one, other]))
    if alone.answer in (Word.COUNTEREXAMPLE, Word.REFUTED):
        assert both.answer in (Word.COUNTEREXAMPLE, Word.REFUTED)
    for part in both.parts:
        assert all(answer.runs in (("a-run",), ("b-run",)) for answer in part.stacks), "two stacks are never pooled"


# --------------------------------------------------------------------------- costs


def slow() -> ClaimSpec:
    ask = {"of": "slow", "event": "slow", "cells": [{"cache": "writethrough", "flush_delay_ms": 8}]}
    return claim(ask=[ask])


def test_slow_is_told_by_the_interval_of_a_ratio() -> None:
    found = assessed(slow(), run(*pairs(5, 0.02, 0.03)))
    assert found.answer is Word.OBSERVED and "of those with cache=none" in found.numbers
    assert found.cells == ("writethrough-fio-cost-flush8ms",)
    assert assessed(slow(), run(*pairs(12, 0.02, 0.03))).answer is Word.CONFIRMED
    assert assessed(slow(), run(*pairs(12, 0.02, 0.03), stack=replace(NAMED, cpu=""))).answer is Word.OBSERVED
    assert assessed(slow(), run(*pairs(5, 0.5, 0.6))).answer is Word.NOT_OBSERVED
    assert assessed(slow(), run(*pairs(5, 0.05, 0.3))).answer is Word.NO_ANSWER


def test_slow_pairs_of_parts_of_a_matrix_count_together() -> None:
    every = pairs(4, 0.02, 0.03)
    parts = [run(*every[at : at + 2], name=f"part-{at}") for at in range(0, len(every), 2)]
    assert assessed(slow(), *parts).answer is Word.OBSERVED
    other = run(*every[:2], stack=replace(NAMED, qemu="11.1"), name="other")
    assert assessed(slow(), parts[1], other).answer is Word.NO_ANSWER, "one pair of each stack"


def test_slow_without_pairs_is_not_decided() -> None:
    alone = assessed(slow(), run(cost(CacheMode.WRITETHROUGH, 1.0, 1)))
    assert alone.answer is Word.NO_ANSWER and "1 without pairs with cache=none" in alone.numbers
    plain = Cell("fio-cost", cache=CacheMode.WRITETHROUGH, delays=DelayProfile(flush_delay_ms=8))
    unmeasured = assessed(slow(), run(result(plain, MISS)))
    assert unmeasured.answer is Word.NOT_ASKED and "without fio's figures in the evidence" in unmeasured.numbers


# --------------------------------------------------------------------------- several stacks


def across(which: str = "drbd") -> ClaimSpec:
    ask = {"of": "another", "across": which, "cells": [{"cache": "none", "filesystem": "swap"}]}
    return claim(ask=[ask])


def test_another_version_is_not_asked_by_one_stack() -> None:
    found = assessed(across(), run(result(SWAP, HIT)))
    assert found.answer is Word.NOT_ASKED and "all of it was played with DRBD 8.4.11" in found.numbers
    unknown = run(result(SWAP, HIT), stack=replace(NAMED, cpu=""), name="b-run")
    assert assessed(across("hardware"), run(result(SWAP, HIT)), unknown).answer is Word.NOT_ASKED


def test_emulated_nodes_on_another_processor_are_no_other_hardware() -> None:
    emulated = replace(NAMED, accelerator="tcg")
    elsewhere = run(result(SWAP, HIT), stack=replace(emulated, cpu="another"), name="b-run")
    found = assessed(across("hardware"), run(result(SWAP, HIT), stack=emulated), elsewhere)
    assert found.answer is Word.NOT_ASKED
    assert "all of it was played with nodes emulated by QEMU (tcg)" in found.numbers
    real = run(result(SWAP, HIT), stack=replace(emulated, accelerator="hardware"), name="b-run")
    assert assessed(across("hardware"), run(result(SWAP, HIT), stack=emulated), real).answer is not Word.NOT_ASKED


def test_another_version_is_asked_in_the_same_cells_only() -> None:
    newer = replace(NAMED, drbd="9.3.3")
    same = run(result(SWAP, HIT), stack=newer, name="b-run")
    found = assessed(across(), run(result(SWAP, HIT)), same)
    assert (found.answer, found.numbers) == (
        Word.OBSERVED, "another: 8.4.11 and 9.3.3: seen once, without any delay"
    )  # fmt: skip
    assert found.parts[0].stacks[0].runs == ("b-run",)
    cured = assessed(across(), run(result(SWAP, HIT)), run(result(SWAP, MISS), stack=newer))
    assert cured.answer is Word.NOT_OBSERVED
    other = run(result(replace(SWAP, workload="pressure"), HIT), stack=newer)
    assert "no cell was played with two of them" in assessed(across(), run(result(SWAP, HIT)), other).numbers
    assert assessed(across(), run(result(SWAP, MISS)), run(result(SWAP, MISS), stack=newer)).answer is Word.NO_ANSWER


def test_stacks_are_named_by_what_tells_them_apart() -> None:
    newer = StackKey.of(replace(NAMED, drbd="9.3.3"))
    names = short_names([StackKey.of(NAMED), newer, newer])
    assert list(names.values()) == ["DRBD 8.4.11", "DRBD 9.3.3"]
    assert list(short_names([newer]).values()) == [""]
    assert sorted(["9.10.1", "9.2.0", "8.4.11"], key=by_version) == ["8.4.11", "9.2.0", "9.10.1"]


def test_more_than_three_stacks_have_letters_and_those_that_say_the_same_are_said_together() -> None:
    stacks = [replace(NAMED, qemu=version) for version in ("7.2", "9.0", "10.0", "11.1")]
    runs = [run(result(SWAP, ended), stack=one) for one, ended in zip(stacks, (HIT, MISS, HIT, MISS), strict=True)]
    assert (
        stack_letters(runs[:3]) == ()
        and "QEMU 7.2 and QEMU 10.0 each: seen once" in assessed(claim(), *runs[:3]).numbers
    )
    runs.append(run(result(replace(SWAP, repetition=2), HIT), stack=stacks[3], name="b-run"))
    found = assessed(claim(), *runs)
    assert found.numbers.startswith("swap: A: observed (1 of 2)"), "what was played most comes first"
    assert "; B and D each: seen once, without any delay; C: not observed" in found.numbers
    assert [one.stack for one in found.parts[0].stacks] == ["QEMU 11.1", "QEMU 7.2", "QEMU 9.0", "QEMU 10.0"]
    legend = stack_letters(runs)
    assert [line.split(", ")[0][:3] for line in legend] == ["A: ", "B: ", "C: ", "D: "] and "QEMU 11.1" in legend[0]
    assert all(line.startswith(one) for line, one in zip(stacks_of(runs), legend, strict=True))


@given(st.lists(st.text(), unique=True, max_size=80))
def test_letters_tell_names_apart(names: list[str]) -> None:
    found = letters(names)
    assert list(found) == names and len(set(found.values())) == len(names)

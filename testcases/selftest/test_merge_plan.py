"""What several runs become as one, whatever their order; what does not fit is refused in a sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergeable_runs import STACK, SWAPS, WHOLE, part, shards

from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.errors import UsageError
from harness.judgement.rejudge import rejudged
from harness.model import CacheMode, MergedRun
from harness.store.merge_plan import Part, cut_differently, in_order, merge_plan, missing_of


@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_merge_plan_of_shards_is_the_whole_in_any_order(of: int, chance: Any) -> None:
    parts = shards(of)
    expected = merge_plan(in_order(parts), "m")
    assert expected.run.cells == WHOLE
    assert expected.run.notes == (
        f"merged from {', '.join(f'run{one} (part {one}/{of})' for one in range(1, of + 1))}",
    )
    assert all(after == play[1] for (_, play), after in expected.repetition.items())
    chance.shuffle(parts)
    assert merge_plan(in_order(parts), "m") == expected


@given(st.integers(2, 6))
def test_merge_plan_of_shards_is_judged_as_the_whole(of: int) -> None:
    parts = shards(of)
    attempts = [one for one_part in parts for one in one_part.attempts]
    merged = rejudged(merge_plan(in_order(parts), "m").run, attempts)
    whole = part(WHOLE, 1)
    alone = rejudged(whole.run, whole.attempts)
    assert [(one.cell, one.verdict) for one in merged] == [(one.cell, one.verdict) for one in alone]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_merge_plan_whole_runs_every_play_is_a_repetition_of_its_own(counts: list[int]) -> None:
    parts = [
        part(with_controls(repeated(SWAPS, count, number)), number, seed=number)
        for number, count in enumerate(counts, 1)
    ]
    plan = merge_plan(in_order(parts), "m")
    for cell in SWAPS:
        numbers = [one.repetition for one in plan.run.cells if one.id == cell.id]
        assert sorted(numbers) == list(range(1, sum(counts) + 1)), "none is lost, none is the same as another"
    became = [(play[0], after) for (_, play), after in plan.repetition.items()]
    assert len(set(became)) == len(became)
    assert plan.run.seed == 0


def test_merge_plan_play_that_only_one_run_has_fills_the_place() -> None:
    first, second = part(WHOLE, 1), part(WHOLE, 2)
    missing = ("none-swap-pressure", 2)
    lacks = replace(first, attempts=tuple(one for one in first.attempts if one.cell.play != missing))
    only = replace(second, attempts=tuple(one for one in second.attempts if one.cell.play == missing))
    plan = merge_plan((lacks, only), "m")
    assert plan.run.cells == WHOLE
    assert plan.repetition["run2", missing] == 2 and ("run1", missing) not in plan.repetition


def test_merge_plan_missing_part_noted() -> None:
    one, _, three, _ = shards(4)
    assert "without the parts 2/4, 4/4" in merge_plan((one, three), "m").run.notes


def test_missing_of_parts_of_different_size_and_of_merged_ones() -> None:
    (first, *_, fourth, _, _), (_, two, three) = shards(6), shards(3)
    four = [one.run for one in (first, two, three, fourth)]
    assert missing_of(four) == ()
    assert missing_of(four[:3]) == ("4/6",)
    part_of_it = merge_plan((first, replace(two, run=replace(two.run, id="run7"))), "m").run
    assert missing_of([part_of_it, three.run]) == ("4/6",)
    assert missing_of([part_of_it, three.run, fourth.run]) == ()


def test_missing_of_whole_run_stands_for_every_part_where_it_has_every_cell() -> None:
    half, whole = shards(2)[0].run, part(WHOLE, 3).run
    assert missing_of([half]) == ("2/2",)
    assert missing_of([half, whole]) == () == missing_of([whole, whole])
    few = replace(whole, cells=tuple(cell for cell in whole.cells if cell.id != WHOLE[-1].id))
    assert missing_of([half, few]) == ("2/2",)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({}, {"-k": "none"}, r"another -k \(run1 no -k, run2 -k none\)"),
        ({"--repeat": "3"}, {"--repeat": "5"}, r"another --repeat \(run1 --repeat 3, run2 --repeat 5\)"),
        ({"-k": "none"}, {"-k": "unsafe"}, r"another -k \(run1 -k none, run2 -k unsafe\)"),
    ],
)
def test_cut_differently_parts_with_other_options_said(one: dict[str, str], other: dict[str, str], words: str) -> None:
    first, second = shards(2)
    first, second = (
        replace(part, run=replace(part.run, chosen=chosen)) for part, chosen in ((first, one), (second, other))
    )
    (sentence,) = cut_differently([first.run, second.run])
    assert re.search(words, sentence)
    merged = merge_plan((first, second), "m").run
    assert sentence in merged.notes and merged.chosen is None


def test_cut_differently_parts_with_the_same_options_silent() -> None:
    runs = [replace(one.run, chosen={"-k": "none", "--repeat": "3"}) for one in shards(3)]
    few = [replace(run, cells=run.cells[:6]) for run in runs]
    assert cut_differently(runs) == () == cut_differently(few), "what all of them left out was asked for"
    whole = [replace(part(WHOLE, number).run, chosen={"-k": str(number)}) for number in (1, 2)]
    assert cut_differently(whole) == (), "no parts: each is a whole of its own"
    assert cut_differently(runs[:2]) == (), "that one is missing is another sentence"


def test_cut_differently_runs_that_do_not_know_their_options_shown_by_their_cells() -> None:
    one, two = (item.run for item in shards(2))
    without = replace(two, cells=tuple(cell for cell in two.cells if cell.cache is not CacheMode.UNSAFE))
    fewer = replace(one, cells=tuple(cell for cell in one.cells if cell.cache is not CacheMode.UNSAFE))
    assert cut_differently([one, two]) == ()
    (sentence,) = cut_differently([fewer, without])
    assert sentence == (
        "'unsafe-swap-pressure' of the matrix is in none of the parts, as with another -k or --repeat for one of them"
    )


def test_merge_plan_what_is_known_of_a_run_is_kept() -> None:
    one, two = shards(2)
    one = replace(
        one, run=replace(one.run, notes=("it rained",), given_up={"lab1": "no power"}, lab_seconds={"up": 2.0})
    )
    two = replace(
        two,
        run=replace(two.run, stack=replace(STACK, guest_kernel="6.12-guest"), lab_seconds={"up": 3.0}, finished_at=""),
    )
    run = merge_plan((one, two), "m").run
    assert run.notes[1] == "run1: it rained" and run.given_up == {"lab1": "no power"}
    assert run.lab_seconds == {"up": 5.0} and run.stack.guest_kernel == "6.12-guest"
    assert (run.started_at, run.finished_at, run.shard, run.seed) == ("2026-11-23T01:00:00Z", "", "", 7)
    assert run.merged == (
        MergedRun("run1", one.run.started_at, one.run.finished_at, "1/2", 7),
        MergedRun("run2", two.run.started_at, "", "2/2", 7),
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stack": replace(STACK, kernel="6.13")}, "the first ran with kernel 6.12-fake, the second 6.13"),
        ({"stack": replace(STACK, drbd="9.3.3")}, "the first ran with drbd 8.4.11, the second 9.3.3"),
        ({"stack": replace(STACK, qemu="11.1")}, "the first ran with qemu 10.0.13, the second 11.1"),
        ({"stack": replace(STACK, libvirt="12")}, "the first ran with libvirt 11.3, the second 12"),
        ({"stack": replace(STACK, accelerator="kvm")}, "the first ran with accelerator tcg, the second kvm"),
        ({"matrix": "full"}, "the first played the matrix quick, the second full"),
        ({"matrix_digest": "d2"}, "the first has the matrix file with the digest d1, the second d2"),
        ({"lab_spec": {"device_mib": 256}}, "the first asked for device_mib 128, the second 256"),
        ({"lab_spec": {"guest": {"memory_mib": 512}}}, "the first asked for guest memory_mib 256, the second 512 ("),
        ({"lab_spec": {"guest": {"image": {"digest": "d3"}}}}, "for guest image digest none, the second d3 ("),
        ({"stack_spec": {"node": {"qemu": ["sid"]}}}, "the first asked for node qemu none, the second sid ("),
    ],
)  # fmt: skip
def test_merge_plan_what_does_not_fit_one_sentence(changed: dict[str, Any], words: str) -> None:
    asked = {"device_mib": 128, "guest": {"memory_mib": 256}}
    one = part(WHOLE, 1, lab_spec=asked, stack_spec={"node": {"qemu": []}})
    two = part(WHOLE, 2, **changed)
    with pytest.raises(UsageError) as refused:
        merge_plan((one, two), "m")
    assert str(refused.value).startswith("the runs 'run1' and 'run2' do not fit together: ")
    assert words in str(refused.value)


def test_merge_plan_part_of_a_spec_that_an_earlier_version_did_not_know_fits() -> None:
    before = {"guest": {"memory_mib": 256, "vcpus": 1}}
    after = {"guest": {"memory_mib": 256, "vcpus": 1, "image": {"digest": "", "memory_mib": 512}}, "vcpus": 2}
    merge_plan((part(WHOLE, 1, lab_spec=before), part(WHOLE, 2, lab_spec=after)), "m")


def test_merge_plan_guest_that_differs_refused_unknown_is_not() -> None:
    one, two = (part(WHOLE, n, stack=replace(STACK, guest_kernel=f"6.{n}")) for n in (1, 2))
    with pytest.raises(UsageError, match=r"guest kernel 6\.1, the second 6\.2"):
        merge_plan((one, two), "m")
    merge_plan((one, part(WHOLE, 3)), "m")


def test_merge_plan_cell_that_asks_something_else_refused() -> None:
    other = part([replace(cell, seconds=99) for cell in WHOLE], 2, matrix_digest="")
    with pytest.raises(UsageError, match=r"their cell 'host-planted' has another seconds$"):
        merge_plan((part(WHOLE, 1), other), "m")


def test_merge_plan_same_play_twice_refused() -> None:
    one = part(WHOLE, 1)
    copy = Part(replace(one.run, id="copy"), one.attempts)
    with pytest.raises(UsageError, match=r"have the same play of .*it would count twice$"):
        merge_plan((one, copy), "m")
    with pytest.raises(UsageError, match="'run1' is named twice"):
        merge_plan((one, one), "m")
    with pytest.raises(UsageError, match="one run alone"):
        merge_plan((one,), "m")


def test_merge_plan_evidence_without_its_lab_refused() -> None:
    one, two = shards(2)
    two = replace(two, attempts=(replace(two.attempts[0], lab=""),))
    with pytest.raises(UsageError, match=r"'run2' cannot be merged: .* on which lab"):
        merge_plan((one, two), "m")

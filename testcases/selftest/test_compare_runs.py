"""Two runs side by side: which answers flipped or were lost, what cannot be compared, and how sure the counts are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import evidence

from harness.judgement.comparable import other_lab
from harness.judgement.compare_runs import COVERAGE, CellComparison, Change, compare_runs, exit_code
from harness.judgement.standing import Level
from harness.judgement.stats import at_least_so_far_apart, significant, trials_to_tell
from harness.model import (
    CacheMode,
    Cell,
    Control,
    DelayProfile,
    Expectation,
    Provenance,
    Result,
    Run,
    Sabotage,
    Stack,
    Verdict,
    VerdictKind,
)
from harness.store import Store, judged_results

CHECKOUT = Path(__file__).parents[2]
NONE = Cell("no-writes", cache=CacheMode.NONE)
BACK = Cell("no-writes", cache=CacheMode.WRITEBACK)
UNSAFE = Cell("no-writes", cache=CacheMode.UNSAFE)
CLEAN, TRANSIENT, DIVERGED, CORRUPT, REFUSED, INCONCLUSIVE = (
    VerdictKind.CLEAN, VerdictKind.TRANSIENT, VerdictKind.DIVERGED, VerdictKind.CORRUPT, VerdictKind.REFUSED,
    VerdictKind.INCONCLUSIVE,
)  # fmt: skip
PASSES = (CLEAN, TRANSIENT)


def result(cell: Cell, kind: VerdictKind | None, repetition: int = 1) -> Result:
    return Result(replace(cell, repetition=repetition), Verdict(kind, f"seen: {kind}") if kind else None, None)


def plays(*kinds: VerdictKind | None, cell: Cell = NONE) -> list[Result]:
    """A run that plays one cell so many times."""
    return [result(cell, kind, number) for number, kind in enumerate(kinds, 1)]


def compared(old: list[Result], new: list[Result]) -> CellComparison:
    (cell,) = compare_runs(old, new)
    return cell


def change(old: list[Result], new: list[Result]) -> Change:
    return compared(old, new).change


# --------------------------------------------------------------------------- what became of a cell


@pytest.mark.parametrize(
    ("old", "new", "became"),
    [
        ([CLEAN], [DIVERGED], Change.NEWLY_FAILING),
        ([DIVERGED], [CORRUPT], Change.NEWLY_FAILING),
        ([CLEAN], [REFUSED], Change.NEWLY_FAILING),
        ([REFUSED], [DIVERGED], Change.NEWLY_FAILING),
        ([CLEAN] * 5, [CLEAN] * 4 + [DIVERGED], Change.NEWLY_FAILING),
        ([DIVERGED], [CLEAN], Change.FIXED),
        ([CORRUPT], [TRANSIENT], Change.FIXED),
        ([DIVERGED, CLEAN], [CLEAN, CLEAN], Change.FIXED),
        ([REFUSED], [CLEAN], Change.FIXED),
        ([CORRUPT], [DIVERGED], Change.STILL_FAILING),
        ([DIVERGED], [REFUSED], Change.STILL_FAILING),
        ([DIVERGED] * 2, [DIVERGED] * 2, Change.STILL_FAILING),
        ([DIVERGED, CLEAN], [DIVERGED, DIVERGED], Change.UNSTABLE),
        ([DIVERGED], [INCONCLUSIVE], Change.LOST),
        ([CLEAN], [INCONCLUSIVE], Change.LOST),
        ([CLEAN], [None], Change.LOST),
        ([DIVERGED] * 2, [CLEAN, INCONCLUSIVE], Change.LOST),
        ([DIVERGED] * 2, [CLEAN, None], Change.LOST),
        ([CLEAN] * 2, [CLEAN, None], Change.LOST),
        ([CLEAN] * 2, [DIVERGED, INCONCLUSIVE], Change.NEWLY_FAILING),
        ([INCONCLUSIVE], [CLEAN], Change.NOT_COMPARABLE),
        ([None], [DIVERGED], Change.NOT_COMPARABLE),
        ([None], [None], Change.NOT_COMPARABLE),
        ([CLEAN], [TRANSIENT], Change.PASSING),
        ([CLEAN, INCONCLUSIVE], [CLEAN, INCONCLUSIVE], Change.PASSING),
        ([CLEAN], [CLEAN] * 5, Change.PASSING),
    ],
)
def test_compare_runs_each_pair_of_answers_has_its_change(
    old: list[VerdictKind], new: list[VerdictKind], became: Change
) -> None:
    assert change(plays(*old), plays(*new)) is became


def test_compare_runs_flip_of_a_cell_that_is_expected_to_diverge_is_a_flip() -> None:
    asked = replace(NONE, expected=Expectation((DIVERGED,), "buffers change in flight"))
    assert change(plays(CLEAN, cell=asked), plays(DIVERGED, cell=asked)) is Change.NEWLY_FAILING
    assert change(plays(DIVERGED, cell=asked), plays(CLEAN, cell=asked)) is Change.FIXED


def test_compare_runs_inconclusive_that_a_matrix_expects_is_no_answer_either() -> None:
    asked = replace(NONE, expected=Expectation((INCONCLUSIVE,), "a rehearsal"))
    assert change(plays(DIVERGED, cell=asked), plays(INCONCLUSIVE, cell=asked)) is Change.LOST


def test_compare_runs_cells_of_both_in_the_order_of_the_first() -> None:
    cells = compare_runs(
        [result(BACK, CLEAN), result(NONE, CLEAN), result(NONE, CLEAN, repetition=2)],
        [result(UNSAFE, CLEAN), result(NONE, CLEAN), result(NONE, CLEAN, repetition=2)],
    )
    assert [(cell.cell_id, cell.change) for cell in cells] == [
        (BACK.id, Change.GONE), (NONE.id, Change.PASSING), (UNSAFE.id, Change.NEW),
    ]  # fmt: skip


def test_compare_runs_what_tests_the_instrument_is_left_out() -> None:
    control = replace(NONE, control=Control.IDLE)
    sabotaged = replace(BACK, sabotage=next(iter(Sabotage)))
    both = [result(control, CLEAN), result(sabotaged, DIVERGED)]
    assert compare_runs(both, both) == () and exit_code(()) == 3


# --------------------------------------------------------------------------- what cannot be compared


def other(cell: Cell, device_blocks: int = 32768) -> list[Result]:
    """A run of one cell that diverged, on a device of so many blocks."""
    return [Result(cell, Verdict(DIVERGED, ""), evidence(cell, device_blocks=device_blocks))]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (other(replace(NONE, seconds=20)), "duration in seconds 10 \u2192 20"),
        (other(NONE, 65536), "device 128 MiB \u2192 256 MiB"),
    ],
)
def test_compare_runs_other_duration_or_device_not_comparable(new: list[Result], said: str) -> None:
    cell = compared(other(NONE), new)
    assert (cell.change, cell.reasons) == (Change.NOT_COMPARABLE, (said,))
    assert exit_code([cell]) == 2


def test_compare_runs_other_delays_under_the_name_of_a_preset_not_comparable() -> None:
    # The id of a cell with a preset does not name what that sets.
    delayed = replace(NONE, delays=DelayProfile(link_delay_ms=20))
    assert delayed.id != NONE.id
    from harness.judgement.comparable import other_question
    from harness.judgement.standing import Standing

    one, two = (Standing(tuple(other(cell))) for cell in (NONE, delayed))
    assert other_question(one, two) == ("link delay ms 0 \u2192 20",)


def test_compare_runs_deadline_seed_and_expectation_make_no_other_question() -> None:
    new = replace(NONE, deadline=999, seed=7, expected=Expectation((CLEAN,), "so"))
    assert compared(other(NONE), other(new)).change is Change.STILL_FAILING


def test_compare_runs_fewer_chances_say_little_unless_the_counts_do() -> None:
    cell = compared(plays(CLEAN), plays(CLEAN, DIVERGED))
    assert cell.change is Change.NOT_COMPARABLE and "repetitions 1 \u2192 2" in cell.reasons
    assert change(plays(DIVERGED, CLEAN), plays(CLEAN)) is Change.NOT_COMPARABLE
    assert change(plays(*[CLEAN] * 5), plays(*[CLEAN] * 3)) is Change.NOT_COMPARABLE
    # Seen in fewer plays is seen all the same; and what the counts tell from chance is told.
    assert change(plays(*[CLEAN] * 5), plays(DIVERGED)) is Change.NEWLY_FAILING
    assert change(plays(*[CLEAN] * 4), plays(*[DIVERGED] * 6)) is Change.NEWLY_FAILING


def test_other_lab_says_what_is_not_the_same_and_holds_nothing_against_what_is_not_known() -> None:
    old = Run("a", "quick", "", (), Stack(accelerator="kvm"), lab_spec={"guest": {"memory_mib": 256}, "name": "lab"},
              provenance=Provenance(node_vcpus=1))  # fmt: skip
    new = replace(old, stack=Stack(accelerator="tcg"), lab_spec={"guest": {"memory_mib": 384}, "name": "other"})
    assert other_lab(old, old) == ()
    assert other_lab(old, new) == ("nodes under kvm \u2192 tcg", "memory of the guest in MiB 256 \u2192 384")
    assert other_lab(old, replace(new, stack=Stack(), lab_spec={})) == ()
    assert other_lab(old, replace(old, provenance=Provenance(node_vcpus=2))) == ("processors of a node 1 \u2192 2",)
    (cell,) = compare_runs(plays(CLEAN), plays(DIVERGED), other_lab(old, new))
    assert cell.change is Change.NOT_COMPARABLE and cell.direction == 1


# --------------------------------------------------------------------------- how sure


def test_compare_runs_none_of_five_then_five_of_five_significant() -> None:
    cell = compared(plays(*[CLEAN] * 5), plays(*[DIVERGED] * 5))
    assert cell.counts == ((0, 5), (5, 5)) and cell.level is Level.DIVERGED
    assert cell.p == pytest.approx(1 / 252) and cell.significant and cell.trials_wanted is None


def test_compare_runs_one_repetition_each_proves_nothing() -> None:
    cell = compared(plays(CLEAN), plays(DIVERGED))
    assert cell.p == pytest.approx(0.5) and not cell.significant and cell.trials_wanted == 4
    assert cell.regressed, "and is a regression until somebody plays it again"


def test_compare_runs_three_and_three_is_not_less_than_five_percent() -> None:
    p = at_least_so_far_apart((0, 3), (3, 3))
    assert p == pytest.approx(0.05) and not significant(p)
    assert significant(at_least_so_far_apart((0, 4), (4, 4)))


def test_compare_runs_fails_far_more_often_than_before_regression_though_unstable() -> None:
    cell = compared(plays(DIVERGED, *[CLEAN] * 9), plays(*[DIVERGED] * 9, CLEAN))
    assert (cell.change, cell.rose, cell.regressed) == (Change.UNSTABLE, True, True)
    assert exit_code([cell]) == 1
    back = compared(plays(*[DIVERGED] * 9, CLEAN), plays(DIVERGED, *[CLEAN] * 9))
    assert (back.change, back.fell, back.regressed) == (Change.UNSTABLE, True, False)
    assert not compared(plays(DIVERGED, CLEAN), plays(DIVERGED, DIVERGED)).regressed


def test_compare_runs_less_bad_and_far_more_often_is_a_regression() -> None:
    cell = compared(plays(CORRUPT, *[CLEAN] * 9), plays(*[DIVERGED] * 10))
    assert (cell.change, cell.level, cell.counts) == (Change.STILL_FAILING, Level.CORRUPT, ((1, 10), (0, 10)))
    assert exit_code([cell]) == 1
    assert cell.rise is not None and (cell.rise.level, cell.rise.counts) == (Level.DIVERGED, ((1, 10), (10, 10)))
    assert cell.shows is not None and cell.shows[0] == "new", "what comes more often, not what was worse before"
    # As bad as before at its worst, and far more often bad at all.
    cell = compared(plays(CORRUPT, *[CLEAN] * 9), plays(CORRUPT, *[DIVERGED] * 9))
    assert (cell.change, cell.regressed, cell.rise and cell.rise.level) == (Change.UNSTABLE, True, Level.DIVERGED)
    assert not compared(plays(CORRUPT, CLEAN), plays(DIVERGED, DIVERGED)).regressed
    assert not compared(plays(*[DIVERGED] * 10), plays(CORRUPT, *[CLEAN] * 9)).rose, "newly failing says it"


def test_compare_runs_more_often_under_another_question_or_lab_is_no_regression() -> None:
    rarely, often = plays(DIVERGED, *[CLEAN] * 9), plays(*[DIVERGED] * 9, CLEAN)
    longer = [replace(one, cell=replace(one.cell, seconds=one.cell.seconds + 5)) for one in often]
    for cell in (compared(rarely, longer), *compare_runs(rarely, often, ("nodes under tcg \u2192 kvm",))):
        assert (cell.change, cell.rose, cell.regressed) == (Change.NOT_COMPARABLE, False, False)
        assert exit_code([cell]) == 2


def test_compare_runs_shows_the_first_play_with_the_worst_answer() -> None:
    cell = compared(plays(CLEAN, CLEAN, CLEAN), plays(CLEAN, DIVERGED, CORRUPT))
    assert cell.shows is not None
    assert (cell.shows[0], cell.shows[1].cell.repetition) == ("new", 3)
    cell = compared(plays(DIVERGED), plays(CLEAN))
    assert cell.shows is not None and cell.shows[0] == "old"
    assert compared(plays(CLEAN), plays(CLEAN)).shows is None


# --------------------------------------------------------------------------- laws

KINDS = st.sampled_from([*VerdictKind, None])
SIDES = st.lists(KINDS, min_size=1, max_size=6)
ANSWERED = st.lists(st.sampled_from([kind for kind in VerdictKind if kind is not INCONCLUSIVE]), min_size=1, max_size=6)
CELLS = st.lists(st.tuples(st.sampled_from([NONE, BACK, UNSAFE]), KINDS), max_size=8)


@given(SIDES, SIDES)
def test_fixed_one_way_is_newly_failing_the_other_way(
    old: list[VerdictKind | None], new: list[VerdictKind | None]
) -> None:
    there, back = change(plays(*old), plays(*new)), change(plays(*new), plays(*old))
    assert there is not Change.FIXED or back is Change.NEWLY_FAILING


@given(ANSWERED, ANSWERED)
def test_newly_failing_one_way_is_fixed_or_less_bad_the_other_way(
    old: list[VerdictKind], new: list[VerdictKind]
) -> None:
    there, back = compared(plays(*old), plays(*new)), compared(plays(*new), plays(*old))
    assert there.direction == -back.direction and there.p == back.p
    if there.change is Change.NEWLY_FAILING:
        assert back.change is (Change.FIXED if {*old} <= {*PASSES} else Change.STILL_FAILING)


@given(SIDES, SIDES)
def test_missing_is_never_a_pass_and_inconclusive_never_fixed(
    old: list[VerdictKind | None], new: list[VerdictKind | None]
) -> None:
    cell = compared(plays(*old), plays(*new))
    if cell.change is Change.FIXED:
        assert {*new} <= {*PASSES} and {*old} & {REFUSED, DIVERGED, CORRUPT}
    if cell.change is Change.PASSING:
        assert {*PASSES} & {*new}
    if not {*new} - {None, INCONCLUSIVE}:
        assert cell.change in COVERAGE


@given(SIDES, SIDES, st.data())
def test_plays_that_found_nothing_never_take_back_a_regression(
    old: list[VerdictKind | None], new: list[VerdictKind | None], data: st.DataObject
) -> None:
    if compared(plays(*old), plays(*new)).change is not Change.NEWLY_FAILING:
        return
    at = data.draw(st.integers(0, len(new) - 1))
    lost = [*new[:at], INCONCLUSIVE, *new[at + 1 :]] if new[at] in PASSES else new
    assert compared(plays(*old), plays(*lost)).change is Change.NEWLY_FAILING


@given(CELLS, CELLS, st.randoms())
def test_compare_runs_order_of_plays_changes_no_answer(
    old: list[tuple[Cell, VerdictKind | None]], new: list[tuple[Cell, VerdictKind | None]], chance: object
) -> None:
    one, two = ([result(cell, kind) for cell, kind in side] for side in (old, new))
    before = {cell.cell_id: (cell.change, cell.p, cell.counts) for cell in compare_runs(one, two)}
    chance.shuffle(one)  # type: ignore[attr-defined]
    chance.shuffle(two)  # type: ignore[attr-defined]
    assert {cell.cell_id: (cell.change, cell.p, cell.counts) for cell in compare_runs(one, two)} == before


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_p_never_grows_with_more_hits_on_the_higher_side(few_of: int, many_of: int, data: st.DataObject) -> None:
    few, many = data.draw(st.integers(0, few_of)), data.draw(st.integers(0, many_of - 1))
    p = at_least_so_far_apart((few, few_of), (many, many_of))
    assert at_least_so_far_apart((few, few_of), (many + 1, many_of)) <= p + 1e-12 <= 1 + 1e-9
    if few < few_of:
        assert at_least_so_far_apart((few + 1, few_of), (many, many_of)) >= p - 1e-12


@given(st.integers(1, 8))
def test_p_of_none_against_all_falls_with_every_play(trials: int) -> None:
    here, more = (at_least_so_far_apart((0, n), (n, n)) for n in (trials, trials + 1))
    assert more < here


def test_trials_to_tell_rates_that_are_the_same_or_the_other_way_round_none() -> None:
    assert trials_to_tell((0, 1), (1, 1)) == 4
    assert trials_to_tell((1, 2), (1, 2)) is None and trials_to_tell((1, 1), (0, 1)) is None
    assert trials_to_tell((0, 0), (1, 1)) is None
    wanted = trials_to_tell((1, 5), (4, 5))
    assert wanted is not None and significant(
        at_least_so_far_apart((-(-wanted // 5), wanted), (4 * wanted // 5, wanted))
    )


# --------------------------------------------------------------------------- exit codes and stored runs


def test_exit_code_regression_before_lost_coverage_before_nothing() -> None:
    assert exit_code(compare_runs(plays(CLEAN), plays(CLEAN))) == 0
    assert exit_code(compare_runs(plays(DIVERGED), plays(CLEAN))) == 0
    assert exit_code(compare_runs(plays(CLEAN), plays(INCONCLUSIVE))) == 2
    lost = [*plays(CLEAN), *plays(CLEAN, cell=BACK)]
    assert exit_code(compare_runs(lost, [*plays(DIVERGED), *plays(None, cell=BACK)])) == 1
    assert exit_code(compare_runs(lost, plays(CLEAN))) == 2, "gone is no pass"
    assert exit_code(compare_runs(plays(CLEAN), plays(CLEAN, cell=BACK))) == 3


@pytest.mark.parametrize("path", sorted((CHECKOUT / "docs" / "evidence").iterdir()), ids=lambda path: path.name)
def test_compare_runs_stored_run_with_itself_no_flip(path: Path) -> None:
    results = judged_results(Store(path))
    cells = compare_runs(results, results)
    asked = [one for one in results if not one.cell.tests_instrument]
    assert bool(cells) == bool(asked) and exit_code(cells) in ((0, 2) if asked else (3,))
    assert not {cell.change for cell in cells} & {Change.NEWLY_FAILING, Change.FIXED, Change.GONE, Change.NEW}
    assert all(cell.p is None and cell.direction == 0 for cell in cells)

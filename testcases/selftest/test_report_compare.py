"""The comparison of two runs as it is shown: components first, then flips, never more than a summary holds."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from judged_evidence import evidence
from test_compare_runs import CLEAN, CORRUPT, DIVERGED, INCONCLUSIVE, NONE, plays

from harness.judgement.stack_changes import component_changes, package_changes
from harness.model import Cell, Expectation, Provenance, Result, Run, Stack, VerdictKind, Witness
from harness.model.stack_lock import ImageLock, NodeLock, Software, StackLock
from harness.report.compare import ComparedRun, Comparison, compare_stored
from harness.report.compare_forms import MOST_BYTES, compare_markdown, compare_text
from harness.report.compare_notes import probability

RUN = Run("old", "quick", "", (), Stack("trixie", "6.12", "8.4.11", qemu="10.0"))


def comparison(old: list[Result], new: list[Result]) -> Comparison:
    return compare_stored(ComparedRun("old", RUN, tuple(old)), ComparedRun("new", replace(RUN, id="new"), tuple(new)))


def cells(count: int, kind: VerdictKind) -> list[Result]:
    return [one for number in range(count) for one in plays(kind, cell=Cell(f"work{number}", cache=NONE.cache))]


def test_component_changes_known_ones_first_and_what_only_one_recorded_last() -> None:
    new = replace(
        RUN, stack=replace(RUN.stack, kernel="7.0", cpu="another"), provenance=Provenance(harness_version="2")
    )
    changes = component_changes(RUN, new)
    assert [(one.name, one.old, one.new) for one in changes] == [
        ("kernel", "6.12", "7.0"), ("processor", "not recorded", "another"), ("harness", "not recorded", "2"),
    ]  # fmt: skip
    assert [one.under_test for one in changes] == [True, False, False]
    assert component_changes(RUN, RUN) == ()


def test_package_changes_only_of_images_that_both_runs_kept() -> None:
    changes = package_changes({"node": {"a": "1", "b": "1"}, "guest": {"c": "1"}}, {"node": {"a": "2", "d": "1"}})
    assert [(one.name, one.old, one.new) for one in changes] == [("a", "1", "2"), ("b", "1", None), ("d", None, "1")]


def test_compare_markdown_flips_come_before_all_else() -> None:
    page = compare_markdown(comparison([*cells(2, CLEAN), *plays(DIVERGED)], [*cells(1, DIVERGED), *plays(DIVERGED)]))
    order = [page.index(word) for word in ("#### newly failing", "#### still failing", "#### gone")]
    assert (
        order == sorted(order) and page.index("| component |" if "| component |" in page else "No component") < order[0]
    )


def watched(results: list[Result], *seen: Witness | None) -> list[Result]:
    return [replace(one, evidence=evidence(one.cell, witness=each)) for one, each in zip(results, seen, strict=True)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            [Witness(True, block_writes=700, changed_block_writes=300), Witness(True, block_writes=580)],
            [Witness(True, block_writes=68168), None],
            "300 of 1 280 on the old stack, 0 of 68 168 on the new stack.",
        ),
        (
            [Witness(False, reason="nodea: not watched: its kernel has no bpf_loop"), None],
            [Witness(True, block_writes=9), Witness(False, reason="a part", block_writes=7)],
            "the old stack was not watched (nodea: its kernel has no bpf_loop), 0 of 9 on the new stack.",
        ),
        ([Witness(False, reason="not watched: no BTF"), None], [None, None], ""),
    ],
)
def test_flip_says_whether_what_changed_in_flight_is_another(
    old: list[Witness | None], new: list[Witness | None], said: str
) -> None:
    before, after = watched(plays(DIVERGED, DIVERGED), *old), watched(plays(CLEAN, CLEAN), *new)
    notes = [comparison(*sides) for sides in ((before, after), (before, before))]
    flip, same = (one.row(one.cells[0]).notes for one in notes)
    begins = "Block writes that the witness saw change in flight: "
    assert [one.removeprefix(begins) for one in flip if one.startswith(begins)] == ([said] if said else [])
    assert not any(one.startswith(begins) for one in same), "nothing flipped"


@pytest.fixture(scope="module")
def thousands() -> Comparison:
    return comparison(cells(6000, CLEAN), cells(6000, DIVERGED))


@pytest.mark.parametrize("most", [4096, 20_000, MOST_BYTES])
def test_compare_markdown_of_thousands_of_flips_has_room_and_says_what_has_none(
    thousands: Comparison, most: int
) -> None:
    page = compare_markdown(thousands, most_bytes=most)
    assert len(page.encode()) <= most
    shown = sum(line.startswith("| `none-") for line in page.splitlines())
    assert f"{6000 - shown:,} rows had no room here.".replace(",", " ") in page and shown > 0


def test_compare_markdown_text_of_a_machine_tears_no_table() -> None:
    bad = [
        Result(one.cell, replace(one.verdict, sentence="a|b\nc") if one.verdict else None, None)
        for one in plays(DIVERGED)
    ]
    page = compare_markdown(comparison(plays(CLEAN), bad))
    assert "a\\|b c" in page


def test_compare_row_flip_that_the_matrix_does_not_expect_says_so() -> None:
    asked = replace(NONE, expected=Expectation((DIVERGED,), "buffers change in flight"))
    found = comparison(plays(DIVERGED, cell=asked), plays(CLEAN, cell=asked))
    notes = found.row(found.cells[0]).notes
    assert "The matrix expects DIVERGED: buffers change in flight." in notes
    assert found.exit_code == 0 and "1 fixed" in found.headline


def test_compare_row_that_fails_as_before_says_whether_the_matrix_expects_it() -> None:
    asked = replace(NONE, expected=Expectation((DIVERGED,), "buffers change in flight"))
    for cell, notes in ((asked, ("As the matrix expects.",)), (NONE, ())):
        found = comparison(plays(DIVERGED, cell=cell), plays(DIVERGED, cell=cell))
        assert found.row(found.cells[0]).notes == notes


def test_compare_row_less_bad_and_more_often_says_what_it_counts() -> None:
    found = comparison(plays(CORRUPT, *[CLEAN] * 9), plays(*[DIVERGED] * 10))
    row = found.row(found.cells[0])
    assert row.counts == "1/10 \u2192 0/10" and row.said.startswith("DIVERGED")
    said = "more often now, by more than chance: diverged or worse 1/10 \u2192 10/10 (p"
    assert any(said in one for one in row.notes)
    assert found.exit_code == 1 and "fails more often" in found.headline


def test_compare_row_says_how_often_to_play_it_and_with_which_option() -> None:
    found = comparison(plays(CLEAN, CLEAN, CLEAN), plays(CLEAN, CLEAN, DIVERGED))
    (note,) = (one for one in found.row(found.cells[0]).notes if "play it" in one)
    assert note.endswith("9 more times on the old stack and 9 more times on the new stack (--rerun --plays 9).")
    found = comparison(plays(CLEAN), plays(DIVERGED))
    assert any(one.endswith("on the new stack (--rerun).") for one in found.row(found.cells[0]).notes)


def test_compare_of_two_runs_of_one_name_says_which_is_which() -> None:
    old, new = (ComparedRun("all", replace(RUN, started_at=f"2026-11-{day}T02:17:03Z"), ()) for day in (28, 29))
    title = "all of 2026-11-28 02:17 \u2192 all of 2026-11-29 02:17"
    assert compare_stored(old, new).title == title and title in compare_markdown(compare_stored(old, new))
    assert title in str(next(iter(compare_text(compare_stored(old, new)))))
    assert compare_stored(old, old).title == "all \u2192 all"


def test_compare_row_lost_says_how_many_and_why() -> None:
    found = comparison(plays(CLEAN, CLEAN), plays(CLEAN, INCONCLUSIVE))
    assert found.row(found.cells[0]).notes == ("1 of 2 INCONCLUSIVE: seen: INCONCLUSIVE.",)


def test_probability_is_never_shown_as_zero() -> None:
    assert (probability(1e-9), probability(0.00397), probability(0.5)) == ("p < 0.0001", "p = 0.004", "p = 0.5")


def test_component_changes_of_every_field_of_a_stack_is_told() -> None:
    for item in fields(Stack):
        changes = component_changes(RUN, replace(RUN, stack=replace(RUN.stack, **{item.name: "another"})))
        assert len(changes) == 1, item.name


def test_component_changes_own_build_with_the_version_of_another_is_told_by_its_file() -> None:
    def lock(qemu: str, on_b: str = "") -> StackLock:
        node = NodeLock("a", ImageLock(kernel_sha256="k" * 64), Software(qemu_sha256=qemu * 64))
        return StackLock(a=node, b=replace(node, runs=Software(qemu_sha256=(on_b or qemu) * 64)))

    (change,) = component_changes(RUN, RUN, lock("1"), lock("2"))
    assert (change.name, change.old, change.new, change.under_test) == (
        "QEMU program's file", f"sha256 {'1' * 12}", f"sha256 {'2' * 12}", True,
    )  # fmt: skip
    (change,) = component_changes(RUN, RUN, lock("1"), lock("1", "2"))
    assert change.new == f"sha256 {'1' * 12} / sha256 {'2' * 12}"
    assert component_changes(RUN, RUN, lock("1"), lock("1")) == component_changes(RUN, RUN, lock("1"), None) == ()
    other = replace(RUN, stack=replace(RUN.stack, qemu="11.0"))
    assert [one.name for one in component_changes(RUN, other, lock("1"), lock("2"))] == ["QEMU"], "said once"

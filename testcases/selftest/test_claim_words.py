"""What may be said about a claim, by how often it was played, how, and on what."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.judgement.claim_words import (
    ENOUGH,
    CellWords,
    Claim,
    Tally,
    Word,
    cell_words,
    hardware_of,
    in_words,
    undelayed_id,
    word,
)
from harness.judgement.repetitions import answers
from harness.model import CacheMode, Cell, Control, DelayProfile, Expectation, Result, Run, Stack, Verdict, VerdictKind
from harness.report.claims import claim_line
from harness.report.html import render_html
from harness.report.terminal import print_report

SWAP = Cell("reclaim", cache=CacheMode.NONE)
LATE = replace(SWAP, delays=DelayProfile(20, 0))
NAMED = Stack(accelerator="kvm", cpu="a processor")
HAPPENS, NEVER = Claim.HAPPENS, Claim.NEVER
TALLIES = st.integers(0, 40).flatmap(
    lambda answered: st.integers(0, answered).flatmap(
        lambda hits: st.builds(Tally, st.just(hits), st.just(answered), st.integers(0, hits))
    )
)


def plays(cell: Cell, *kinds: VerdictKind | None) -> list[Result]:
    return [
        Result(replace(cell, repetition=number), Verdict(kind, "") if kind else None, None)
        for number, kind in enumerate(kinds, 1)
    ]


@pytest.mark.parametrize(
    ("claim", "tally", "hardware", "text"),
    [
        (HAPPENS, Tally(), "x", "not asked"),
        (NEVER, Tally(), "x", "not asked"),
        (HAPPENS, Tally(0, 5), "x", "not observed (0 of 5; a rate of up to 52 % is not ruled out, 95 %)"),
        (NEVER, Tally(0, 20), "x", "not observed (0 of 20; a rate of up to 17 % is not ruled out, 95 %)"),
        (HAPPENS, Tally(1, 1, 1), "x", "seen once"),
        (NEVER, Tally(1, 1, 1), "x", "counterexample found (seen once)"),
        (HAPPENS, Tally(3, 5, 3), "x", "observed (3 of 5)"),
        (NEVER, Tally(1, 9, 1), "x", "counterexample found (1 of 9)"),
        (HAPPENS, Tally(10, 10, 1), "x", "confirmed (10 of 10; on x)"),
        (NEVER, Tally(1, 10, 1), "x", "refuted (1 of 10; on x)"),
        (HAPPENS, Tally(10, 10, 0), "x", "observed (10 of 10)"),
        (NEVER, Tally(10, 10, 0), "x", "counterexample found (10 of 10)"),
        (HAPPENS, Tally(10, 10, 10), "", "observed (10 of 10)"),
        (NEVER, Tally(10, 10, 10), "", "counterexample found (10 of 10)"),
    ],
)
def test_in_words_by_repetitions_delays_and_hardware(claim: Claim, tally: Tally, hardware: str, text: str) -> None:
    assert in_words(claim, tally, hardware) == text


@given(st.sampled_from(Claim), TALLIES, st.sampled_from(["", "a processor"]))
def test_word_confirmed_or_refuted_needs_all_three(claim: Claim, tally: Tally, hardware: str) -> None:
    strong = word(claim, tally, hardware) in (Word.CONFIRMED, Word.REFUTED)
    assert strong == (tally.answered >= ENOUGH and tally.undelayed_hits > 0 and hardware != "")


@given(TALLIES)
def test_word_nothing_found_confirms_nothing(tally: Tally) -> None:
    for claim in Claim:
        none = word(claim, replace(tally, hits=0, undelayed_hits=0), "a processor")
        assert none is (Word.NOT_OBSERVED if tally.answered else Word.NOT_ASKED)


@given(st.sampled_from(Claim), TALLIES, TALLIES)
def test_word_more_repetitions_never_take_back_what_was_seen(claim: Claim, one: Tally, more: Tally) -> None:
    ranks = [Word.NOT_ASKED, Word.NOT_OBSERVED, Word.OBSERVED, Word.CONFIRMED]
    if claim is Claim.NEVER:
        ranks = [Word.NOT_ASKED, Word.NOT_OBSERVED, Word.COUNTEREXAMPLE, Word.REFUTED]
    assert ranks.index(word(claim, one + more, "x")) >= ranks.index(word(claim, one, "x"))


@pytest.mark.parametrize("counts", [(2, 1, 0), (1, 2, 2), (-1, 2, -1)])
def test_tally_that_cannot_be_value_error(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="counts what cannot be"):
        Tally(*counts)


def test_cell_words_delayed_and_undelayed_cells_counted_together() -> None:
    clean, diverged = VerdictKind.CLEAN, VerdictKind.DIVERGED
    results = [*plays(SWAP, diverged, clean), *plays(LATE, *[diverged] * 8, VerdictKind.INCONCLUSIVE, None)]
    assert undelayed_id(LATE) == SWAP.id != LATE.id
    (found,) = cell_words(answers(results), NAMED)
    assert found == CellWords(SWAP.id, HAPPENS, "confirmed (9 of 10; on a processor, hardware KVM)")
    (found,) = cell_words(answers(results[1:]), NAMED)
    assert found.text == "observed (8 of 9)"
    (found,) = cell_words(answers(plays(LATE, *[diverged] * 12)), NAMED)
    assert found.text == "observed (12 of 12)", "none of them without a delay"
    (found,) = cell_words(answers(results), Stack(accelerator="kvm"))
    assert found.text == "observed (9 of 10)", "nobody knows the processor"


def test_cell_words_claim_is_what_the_matrix_expects_controls_left_out() -> None:
    safe = replace(SWAP, expected=Expectation((VerdictKind.CLEAN,), "why"))
    harm = replace(SWAP, workload="pressure", expected=Expectation((VerdictKind.DIVERGED,), "why"))
    control = replace(SWAP, workload="planted", control=Control.PLANTED)
    results = [
        *plays(safe, VerdictKind.CORRUPT),
        *plays(harm, VerdictKind.CLEAN),
        *plays(control, VerdictKind.DIVERGED),
    ]
    first, second = cell_words(answers(results), NAMED)
    assert claim_line(first) == f"{SWAP.id}, that nothing diverges or is lost: counterexample found (seen once)"
    assert claim_line(second).startswith("none-pressure, that blocks diverge or data is lost: not observed (0 of 1;")


def test_cell_words_asked_without_an_answer_is_not_unasked() -> None:
    refused = cell_words(answers(plays(SWAP, VerdictKind.REFUSED, VerdictKind.INCONCLUSIVE, None)), NAMED)
    unplayed = cell_words(answers(plays(SWAP, None)), NAMED)
    assert [one.text for one in (*refused, *unplayed)] == ["asked, without an answer", "not asked"]


def test_hardware_of_emulated_nodes_says_what_that_means() -> None:
    assert hardware_of(NAMED) == "a processor, hardware KVM"
    emulated = hardware_of(replace(NAMED, accelerator="tcg"))
    assert emulated == "a processor, nodes emulated by QEMU (tcg): not representative in timing"
    assert hardware_of(Stack(cpu="a processor")) == hardware_of(Stack(accelerator="tcg")) == ""


def test_report_and_terminal_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    results = [*plays(SWAP, *[VerdictKind.DIVERGED] * 3), *plays(LATE, *[VerdictKind.DIVERGED] * 7)]
    run = Run("r", "quick", "2026-11-23T01:50:03Z", tuple(result.cell for result in results), NAMED)
    said = "confirmed (10 of 10; on a processor, hardware KVM)"
    assert f"<td>that blocks diverge or data is lost: {said}</td>" in render_html(run, results)
    print_report(run, results, Console(width=200))
    printed = capsys.readouterr().out
    assert f"{SWAP.id}, that blocks diverge or data is lost: {said}" in printed
    assert "Processor: a processor" in printed


def test_readme_and_docs_say_confirmed_or_refuted_only_by_figures_that_name_the_hardware() -> None:
    checkout = Path(__file__).parents[2]
    pages = [checkout / "README.md", *(checkout / "docs").glob("*.md")]
    if not pages[0].exists():
        pytest.skip("no checkout")
    # As an answer: in bold, or with its figures.  What these words take is explained in rows too.
    answer = r"\*\*(confirmed|refuted)\*\*|\b(confirmed|refuted)( by one cell)? \("
    for page in pages:
        by_hand = re.sub(r"<!-- figures: .*?<!-- /figures -->", "", page.read_text(), flags=re.DOTALL)
        rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
        said = [row for row in rows if re.search(answer, row, re.IGNORECASE)]
        assert not [row for row in said if row in by_hand], f"{page.name}: ci/figures writes these words, nobody else"
        for row in said:
            figures = re.findall(r"\b(?:confirmed|refuted)(?: by one cell)? \(([^)]*)", row)
            assert figures and all(re.fullmatch(r"\d+ of \d+; on \S.*", one) for one in map(str, figures)), row

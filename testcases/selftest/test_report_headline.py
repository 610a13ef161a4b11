"""What the report says of a run: the answer, and the findings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from reported_results import (
    IDLE,
    clean_result,
    corrupt,
    diverged,
    everything,
    evidence,
    idle,
    in_flight,
    inconclusive,
    not_run,
    planted,
    refused,
    terminal,
    verdict,
)

from harness.model import Ownership, Result, VerdictKind
from harness.report.headline import Answer, headline
from harness.report.summary import findings
from harness.report.table import differing_blocks
from harness.store import Store, judged_results

GOLDEN = Path(__file__).parent / "golden"


def test_headline_difference_no_with_rows() -> None:
    text = headline([planted(), diverged(), clean_result()])
    assert text.answer is Answer.NO
    assert "cache=none" in text.sentence and "930 differing blocks: 930 free" in text.sentence
    assert "None was found with cache=writeback." in text.sentence


def test_headline_no_difference_yes_only_with_controls() -> None:
    clean = clean_result()
    assert clean.evidence is not None
    # Of a schema that demands three controls.
    clean_run = [planted(), in_flight(), idle(), replace(clean, evidence=replace(clean.evidence, schema=2))]
    assert headline(clean_run).answer is Answer.YES
    assert "12 400 exposed block writes" in headline(clean_run).sentence
    broken = [replace(planted(), verdict=verdict(VerdictKind.CLEAN, "Nothing was seen.")), *clean_run[1:]]
    assert headline(broken).answer is Answer.UNKNOWN
    assert "host-planted failed" in headline(broken).sentence
    assert headline([clean_result()]).answer is Answer.UNKNOWN
    assert headline(clean_run[1:]).answer is Answer.UNKNOWN
    assert "the planted control did not run" in headline(clean_run[1:]).sentence


def test_headline_difference_control_failed_no() -> None:
    failed = replace(planted(), verdict=verdict(VerdictKind.CLEAN, "Nothing was seen."))
    assert headline([failed, diverged()]).answer is Answer.NO


def test_headline_corrupt_counts_differing_blocks() -> None:
    text = headline([replace(corrupt(), verdict=verdict(VerdictKind.CORRUPT, "Wrong data."))]).sentence
    assert "the replicas differ in 1 of 1 cell; 1 differing block: 1 allocated" in text
    assert "With cache=directsync the guest lost data or read back something else than it wrote, in 1 cell." in text


@pytest.mark.parametrize("run", sorted(path.parent.name for path in GOLDEN.glob("*/run.json")))
def test_headline_of_a_stored_run_its_figures_add_up(run: str) -> None:
    text = headline(judged_results(Store.open(GOLDEN, run))).sentence
    found = re.search(r"; ([\d ]+) differing blocks?(?:: ([^.]*))?\.", text)
    assert found is not None or "the replicas differ" not in text
    if found is not None and found[2]:
        parts = [int(one.replace(" ", "")) for one in re.findall(r"\d[\d ]*(?= )", found[2])]
        assert sum(parts) == int(found[1].replace(" ", "")), text


def test_headline_more_owners_than_blocks_that_differ_names_none() -> None:
    result = diverged()
    assert result.evidence is not None
    many = Ownership(allocated=differing_blocks(result) + 1)
    text = headline([replace(result, evidence=replace(result.evidence, ownership=many))]).sentence
    assert f"{differing_blocks(result)} differing blocks." in text


@pytest.mark.parametrize("results", [[], [planted()], [not_run()], [refused()], [inconclusive()]])
def test_headline_any_results_yes_only_with_answers(results: list[Result]) -> None:
    assert headline(results).answer is Answer.UNKNOWN


def test_headline_controls_only_no_answer() -> None:
    idle = Result(IDLE, verdict(VerdictKind.CLEAN, "Nothing was found.", 0), evidence(IDLE, [], []))
    assert "Not answered. Only cells that test the instrument itself ran." in terminal([idle])


def test_headline_unanswered_cells_counted() -> None:
    text = headline(everything()).sentence
    assert "No answer from 3 cells: 1 inconclusive, 1 refused by the stack and 1 not run." in text


def test_findings_corrupt_without_expectation_is_one_and_says_so() -> None:
    cell = replace(corrupt().cell, expected=None)
    (line,) = findings(
        [replace(corrupt(), cell=cell), replace(diverged(), cell=replace(diverged().cell, expected=None))]
    )
    assert line.cell_id == cell.id
    assert "3 reads returned something else. Nothing is expected of this cell, and lost or wrong data" in line.sentence


def test_findings_unexpected_results_only() -> None:
    results = everything()
    assert [results[line.number].cell.id for line in findings(results)] == [corrupt().cell.id, inconclusive().cell.id]
    assert "Expected CLEAN: by the predictions." in findings(results)[0].sentence

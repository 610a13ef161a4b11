"""``drbd-harness claims``: what stored runs say, in words, as Markdown and as JSON, and what is wrong with a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from claimed_plays import GOLDEN, command

from harness.judgement.claim_words import Word
from harness.judgement.claims import assess
from harness.judgement.stacks import PlayedRun
from harness.report.claims import own_claims
from harness.store import Store, judged_results

# By runs that are never changed: two generations of DRBD, of an older schema.
EXPECTED = {
    "C1": Word.OBSERVED, "C2": Word.COUNTEREXAMPLE, "C3": Word.NOT_OBSERVED, "C4": Word.NOT_ASKED, "C5": Word.NOT_ASKED,
    "C6": Word.COUNTEREXAMPLE, "C7": Word.OBSERVED, "C8": Word.COUNTEREXAMPLE, "C9": Word.OBSERVED,
    "C10": Word.NOT_ASKED, "C11": Word.OBSERVED, "C12": Word.OBSERVED, "C13": Word.NOT_ASKED, "C14": Word.OBSERVED,
    "W1": Word.OBSERVED, "W2": Word.NOT_OBSERVED, "L1": Word.COUNTEREXAMPLE, "S1": Word.NOT_ASKED,
    "S2": Word.NOT_ASKED, "S3": Word.OBSERVED, "P1": Word.NOT_ASKED,
}  # fmt: skip
STORED = ("full-drbd-8.4", "disturbances-drbd-8.4", "alarms-drbd-9.3.3", "smoke-drbd-9.3.3", "quick-drbd-8.4")


def test_claims_of_stored_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, *STORED, "--runs", GOLDEN, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {one["claim"]: one["answer"] for one in found["claims"]} == {
        one: word.value for one, word in EXPECTED.items()
    }
    assert found["runs"] == list(STORED) and len(found["stacks"]) == 2
    nine = next(one for one in found["claims"] if one["claim"] == "C9")["parts"][0]["stacks"]
    assert [(one["stack"], one["runs"], one["hits"]) for one in nine][-1] == ("DRBD 9.3.3", ["alarms-drbd-9.3.3"], 1)


def test_claims_in_words_and_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, GOLDEN / "quick-drbd-8.4")
    assert code == 0 and "C2  cache=directsync is reliable with DRBD: counterexample found" in " ".join(out.split("\n"))
    code, out, _ = command(capsys, GOLDEN / "quick-drbd-8.4", "--markdown")
    assert code == 0 and out.startswith("|  | claim | so far | numbers | what could change it |\n| --- |")
    assert command(capsys, GOLDEN / "quick-drbd-8.4", "--markdown", "--json")[0] == 4


def test_run_that_is_not_there_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "quik-drbd-8.4", "--runs", GOLDEN)
    assert (code, out) == (4, "") and "did you mean 'quick-drbd-8.4'?" in err


def test_run_given_twice_is_not_counted_twice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / "copy")
    code, _, err = command(capsys, GOLDEN / "quick-drbd-8.4", tmp_path / "copy")
    assert code == 4 and "would be counted twice; leave one of them out" in err


def test_damaged_evidence_is_said_and_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / "run")
    damaged = next((tmp_path / "run" / "cells" / "none-swap-reclaim-link20ms").rglob("evidence.json*"))
    damaged.write_bytes(b"{")
    code, out, err = command(capsys, tmp_path / "run", "--json")
    assert code == 0 and "is damaged: it is not whole JSON; it counts as missing" in err
    before = json.loads(command(capsys, GOLDEN / "quick-drbd-8.4", "--json")[1])
    asked = [one["claims"][0]["parts"][0]["stacks"] for one in (before, json.loads(out))]
    assert [some[0]["answered"] if some else 0 for some in asked] == [1, 0]


def test_runs_without_evidence_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "cells")
    assert command(capsys, tmp_path / "run") == (3, "", "drbd-harness: no cell of run has evidence\n")


@pytest.mark.parametrize("run_id", sorted(path.parent.name for path in GOLDEN.glob("*/run.json")))
def test_every_stored_run_has_claims(run_id: str) -> None:
    store = Store.open(GOLDEN, run_id)
    found = assess(own_claims(), [PlayedRun(run_id, store.run().stack, tuple(judged_results(store)))])
    assert {one.claim for one in found} == {one.id for one in own_claims()}
    assert next(one for one in found if one.claim == "C10").answer is Word.NOT_ASKED, "one stack cannot say"

"""What is known to fail: files of it, what they say of a run, and that only what is new ends with 1."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import oracles
from lxml import etree
from plugin_world import (  # noqa: F401 - fixtures
    Ran,
    World,
    corrupt,
    diverged,
    matrix,
    run,
    suite,
    world,
)
from stored_run import apart, command, stored  # noqa: F401 - fixtures
from test_compare_runs import CLEAN, CORRUPT, DIVERGED, INCONCLUSIVE, compared, plays, result

from harness.config.baseline_file import read_baseline
from harness.errors import UsageError
from harness.judgement.baseline import assess, fails, is_known, known_failure, known_regression
from harness.model import CacheMode, Cell, Control, Expectation, FilesystemKind, Run, VerdictKind
from harness.model.baseline import Baseline, KnownFailure
from harness.report.baseline import baseline_lines, baseline_toml

pytest_plugins = ("pytester",)

TODAY = date(2026, 11, 29)
YESTERDAY = TODAY - timedelta(days=1)
CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK,
            expected=Expectation((CLEAN,), "pages are copied"))  # fmt: skip
NONE = replace(CELL, cache=CacheMode.NONE)


def entry(cell: str = CELL.id, until: date = TODAY, *verdicts: VerdictKind) -> KnownFailure:
    return KnownFailure(1, cell, verdicts or (DIVERGED,), "worked on", until)


def baseline(*entries: KnownFailure) -> Baseline:
    return Baseline("known.toml", entries)


def table(**other: Any) -> dict[str, Any]:
    known = {"cell": "none-*", "verdicts": ["DIVERGED"], "reason": "so", "until": TODAY, **other}
    return {"schema": 1, "known": [{key: value for key, value in known.items() if value is not None}]}


# --------------------------------------------------------------------------- the file


def test_read_baseline_an_entry_with_all_of_its_keys() -> None:
    assert read_baseline(table(verdicts="DIVERGED"), "known.toml") == Baseline(
        "known.toml", (KnownFailure(1, "none-*", (DIVERGED,), "so", TODAY),)
    )
    assert read_baseline({"schema": 1}, "known.toml").known == ()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reason": " "}, "'reason' is empty; say why the failure is known"),
        ({"reason": None}, "'reason' is missing"),
        ({"until": None}, "'until' is missing"),
        ({"until": "2027-03-31"}, "it is a day without quotes, such as 2027-03-31"),
        ({"until": {"day": 1}}, "'until' is a table; it is a day without quotes"),
        ({"until": datetime(2027, 3, 31, 1)}, "'until' is 2027-03-31T01:00:00; it is a day without quotes"),
        ({"verdicts": ["DIVERGD"]}, "did you mean 'DIVERGED'?"),
        ({"verdicts": ["INCONCLUSIVE"]}, "INCONCLUSIVE, which is no answer"),
        ({"verdicts": []}, "'verdicts' is an empty list"),
        ({"cell": ""}, "'cell' is empty"),
        ({"cells": "none-*"}, "'cells' is no key; did you mean 'cell'?"),
    ],
)
def test_read_baseline_what_is_wrong_is_one_sentence_with_its_place(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        read_baseline(table(**wrong), "known.toml")
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("known.toml, [[known]] number 1")


@pytest.mark.parametrize("reason", ["", 'says "no"\\ \x01'])
def test_baseline_toml_of_a_run_is_read_again_once_it_has_a_reason(reason: str) -> None:
    results = [result(CELL, DIVERGED), result(CELL, CORRUPT, 2), result(NONE, CLEAN), result(NONE, INCONCLUSIVE, 2)]
    text = baseline_toml(Run("r", "quick", "", ()), results, TODAY, None, reason)
    written = tomllib.loads(text)
    assert [(one["cell"], one["verdicts"]) for one in written["known"]] == [(CELL.id, ["DIVERGED", "CORRUPT"])]
    assert written["known"][0]["until"] == TODAY + timedelta(days=90)
    if reason:
        assert read_baseline(written, "x").known[0].reason == reason.strip()
    else:
        with pytest.raises(UsageError, match="'reason' is empty"):
            read_baseline(written, "x")
    assert "Nothing does" in baseline_toml(Run("r", "", "", ()), results[2:], TODAY, None, "")


# --------------------------------------------------------------------------- what it says of a run


def test_known_failure_only_the_verdicts_and_cells_of_the_entry_up_to_its_day() -> None:
    known = baseline(entry())
    assert is_known(known, result(CELL, DIVERGED), TODAY)
    assert not is_known(known, result(CELL, CORRUPT), TODAY)
    assert not is_known(known, result(NONE, DIVERGED), TODAY)
    assert not is_known(known, result(CELL, DIVERGED), TODAY + timedelta(days=1))
    assert not is_known(None, result(CELL, DIVERGED), TODAY)
    assert is_known(baseline(entry("*-swap-?ressure")), result(CELL, DIVERGED), TODAY)


def test_known_failure_entry_that_counts_before_one_that_is_over() -> None:
    over, counts = entry("*", YESTERDAY), entry(CELL.id)
    assert known_failure(baseline(over, counts), result(CELL, DIVERGED), TODAY) is counts
    assert known_failure(baseline(over), result(CELL, DIVERGED), TODAY) is over


def test_known_failure_former_id_is_the_cell_of_today() -> None:
    cell = Cell("truncate", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, expected=CELL.expected)
    assert is_known(baseline(entry("none-ext4-cut")), result(cell, DIVERGED), TODAY)


def test_assess_each_entry_by_what_became_of_it() -> None:
    entries = [entry(), replace(entry(NONE.id, YESTERDAY), number=2), replace(entry("no-such-*"), number=3),
               replace(entry("unsafe-*"), number=4), replace(entry("other-part"), number=5)]  # fmt: skip
    fine = replace(CELL, cache=CacheMode.UNSAFE)
    results = [result(CELL, DIVERGED), result(NONE, DIVERGED), result(fine, CLEAN)]
    outcome = assess(baseline(*entries), results, TODAY, ["other-part"])
    assert [one.number for _, one in outcome.known] == [1] and [one.number for _, one in outcome.expired] == [2]
    assert [one.number for one in outcome.unmatched] == [3] and [one.number for one in outcome.mended] == [4]
    lines = list(baseline_lines(baseline(*entries), outcome))
    assert lines == [
        f"{CELL.id}: DIVERGED, known until 2026-11-29: worked on",
        f"{NONE.id}: DIVERGED, was known until 2026-11-28, which is over: worked on",
        "known.toml, [[known]] number 4 is not needed any more: its cells are as expected",
        "known.toml, [[known]] number 3 matches no cell of this run: 'no-such-*'",
    ]


@given(st.sampled_from([*VerdictKind, None]), st.sampled_from([CELL, NONE, replace(CELL, control=Control.IDLE)]))
def test_what_is_no_failure_is_never_known(kind: VerdictKind | None, cell: Cell) -> None:
    every = baseline(entry("*", TODAY, *VerdictKind))
    one = result(cell, kind)
    assert is_known(every, one, TODAY) == fails(one)
    if kind in (None, INCONCLUSIVE) or cell.control is not None:
        assert not is_known(every, one, TODAY), "missing is not known"


# --------------------------------------------------------------------------- the command


def write(until: date, cell: str = "writeback-*") -> None:
    Path("known.toml").write_text(
        f'schema = 1\n[[known]]\ncell = "{cell}"\nverdicts = "DIVERGED"\nreason = "worked on"\nuntil = {until}\n'
    )


def test_judge_baseline_known_exit_code_0_expired_1_and_both_are_said(command: Any) -> None:  # noqa: F811
    stored(writeback=oracles({1}, {1}))
    assert command("judge", "run1")[0] == 1
    write(date.max)
    code, out, _ = command("judge", "run1", "--baseline", "known.toml")
    assert code == 0 and "writeback-swap-pressure: DIVERGED, known until 9999-12-31: worked on" in out
    write(YESTERDAY - timedelta(days=9999))
    code, out, _ = command("judge", "run1", "--baseline", "known.toml")
    assert code == 1 and "which is over: worked on" in out
    write(date.max, "none-*")
    code, out, _ = command("judge", "run1", "--baseline", "known.toml")
    assert code == 1 and "number 1 is not needed any more" in out


def test_known_regression_every_play_that_shows_it_has_an_entry_that_counts() -> None:
    flip = compared(plays(CLEAN, CLEAN, cell=CELL), plays(DIVERGED, CORRUPT, cell=CELL))
    one, other = entry(CELL.id, TODAY, DIVERGED), entry("writeback-*", TODAY, CORRUPT)
    assert known_regression(baseline(one), flip, TODAY) is None, "data that was lost beside it is not known"
    assert known_regression(baseline(one, other), flip, TODAY) == one
    assert known_regression(baseline(one, replace(other, until=YESTERDAY)), flip, TODAY) is None
    # What it did before is no part of the flip; what comes more often than before is.
    worse = compared(plays(DIVERGED, cell=CELL), plays(CORRUPT, DIVERGED, cell=CELL)[:1])
    assert known_regression(baseline(other), worse, TODAY) == other
    rarely, often = (plays(*[DIVERGED] * hit, *[CLEAN] * (10 - hit), cell=CELL) for hit in (1, 10))
    assert known_regression(baseline(one), compared(rarely, often), TODAY) == one
    assert known_regression(baseline(one), compared(often, rarely), TODAY) is None, "no regression"
    assert known_regression(baseline(one), compared(plays(CLEAN, cell=CELL), plays(CLEAN, cell=CELL)), TODAY) is None


def test_assess_entry_that_only_a_comparison_needs_is_not_called_needless() -> None:
    free = replace(CELL, expected=None)
    assert assess(baseline(entry()), [result(free, DIVERGED)], TODAY).mended == ()
    assert assess(baseline(entry()), [result(free, CLEAN)], TODAY).mended == (entry(),)


def test_compare_baseline_known_regression_exit_code_0_and_it_is_said(command: Any) -> None:  # noqa: F811
    stored()
    stored(run_id="run2", writeback=oracles({1}, {1}))
    assert command("compare", "run1", "run2")[0] == 1
    write(date.max)
    code, out, _ = command("compare", "run1", "run2", "--baseline", "known.toml")
    assert code == 0 and "newly failing (1)" in out and "Known until 9999-12-31: worked on." in out
    assert "no regression that is not known: 1 newly failing, 1 still failing" in out
    assert "; 1 regression known by the baseline" in out
    code, out, _ = command("compare", "run1", "run2", "--baseline", "known.toml", "--json")
    told = {one["cell"]: (one["regressed"], one["known"]) for one in json.loads(out)["cells"]}
    assert code == 0 and told[CELL.id] == (True, {"reason": "worked on", "until": "9999-12-31"})
    assert [known for cell, (_, known) in told.items() if cell != CELL.id] == [None]
    write(date.max, "none-*")
    assert command("compare", "run1", "run2", "--baseline", "known.toml")[0] == 1
    assert command("compare", "run1", "run2", "--baseline", "no.toml")[0] == 4


def test_judge_baseline_that_is_wrong_or_not_there_exit_code_4(command: Any) -> None:  # noqa: F811
    stored()
    assert command("judge", "run1", "--baseline", "no.toml")[0] == 4
    Path("no.toml").write_text("schema = 2\n")
    code, _, err = command("judge", "run1", "--baseline", "no.toml")
    assert code == 4 and "'schema' is 2; this program reads schema = 1" in err
    assert command("run", "--baseline", "no.toml")[0] == 4


def test_baseline_command_prints_one_that_judge_takes(command: Any) -> None:  # noqa: F811
    stored(writeback=oracles({1}, {1}))
    code, out, _ = command("baseline", "run1", "--reason", "worked on", "--until", "2099-01-01")
    assert code == 0
    Path("known.toml").write_text(out)
    assert command("judge", "run1", "--baseline", "known.toml")[0] == 0
    assert command("baseline", "run1", "--until", "soon")[0] == 4


# --------------------------------------------------------------------------- a session of pytest


def known(folder: Path, cell: str, until: str = "9999-12-31") -> str:
    path = folder / "known.toml"
    path.write_text(
        f'schema = 1\n[[known]]\ncell = "{cell}"\nverdicts = ["DIVERGED"]\nreason = "worked on"\nuntil = {until}\n'
    )
    return str(path)


def test_session_known_failure_is_xfail_and_exit_code_0(
    run: Callable[..., Ran], matrix: Path, world: World  # noqa: F811
) -> None:  # fmt: skip
    world.finds["writeback-swap-pressure"] = diverged()
    path = known(matrix.parent, "writeback-*")
    ran = run("--drbd-matrix", str(matrix), "--drbd-baseline", path, "--junitxml=j.xml", "-ra")
    assert ran.status == 0 and ran.outcomes == {"passed": 7, "xfailed": 1}
    assert "known until 9999-12-31: worked on" in ran.out
    assert "baseline: writeback-swap-pressure: DIVERGED, known until 9999-12-31: worked on" in ran.out
    (skipped,) = etree.parse("j.xml").xpath("//skipped")
    assert "worked on" in skipped.get("message")


def test_session_other_verdict_or_expired_entry_fails(
    run: Callable[..., Ran], matrix: Path, world: World  # noqa: F811
) -> None:  # fmt: skip
    world.finds["writeback-swap-pressure"] = corrupt()
    ran = run("--drbd-matrix", str(matrix), "--drbd-baseline", known(matrix.parent, "writeback-*"))
    assert ran.status == 1 and ran.outcomes["failed"] == 1
    world.finds["writeback-swap-pressure"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "--drbd-baseline", known(matrix.parent, "writeback-*", "2020-01-01"))
    assert ran.status == 1 and ran.outcomes["failed"] == 1 and "which is over: worked on" in ran.out


def test_session_known_failure_withdrawn_by_the_closing_controls_is_an_error(
    run: Callable[..., Ran], matrix: Path, world: World  # noqa: F811
) -> None:  # fmt: skip
    world.finds["writeback-swap-pressure"] = diverged()
    world.finds_later["host-steady"] = diverged()
    path = known(matrix.parent, "writeback-*")
    ran = run("--drbd-matrix", str(matrix), "--drbd-baseline", path, "--junitxml=j.xml")
    assert ran.status == 2 and "xfailed" not in ran.outcomes
    assert not etree.parse("j.xml").xpath("//skipped") and etree.parse("j.xml").xpath("//error")


def test_session_baseline_that_is_wrong_exit_code_4_before_any_lab(
    run: Callable[..., Ran], matrix: Path, world: World  # noqa: F811
) -> None:  # fmt: skip
    ran = run("--drbd-matrix", str(matrix), "--drbd-baseline", "no.toml")
    assert ran.status == 4 and "--drbd-baseline: no.toml cannot be read" in ran.err and world.labs == []

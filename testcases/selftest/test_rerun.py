"""Flips played again: which, in which blocks, with which command, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import oracles
from stored_run import BACK, CELLS, NONE, apart, command, found, handed_over, stored  # noqa: F401 - fixtures
from test_compare_runs import CLEAN, DIVERGED, INCONCLUSIVE, compared, plays

from harness.cli import rerun
from harness.judgement.rerun_plan import Outcome, blocks, replayed, worth_playing
from harness.judgement.standing import Standing
from harness.model import MergedRun, Run, Stack, VerdictKind
from harness.store import Store

HIT = oracles({1, 2, 3}, {1, 2, 3})


# --------------------------------------------------------------------------- the plan


@given(st.integers(2, 100))
def test_blocks_go_old_new_new_old_with_as_many_plays_on_each(often: int) -> None:
    made = blocks(often)
    assert [block.stack for block in made] == ["old", "new", "new", "old"]
    assert {sum(block.plays for block in made if block.new is new) for new in (True, False)} == {often}
    assert all(block.plays for block in made) and [block.name for block in made] == ["1-old", "2-new", "3-new", "4-old"]


def test_blocks_of_one_play_are_no_two_labs() -> None:
    with pytest.raises(ValueError, match="fewer than the 2 labs"):
        blocks(1)


def test_worth_playing_flips_and_what_was_played_less_often_and_nothing_else() -> None:
    assert worth_playing([compared(plays(CLEAN), plays(DIVERGED))])
    assert worth_playing([compared(plays(DIVERGED), plays(CLEAN))])
    assert worth_playing([compared(plays(CLEAN), plays(CLEAN, DIVERGED))])
    assert not worth_playing([compared(plays(CLEAN), plays(INCONCLUSIVE)), compared(plays(CLEAN), plays(CLEAN))])
    longer = [replace(one, cell=replace(one.cell, seconds=99)) for one in plays(DIVERGED)]
    assert not worth_playing([compared(plays(CLEAN), longer)]), "another duration is no less comparable by more plays"


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ([CLEAN] * 5, [DIVERGED] * 5, Outcome.CLEARLY_AGAIN),
        ([CLEAN] * 5, [DIVERGED, *[CLEAN] * 4], Outcome.AGAIN),
        ([CLEAN] * 5, [CLEAN] * 5, Outcome.NOT_AGAIN),
        ([DIVERGED] * 5, [DIVERGED] * 5, Outcome.BOTH),
        ([DIVERGED] * 5, [CLEAN] * 5, Outcome.BOTH),
        ([CLEAN] * 5, [INCONCLUSIVE] * 5, Outcome.NO_ANSWER),
    ],
)
def test_replayed_each_outcome_in_either_direction(
    old: list[VerdictKind], new: list[VerdictKind], outcome: Outcome
) -> None:
    worse, better = compared(plays(CLEAN), plays(DIVERGED)), compared(plays(DIVERGED), plays(CLEAN))
    before, after = Standing(tuple(plays(*old))), Standing(tuple(plays(*new)))
    assert replayed(worse, before, after).outcome is outcome
    assert replayed(better, after, before).outcome is outcome
    assert replayed(worse, before, None).outcome is Outcome.NO_ANSWER


# --------------------------------------------------------------------------- the command


def two_runs() -> None:
    """The writeback cell is CLEAN in run1 and DIVERGED in run2; both runs know their stack."""
    for store in (stored(), stored(run_id="run2", writeback=HIT)):
        suite = "bookworm" if store.directory.name == "run1" else "trixie"
        store.save_run(replace(store.run(), stack_spec={"suite": suite}, lab_spec={"device_mib": 128}))


class Played:
    """Stands for the runs that would take hours: each leaves what a lab of its stack finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **finds: Any) -> None:
        self.commands: list[list[str]] = []
        self.code = 0
        self.finds = {"old": {}, "new": HIT, **finds}
        self.kernel = "6.12-fake"
        monkeypatch.setattr(rerun, "own_process", self)
        monkeypatch.setattr(rerun, "require_no_lab", lambda: None)
        monkeypatch.setattr(rerun, "_seconds", lambda *_: 600.0)

    def __call__(self, argv: Sequence[str]) -> int:
        words = list(argv)
        self.commands.append(words)
        folder = Path(words[words.index("--runs") + 1])
        finds = self.finds[folder.name.partition("-")[2]]
        if finds is None or "--resume" in words:
            return self.code
        often = int(words[words.index("--repeat") + 1])
        cells = [replace(cell, repetition=one) for cell in CELLS if cell.id == BACK.id for one in range(1, often + 1)]
        stack = Stack("trixie", self.kernel, "8.4.11")
        controls = [cell for cell in CELLS if cell.control is not None]
        store = Store.create(folder, Run("again", "quick", "2026-11-24T00:00:00Z", (*controls, *cells), stack))
        for cell in store.run().cells:
            store.begin(cell).save(replace(found(cell), **({} if cell.control else finds)))
        return self.code


def test_rerun_flip_that_comes_again_is_more_than_chance_and_counted_with_the_first(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    played = Played(monkeypatch)
    code, out, err = command("compare", "run1", "run2", "--rerun", "--json")
    told = json.loads(out)
    first = next(one for one in told["cells"] if one["cell"] == BACK.id)
    assert code == 1 and first["rerun"]["outcome"] == "seen again, by more than chance"
    assert (first["rerun"]["old"], first["rerun"]["new"]) == ([0, 5], [5, 5])
    assert (first["old"]["plays"], first["new"]["plays"], first["new"]["failing"]) == (6, 6, 6)
    assert err.splitlines()[0].startswith(
        "1 cell again, 5 times on each stack, in 4 labs (old, new, new, old): about 40 min; kept in runs/rerun-"
    )
    assert [(words[2].rpartition("/")[2], words[words.index("--repeat") + 1]) for words in played.commands] == [
        ("run1", "3"), ("run2", "3"), ("run2", "2"), ("run1", "2"),
    ]  # fmt: skip
    assert all(f"--cell={BACK.id}" in words for words in played.commands)


def test_rerun_flip_that_does_not_come_again_stays_a_regression(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    Played(monkeypatch, new={})
    code, out, _ = command("compare", "run1", "run2", "--rerun")
    assert code == 1 and "Played again, these plays alone: 0/5 \u2192 0/5 (p = 1): not seen again." in out
    assert "0/6 \u2192 1/6" in out


def test_rerun_that_both_stacks_fail_is_no_regression(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    Played(monkeypatch, old=HIT)
    code, out, _ = command("compare", "run1", "run2", "--rerun")
    assert code == 0 and "both stacks do it: it is no flip" in out and "unstable (1)" in out


def test_rerun_stack_that_is_another_now_is_not_counted_together(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    played = Played(monkeypatch)
    played.kernel = "6.13-fake"
    code, out, err = command("compare", "run1", "run2", "--rerun")
    assert code == 1 and "0/1 \u2192 1/1" in out and "these plays alone: 0/5 \u2192 5/5" in out
    assert "the old stack is not what it was: kernel 6.12-fake \u2192 6.13-fake; not counted together" in err


def test_rerun_that_was_interrupted_goes_on_with_what_is_missing(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    played = Played(monkeypatch, new=None)
    played.code = 2
    code, _, err = command("compare", "run1", "run2", "--rerun")
    assert code == 2 and "block 2 (new stack) could not be played; it says why above" in err
    played.finds["new"] = HIT
    assert command("compare", "run1", "run2", "--rerun")[0] == 1
    assert len(played.commands) == 5, "the first block was there already"
    assert command("compare", "run1", "run2", "--rerun")[0] == 1 and len(played.commands) == 5
    folder = next(Path("runs").glob("rerun-*"))
    for path in (folder / "1-old").rglob("evidence.json"):
        if BACK.id in str(path):
            path.unlink()
            break
    command("compare", "run1", "run2", "--rerun")
    assert played.commands[5][:3] == ["run", "--resume", "again"]


def test_rerun_of_a_merged_run_is_none_of_another_night_that_is_called_the_same(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    played = Played(monkeypatch)
    store = Store.open(Path("runs"), "run2")
    for night in ("part1", "part2"):
        store.save_run(replace(store.run(), id="all", merged=(MergedRun(night, ""),)))
        assert command("compare", "run1", "run2", "--rerun")[0] == 1
    assert len(played.commands) == 8 and len(list(Path("runs").glob("rerun-*"))) == 2


def test_rerun_without_a_flip_or_without_a_stack_plays_nothing(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    played = Played(monkeypatch)
    code, _, err = command("compare", "run1", "run1", "--rerun")
    assert code == 0 and "nothing flipped, so nothing is played again" in err
    store = Store.open(Path("runs"), "run1")
    store.save_run(replace(store.run(), stack_spec={}))
    code, _, err = command("compare", "run1", "run2", "--rerun")
    assert code == 4 and "does not say which stack it was played with" in err
    assert command("compare", "run1", "run2", "--rerun", "--plays", "1")[0] == 4 and not played.commands


def test_rerun_commands_are_ones_that_run_takes(
    command: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    two_runs()
    played = Played(monkeypatch)
    command("compare", "run1", "run2", "--rerun")
    argv = handed_over(monkeypatch, command, *played.commands[0])
    assert argv[argv.index("--drbd-like") + 1] == str(Path("runs/run1").resolve())
    assert f"--drbd-cell={BACK.id}" in argv and NONE.id not in " ".join(argv)


def test_rerun_says_beforehand_how_long_it_will_take(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    two_runs()
    seconds = rerun._seconds
    Played(monkeypatch)
    monkeypatch.setattr(rerun, "_seconds", seconds)
    run = Store.open(Path("runs"), "run1").run()
    few, many = (seconds(run, (BACK.id,), often, Path("runs")) for often in (1, 10))
    assert 60 < few < many
    _, _, err = command("compare", "run1", "run2", "--rerun")
    assert "about " in err.splitlines()[0]

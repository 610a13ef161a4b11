"""Bisecting: what is played on which stack, what counts, how it ends; the harness itself is played by a stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from judged_evidence import evidence, observed, oracles
from own_command import run_here
from stored_run import found

from harness.cli import bisect_plays
from harness.cli.bisect import for_git_bisect
from harness.cli.bisect_plays import cell_of
from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.config.run_specs import stack_from_options
from harness.errors import UsageError
from harness.images import stack_digests
from harness.lab.nested.leftovers import Leftover
from harness.model import CacheMode, Cell, Evidence, Failure, FilesystemKind, Provenance, Run, Stack, VerdictKind
from harness.store import Store, run_ids

MATRIX = """
schema = 1
description = "two cells, of which one's id is in the other's"
[[cells]]
cache = "none"
filesystem = "swap"
workload = "pressure"
link_delay_ms = [0, 20]
"""
CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
UP = Leftover("57f071", None, ("a", "b"), True, "lab 57f071 with a, b is up")
D, C, NO = VerdictKind.DIVERGED, VerdictKind.CLEAN, VerdictKind.INCONCLUSIVE


@dataclass
class Labs:
    """Plays what ``finds`` says of a stack, over and over; ``codes`` are what other commands end with."""

    finds: dict[str, list[VerdictKind]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    plays: list[str] = field(default_factory=list)
    interrupt: str = ""
    labs: list[Leftover] = field(default_factory=list)
    no_packages: dict[str, str] = field(default_factory=dict)

    def __call__(self, arguments: Sequence[str]) -> int:
        self.asked.append(tuple(arguments))
        if arguments[0] != "run":
            stack = arguments[arguments.index("--stack") + 1] if "--stack" in arguments else ""
            return self.codes.get(f"{arguments[0]} {stack}".strip(), 0)
        given = dict(zip(arguments[1::2], arguments[2::2], strict=False))
        stack = given["--stack"]
        if stack == self.interrupt:
            raise KeyboardInterrupt
        if stack in self.broken:
            return self.broken[stack]
        asked = cell_of(given["--matrix"], "none-swap-pressure", D)
        assert given["-k"] == "none-swap-pressure and not (none-swap-pressure-link20ms)"
        spec = stack_from_options({"stack": stack})
        digests = stack_digests(spec)
        cells = with_controls(repeated([CELL], int(given["--repeat"]), 1))
        run = Run(
            f"run{len(run_ids(Path('runs'))):03}", "two", "2026-11-23T01:50:03Z", cells,
            Stack(spec.suite, f"6.{len(self.plays)}", "8.4.11"),
            stack_spec=spec.as_table(), matrix_digest=asked.digest,
            provenance=Provenance(images={"node": digests.a, "guest": digests.guest}),
        )  # fmt: skip
        store = Store.create(Path(given["--runs"]), run)
        stops = [one.removeprefix("--stop-at=") for one in arguments if one.startswith("--stop-at=")]
        for cell in cells:
            if cell.control is not None:
                store.begin(cell).save(found(cell))
                continue
            kind = self.finds[stack][self.plays.count(stack) % len(self.finds[stack])]
            self.plays.append(stack)
            store.begin(cell).save(played(cell, kind))
            if kind in stops:
                break
        return 0


def played(cell: Cell, kind: VerdictKind) -> Evidence:
    facts: dict[str, Any] = {"observed": observed(cell)}
    if kind is D:
        facts |= oracles({1, 2}, {1, 2})
    if kind is NO:
        facts["failure"] = Failure("deadline", "work", "it took too long")
    return replace(evidence(cell, **facts), cell=cell)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run ``drbd-harness`` in this process, in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DRBD_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    return partial(run_here, monkeypatch, capfd)


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch, command: Any) -> Labs:
    Path("two.toml").write_text(MATRIX)
    for name in "abcdefgh":
        Path(f"{name}.toml").write_text('schema = 1\ndescription = "one"\nsuite = "trixie"\n')
    made = Labs()
    monkeypatch.setattr(bisect_plays, "own_process", made)
    monkeypatch.setattr(bisect_plays, "leftovers", lambda: made.labs)
    monkeypatch.setattr(bisect_plays, "why_no_packages", lambda suite: made.no_packages.get(suite, ""))
    return made


Bisect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bisect(command: Any, labs: Labs) -> Bisect:
    def run(*arguments: str, versions: str = "abcdefgh") -> tuple[int, str, str]:
        named = ",".join(f"{name}.toml" for name in versions)
        chosen = ("--matrix", "two.toml", "-k", "none-swap-pressure")
        ended: tuple[int, str, str] = command("bisect", "--versions", named, *chosen, *arguments)
        return ended

    return run


@pytest.fixture
def step(command: Any, labs: Labs) -> Bisect:
    def run(*arguments: str, stack: str = "a.toml") -> tuple[int, str, str]:
        chosen = ("--matrix", "two.toml", "-k", "none-swap-pressure")
        ended: tuple[int, str, str] = command("bisect-step", "--stack", stack, *chosen, *arguments)
        return ended

    return run


# --------------------------------------------------------------------------- a list of stacks


def test_bisect_first_bad_found_with_the_plays_that_the_rate_asks_for(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {f"{name}.toml": [C] for name in "abcde"} | {f"{name}.toml": [D, C, C] for name in "fgh"}
    code, out, _ = bisect()
    assert code == 0 and "first bad: f.toml (last good: e.toml)" in out
    # 2 of 5 at the newest end: taken as 2 of 6, so that 8 plays without one are asked for.
    assert "it comes in 2/5 plays where it is; 8 plays without it say that it is not" in out
    counts = {name: labs.plays.count(f"{name}.toml") for name in "abcdefgh"}
    assert counts == {"a": 8, "b": 0, "c": 0, "d": 8, "e": 8, "f": 1, "g": 0, "h": 5}


def test_bisect_again_plays_nothing_again(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {f"{name}.toml": [C] for name in "abcde"} | {f"{name}.toml": [D] for name in "fgh"}
    first = json.loads(bisect("--json")[1])
    before = len(labs.plays)
    again = json.loads(bisect("--json")[1])
    assert again == first and len(labs.plays) == before
    assert (first["first_bad"], first["last_good"], first["unknown"]) == ("f.toml", "e.toml", [])
    assert (first["rate"], first["plays_wanted"], first["bad_is"]) == ("5/5", 2, "DIVERGED")
    assert [one["stack"] for one in first["stacks"]] == ["a.toml", "d.toml", "e.toml", "f.toml", "h.toml"]
    assert first["stacks"][-1]["verdicts"] == {"DIVERGED": 5} and first["stacks"][-1]["runs"] == [
        run_ids(Path("runs"))[0]
    ]


def test_bisect_interrupted_goes_on_where_it_was(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {f"{name}.toml": [C] for name in "abcde"} | {f"{name}.toml": [D] for name in "fgh"}
    labs.interrupt = "e.toml"
    assert bisect()[0] == 2
    before, labs.interrupt = len(labs.plays), ""
    assert bisect()[0] == 0 and labs.plays[before:] == ["e.toml"] * 2


def test_bisect_plays_of_other_images_do_not_count(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {"a.toml": [C], "b.toml": [D]}
    bisect(versions="ab")
    before = len(labs.plays)
    for run_id in run_ids(Path("runs")):
        store = Store.open(Path("runs"), run_id)
        store.save_run(replace(store.run(), provenance=Provenance(images={"node": "another", "guest": "another"})))
    bisect(versions="ab")
    assert len(labs.plays) == 2 * before


def test_bisect_what_was_mended_is_found_by_the_newest_end(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {f"{name}.toml": [D, C] for name in "abc"} | {f"{name}.toml": [C] for name in "defgh"}
    code, out, err = bisect("--json")
    answer = json.loads(out)
    assert code == 0 and (answer["bad_is"], answer["first_bad"], answer["last_good"]) == ("CLEAN", "d.toml", "c.toml")
    # No end is called good before it is known what is bad.
    named = [line.strip() for line in err.splitlines() if line.strip().startswith(("h.toml: ", "a.toml: ", "bad is"))]
    asked = [line for line in named if " plays of " not in line]
    assert asked[:3] == [
        "h.toml: 5 CLEAN",
        "a.toml: 3 DIVERGED, 2 CLEAN",
        "bad is what h.toml ends as: CLEAN or TRANSIENT",
    ]
    assert asked[3:5] == ["h.toml: bad", "a.toml: good"]


def test_bisect_what_cannot_tell_makes_a_range(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {f"{name}.toml": [C] for name in "abc"} | {f"{name}.toml": [D] for name in "fgh"} | {"e.toml": [NO]}
    labs.codes = {"images d.toml": 2}
    code, out, _ = bisect()
    assert code == 2
    assert "first bad: f.toml or one of d.toml, e.toml, which cannot tell (last good: c.toml)" in out
    assert ("doctor",) in labs.asked, "whether the machine is to blame"


def test_bisect_ends_alike_exit_code_3(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {"a.toml": [C], "b.toml": [C]}
    code, out, err = bisect(versions="ab")
    assert code == 3 and "both ends answer alike, a.toml 5 CLEAN and b.toml 5 CLEAN" in out
    assert err.strip().endswith("there is nothing to look for")
    labs.finds = {"c.toml": [C] * 6 + [D], "d.toml": [D, C, C, C, C]}
    code, out, _ = bisect(versions="cd")
    assert code == 3 and "c.toml 6 CLEAN, 1 DIVERGED and d.toml 1 DIVERGED, 4 CLEAN" in out


def test_bisect_end_that_cannot_tell_or_is_turned_round(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {"a.toml": [NO], "b.toml": [D]}
    code, out, _ = bisect(versions="ab")
    assert (
        code == 2 and "a.toml, which is an end, cannot tell: 0 of 5 plays have an answer: work: it took too long" in out
    )
    labs.finds = {"c.toml": [D], "d.toml": [C]}
    code, out, _ = bisect("--bad-is", "DIVERGED", versions="cd")
    assert code == 2 and "c.toml is bad and d.toml is good; --bad-is turns it round" in out


def test_bisect_machine_that_is_to_blame_ends_it(bisect: Bisect, labs: Labs) -> None:
    labs.finds = {"a.toml": [C], "b.toml": [D]}
    labs.broken, labs.codes = {"b.toml": 2}, {"doctor": 2}
    code, _, err = bisect(versions="ab")
    assert code == 2 and "no lab can come up on this machine any more" in err
    labs.labs = [Leftover("31d20e", None, (), False, "lab 31d20e without a running domain was left behind"), UP]
    code, _, err = bisect(versions="ab")
    assert code == 2 and "each stack needs a lab of its own, and lab 57f071 with a, b is up" in err


@pytest.mark.parametrize(
    ("versions", "more", "words"),
    [("a", (), "--versions names two stacks or more"), ("aa", (), "each once"), ("ax", (), "no stack file x.toml"),
     ("ab", ("--bad-is", "DIVERGD"), "did you mean 'DIVERGED'?"), ("ab", ("-k", "swap"), "'swap' is 2 of them"),
     ("ab", ("-k", "nonesuch"), "'nonesuch' is none of them"), ("ab", ("--bad-is", "INCONCLUSIVE"), "allowed:")],
)  # fmt: skip
def test_bisect_wrong_request_one_sentence(
    bisect: Bisect, labs: Labs, versions: str, more: tuple[str, ...], words: str
) -> None:
    code, out, err = bisect(*more, versions=versions)
    assert (code, out) == (4, "") and words in err and len(err.splitlines()) == 1 and not labs.plays


def test_bisect_wrong_request_is_wrong_beside_a_lab_too(bisect: Bisect, labs: Labs) -> None:
    labs.labs = [UP]
    code, _, err = bisect("--bad-is", "DIVERGD", versions="ab")
    assert code == 4 and "did you mean 'DIVERGED'?" in err


# --------------------------------------------------------------------------- one step of git's


@pytest.mark.parametrize(
    ("finds", "more", "code", "words"),
    [
        (
            [C],
            (),
            0,
            "good: none-swap-pressure on kernel 6.0, DRBD 8.4.11: 5 CLEAN; a rate of 45% or more would have shown",
        ),
        ([C, C, D], (), 1, "bad: none-swap-pressure on kernel 6.0, DRBD 8.4.11: 2 CLEAN, 1 DIVERGED"),
        ([C, C, C, D], ("--rate", "5/5"), 0, "good: "),
        ([C, C, C, D], ("--plays", "3"), 0, "good: "),
        ([C] * 31 + [D], ("--rate", "1/10"), 1, "bad: "),
        ([C], ("--bad-is", "CLEAN"), 1, "bad: "),
        ([C, D], ("--bad-is", "CLEAN"), 0, "good: "),
        ([NO], (), 125, "cannot tell: "),
        ([NO, C, C], ("--plays", "2"), 0, "good: "),
    ],
)
def test_bisect_step_ends_as_git_reads_it(
    step: Bisect, labs: Labs, finds: list[VerdictKind], more: tuple[str, ...], code: int, words: str
) -> None:
    labs.finds = {"a.toml": finds}
    ended, out, _ = step(*more)
    assert (ended, out.startswith(words)) == (code, True), out


def test_bisect_step_counts_no_earlier_play_for_the_build_is_another(step: Bisect, labs: Labs) -> None:
    labs.finds = {"a.toml": [D]}
    assert step()[0] == 1 and step()[0] == 1
    assert len(labs.plays) == 2
    labs.finds = {"a.toml": [C]}
    assert step("--plays", "2")[0] == 0
    run = run_ids(Path("runs"))[0]
    labs.finds = {"b.toml": [C]}
    assert step("--rate", run, stack="b.toml")[0] == 0 and labs.plays.count("b.toml") == 5, "1 of 1, taken as 1 of 2"


def test_bisect_step_build_that_failed_cannot_tell(step: Bisect, labs: Labs) -> None:
    Path("a.toml").write_text('schema = 1\ndescription = "mine"\n[node]\nkernel = "../linux-image-*.deb"\n')
    code, out, _ = step()
    assert code == 125 and out.startswith("cannot tell: a.toml, [node]: 'kernel' is '../linux-image-*.deb'") is False
    assert "there is no" in out and not labs.plays
    labs.broken = {"b.toml": 2}
    code, out, _ = step(stack="b.toml")
    assert code == 125 and "nothing could be played on it: the run ended with 2" in out
    labs.codes = {"images c.toml": 4, "images d.toml": 2}
    assert step(stack="c.toml")[0] == 125
    assert step(stack="d.toml")[0] == 125


def test_bisect_step_trouble_of_the_machine_is_no_answer_for_git(
    step: Bisect,
    labs: Labs,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labs.finds = {"a.toml": [C]}
    assert command("bisect-step")[0] == 132
    assert command("bisect-step", "--stack", "x.toml", "-k", "none")[0] == 132
    assert step("--rate", "1/5", "--plays", "3")[0] == 132 and step("--rate", "0/5")[0] == 132
    assert step("--rate", f"1/{'9' * 300}")[0] == 132
    assert step("--rate", "")[0] == 132, "a variable that is empty, and not as if no rate were given"
    Path("b.toml").write_text("schema = 1\nsuit = 3\n")
    assert step(stack="b.toml")[0] == 132
    labs.labs = [UP]
    assert step()[0] == 130
    labs.labs, labs.codes, labs.broken = [], {"doctor": 2}, {"a.toml": 2}
    assert step()[0] == 130
    labs.codes, labs.broken = {}, {"a.toml": -9}
    assert step()[0] == 130
    labs.broken, labs.interrupt = {}, "a.toml"
    assert step()[0] == 130
    monkeypatch.setattr(bisect_plays, "require_no_lab", lambda: 1 / 0)
    assert step()[0] == 130 and not labs.plays


def test_bisect_step_without_packages_git_stops_and_takes_no_commit_for_untestable(step: Bisect, labs: Labs) -> None:
    labs.codes, labs.no_packages = {"images a.toml": 2}, {"trixie": "E: Unable to locate package apt"}
    code, out, err = step()
    assert code == 130 and not out and not labs.plays
    assert "no images could be made of a.toml, for there are no packages: E: Unable to locate package apt" in err
    labs.codes = {"images a.toml": 4}
    assert step()[0] == 125, "what the stack names is wrong, whatever the mirror says"


def test_for_git_bisect_that_only_printed_help_is_no_trouble() -> None:
    def helped() -> None:
        raise SystemExit(0)

    with pytest.raises(SystemExit) as ended:
        for_git_bisect(helped)
    assert ended.value.code == 0


def test_cell_of_id_that_is_in_another_leaves_that_out(labs: Labs) -> None:
    asked = cell_of("two.toml", "none-swap-pressure", D)
    assert (asked.cell, asked.select) == (
        "none-swap-pressure", "none-swap-pressure and not (none-swap-pressure-link20ms)"
    )  # fmt: skip
    assert cell_of("two.toml", "link20", D).select == "none-swap-pressure-link20ms"
    with pytest.raises(UsageError):
        cell_of("two.toml", "", D)

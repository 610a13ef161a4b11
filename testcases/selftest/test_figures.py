"""The tables of figures in README and docs: what the kept evidence gives, and how ci/figures makes them."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    FilesystemKind,
    Run,
    Sabotage,
    Stack,
)
from harness.report import figures
from harness.report.figure_measures import MEASURES
from harness.store import Store, judged_results, keep_small, merge_runs

CHECKOUT = Path(__file__).parents[2]
GOLDEN = CHECKOUT / "testcases" / "selftest" / "golden"
SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
#: A kept run of the usual stack.
SMOKE = "smoke-20261128T210532Z-6be7"
STACK = Stack(drbd="8.4.11", kernel="6.12.1+x", qemu="10.0", accelerator="tcg")
SPEC = """
[one]
runs = ["quick-drbd-8.4"]
where = { work = "reclaim on swap" }
rows = ["cache"]
show = ["n", "sure", "differing"]
"""
PAGE = "before\n\n<!-- figures: one -->\n<!-- /figures -->\n\nafter\n"
TABLE = """| cache | n | verdict, in plays (share with harm, 95 %) | blocks that differ |
| --- | --- | --- | --- |
| none | 1 | **DIVERGED** 1 of 1 (harmed: 2 % to 100 %) | 304; all free |
| directsync | 1 | **DIVERGED** 1 of 1 (harmed: 2 % to 100 %) | 432; all free |
| writethrough | 1 | CLEAN 1 of 1 (harmed: 0 % to 98 %) | 0 |
| writeback | 1 | CLEAN 1 of 1 (harmed: 0 % to 98 %) | 0 |

*Each cell was played once (n = 1). Linux 6.12.118, DRBD 8.4.11, QEMU 10.0.13; nodes under QEMU's TCG with \
emulated SVM, not representative in timing. From: `drbd-harness judge quick-drbd-8.4 --runs testcases/selftest/golden`.*
"""


def test_figures_of_readme_and_docs_are_what_the_kept_runs_give() -> None:
    assert list(figures.differences(CHECKOUT)) == []


def test_kept_runs_are_small_and_whole() -> None:
    for run in (CHECKOUT / "docs" / "evidence").glob("*/run.json"):
        store = Store.open(run.parent.parent, run.parent.name)
        attempts, damaged = store.whole_and_damaged()
        assert attempts and not damaged, run
        assert {path.name for path in run.parent.rglob("*") if path.is_file()} == {"run.json", "evidence.json.gz"}
        assert sum(path.stat().st_size for path in run.parent.rglob("*") if path.is_file()) < 1536 * 1024, run


# --------------------------------------------------------------------------- a checkout of its own


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A page with one table, made from one run."""
    (tmp_path / "docs" / "evidence").mkdir(parents=True)
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / figures.ROOTS[1] / "quick-drbd-8.4")
    (tmp_path / figures.SPEC).write_text(SPEC)
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path


Run_ = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ci_figures(checkout: Path, capsys: pytest.CaptureFixture[str]) -> Run_:
    """The script in that checkout: its exit code, what it printed, and its errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = figures.main(["--checkout", str(checkout), *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_write_fills_the_table_and_leaves_the_rest(checkout: Path, ci_figures: Run_) -> None:
    assert ci_figures() == (0, "README.md: written\n", "")
    assert (checkout / "README.md").read_text() == PAGE.replace("one -->\n", f"one -->\n{TABLE}")
    assert ci_figures() == (0, "", ""), "written already"
    assert ci_figures("--check") == (0, "", "")


def test_check_table_edited_by_hand_one_sentence(checkout: Path, ci_figures: Run_) -> None:
    ci_figures()
    page = checkout / "README.md"
    page.write_text(edited := page.read_text().replace("304", "305"))
    sentence = "README.md: the table 'one' is not what its runs give; ./ci/figures writes it again\n"
    assert ci_figures("--check") == (1, sentence, "")
    assert page.read_text() == edited, "a check writes nothing"


@pytest.mark.parametrize(
    ("file", "before", "after", "sentence"),
    [
        (figures.SPEC, "quick-drbd-8.4", "quick-9", "'one' is made from 'quick-9', and no such run is in docs"),
        (figures.SPEC, "quick-drbd-8.4", "nine-*", "no play of its runs is one that the table 'one' asks for"),
        (figures.SPEC, "reclaim on swap", "nothing", "no play of its runs is one that the table 'one' asks for"),
        (figures.SPEC, "[one]", "[two]", "docs/figures.toml has no table 'one', which README.md shows"),
        (figures.SPEC, SPEC, f"{SPEC}[two]\nbounds = [1]\n", "docs/figures.toml: no page shows the table 'two'"),
        (figures.SPEC, '"n", ', '"m", ', "docs/figures.toml, [one]: "),
        (figures.SPEC, "work =", "wrk =", "'wrk' is no property of a play; did you mean 'work'?"),
        (figures.SPEC, "show =", "shows =", "[one]: 'shows' is no key; did you mean 'show'?"),
        (figures.SPEC, "[one]", "[one", "docs/figures.toml cannot be read: "),
        (figures.SPEC, 'where = { work = "reclaim on swap" }\n', "", "'one' throws together plays of "),
        ("README.md", "<!-- /figures -->", "<!-- figures -->", "README.md: a marker of a table is alone, or is not "),
        ("README.md", "one -->", "one--> ", "README.md: a marker of a table is alone, or is not written like one"),
    ],
)  # fmt: skip
def test_check_what_is_wrong_one_sentence(
    checkout: Path, ci_figures: Run_, file: Path | str, before: str, after: str, sentence: str
) -> None:
    text = (checkout / file).read_text()
    assert before in text
    (checkout / file).write_text(text.replace(before, after))
    code, out, err = ci_figures("--check")
    assert (code, out) == (4, "") and err.startswith("ci/figures: ") and sentence in err and err.count("\n") == 1


def test_table_of_what_nobody_asked_yet_says_how_to_ask(checkout: Path, ci_figures: Run_) -> None:
    command = "drbd-harness run --matrix nine"
    text = SPEC.replace("quick-drbd-8.4", "nine-*").replace("rows", f'command = "{command}"\nrows')
    (checkout / figures.SPEC).write_text(text)
    assert ci_figures()[0] == 0
    page = (checkout / "README.md").read_text()
    assert f"-->\n*Not asked yet by a run whose evidence is kept: `{command}`.*\n<!-- /" in page


def test_damaged_evidence_is_no_table(checkout: Path, ci_figures: Run_) -> None:
    next((checkout / figures.ROOTS[1]).rglob("evidence.json")).write_text("{")
    code, _, err = ci_figures()
    assert code == 4 and "is damaged: it is not whole JSON" in err


def test_run_that_has_not_ended_is_not_kept(checkout: Path, ci_figures: Run_, tmp_path: Path) -> None:
    playing = tmp_path / "runs" / "quick-drbd-8.4"
    shutil.copytree(GOLDEN / "quick-drbd-8.4", playing)
    store = Store(playing)
    store.save_run(replace(store.run(), finished_at=""))
    code, out, err = ci_figures(playing)
    assert (code, out) == (4, "") and f"{playing} has not ended" in err and err.count("\n") == 1
    assert not list((checkout / figures.EVIDENCE).glob("*"))


def test_run_is_kept_small_and_in_the_tables_at_once(checkout: Path, ci_figures: Run_) -> None:
    text = (checkout / figures.SPEC).read_text().replace('["quick-drbd-8.4"]', '["quick-*"]')
    (checkout / figures.SPEC).write_text(text)
    code, out, err = ci_figures(GOLDEN / "quick-drbd-8.4")
    name = "quick-20261124T131339Z-8e15"
    assert (code, err) == (0, "") and out.startswith(str(checkout / "docs" / "evidence" / name))
    page = (checkout / "README.md").read_text()
    assert "| none | 2 | **DIVERGED** 2 of 2 (harmed: 15 % to 100 %) | 304; all free |" in page
    assert "Each cell was played 2 times (n in the table)." in page
    assert f"From: `drbd-harness judge {name} --runs docs/evidence`; `drbd-harness judge quick-drbd-8.4" in page


def test_run_that_went_on_replaces_what_was_kept_of_it(checkout: Path, ci_figures: Run_, tmp_path: Path) -> None:
    (checkout / figures.SPEC).write_text(SPEC)
    run = tmp_path / "run"
    shutil.copytree(GOLDEN / "quick-drbd-8.4", run)
    cell = run / "cells" / "none-swap-reclaim-link20ms"
    shutil.move(cell, tmp_path / "later")
    kept = checkout / figures.EVIDENCE / "quick-20261124T131339Z-8e15"
    assert ci_figures(run)[0] == 0 and len(Store.open(kept.parent, kept.name).every_attempt()) == 10
    shutil.move(tmp_path / "later", cell)
    assert ci_figures(run)[0] == 0 and len(Store.open(kept.parent, kept.name).every_attempt()) == 11
    shutil.rmtree(cell)
    code, _, err = ci_figures(run)
    assert code == 4 and f"{kept} has evidence that {run} has not" in err and kept.is_dir()


def test_runs_of_two_versions_of_drbd_are_not_thrown_together(checkout: Path, ci_figures: Run_) -> None:
    shutil.copytree(GOLDEN / "smoke-drbd-9.3.3", checkout / figures.EVIDENCE / "smoke-9")
    both = SPEC.replace('["quick-drbd-8.4"]', '["quick-drbd-8.4", "smoke-9"]')
    (checkout / figures.SPEC).write_text(both)
    assert "throws together what was played with DRBD 8.4.11 on tcg and DRBD 9.3.3 on tcg" in ci_figures()[2]
    (checkout / figures.SPEC).write_text(both.replace("rows", 'drbd = "9.3"\nrows'))
    assert ci_figures()[0] == 0 and "| none | 1 | **DIVERGED** 1 of 1" in (checkout / "README.md").read_text()


def with_stack(where: Path, name: str, **versions: str) -> None:
    """The run in ``where`` as one of another stack."""
    facts = json.loads((where / "run.json").read_text())
    facts["stack_spec"] = {"suite": "trixie", "name": name}
    facts["stack"] |= versions
    (where / "run.json").write_text(json.dumps(facts))


def test_plays_of_other_stacks_are_in_a_table_that_asks_for_them(checkout: Path, ci_figures: Run_) -> None:
    for run, name, kernel in (("new", "trixie-backports", "7.3.4+x"), ("mine", "/a/mine.toml", "6.9.1")):
        shutil.copytree(CHECKOUT / figures.EVIDENCE / SMOKE, checkout / figures.EVIDENCE / run)
        with_stack(checkout / figures.EVIDENCE / run, name, kernel=kernel)
    every = SPEC.replace('["quick-drbd-8.4"]', '["*"]').replace('"n", "sure", "differing"', '"verdicts"')
    (checkout / figures.SPEC).write_text(every)
    assert ci_figures()[0] == 0
    page = (checkout / "README.md").read_text()
    assert "| none | **DIVERGED** 1 of 1 |" in page and "Linux 6.12.118, DRBD" in page, "those of the usual one alone"
    rows = 'stacks = ["*"]\nrows = ["stack", "versions"]\nacross = "cell"'
    (checkout / figures.SPEC).write_text(every.replace('rows = ["cache"]', rows))
    assert ci_figures()[0] == 0
    lines = [line.split(" | ") for line in (checkout / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert [(line[0], line[1]) for line in lines] == [
        ("| `mine`", "Linux 6.9.1, DRBD 8.4.11, QEMU 10.0.13"),
        ("| `trixie`", "Linux 6.12.118, DRBD 8.4.11, QEMU 10.0.13"),
        ("| `trixie-backports`", "Linux 7.3.4, DRBD 8.4.11, QEMU 10.0.13"),
    ]
    assert all(line[2] == "**DIVERGED** 1 of 1" for line in lines)
    assert "Each cell was played once" in (checkout / "README.md").read_text()


def test_claims_are_those_of_the_command(checkout: Path, ci_figures: Run_) -> None:
    (checkout / figures.SPEC).write_text('[one]\nruns = ["*"]\nclaims = true\n')
    shutil.copy(CHECKOUT / figures.CLAIMS, checkout / figures.CLAIMS)
    assert ci_figures()[0] == 0
    page = (checkout / "README.md").read_text()
    assert (
        "| C2 | cache=directsync is reliable with DRBD | **counterexample found** | replicas that differ: count" in page
    )
    assert "From: `drbd-harness claims testcases/selftest/golden/*/`.*" in page
    (checkout / figures.CLAIMS).write_text("schema = 1\n")
    assert "there is no claim in it; write [[claims]]" in ci_figures()[2]


def test_bounds_are_the_exact_ones() -> None:
    table = figures.FigureTable(bounds=(5, 20))
    text = figures.markdown("bounds", table, figures.KeptRuns(CHECKOUT))
    assert "| 0 of 5 | up to 52 % |\n| 0 of 20 | up to 17 % |\n" in text


# --------------------------------------------------------------------------- the small form


@pytest.mark.parametrize("run", sorted(path.parent.name for path in GOLDEN.glob("*/run.json")))
def test_small_form_is_judged_like_the_run(run: str, tmp_path: Path) -> None:
    whole = Store.open(GOLDEN, run)
    small = keep_small(whole, tmp_path, "small")
    assert judged_results(small) == judged_results(whole)
    assert not list(tmp_path.rglob("evidence.json"))
    again = keep_small(small, tmp_path, "again")
    for path in small.directory.rglob("*.gz"):
        assert (again.directory / path.relative_to(small.directory)).read_bytes() == path.read_bytes()


def test_small_form_damaged_is_said_and_missing(tmp_path: Path) -> None:
    small = keep_small(Store.open(GOLDEN, "quick-drbd-8.4"), tmp_path, "small")
    for path, content in zip(sorted(small.directory.rglob("*.gz")), (b"{}", gzip.compress(b"{")[:-9]), strict=False):
        path.write_bytes(content)
    assert len(small.damaged()) == 2 and len(small.every_attempt()) == 9
    assert all("is damaged: it is not whole JSON" in sentence for sentence in small.damaged())


def test_small_form_can_be_merged(tmp_path: Path) -> None:
    kept = [keep_small(Store.open(GOLDEN, run), tmp_path, run) for run in ("quick-drbd-8.4", "hung-node-drbd-8.4")]
    merged = merge_runs(tmp_path, kept, "both")
    assert len(merged.every_attempt()) == sum(len(store.every_attempt()) for store in kept)
    assert not list(merged.directory.rglob("evidence.json.gz"))


# --------------------------------------------------------------------------- which plays


def test_selection_leaves_out_controls_sabotage_and_what_was_not_played(tmp_path: Path) -> None:
    (tmp_path / figures.EVIDENCE).mkdir(parents=True)
    keep_small(Store.open(GOLDEN, "quick-drbd-8.4"), tmp_path / figures.EVIDENCE, "quick")
    kept = figures.KeptRuns(tmp_path)
    plays = kept.plays(figures.Selection(runs=("*",)), "one")
    assert len(plays) == 8 and not any(one.result.cell.control for one in plays)
    Store.create(tmp_path / figures.EVIDENCE, Run("empty", "quick", "now", (SWAP,), STACK))
    assert len(figures.KeptRuns(tmp_path).plays(figures.Selection(runs=("*",)), "one")) == 8
    with pytest.raises(UsageError, match="made from 'none'"):
        kept.plays(figures.Selection(runs=("none", "*")), "one")


def test_selection_of_sabotage_has_that_alone_and_counts_owners() -> None:
    kept = figures.KeptRuns(CHECKOUT)
    plays = kept.plays(figures.Selection(runs=("owners-*",), sabotage="flip-owners"), "owners")
    assert plays and all(one.result.cell.sabotage is Sabotage.FLIP_OWNERS for one in plays)
    (xfs,) = (one for one in plays if one.result.cell.filesystem is FilesystemKind.XFS)
    assert MEASURES["right"].text([xfs]) == "6 of 6"
    assert MEASURES["whose_planted"].text([xfs]) == "2 allocated, 1 free, 2 metadata and 1 journal"
    found = xfs.result.evidence
    assert found is not None
    other = (replace(found.planted[0], owner=BlockOwner.FREE), *found.planted[1:])
    taken = replace(xfs, result=replace(xfs.result, evidence=replace(found, planted=other)))
    assert MEASURES["right"].text([xfs, taken]) == "11 of 12"
    assert kept.plays(figures.Selection(runs=("owners-*",)), "owners") == []


def test_command_below_the_claims_names_runs_only() -> None:
    for root in figures.ROOTS:
        assert [
            path for path in (CHECKOUT / root).glob("*/") if path.is_dir() and not (path / "run.json").is_file()
        ] == []

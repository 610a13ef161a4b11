"""A stored run as a whole: read once, however much is asked of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_command import run_here

from harness.errors import UsageError
from harness.judgement import controls, controls_around, judge
from harness.model import Controls, Evidence, Result, Verdict
from harness.model.aliases import former_id
from harness.report.bundle import StoredReport
from harness.store import Store, judged_cells, judged_results, judged_run, keep_judged, keep_small, run_store
from harness.util.paths import cache_dir

QUICK = Path(__file__).parent / "golden" / "quick-drbd-8.4"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A copy of a run of which one evidence is cut off."""
    shutil.copytree(QUICK, tmp_path / "run1")
    cut = sorted((tmp_path / "run1").glob("cells/*/1/evidence.json"))[-1]
    cut.write_text(cut.read_text()[:-9])
    return Store(tmp_path / "run1")


def edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """What somebody else wrote into a file of a run."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_judged_run_all_that_is_asked_of_it_each_file_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read: Counter[Path] = Counter()
    before = run_store.read_packed

    def counted(path: Path) -> bytes:
        read[path] += path.name == "evidence.json"
        return before(path)

    monkeypatch.setattr(run_store, "read_packed", counted)
    found = judged_run(store)
    assert set(read.values()) == {0, 1} and sum(read.values()) == len([*store.attempt_folders()])
    read.clear()
    StoredReport(store, without=False).json()
    assert set(read.values()) == {0, 1}
    read.clear()
    other = shutil.copytree(store.directory, store.directory.with_name("run2"))
    code, _, err = run_here(monkeypatch, capfd, "compare", str(store.directory), str(other))
    assert code == 2 and set(read.values()) == {0, 1} and err.count("; it counts as missing") == 2
    assert found.results == judged_results(store) and found.attempts == store.every_attempt()
    assert found.damaged == store.damaged() and len(found.damaged) == 1


def test_judged_run_folder_of_a_cell_that_cannot_be_read_is_told_and_not_as_if_nothing_was_played(store: Store) -> None:
    folder = store.directory / "cells" / "none-swap-reclaim-link20ms"
    shutil.rmtree(folder)
    folder.symlink_to(folder.name)
    told = [one for one in judged_run(store).damaged if str(folder) in one]
    assert told == [f"{folder} cannot be read: Too many levels of symbolic links"]
    with pytest.raises(UsageError, match="cannot be read"):
        list(store.attempt_folders())


def test_list_run_whose_cells_cannot_be_read_hides_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = store.directory.parent
    shutil.copytree(store.directory, runs / "run2")
    shutil.rmtree(store.directory / "cells")
    (store.directory / "cells").symlink_to("cells")
    code, out, err = run_here(monkeypatch, capfd, "list", "--runs", str(runs))
    assert code == 0 and "run2" in out
    assert err.splitlines() == [f"run1: {store.directory / 'cells'} cannot be read: Too many levels of symbolic links"]


def test_open_run_without_a_name_is_none_of_the_folder_it_happens_to_be_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.directory)
    with pytest.raises(UsageError, match=r"there is no run '' in runs$"):
        Store.open(Path("runs"), "")
    assert Store.open(Path("runs"), ".").run().id


def test_cache_of_nobody_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRBD_HARNESS_CACHE", "~no-such-user/cache")
    with pytest.raises(UsageError, match="DRBD_HARNESS_CACHE is '~no-such-user/cache'"):
        cache_dir()


@pytest.mark.parametrize("name", ["../../evil", "", "a/b", "a\nb"])
def test_open_run_of_somebody_with_an_id_that_leads_elsewhere_damaged(store: Store, name: str) -> None:
    edit(store.directory / "run.json", lambda run: run | {"id": name})
    with pytest.raises(UsageError, match=r"(?s)run\.json is damaged: '.*' cannot be the name of a file$"):
        StoredReport(Store.open(store.directory.parent, "run1"), without=False)


def test_judged_run_evidence_with_a_cell_that_leads_elsewhere_damaged(store: Store) -> None:
    path = store.directory / "cells" / "none-mutator" / "1" / "evidence.json"
    edit(path, lambda one: one | {"cell": one["cell"] | {"workload": "../../../evil"}})
    (told,) = [one for one in judged_run(store).damaged if str(path) in one]
    assert told.endswith("/evil' cannot be the name of a file")


def test_judged_run_cell_that_nothing_can_be_called_after_damaged(store: Store) -> None:
    asked = {"bitmap_block_size": "\\"}
    edit(store.directory / "run.json", lambda run: run | {"schema": 3, "cells": [{"workload": "x", "client": "host"}]})
    assert store.run().cells
    cell = {"workload": "x", "client": "host", "replication": asked}
    edit(store.directory / "run.json", lambda run: run | {"cells": [cell]})
    with pytest.raises(UsageError, match=r"run\.json is damaged: nothing can be called as its cell of 'x' says$"):
        store.run()


def test_forms_with_names_of_somebody_are_text_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(store.directory / "run.json", lambda run: run | {"matrix": "a\n[[known]]\n<script>\x1b[31m"})
    hostile = shutil.copytree(store.directory, store.directory.parent / "<script>|[b]\x1b[31m")
    for arguments in (
        ("baseline",), ("claims", "--markdown"), ("claims",), ("report", "--markdown"), ("judge",),
        ("compare", str(hostile)), ("compare", "--markdown", str(hostile)), ("history", "none-swap-reclaim-link20ms"),
    ):  # fmt: skip
        code, out, _ = run_here(monkeypatch, capfd, *arguments, str(hostile))
        assert code in (0, 1, 2) and "\x1b" not in out, arguments
        assert "--markdown" not in arguments or "<script>" not in out, arguments
        assert arguments != ("baseline",) or "known" not in tomllib.loads(out), "no entry of the run's own"
    code, out, err = run_here(monkeypatch, capfd, "list", "--runs", str(hostile.parent))
    assert (code, "\x1b" in out, "\x1b" in err, "[b]" in out) == (0, False, False, True)


def test_list_runs_of_which_none_can_be_read_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (store.directory / "run.json").write_text("{")
    code, _, err = run_here(monkeypatch, capfd, "list", "--runs", str(store.directory.parent))
    assert code == 3 and err.endswith(f"drbd-harness: no run in {store.directory.parent} can be read\n")


def test_zip_of_a_run_that_goes_on_file_that_found_its_place_meanwhile_no_trouble(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unfinished = store.directory / ".run.json.4711.0a0b0c0d"
    unfinished.write_text("{}")
    before = Path.read_bytes

    def in_place_by_then(path: Path) -> bytes:
        if path == unfinished:
            path.unlink()
        return before(path)

    monkeypatch.setattr(Path, "read_bytes", in_place_by_then)
    StoredReport(store, without=False).write_zip(tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert not [name for name in archive.namelist() if unfinished.name in name]


@pytest.mark.parametrize("form", ["--json", "--markdown", "--csv", "--with-data", "--zip"])
def test_report_of_half_a_character_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, form: str
) -> None:
    """JSON can hold half of a surrogate pair, and no file of text can."""
    edit(store.directory / "run.json", lambda run: run | {"matrix": "\ud800", "notes": ["\ud800"]})
    for path in store.directory.glob("cells/*/1/evidence.json"):
        if path.read_text().endswith("}\n"):
            edit(
                path, lambda one: one | {"kernel_errors": ["\ud800"], "before": one["before"] | {"peer_disk": "\ud800"}}
            )
    code, _, err = run_here(monkeypatch, capfd, "report", str(store.directory), form, "-o", str(tmp_path / "made"))
    assert code == 0 and "Traceback" not in err and (tmp_path / "made").stat().st_size


def test_merge_and_small_form_of_half_a_character_keep_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = store.directory.parent
    shutil.copytree(store.directory, runs / "run2")
    edit(runs / "run2" / "run.json", lambda run: run | {"id": "run2", "notes": ["\ud800"]})
    for path in runs.glob("run2/cells/*/1/evidence.json"):
        if path.read_text().endswith("}\n"):
            odd = {"lab": "another", "kernel_errors": ["\ud800"]}
            edit(path, lambda one, odd=odd: one | odd | {"before": one["before"] | {"peer_disk": "\ud800"}})
    code, _, err = run_here(monkeypatch, capfd, "merge", "run1", "run2", "--into", "m", "--runs", str(runs))
    assert code == 0 and "Traceback" not in err and (runs / "m" / "report.html").stat().st_size
    small = keep_small(Store(runs / "m"), runs, "small")
    for kept in (Store(runs / "m"), small):
        assert ("\ud800",) in {one.kernel_errors for one in kept.every_attempt()}


# --------------------------------------------------------------------------- nothing twice


def test_history_reads_no_evidence_of_a_run_that_never_played_the_cell(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    before = run_store.read_packed
    monkeypatch.setattr(run_store, "read_packed", lambda path: read.append(path) or before(path))
    planned = next(cell for cell in store.run().cells if cell.control is None)
    assert [one.verdict for one in judged_cells(store, [planned.id])] != [None]
    assert any(path.name == "evidence.json" for path in read)
    shutil.rmtree(store.directory / "cells" / former_id(planned.id))
    read.clear()
    assert judged_cells(store, ["another"]) == [] and judged_cells(store, [planned.id]) == [Result(planned, None, None)]
    assert {path.name for path in read} == {"run.json"}


def test_keep_judged_judges_each_attempt_once_and_a_control_once_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: Counter[str] = Counter()
    before = judge.judge

    def counted(evidence: Evidence, controls: Controls | None = None) -> Verdict:
        judged["a control" if evidence.cell.control else "a cell"] += 1
        return before(evidence, controls)

    monkeypatch.setattr(controls, "judge", counted)
    monkeypatch.setattr(controls_around, "judge", counted)
    played = store.every_attempt()
    keep_judged(store)
    number = sum(one.cell.control is not None for one in played)
    assert judged == {"a cell": len(played) - number, "a control": 2 * number} and number


def test_history_does_without_what_only_intervals_need() -> None:
    asked = "import sys, harness.cli.main, harness.report.history; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

"""A stored run as a whole: read once, however much is asked of it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from own_command import run_here

from harness.errors import UsageError
from harness.report.bundle import StoredReport
from harness.store import Store, judged_results, judged_run, run_store
from harness.util.paths import cache_dir

QUICK = Path(__file__).parent / "golden" / "quick-drbd-8.4"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A copy of a run of which one evidence is cut off."""
    shutil.copytree(QUICK, tmp_path / "run1")
    cut = sorted((tmp_path / "run1").glob("cells/*/1/evidence.json"))[-1]
    cut.write_text(cut.read_text()[:-9])
    return Store(tmp_path / "run1")


def test_judged_run_all_that_is_asked_of_it_each_file_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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

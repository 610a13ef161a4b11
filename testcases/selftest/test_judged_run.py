"""A stored run as a whole: read once, however much is asked of it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.report.bundle import StoredReport
from harness.store import Store, judged_results, judged_run, run_store

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

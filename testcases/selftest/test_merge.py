"""Several runs become one on the disk, without loss; what does not fit, or is killed or interrupted, leaves no run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mergeable_runs import SWAPS, WHOLE, part, shards

from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.errors import StoreError, UsageError
from harness.judgement.repetitions import answers
from harness.model import Evidence, Failure, VerdictKind
from harness.store import Store, judged_results, merge, merge_runs, run_ids
from harness.store.merge_plan import Part

GOLDEN = Path(__file__).parent / "golden"


def kept(root: Path, parts: Sequence[Part]) -> list[Store]:
    stores = []
    for one in parts:
        store = Store.create(root, one.run)
        for evidence in one.attempts:
            attempt = store.begin(evidence.cell)
            attempt.save(evidence)
            attempt.write_raw("kernel.log", f"{evidence.lab} {evidence.started_at}")
        stores.append(store)
    return stores


def untouched(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def facts(attempts: Sequence[Evidence]) -> set[str]:
    return {repr(replace(one, attempt=0)) for one in attempts}


def test_merge_runs_shards_nothing_lost_sources_untouched(tmp_path: Path) -> None:
    parts = shards(3)
    stores = kept(tmp_path, parts)
    interrupted = stores[1].begin(SWAPS[0])
    interrupted.write_raw("kernel.log", "it was killed here")
    (stores[0].directory / "commands.log").write_text("a command")
    before = untouched(tmp_path)
    merged = merge_runs(tmp_path, stores[::-1], "m")
    assert {path: content for path, content in untouched(tmp_path).items() if path in before} == before
    assert merged.run().cells == WHOLE
    assert facts(merged.every_attempt()) == facts([one for one_part in parts for one in one_part.attempts])
    folders = list(merged.attempt_folders())
    assert len(folders) == sum(len(one_part.attempts) for one_part in parts) + 1
    for folder, evidence in merged.attempts():
        assert (folder / "kernel.log").read_text() == f"{evidence.lab} {evidence.started_at}"
        assert evidence.attempt == int(folder.name)
    assert {path.read_text() for _, folder in folders for path in [folder / "kernel.log"]} >= {"it was killed here"}
    assert (merged.directory / "merged" / "run1" / "commands.log").read_text() == "a command"
    became = json.loads((merged.directory / "merged" / "run2" / "attempts.json").read_text())
    assert len(became) == len(parts[1].attempts) + 1
    assert sorted(run_ids(tmp_path)) == ["m", "run1", "run2", "run3"]
    assert not (tmp_path / ".merging").exists()


def test_merge_runs_judged_as_the_whole_verdicts_kept(tmp_path: Path) -> None:
    whole = kept(tmp_path / "one", [part(WHOLE, 1)])[0]
    merged = merge_runs(tmp_path, kept(tmp_path, shards(2)), "m")
    found = judged_results(merged)
    assert [(one.cell, one.verdict) for one in found] == [(one.cell, one.verdict) for one in judged_results(whole)]
    for result in found:
        folder = merged.directory / "cells" / result.cell.id / str(result.evidence.attempt if result.evidence else 0)
        assert merged.kept_verdict(folder) == result.verdict


def test_merge_runs_failed_control_takes_back_only_what_its_lab_showed(tmp_path: Path) -> None:
    one, two = shards(2)
    failure = Failure("lost-node", "work", "it is gone")
    attempts = tuple(
        replace(found, failure=failure) if found.cell.id == "host-no-writes" else found for found in two.attempts
    )
    merged = merge_runs(tmp_path, kept(tmp_path, [one, replace(two, attempts=attempts)]), "m")
    back = [result for result in judged_results(merged) if result.cell.id == "writeback-swap-pressure"]
    kinds = {result.evidence.lab: result.verdict.kind for result in back if result.evidence and result.verdict}
    assert kinds == {"lab1": VerdictKind.CLEAN, "lab2": VerdictKind.INCONCLUSIVE}


def test_merge_runs_whole_runs_counted_as_repetitions_and_merged_again(tmp_path: Path) -> None:
    stores = kept(
        tmp_path, [part(with_controls(repeated(SWAPS, 2, number)), number, seed=number) for number in (1, 2, 3)]
    )
    merged = merge_runs(tmp_path, stores[:2], "m")
    again = merge_runs(tmp_path, [merged, stores[2]], "n")
    counted = {one.cell_id: one.answered for one in answers(judged_results(again)) if one.cell.control is None}
    assert counted == {cell.id: 6 for cell in SWAPS}
    assert [one.id for one in again.run().merged] == ["run1", "run2", "run3"]
    with pytest.raises(UsageError, match="have the same play"):
        merge_runs(tmp_path, [merged, stores[0]], "o")


def test_merge_runs_golden_run_of_an_earlier_schema_keeps_its_verdicts(tmp_path: Path) -> None:
    for name, run_id in (("quick-drbd-8.4", "a"), ("quick-drbd-8.4", "b")):
        shutil.copytree(GOLDEN / name, tmp_path / run_id)
    shifted = tmp_path / "b"
    for path in shifted.rglob("*.json"):
        found = json.loads(path.read_text())
        if path.name == "evidence.json":
            found["lab"] = "another"
        if path.name == "run.json":
            found["id"] = "b"
        path.write_text(json.dumps(found))
    stores = [Store.open(tmp_path, "a"), Store.open(tmp_path, "b")]
    alone = {result.cell.id: result.verdict.kind for result in judged_results(stores[0]) if result.verdict}
    merged = merge_runs(tmp_path, stores, "m")
    results = judged_results(merged)
    assert {result.cell.id: result.verdict.kind for result in results if result.verdict} == alone
    plays = [result for result in results if result.cell.control is None]
    assert len(plays) == 2 * sum(cell.control is None for cell in stores[0].run().cells)


def test_merge_runs_written_by_another_process_refused(tmp_path: Path) -> None:
    stores = kept(tmp_path, shards(2))
    with stores[1].lock(), pytest.raises(UsageError, match="another process is writing the run 'run2'"):
        merge_runs(tmp_path, [Store(store.directory) for store in stores], "m")
    with pytest.raises(UsageError, match="'run1' is named twice"):
        merge_runs(tmp_path, [stores[0], stores[0]], "m")
    with pytest.raises(UsageError, match="something called 'run2'"):
        merge_runs(tmp_path, stores, "run2")
    with pytest.raises(UsageError, match="cannot be the name of a file"):
        merge_runs(tmp_path, stores, "../m")
    assert sorted(run_ids(tmp_path)) == ["run1", "run2"]


def test_merge_runs_newer_schema_refused(tmp_path: Path) -> None:
    stores = kept(tmp_path, shards(2))
    path = next(iter(stores[0].attempts()))[0] / "evidence.json"
    path.write_text(path.read_text().replace('"schema": 3', '"schema": 99'))
    with pytest.raises(UsageError, match="was written by a newer version"):
        merge_runs(tmp_path, stores, "m")
    assert sorted(run_ids(tmp_path)) == ["run1", "run2"]


KILLED = """
import os, signal, sys
from pathlib import Path
from harness.store import Store, merge_runs
root, left = Path(sys.argv[1]), 0
for name in ("link", "rename", "replace"):
    def until(*arguments, real=getattr(os, name), **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(os, name, until)
# A process for each line, which has the modules already.
for line in sys.stdin:
    left = int(line)
    if (child := os.fork()) == 0:
        merge_runs(root, [Store.open(root, "run1"), Store.open(root, "run2")], "m")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_merge_runs_killed_nothing_looks_like_a_run_next_merge_cleans_up(tmp_path: Path) -> None:
    kept(tmp_path, shards(2))
    seen = []
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as merging:
        assert merging.stdin and merging.stdout
        for steps in (0, 1, 7, 40, 90, 92, 93, 94, 95, 96, 400):
            print(steps, file=merging.stdin, flush=True)
            seen.append(int(merging.stdout.readline()))
            assert seen[-1] in (0, -signal.SIGKILL)
            if "m" in run_ids(tmp_path):
                merged = Store.open(tmp_path, "m")
                assert merged.run().cells == WHOLE and len(merged.every_attempt()) == 29, "all of it"
            assert set(run_ids(tmp_path)) <= {"m", "run1", "run2"}
            shutil.rmtree(tmp_path / "m", ignore_errors=True)
    assert merging.returncode == 0
    assert seen[0] == -signal.SIGKILL and seen[-1] == 0
    assert not (tmp_path / ".merging").exists()


def test_merge_runs_no_room_store_error_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = kept(tmp_path, shards(2))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(StoreError, match=r"cannot be merged in .*: No space left on device$"):
        merge_runs(tmp_path, stores, "m")
    assert sorted(run_ids(tmp_path)) == ["run1", "run2"] and not (tmp_path / ".merging").exists()


def test_merge_runs_without_links_files_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refused)
    merged = merge_runs(tmp_path, kept(tmp_path, shards(2)), "m")
    assert len(merged.every_attempt()) == 29 and all(
        (folder / "kernel.log").exists() for folder, _ in merged.attempts()
    )


@pytest.mark.parametrize("at", ["save_run", "sync_directory", "keep_judged"])
def test_merge_runs_interrupted_all_of_it_or_nothing_and_the_name_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    stores = kept(tmp_path, shards(2))

    def interrupted(*arguments: object) -> None:
        if arguments[-1] in (tmp_path,) or at != "sync_directory":
            raise KeyboardInterrupt

    monkeypatch.setattr(Store if at == "save_run" else merge, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge_runs(tmp_path, stores, "m")
    monkeypatch.undo()
    assert (tmp_path / "m").exists() == ("m" in run_ids(tmp_path)) == (at != "save_run")
    if at != "save_run":
        assert Store.open(tmp_path, "m").run().cells == WHOLE
    assert not (tmp_path / ".merging").exists()


def test_merge_runs_two_into_one_name_the_second_takes_nothing_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kept(tmp_path, shards(2))
    before, asked = merge.merge_plan, []

    def meanwhile(parts: Any, run_id: str) -> Any:
        if not asked:
            asked.append(run_id)
            made = tmp_path / "m"
            made.mkdir()
            (made / "run.json").write_text("of the first")
        return before(parts, run_id)

    monkeypatch.setattr(merge, "merge_plan", meanwhile)
    with pytest.raises(UsageError, match=r"there is something called 'm' in .* already"):
        merge_runs(tmp_path, one, "m")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["run.json"]
    assert (tmp_path / "m" / "run.json").read_text() == "of the first" and not (tmp_path / ".merging").exists()


def test_merge_runs_evidence_behind_a_link_is_not_lost_and_loops_are_left_out(tmp_path: Path) -> None:
    stores = kept(tmp_path, shards(2))
    (first, _), (second, _), *_ = stores[0].attempts()
    elsewhere = tmp_path / "elsewhere"
    first.rename(elsewhere)
    first.symlink_to(elsewhere)
    (second / "evidence.json").rename(tmp_path / "kept.json")
    (second / "evidence.json").symlink_to("../../../../kept.json")
    (stores[0].directory / "cells" / second.parent.name / "77").symlink_to("77")
    number = len(stores[0].every_attempt()) + len(stores[1].every_attempt())
    merged = merge_runs(tmp_path, stores, "m")
    assert len(merged.every_attempt()) == number
    assert not [path for path in merged.directory.rglob("*") if path.is_symlink()]
    assert (tmp_path / "kept.json").exists() and (elsewhere / "evidence.json").exists()


def a_folder(attempt: Path) -> str:
    (attempt / "evidence.json").unlink()
    (attempt / "evidence.json").mkdir()
    return "Is a directory"


def without_end(attempt: Path) -> str:
    with (attempt / "evidence.json").open("wb") as file:
        file.truncate(2**40)
    return "it has more than 256 MiB in it"


def no_folder(attempt: Path) -> str:
    shutil.rmtree(attempt)
    attempt.write_text("somebody's notes")
    return "Not a directory"


@pytest.mark.parametrize("damage", [a_folder, without_end, no_folder])
def test_merge_runs_damaged_evidence_stays_damaged(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    stores = kept(tmp_path, shards(2))
    (attempt, _), *_ = stores[0].attempts()
    why = damage(attempt)
    merged = merge_runs(tmp_path, stores, "m")
    (told,) = merged.damaged()
    assert f"/m/cells/{attempt.parent.name}/" in told and told.endswith(f"/evidence.json cannot be read: {why}")
    assert len(merged.every_attempt()) == 28


@pytest.mark.parametrize("where", [".merging.lock", "run1/.lock"])
def test_merge_runs_lock_that_cannot_be_taken_one_sentence(tmp_path: Path, where: str) -> None:
    stores = kept(tmp_path, shards(2))
    (tmp_path / where).unlink(missing_ok=True)
    (tmp_path / where).mkdir()
    with pytest.raises((UsageError, StoreError), match=r"(cannot be locked|cannot be merged in .*): Is a directory$"):
        merge_runs(tmp_path, stores, "m")
    assert sorted(run_ids(tmp_path)) == ["run1", "run2"]

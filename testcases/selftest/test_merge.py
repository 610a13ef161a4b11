"""Several runs become one, without loss, whatever their order; what does not fit is refused in a sentence."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_run import found

from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.config.shards import Shard, plan_of
from harness.errors import StoreError, UsageError
from harness.judgement.rejudge import rejudged
from harness.judgement.repetitions import answers
from harness.model import CacheMode, Cell, Evidence, Failure, FilesystemKind, MergedRun, Run, Stack, VerdictKind
from harness.store import Store, judged_results, merge, merge_runs, run_ids
from harness.store.merge_plan import Part, cut_differently, in_order, merge_plan, missing_of

GOLDEN = Path(__file__).parent / "golden"
STACK = Stack("trixie", "6.12-fake", "8.4.11", qemu="10.0.13", libvirt="11.3", accelerator="tcg")
SWAPS = tuple(
    Cell("pressure", filesystem=FilesystemKind.SWAP, cache=mode)
    for mode in (CacheMode.NONE, CacheMode.WRITEBACK, CacheMode.UNSAFE)
)
WHOLE = with_controls(repeated(SWAPS, 3, 7))


def part(cells: Sequence[Cell], number: int, **changed: Any) -> Part:
    """A run of ``cells``, all played on a lab of its own between two rounds of controls."""
    run = Run(
        f"run{number}", "quick", f"2026-11-23T0{number}:00:00Z", tuple(cells), STACK, f"2026-11-23T0{number}:59:00Z",
        seed=7, matrix_digest="d1",
    )  # fmt: skip
    controls = [cell for cell in cells if cell.control is not None]
    order = [*cells, *(controls if len(controls) < len(cells) else [])]
    played = [
        replace(found(cell), lab=f"lab{number}", started_at=f"2026-11-23T0{number}:{minute:02}:00Z")
        for minute, cell in enumerate(order)
    ]
    return Part(replace(run, **changed), tuple(sorted(played, key=lambda one: plan_of(cells).index(one.cell.id))))


def shards(of: int) -> list[Part]:
    cells = [Shard(number, of).of_cells(WHOLE) for number in range(1, of + 1)]
    return [
        part(mine, number, shard=f"{number}/{of}", plan=plan_of(WHOLE)) for number, mine in enumerate(cells, 1)
    ]  # fmt: skip


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


# --------------------------------------------------------------------------- the plan


@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_merge_plan_of_shards_is_the_whole_in_any_order(of: int, chance: Any) -> None:
    parts = shards(of)
    expected = merge_plan(in_order(parts), "m")
    assert expected.run.cells == WHOLE
    assert expected.run.notes == (
        f"merged from {', '.join(f'run{one} (part {one}/{of})' for one in range(1, of + 1))}",
    )
    assert all(after == play[1] for (_, play), after in expected.repetition.items())
    chance.shuffle(parts)
    assert merge_plan(in_order(parts), "m") == expected


@given(st.integers(2, 6))
def test_merge_plan_of_shards_is_judged_as_the_whole(of: int) -> None:
    parts = shards(of)
    attempts = [one for one_part in parts for one in one_part.attempts]
    merged = rejudged(merge_plan(in_order(parts), "m").run, attempts)
    whole = part(WHOLE, 1)
    alone = rejudged(whole.run, whole.attempts)
    assert [(one.cell, one.verdict) for one in merged] == [(one.cell, one.verdict) for one in alone]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_merge_plan_whole_runs_every_play_is_a_repetition_of_its_own(counts: list[int]) -> None:
    parts = [
        part(with_controls(repeated(SWAPS, count, number)), number, seed=number)
        for number, count in enumerate(counts, 1)
    ]
    plan = merge_plan(in_order(parts), "m")
    for cell in SWAPS:
        numbers = [one.repetition for one in plan.run.cells if one.id == cell.id]
        assert sorted(numbers) == list(range(1, sum(counts) + 1)), "none is lost, none is the same as another"
    became = [(play[0], after) for (_, play), after in plan.repetition.items()]
    assert len(set(became)) == len(became)
    assert plan.run.seed == 0


def test_merge_plan_play_that_only_one_run_has_fills_the_place() -> None:
    first, second = part(WHOLE, 1), part(WHOLE, 2)
    missing = ("none-swap-pressure", 2)
    lacks = replace(first, attempts=tuple(one for one in first.attempts if one.cell.play != missing))
    only = replace(second, attempts=tuple(one for one in second.attempts if one.cell.play == missing))
    plan = merge_plan((lacks, only), "m")
    assert plan.run.cells == WHOLE
    assert plan.repetition["run2", missing] == 2 and ("run1", missing) not in plan.repetition


def test_merge_plan_missing_part_noted() -> None:
    one, _, three, _ = shards(4)
    assert "without the parts 2/4, 4/4" in merge_plan((one, three), "m").run.notes


def test_missing_of_parts_of_different_size_and_of_merged_ones() -> None:
    (first, *_, fourth, _, _), (_, two, three) = shards(6), shards(3)
    four = [one.run for one in (first, two, three, fourth)]
    assert missing_of(four) == ()
    assert missing_of(four[:3]) == ("4/6",)
    part_of_it = merge_plan((first, replace(two, run=replace(two.run, id="run7"))), "m").run
    assert missing_of([part_of_it, three.run]) == ("4/6",)
    assert missing_of([part_of_it, three.run, fourth.run]) == ()


def test_missing_of_whole_run_stands_for_every_part_where_it_has_every_cell() -> None:
    half, whole = shards(2)[0].run, part(WHOLE, 3).run
    assert missing_of([half]) == ("2/2",)
    assert missing_of([half, whole]) == () == missing_of([whole, whole])
    few = replace(whole, cells=tuple(cell for cell in whole.cells if cell.id != WHOLE[-1].id))
    assert missing_of([half, few]) == ("2/2",)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({}, {"-k": "none"}, r"another -k \(run1 no -k, run2 -k none\)"),
        ({"--repeat": "3"}, {"--repeat": "5"}, r"another --repeat \(run1 --repeat 3, run2 --repeat 5\)"),
        ({"-k": "none"}, {"-k": "unsafe"}, r"another -k \(run1 -k none, run2 -k unsafe\)"),
    ],
)
def test_cut_differently_parts_with_other_options_said(one: dict[str, str], other: dict[str, str], words: str) -> None:
    first, second = shards(2)
    first, second = (
        replace(part, run=replace(part.run, chosen=chosen)) for part, chosen in ((first, one), (second, other))
    )
    (sentence,) = cut_differently([first.run, second.run])
    assert re.search(words, sentence)
    merged = merge_plan((first, second), "m").run
    assert sentence in merged.notes and merged.chosen is None


def test_cut_differently_parts_with_the_same_options_silent() -> None:
    runs = [replace(one.run, chosen={"-k": "none", "--repeat": "3"}) for one in shards(3)]
    few = [replace(run, cells=run.cells[:6]) for run in runs]
    assert cut_differently(runs) == () == cut_differently(few), "what all of them left out was asked for"
    whole = [replace(part(WHOLE, number).run, chosen={"-k": str(number)}) for number in (1, 2)]
    assert cut_differently(whole) == (), "no parts: each is a whole of its own"
    assert cut_differently(runs[:2]) == (), "that one is missing is another sentence"


def test_cut_differently_runs_that_do_not_know_their_options_shown_by_their_cells() -> None:
    one, two = (item.run for item in shards(2))
    without = replace(two, cells=tuple(cell for cell in two.cells if cell.cache is not CacheMode.UNSAFE))
    fewer = replace(one, cells=tuple(cell for cell in one.cells if cell.cache is not CacheMode.UNSAFE))
    assert cut_differently([one, two]) == ()
    (sentence,) = cut_differently([fewer, without])
    assert sentence == (
        "'unsafe-swap-pressure' of the matrix is in none of the parts, as with another -k or --repeat for one of them"
    )


def test_merge_plan_what_is_known_of_a_run_is_kept() -> None:
    one, two = shards(2)
    one = replace(
        one, run=replace(one.run, notes=("it rained",), given_up={"lab1": "no power"}, lab_seconds={"up": 2.0})
    )
    two = replace(
        two,
        run=replace(two.run, stack=replace(STACK, guest_kernel="6.12-guest"), lab_seconds={"up": 3.0}, finished_at=""),
    )
    run = merge_plan((one, two), "m").run
    assert run.notes[1] == "run1: it rained" and run.given_up == {"lab1": "no power"}
    assert run.lab_seconds == {"up": 5.0} and run.stack.guest_kernel == "6.12-guest"
    assert (run.started_at, run.finished_at, run.shard, run.seed) == ("2026-11-23T01:00:00Z", "", "", 7)
    assert run.merged == (
        MergedRun("run1", one.run.started_at, one.run.finished_at, "1/2", 7),
        MergedRun("run2", two.run.started_at, "", "2/2", 7),
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stack": replace(STACK, kernel="6.13")}, "the first ran with kernel 6.12-fake, the second 6.13"),
        ({"stack": replace(STACK, drbd="9.3.3")}, "the first ran with drbd 8.4.11, the second 9.3.3"),
        ({"stack": replace(STACK, qemu="11.1")}, "the first ran with qemu 10.0.13, the second 11.1"),
        ({"stack": replace(STACK, libvirt="12")}, "the first ran with libvirt 11.3, the second 12"),
        ({"stack": replace(STACK, accelerator="kvm")}, "the first ran with accelerator tcg, the second kvm"),
        ({"matrix": "full"}, "the first played the matrix quick, the second full"),
        ({"matrix_digest": "d2"}, "the first has the matrix file with the digest d1, the second d2"),
        ({"lab_spec": {"device_mib": 256}}, "the first asked for device_mib 128, the second 256"),
        ({"lab_spec": {"guest": {"memory_mib": 512}}}, "the first asked for guest memory_mib 256, the second 512 ("),
        ({"lab_spec": {"guest": {"image": {"digest": "d3"}}}}, "for guest image digest none, the second d3 ("),
        ({"stack_spec": {"node": {"qemu": ["sid"]}}}, "the first asked for node qemu none, the second sid ("),
    ],
)  # fmt: skip
def test_merge_plan_what_does_not_fit_one_sentence(changed: dict[str, Any], words: str) -> None:
    asked = {"device_mib": 128, "guest": {"memory_mib": 256}}
    one = part(WHOLE, 1, lab_spec=asked, stack_spec={"node": {"qemu": []}})
    two = part(WHOLE, 2, **changed)
    with pytest.raises(UsageError) as refused:
        merge_plan((one, two), "m")
    assert str(refused.value).startswith("the runs 'run1' and 'run2' do not fit together: ")
    assert words in str(refused.value)


def test_merge_plan_part_of_a_spec_that_an_earlier_version_did_not_know_fits() -> None:
    before = {"guest": {"memory_mib": 256, "vcpus": 1}}
    after = {"guest": {"memory_mib": 256, "vcpus": 1, "image": {"digest": "", "memory_mib": 512}}, "vcpus": 2}
    merge_plan((part(WHOLE, 1, lab_spec=before), part(WHOLE, 2, lab_spec=after)), "m")


def test_merge_plan_guest_that_differs_refused_unknown_is_not() -> None:
    one, two = (part(WHOLE, n, stack=replace(STACK, guest_kernel=f"6.{n}")) for n in (1, 2))
    with pytest.raises(UsageError, match=r"guest kernel 6\.1, the second 6\.2"):
        merge_plan((one, two), "m")
    merge_plan((one, part(WHOLE, 3)), "m")


def test_merge_plan_cell_that_asks_something_else_refused() -> None:
    other = part([replace(cell, seconds=99) for cell in WHOLE], 2, matrix_digest="")
    with pytest.raises(UsageError, match=r"their cell 'host-planted' has another seconds$"):
        merge_plan((part(WHOLE, 1), other), "m")


def test_merge_plan_same_play_twice_refused() -> None:
    one = part(WHOLE, 1)
    copy = Part(replace(one.run, id="copy"), one.attempts)
    with pytest.raises(UsageError, match=r"have the same play of .*it would count twice$"):
        merge_plan((one, copy), "m")
    with pytest.raises(UsageError, match="'run1' is named twice"):
        merge_plan((one, one), "m")
    with pytest.raises(UsageError, match="one run alone"):
        merge_plan((one,), "m")


def test_merge_plan_evidence_without_its_lab_refused() -> None:
    one, two = shards(2)
    two = replace(two, attempts=(replace(two.attempts[0], lab=""),))
    with pytest.raises(UsageError, match=r"'run2' cannot be merged: .* on which lab"):
        merge_plan((one, two), "m")


# --------------------------------------------------------------------------- the files


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

"""What a run leaves behind: complete, checked, and still there after a kill."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import StoreError, UsageError
from harness.model import (
    SCHEMA_VERSION,
    BlockOwner,
    CacheMode,
    Cell,
    Comparison,
    DelayProfile,
    Evidence,
    Expectation,
    Extent,
    Failure,
    FileBlocks,
    FilesystemKind,
    NodeVerify,
    Observed,
    Ownership,
    PlantedChange,
    PlantedKind,
    Repair,
    Run,
    Sample,
    Stack,
    State,
    Verdict,
    VerdictKind,
    Verify,
    Work,
)
from harness.store import Store, new_run_id, run_ids

SWAP = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.NONE,
    delays=DelayProfile(20),
    expected=Expectation((VerdictKind.DIVERGED,), "why"),
)
IDLE = Cell("no-writes", cache=CacheMode.WRITEBACK)
RUN = Run("20261123T015003Z-4f2a", "quick", "2026-11-23T01:50:03Z", (SWAP, IDLE), Stack(kernel="6.1.0-40-amd64"))
BARE = Evidence(SWAP, 1, "2026-11-23T01:50:10Z")
NODE = NodeVerify("nodea", True, True, (Extent(16, 8), Extent(800, 24)), 4)
FULL = Evidence(
    cell=SWAP,
    attempt=1,
    started_at="2026-11-23T01:50:10Z",
    finished_at="2026-11-23T01:51:10Z",
    lab="nested",
    device_blocks=32768,
    before=State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate"),
    after=State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "VerifyS"),
    equal_before=True,
    observed=Observed(0o2140002, True, False, {"direct": True}, "native", "write back", None, True, True, 20, 0),
    work=Work(8.5, {"pages": 1e9}, 0, ("swapped",)),
    exposed_blocks=93210,
    verify=Verify(NODE, NODE, 9.25, 2),
    counter_kib=16,
    comparison=Comparison(32768, (Extent(16, 8),), 0.5, "controller"),
    planted=(PlantedChange(8, 8, "nodeb"), PlantedChange(80, 1, "nodea", PlantedKind.BYTE, 511)),
    samples=(
        Sample(2, 17, 9, "00ff", "ff00", BlockOwner.FREE, "free swap slot", 16, "text", "zeros", "8000000000000000"),
    ),
    ownership=Ownership(
        free=4,
        method="swap map",
        names=("slot 7",),
        files=(FileBlocks("/f", BlockOwner.FREE, 2, (0, 4096)),),
        extents={BlockOwner.FREE: (Extent(16, 32),)},
    ),
    repair=Repair("invalidate-remote", 2.5, 0),
    kernel_errors=("BUG: x",),
    failure=Failure("deadline", "verify", "it took too long"),
    phases={"verify": 9.25},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "runs", RUN)


# --------------------------------------------------------------------------- round trips


def test_store_run_and_evidence_round_trip(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    attempt.save_verdict(Verdict(VerdictKind.DIVERGED, "4 blocks differ", ("a", "b"), 4, 93210, 1e-4))
    again = Store.open(store.directory.parent, "latest")
    assert again.run() == RUN
    assert again.evidence(SWAP.id) == FULL
    assert again.verdict(SWAP.id) == Verdict(VerdictKind.DIVERGED, "4 blocks differ", ("a", "b"), 4, 93210, 1e-4)
    assert again.newest(SWAP.id) == (FULL, store.directory / "cells" / "none-swap-pressure-link20ms" / "1")
    assert again.verdict(IDLE.id) is again.newest(IDLE.id) is None


TEXT = st.text()
FLOAT = st.floats(allow_nan=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.builds(Work, FLOAT, st.dictionaries(TEXT, FLOAT), st.integers(), st.lists(TEXT).map(tuple)),
    st.builds(
        Observed, qemu_cache=st.none() | st.dictionaries(TEXT, st.booleans()), o_direct=st.none() | st.booleans()
    ),
    st.lists(st.builds(Sample, *[st.integers(0)] * 3, TEXT, TEXT, st.sampled_from(BlockOwner), TEXT)).map(tuple),
)
def test_store_any_evidence_round_trip(
    store: Store, work: Work, observed: Observed, samples: tuple[Sample, ...]
) -> None:
    attempt = store.begin(SWAP)
    evidence = Evidence(SWAP, attempt.number, "now", work=work, observed=observed, samples=samples)
    attempt.save(evidence)
    assert store.evidence(SWAP.id) == evidence


def test_store_values_beyond_json_evidence_kept(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(Evidence(SWAP, 1, "now", work=Work(1.0, {"a": math.nan, "b": math.inf}, notes=("torn \udcff",))))
    found = store.evidence(SWAP.id)
    assert found and found.work
    assert math.isnan(found.work.facts["a"]) and found.work.facts["b"] == math.inf
    assert found.work.notes == ("torn \\udcff",)
    json.loads((attempt.directory / "evidence.json").read_text(), parse_constant=pytest.fail)


def test_attempt_write_raw_content_unchanged(store: Store) -> None:
    attempt = store.begin(SWAP)
    assert attempt.write_raw("kmsg-nodea.txt", "torn \udcff\n").read_bytes() == b"torn \\udcff\n"
    assert attempt.write_raw("disk.bin", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert store.evidence(SWAP.id) is None, "raw files alone are no evidence"
    for name in ("../x", "a/b", ".hidden", "", "a\x00b"):
        with pytest.raises(UsageError, match="name of a file"):
            attempt.write_raw(name, "x")


# --------------------------------------------------------------------------- attempts


def test_store_several_attempts_newest_complete_counts(store: Store) -> None:
    first, second, third = (store.begin(SWAP) for _ in range(3))
    assert [attempt.number for attempt in (first, second, third)] == [1, 2, 3]
    first.save(BARE)
    second.save(BARE)
    assert store.evidence(SWAP.id) == Evidence(SWAP, 2, BARE.started_at), (
        "the store numbers attempts; the third broke off"
    )


def test_attempt_save_other_cell_value_error(store: Store) -> None:
    with pytest.raises(ValueError, match="'none-swap-pressure-link20ms' in an attempt at 'writeback-no-writes'"):
        store.begin(IDLE).save(BARE)


def test_store_begin_unsafe_id_usage_error(store: Store) -> None:
    with pytest.raises(UsageError, match="name of a file"):
        store.begin(Cell("../../x", cache=CacheMode.NONE))


def test_results_cell_not_planned_reported(store: Store) -> None:
    store.begin(SWAP).save(BARE)
    store.save_run(Run(RUN.id, RUN.matrix, RUN.started_at, (IDLE,)))
    assert [evidence.cell for evidence in store.every_attempt()] == [SWAP]


# --------------------------------------------------------------------------- finding runs


def test_new_run_id_sorts_by_time() -> None:
    moment = datetime(2026, 11, 23, 1, 50, 3, tzinfo=UTC)
    assert re.fullmatch(r"20261123T015003Z-[0-9a-f]{4}", new_run_id(moment))
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", new_run_id())


def test_store_open_id_path_latest(tmp_path: Path) -> None:
    old = Store.create(tmp_path, RUN)
    new = Store.create(tmp_path, Run("20261124T000000Z-0000", "quick", "now", ()))
    assert run_ids(tmp_path) == (RUN.id, "20261124T000000Z-0000")
    assert Store.open(tmp_path, "latest").directory == new.directory
    assert Store.open(tmp_path, RUN.id).directory == old.directory
    assert Store.open(tmp_path / "elsewhere", str(old.directory)).run() == RUN
    assert Store.open(tmp_path / "elsewhere", str(tmp_path)).directory == new.directory, "the newest of a folder"


def test_store_latest_by_when_it_was_played_and_not_by_its_name(tmp_path: Path) -> None:
    # As merge --into all, or whoever gave a run a name, leaves them.
    parts = [f"20261124T0{hour}0000Z-0000" for hour in (1, 2)]
    for name, began, ended in (
        ("all", "2026-11-24T01:00:00Z", "2026-11-24T03:00:00+00:00"),
        ("quick-old", "2026-11-22T01:00:00Z", ""),
        *((part, "now", "") for part in parts),
    ):
        Store.create(tmp_path, Run(name, "quick", began, (), finished_at=ended))
    assert run_ids(tmp_path) == ("quick-old", *parts, "all")
    Store.create(tmp_path, Run("20261125T010000Z-0000", "quick", "now", ()))
    assert Store.open(tmp_path, "latest").directory.name == "20261125T010000Z-0000"
    (tmp_path / "all" / "run.json").write_text('{"started_at": 7}')
    assert run_ids(tmp_path)[-1] == "all", "what nobody can read is not passed over in silence"


def test_store_open_or_create_impossible_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"):
        Store.open(tmp_path, "latest")
    Store.create(tmp_path, RUN)
    with pytest.raises(UsageError, match=f"no run '20261123T015003Z-4f2b' in .*; did you mean '{RUN.id}'"):
        Store.open(tmp_path, "20261123T015003Z-4f2b")
    with pytest.raises(UsageError, match="already in"):
        Store.create(tmp_path, RUN)
    with pytest.raises(UsageError, match="name of a file"):
        Store.create(tmp_path, Run("../x", "quick", "now", ()))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be kept"):
        Store.create(tmp_path / "file", RUN)


# --------------------------------------------------------------------------- damage


def edited(path: Path, **changes: Any) -> str:
    return json.dumps({**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize("content", ["", "{", '{"cell"', "null", "[]", '{"schema": 1}', "\x00", '{"attempt": "x"}'])
def test_store_damaged_evidence_one_sentence_missing(store: Store, content: str) -> None:
    store.begin(SWAP).save(BARE)
    path = store.begin(SWAP).directory / "evidence.json"
    path.write_text(content)
    (sentence,) = store.damaged()
    assert str(path) in sentence and "damaged" in sentence and "\n" not in sentence
    assert store.evidence(SWAP.id) == BARE, "the older one is still good"
    (store.directory / "cells" / SWAP.id / "1" / "evidence.json").unlink()
    assert store.evidence(SWAP.id) is None


def test_store_torn_evidence_every_length_damaged(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    path = attempt.directory / "evidence.json"
    content = path.read_bytes().rstrip()
    for cut in range(0, len(content), 41):
        path.write_bytes(content[:cut])
        assert store.evidence(SWAP.id) is None
        assert len(store.damaged()) == 1


def test_store_wrong_value_named(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    path = attempt.directory / "evidence.json"
    path.write_text(edited(path, exposed_blocks="many"))
    assert "exposed_blocks" in store.damaged()[0]


def test_store_newer_schema_usage_error(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    path = attempt.directory / "evidence.json"
    path.write_text(edited(path, schema=SCHEMA_VERSION + 1))
    for ask in (lambda: store.evidence(SWAP.id), store.damaged, store.every_attempt):
        with pytest.raises(
            UsageError, match=rf"newer version .* schema is {SCHEMA_VERSION + 1}, .* up to {SCHEMA_VERSION}"
        ):
            ask()


def test_store_damaged_or_newer_run_usage_error(store: Store) -> None:
    path = store.directory / "run.json"
    good = path.read_text()
    path.write_text(edited(path, schema=7))
    with pytest.raises(UsageError, match="schema is 7"):
        Store.open(store.directory.parent, "latest")
    path.write_text(good[:-9])
    with pytest.raises(UsageError, match="damaged"):
        Store.open(store.directory.parent, "latest")
    path.unlink()
    with pytest.raises(UsageError, match=r"no run\.json"):
        store.run()


# --------------------------------------------------------------------------- other processes

WRITER = """
import sys
from pathlib import Path
from harness.model import *
from harness.store import Store
store = Store.open(Path(sys.argv[1]), "latest")
cell = store.run().cells[0]
blocks = extents_of(range(0, 4000, 2))
with store.lock():
    print("locked", flush=True)
    attempt = store.begin(cell)
    number = 0
    while True:
        number += 1
        attempt.save(Evidence(cell, 1, "now", exposed_blocks=number, planted=blocks))
        print(number, flush=True)
"""


def writer(store: Store) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WRITER, str(store.directory.parent)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_store_killed_while_writing_evidence_whole(store: Store) -> None:
    counts: list[int] = []
    for round_ in range(4):
        process = writer(store)
        assert process.stdout
        try:
            lines = [process.stdout.readline().strip() for _ in range(2 + 3 * round_)]
            assert lines[0] == "locked"
            with pytest.raises(UsageError, match="another process is writing"), store.lock():
                pass
        finally:
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().split()
            process.wait()
            process.stdout.close()
        again = Store.open(store.directory.parent, "latest")
        found = again.evidence(SWAP.id)
        assert again.damaged() == ()
        assert found and len(found.planted) == 2000
        saved = int([*lines[1:], *rest][-1])
        assert found.exposed_blocks in (saved, saved + 1), "what was reported as saved is there"
        assert found.attempt == round_ + 1
        counts.append(found.exposed_blocks)
        with again.lock():
            pass
    assert min(counts) >= 1


def test_store_reader_beside_writer_whole_files(store: Store) -> None:
    process = writer(store)
    assert process.stdout
    try:
        assert [process.stdout.readline().strip() for _ in range(2)] == ["locked", "1"]
        seen = [store.evidence(SWAP.id) for _ in range(60)]
    finally:
        process.kill()
        process.communicate()
    counts = [evidence.exposed_blocks if evidence else 0 for evidence in seen]
    assert counts == sorted(counts) and counts[0] >= 1
    assert counts[-1] > counts[0], "the writer wrote meanwhile"


def test_write_atomic_failure_old_file_kept_no_leftover(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.begin(SWAP)
    attempt.save(BARE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"evidence\.json cannot be written: No space left on device"):
        attempt.save(FULL)
    monkeypatch.undo()
    assert store.evidence(SWAP.id) == BARE
    assert [path.name for path in attempt.directory.iterdir()] == ["evidence.json"]


def test_write_atomic_cleanup_fails_first_error_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.begin(SWAP)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(StoreError, match=r"evidence\.json cannot be written: Read-only file system"):
        attempt.save(FULL)


def test_write_atomic_sync_fails_store_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.begin(SWAP)
    real = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    with pytest.raises(StoreError, match=r"/1 cannot be synced: Input/output error; what was just put there may not"):
        attempt.save(FULL)
    assert store.evidence(SWAP.id) is not None


def test_store_begin_no_room_store_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StoreError, match=r"the folder .*none-swap-pressure.* cannot be made: No space left on device"):
        store.begin(SWAP)

"""What is stored is whole whatever happens: a kill, a reader beside it, a full disk, an error of the disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from stored_evidence import BARE, FULL, SWAP, store

from harness.errors import StoreError, UsageError
from harness.store import Store

__all__ = ["store"]

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

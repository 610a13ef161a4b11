"""Files that a user names for what is made: a device stays one, a link leads where it leads, a folder is none."""

from __future__ import annotations

import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_command import run_here

from harness.errors import StoreError, UsageError
from harness.util.atomic_file import write_named

SMOKE = Path(__file__).parent / "golden" / "smoke-drbd-9.3.3"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run ``drbd-harness`` in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    return partial(run_here, monkeypatch, capfd)


def test_write_named_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_named(pipe, b"all of it")
    reader.join(10)
    assert read == [b"all of it"] and pipe.is_fifo()


def test_write_named_device_without_room_one_sentence_and_stays_one(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"full cannot be written: No space left on device$"):
        write_named(full, b"all of it")
    assert Path("/dev/full").is_char_device() and full.is_symlink()


def test_write_named_link_is_followed_also_where_nothing_is_yet(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("before")
    for name in ("there", "not-yet"):
        (tmp_path / f"to-{name}").symlink_to(name)
        write_named(tmp_path / f"to-{name}", b"after")
        assert (tmp_path / name).read_text() == "after" and (tmp_path / f"to-{name}").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not-yet", "there", "to-not-yet", "to-there"]


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_write_named_folder_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=r"is a folder; name a file in it$"):
        write_named(Path(name), b"")


@pytest.mark.parametrize("form", ["--json", "--zip", "--with-data"])
def test_report_into_a_folder_usage_error(command: Any, form: str) -> None:
    code, out, err = command("report", str(SMOKE), form, "-o", ".")
    assert (code, out, err) == (4, "", "drbd-harness: . is a folder; name a file in it\n")


def test_report_never_in_the_place_of_what_it_is_made_from(command: Any, tmp_path: Path) -> None:
    run = shutil.copytree(SMOKE, tmp_path / "run1")
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    for path in (run / "run.json", *list(run.glob("cells/*/*/evidence.json"))[:1]):
        code, _, err = command("report", "run1", "--json", "-o", str(path))
        assert code == 4 and err.endswith("is what the report is made from; name another file\n")
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before
    assert command("report", "run1", "--json", "-o", "run1/report.json")[0] == 0

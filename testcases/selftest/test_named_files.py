"""Files that a user names for what is made: a device stays one, a link leads where it leads, a folder is none."""

from __future__ import annotations

import os
import shutil
import threading
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from own_command import run_here

from harness.errors import StoreError, UsageError
from harness.report.bundle import StoredReport
from harness.store import Store
from harness.util.atomic_file import led_to, write_named

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


def test_write_named_link_that_leads_to_itself_usage_error_and_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to Python 3.12 it cannot be resolved; from 3.13 on what it is resolved to is such a link."""
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    for resolve in (Path.resolve, lambda path, strict=False: Path(os.path.realpath(path))):
        monkeypatch.setattr(Path, "resolve", resolve)
        for name in ("round", "there"):
            with pytest.raises(UsageError, match=rf"/{name} leads to itself by a link; name another file$"):
                write_named(tmp_path / name, b"")
            with pytest.raises(UsageError, match=rf"/{name}/report leads to itself by a link; name another file$"):
                led_to(tmp_path / name / "report")
    assert all(one.is_symlink() for one in tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 3


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
    (tmp_path / "page.json").symlink_to(run / "run.json")
    for path in (run / "run.json", *list(run.glob("cells/*/*/evidence.json"))[:1], tmp_path / "page.json"):
        code, _, err = command("report", "run1", "--json", "-o", str(path))
        assert code == 4 and err.endswith("is what the report is made from; name another file\n")
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before
    assert command("report", "run1", "--json", "-o", "run1/report.json")[0] == 0


@pytest.mark.parametrize("form", ["--with-data", "--zip"])
def test_report_by_a_link_of_somebodys_run_goes_nowhere_else(command: Any, tmp_path: Path, form: str) -> None:
    run = shutil.copytree(SMOKE, tmp_path / "run1")
    before = (run / "run.json").read_bytes()
    (tmp_path / "mine").write_text("mine")
    name = f"{Store(run).run().id}.zip" if form == "--zip" else "report.html"
    for end in (tmp_path / "mine", run / "run.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(end)
        code, _, err = command("report", "run1", form, "--runs", ".")
        why = f"{run.name}/{name} leads to {end} by a link; remove it, or name that file with --output\n"
        assert code == 4 and err.endswith(why)
    assert (tmp_path / "mine").read_text() == "mine" and (run / "run.json").read_bytes() == before
    (run / name).unlink()
    (run / name).symlink_to("elsewhere")
    assert command("report", "run1", form, "--runs", ".")[0] == 0 and (run / "elsewhere").stat().st_size


# --------------------------------------------------------------------------- a run as one file


def test_zip_holds_one_file_of_the_run_at_a_time(tmp_path: Path) -> None:
    run = shutil.copytree(SMOKE, tmp_path / "run1")
    for number in range(12):
        (run / f"node{number}.bin").write_bytes(os.urandom(4 * 2**20))
    report = StoredReport(Store(run), without=False)
    tracemalloc.start()
    report.write_zip(tmp_path / "run1.zip")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "run1.zip").stat().st_size > 48 * 2**20 and most < 24 * 2**20


@pytest.mark.parametrize("end", [KeyboardInterrupt(), StoreError("no room"), OSError(28, "No space left on device")])
def test_zip_that_is_ended_leaves_the_one_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    path = tmp_path / "run1.zip"
    path.write_text("before")
    written: list[str] = []
    before = zipfile.ZipFile.writestr

    def write(archive: zipfile.ZipFile, what: zipfile.ZipInfo, content: bytes, how: int) -> None:
        if len(written) == 5:
            raise end
        written.append(what.filename)
        before(archive, what, content, how)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", write)
    with pytest.raises(KeyboardInterrupt if isinstance(end, KeyboardInterrupt) else StoreError):
        StoredReport(Store(SMOKE), without=False).write_zip(path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and path.read_text() == "before" and written


def test_zip_into_a_pipe_is_what_the_file_is(tmp_path: Path) -> None:
    report = StoredReport(Store(SMOKE), without=True)
    report.write_zip(tmp_path / "file.zip")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    report.write_zip(pipe)
    reader.join(10)
    assert read == [(tmp_path / "file.zip").read_bytes()]


def test_zip_of_a_run_of_which_another_is_being_made_has_none_of_it(tmp_path: Path) -> None:
    run = shutil.copytree(SMOKE, tmp_path / "run1")
    for name in (".run1.zip.4711.0a0b0c0d", ".evidence.json.4711.0a0b0c0d", ".report.4711.0a0b0c0d"):
        (run / name).write_bytes(b"half")
    StoredReport(Store(run), without=False).write_zip(tmp_path / "run1.zip")
    with zipfile.ZipFile(tmp_path / "run1.zip") as archive:
        assert not [name for name in archive.namelist() if "4711" in name]


def test_zip_of_a_file_whose_name_is_no_text_has_it(tmp_path: Path) -> None:
    run = shutil.copytree(SMOKE, tmp_path / "run1")
    (run / os.fsdecode(b"n\xffte.txt")).write_text("somebody's")
    StoredReport(Store(run), without=False).write_zip(tmp_path / "run1.zip")
    with zipfile.ZipFile(tmp_path / "run1.zip") as archive:
        assert archive.read(f"{Store(run).run().id}/n\\udcffte.txt") == b"somebody's"

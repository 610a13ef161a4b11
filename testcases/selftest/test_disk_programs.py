"""``programs/act.py`` and ``look.py`` as they run on a machine: with plain files, and what is no device."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.lab import hardware
from harness.model.disks import MIB
from harness.render.disk_label import DiskLabel, disk_label

PROGRAMS = Path(hardware.__file__).parent / "programs"
TEXT = disk_label(DiskLabel("test", "ab", MIB)).rstrip(b"\0").decode()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of the harness's are root's")


def act(**asked: object) -> tuple[int, str]:
    """How the program ended, and what it said."""
    done = subprocess.run(
        [sys.executable, "-I", "-", json.dumps(asked)], input=(PROGRAMS / "act.py").read_text(), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, (done.stderr or done.stdout).strip()


def look() -> ModuleType:
    """The program that looks, without its looking."""
    text = (PROGRAMS / "look.py").read_text().removesuffix("\nmain()\n")
    found = ModuleType("look")
    exec(compile(text, "look.py", "exec"), found.__dict__)
    return found


@pytest.fixture
def place() -> Any:
    """A directory that nobody but root can exchange, on the way of which there is no symbolic link."""
    path = Path("/root") / f"drbd-harness-selftest-{os.getpid()}"
    path.mkdir(mode=0o755)
    yield path
    subprocess.run(["rm", "-r", str(path)], check=True)


def asked_of(path: Path, name: str) -> dict[str, object]:
    return {"act": name, "path": str(path), "size": 2 * MIB, "text": TEXT, "loop": "",
            "was_sha256": hashlib.sha256(TEXT.encode().ljust(MIB, b"\0")).hexdigest()}  # fmt: skip


@as_root
def test_file_is_made_once_and_removed_only_with_its_label(place: Path) -> None:
    path = place / "drbd-harness-test.img"
    assert act(**asked_of(path, "make-file")) == (0, "done")
    assert path.stat().st_size == 2 * MIB and path.stat().st_mode & 0o777 == 0o600
    assert act(**asked_of(path, "make-file")) == (1, "File exists")
    with path.open("r+b") as file:
        file.write(b"theirs")
    assert act(**asked_of(path, "remove-file")) == (1, "its first MiB is another one by now")
    assert act(**asked_of(path, "attach")) == (1, "its first MiB is another one by now")
    path.unlink()
    assert act(**asked_of(path, "remove-file"))[0] == 1


@as_root
@pytest.mark.parametrize("name", ["make-file", "remove-file", "attach", "detach"])
def test_file_below_a_directory_that_others_can_exchange_is_not_touched(place: Path, name: str) -> None:
    real = place / "real"
    real.mkdir(mode=0o755)
    if name != "make-file":
        assert act(**asked_of(real / "x.img", "make-file")) == (0, "done")
    (place / "link").symlink_to(real)
    status, said = act(**asked_of(place / "link" / "x.img", name))
    assert status == 1 and said in ("Not a directory", "Too many levels of symbolic links")
    real.chmod(0o777)
    status, said = act(**asked_of(real / "x.img", name))
    assert (status, said) == (1, "its directory, or one above, can be written by others than root by now")
    assert (real / "x.img").exists() == (name != "make-file")


@as_root
def test_file_that_is_a_link_or_has_two_names_is_not_removed(place: Path) -> None:
    assert act(**asked_of(place / "real.img", "make-file")) == (0, "done")
    (place / "link.img").symlink_to(place / "real.img")
    assert act(**asked_of(place / "link.img", "remove-file"))[0] == 1
    (place / "second.img").hardlink_to(place / "real.img")
    assert act(**asked_of(place / "second.img", "remove-file")) == (1, "it is no plain file of root's by now")
    assert len(list(place.iterdir())) == 3


def test_trouble_that_nobody_thought_of_is_a_sentence_and_no_status_of_its_own() -> None:
    assert act(act="label", text="x") == (1, "KeyError: 'path'")
    status, said = act(act="label", text="", path=str(PROGRAMS / "act.py"), number="1:3", size=1)
    assert (status, said) == (1, "its name leads to another device by now")


def test_program_that_has_begun_to_write_never_says_that_nothing_was_written() -> None:
    text = (PROGRAMS / "act.py").read_text().replace("\nmain()\n", "\nbegan.append('x')\nmain()\n")
    done = subprocess.run([sys.executable, "-I", "-", '{"act": "label", "text": ""}'], input=text, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "KeyError: 'path'\n")


def test_piece_of_a_disk_that_cannot_be_read_whole_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(MIB + 4096))
    with path.open("rb") as file:
        assert look().piece(file.fileno(), 0) == bytes(MIB)
        with pytest.raises(OSError, match="Input/output error"):
            look().piece(file.fileno(), 4096 * 2)


def test_look_finds_a_device_that_only_an_io_uring_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Linux 6.12 prints /proc/PID/fdinfo/FD; before 6.10 a name stood there without its folder.
    printed = "pos:\t0\nUserFiles:\t3\n    0: /dev/sdb\n    1: <none>\n    2: sdc\nUserBufs:\t1\n    0: 0x7f/4096\n"
    known = {"/proc/7/fdinfo/3": printed, "/sys/class/block/sdb/dev": "8:16", "/sys/class/block/sdc/dev": "8:32"}
    found = look()
    found.__dict__["read"] = lambda path: known.get(path, "")
    assert found.registered("7", "3") == ["8:16", "8:32"]

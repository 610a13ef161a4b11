"""A migration between two page caches of one file, with the QEMU of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.doctor import migration_probe
from harness.doctor.migration_probe import Program, loops, play
from harness.doctor.other_root import Root
from harness.errors import HarnessError
from harness.model import CacheMode

QEMU = "qemu-system-x86_64"


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two loop devices on one file, until the test ends."""
    if os.geteuid() != 0 or shutil.which(QEMU) is None or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, QEMU and loop devices")
    (tmp_path / "shared").write_bytes(bytes(migration_probe.SIZE))
    try:
        with loops(tmp_path / "shared", 2) as (one, other):
            yield one, other
    except HarnessError as error:
        pytest.skip(f"no loop device can be made here: {error}")
    listed = subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=False).stdout
    assert str(tmp_path) not in listed


def test_play_unsafe_reads_old_data_and_others_what_was_written(devices: tuple[str, str], tmp_path: Path) -> None:
    program = Program(QEMU, Root(), tmp_path)
    assert play(program, *devices, CacheMode.WRITEBACK) == (False, False)
    assert play(program, *devices, CacheMode.UNSAFE) == (True, True), "what was read once is in the page cache"
    assert play(program, devices[0], devices[0], CacheMode.UNSAFE) == (False, False), "one page cache for both"


def test_play_devices_of_two_files_is_an_error(devices: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(migration_probe.SIZE))
    with loops(tmp_path / "other", 1) as (other,), pytest.raises(HarnessError, match="they share no file"):
        play(Program(QEMU, Root(), tmp_path), devices[0], other, CacheMode.NONE)


def test_play_program_that_is_no_qemu_raises_its_last_line(devices: tuple[str, str], tmp_path: Path) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("#!/bin/sh\necho it is not one >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(HarnessError, match="QEMU ended with 3: it is not one"):
        play(Program(str(fake), Root(), tmp_path), *devices, CacheMode.NONE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--repeat", "0"], "--repeat is 0; it is at least 1"),
        (["--root", "/nowhere"], "--root is '/nowhere', which is no root of a system"),
        (["/nowhere/qemu"], "need"),
    ],
)
def test_main_bad_input_prints_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migration_probe.main(arguments) == 4
    printed = capsys.readouterr().err
    assert sentence in printed or "there is no /nowhere/qemu" in printed
    assert len(printed.splitlines()) == 1

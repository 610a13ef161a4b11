"""The guest's own disk: the script that looks for it, on serial numbers as the kernel shows them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.filesystems.swap_elsewhere import _OWN_DISK as OWN_DISK
from harness.filesystems.swap_elsewhere import OWN_DISK_SERIAL
from harness.guest.own_disk import _LOOK as LOOK


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """A tree as /sys/block: the kernel puts no end of line behind a serial number, and not every disk has one."""
    for name, serial in (("vda", ""), ("vdb", "cell-12"), ("vdc", OWN_DISK_SERIAL), ("zram0", None)):
        (tmp_path / name).mkdir()
        if serial is not None:
            (tmp_path / name / "serial").write_text(serial)
    return tmp_path


def run(script: str, disks: Path) -> subprocess.CompletedProcess[str]:
    """Run ``script`` as in a guest, for the own disk's serial number."""
    here = script.replace("/sys/block", str(disks))
    return subprocess.run(["sh", "-ec", here, "sh", OWN_DISK_SERIAL], capture_output=True, text=True, check=False)


def test_own_disk_is_found_among_others(disks: Path) -> None:
    assert run(LOOK, disks).stdout == "there\n"
    assert run(OWN_DISK, disks).stdout == "/dev/vdc\n"


def test_own_disk_that_is_not_there_is_not_found(disks: Path) -> None:
    (disks / "vdc" / "serial").write_text("another")
    assert (run(LOOK, disks).stdout, run(LOOK, disks).returncode) == ("", 0)
    missing = run(OWN_DISK, disks)
    assert missing.returncode == 1 and "the guest has no disk of its own" in missing.stderr

"""What is left on in a guest: the script itself, over folders that look like the guest's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_story import Story

from harness.errors import LostGuestError
from harness.guest.leftovers import leftovers
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner

HEADING = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
MOUNTS = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest between two cells: its root disk, no swap."""
    for folder in ("proc", "dev", "sys/block/vda", "sys/class/block/vda"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/swaps").write_text(HEADING)
    (tmp_path / "proc/mounts").write_text(MOUNTS)
    (tmp_path / "sys/block/vda/serial").write_text("guestroot")
    return tmp_path


def found(guest: Path) -> str | None:
    return leftovers(LocalRunner(), str(guest))


def plugged(guest: Path, where: str, serial: bytes) -> None:
    (guest / "sys/block/sdb" / where).parent.mkdir(parents=True)
    (guest / "sys/block/sdb" / where).write_bytes(serial)
    (guest / "sys/class/block/sdb").mkdir()


def test_leftovers_guest_between_cells_has_none(guest: Path) -> None:
    assert found(guest) is None


def test_leftovers_swap_that_is_on_is_named(guest: Path) -> None:
    (guest / "proc/swaps").write_text(f"{HEADING}/dev/vdb\\040(deleted)    partition\t131068\t512\t-2\n")
    assert found(guest) == "it has swap on /dev/vdb\\040(deleted)"


@pytest.mark.parametrize(
    ("where", "serial"), [("serial", b"cell-1234"), ("device/vpd_pg80", b"\x00\x80\x00\x09cell-1234")]
)
def test_leftovers_disk_of_a_cell_that_is_attached_is_named(guest: Path, where: str, serial: bytes) -> None:
    plugged(guest, where, serial)
    assert found(guest) == "it has the disk sdb of an earlier cell"


@pytest.mark.parametrize("there", [False, True])
def test_leftovers_mount_is_named_where_its_device_is_gone(guest: Path, there: bool) -> None:
    (guest / "proc/mounts").write_text(f"{MOUNTS}/dev/sdb1 /mnt ext4 rw 0 0\n")
    if there:
        (guest / "sys/class/block/sdb1").mkdir()
    assert found(guest) == (None if there else "it has a mount at /mnt of /dev/sdb1, which is gone")


def test_leftovers_device_of_device_mapper_is_named(guest: Path) -> None:
    (guest / "sys/block/dm-0/dm").mkdir(parents=True)
    (guest / "sys/block/dm-0/dm/name").write_text("drbdharness-data\n")
    assert found(guest) == "it has the device-mapper device drbdharness-data"


def test_leftovers_several_stand_in_one_sentence(guest: Path) -> None:
    (guest / "proc/swaps").write_text(f"{HEADING}/dev/sdb partition 1 0 -2\n")
    plugged(guest, "serial", b"cell-1")
    assert found(guest) == "it has swap on /dev/sdb, the disk sdb of an earlier cell"


def test_leftovers_guest_whose_programs_die_has_a_reason() -> None:
    dead = ScriptedRunner(lambda argv: (135, "", ""), "guest")
    assert "it does not run a program: " in str(leftovers(dead)) and "135" in str(leftovers(dead))


def test_leftovers_agent_that_does_not_answer_is_a_reason() -> None:
    story = Story()
    story.broken["look"] = LostGuestError("the agent of guest did not do guest-exec: no answer")

    def silent(argv: tuple[str, ...]) -> tuple[int, str, str]:
        story("look")
        return 0, "", ""

    assert leftovers(ScriptedRunner(silent, "guest")) == (
        "it does not run a program: the agent of guest did not do guest-exec: no answer"
    )

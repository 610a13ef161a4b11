"""Sabotages of the instrument: the real scripts that cover programs, kill readers and damage a filesystem."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stage import Stage
from sabotaged_stage import A, ran, script, staged

from harness.engine.disturbances.sabotage import after_crash, losses, programs
from harness.model import PlantedChange, Sabotage
from harness.util import paths
from harness.util.deadline import Deadline, poll

__all__ = ["staged"]


def covered(
    tmp_path: Path, script: str, program: str, *arguments: str, **values: int | str
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` over a program that prints its arguments."""
    real = tmp_path / program
    real.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    real.chmod(0o755)
    (tmp_path / "script").write_text(script.format(directory=tmp_path, **values))
    argv = ["sh", str(tmp_path / "script"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_silent_verify_leaves_out_the_verify_and_nothing_else(tmp_path: Path) -> None:
    silent = covered(tmp_path, programs.SILENT_VERIFY, "drbdadm", "--", "--start=0", "verify", "r0/0")
    assert (silent.returncode, silent.stdout) == (0, "")
    other = covered(tmp_path, programs.SILENT_VERIFY, "drbdadm", "net-options", "--x=a b", "r0")
    assert (other.returncode, other.stdout) == (7, "net-options|--x=a b|r0|")


def test_partial_verify_begins_elsewhere_in_either_dialect(tmp_path: Path) -> None:
    for given, wanted in (
        (("--", "--start=0", "verify", "r0/0"), "--|--start=4096s|verify|r0/0|"),
        (("verify", "--start=0", "r0/0"), "verify|--start=4096s|r0/0|"),
        (("disconnect", "r0"), "disconnect|r0|"),
    ):
        partial = covered(tmp_path, programs.PARTIAL_VERIFY, "drbdadm", *given, sector=4096)
        assert (partial.returncode, partial.stdout) == (7, wanted)


def test_blind_verify_changes_the_sector_behind_the_verify_and_only_then(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    lower.write_bytes(bytes(200 * 512))
    places = {"sector": programs.BLIND_SECTOR, "lower": str(lower)}
    # Not every filesystem of a test's files takes O_DIRECT.
    script = programs.BLIND_VERIFY.replace(" oflag=direct", "")
    # Where the program itself fails nothing is changed.
    failed = covered(tmp_path, script, "drbdadm", "verify", "r0", **places)
    assert (failed.returncode, failed.stdout) == (7, "verify|r0|")
    (tmp_path / "drbdadm").write_text("#!/bin/sh\nexit 0\n")
    wrapper = ["sh", str(tmp_path / "script")]
    assert subprocess.run([*wrapper, "disconnect", "r0"], check=False).returncode == 0
    assert lower.read_bytes() == bytes(200 * 512)
    assert subprocess.run([*wrapper, "--", "--start=0", "verify", "r0/0"], check=False).returncode == 0
    poll(lambda: any(lower.read_bytes()) or None, Deadline.after(60, "the change"), every=0.1)
    at = programs.BLIND_SECTOR * 512
    changed = lower.read_bytes()
    assert changed[:at] == bytes(at) and changed[at + 512 :] == bytes(len(changed) - at - 512)


def test_blind_verify_is_covered_and_its_sector_planted(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.BLIND_VERIFY)
    found = stage.play()
    assert found.planted == (PlantedChange(programs.BLIND_SECTOR, 1, A),)
    assert len(ran(stage, "mount --bind", A)) == len(ran(stage, "umount -l", A)) == 1


def test_idle_storm_gets_one_mebibyte(tmp_path: Path) -> None:
    idle = covered(tmp_path, programs.IDLE_STORM, "swapstorm", "--mebibytes", "512", "--threads", "8", "--seconds", "4")
    assert idle.stdout == "--mebibytes|1|--threads|8|--seconds|4|"


def test_kill_ends_whoever_was_started_like_that_and_nobody_else(tmp_path: Path) -> None:
    program = tmp_path / "reader"
    program.write_text("#!/bin/sh\nread -r never\n")
    program.chmod(0o755)
    argv = [str(program), "events"]
    with (
        subprocess.Popen([*argv, "r0"], stdin=subprocess.PIPE) as reader,
        subprocess.Popen([str(program), "status"], stdin=subprocess.PIPE) as other,
    ):
        asked = f"/bin/sh {' '.join(argv)}"
        poll(lambda: str(program) in Path(f"/proc/{reader.pid}/cmdline").read_text() or None,
             Deadline.after(60, "its arguments"), every=0.01)  # fmt: skip
        assert script(losses._KILL, asked).returncode == 0
        assert reader.wait(60) == -9 and other.poll() is None
        nobody = script(losses._KILL, asked)
        assert nobody.returncode == 1 and nobody.stderr.endswith(f"nobody runs {asked}\n")
        other.kill()


def test_damage_of_a_filesystem_is_seen_by_mount_or_by_fsck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ordinary user's search path has no sbin.
    monkeypatch.setenv("PATH", paths.programs())
    image = tmp_path / "ext4"

    def made() -> None:
        with image.open("wb") as file:
            file.truncate(64 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", str(image)], check=True)

    def checked() -> int:
        return subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, check=False).returncode

    made()
    assert checked() == 0
    directory = script(after_crash._DIRECTORY_BLOCK, str(image))
    assert directory.stdout.endswith(", of the directory lost+found,\n") and checked() & 4, "errors are left"
    magic = subprocess.run(["dumpe2fs", "-h", str(image)], capture_output=True, check=False)
    assert magic.returncode == 0, "it is still an ext4 that can be mounted"
    made()
    assert script(after_crash._SUPERBLOCK, str(image)).stdout == "the superblock\n" and checked() != 0
    assert subprocess.run(["dumpe2fs", "-h", str(image)], capture_output=True, check=False).returncode != 0

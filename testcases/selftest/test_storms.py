"""The guest's programs that dirty memory: what they leave behind, and what they say to bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.images.programs import compile_program

SOURCES = Path(__file__).parents[2] / "vm_images" / "src"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {name: compile_program(SOURCES / f"{name}.c", folder) for name in ("mapstorm", "swapstorm")}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_mmap_storm_file_size_kept_all_blocks_changed(programs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    done = run(programs["mapstorm"], "--file", str(file), "--mebibytes", "1", "--threads", "2", "--seconds", "1")
    facts = json.loads(done.stdout)
    assert facts["pages_dirtied"] > 0 and facts["rounds"] > 1 and facts["cuts"] == 0
    content = file.read_bytes()
    assert len(content) == 1 << 20
    untouched = b"\xa5" * 4096
    changed = sum(content[at : at + 4096] != untouched for at in range(0, len(content), 4096))
    assert changed > 200, "of 256 pages, picked at random"


def test_truncate_storm_file_removed(programs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    done = run(
        programs["mapstorm"], "--file", str(file), "--mebibytes", "1", "--seconds", "1", "--cut-every", "200"
    )  # fmt: skip
    assert json.loads(done.stdout)["cuts"] > 1
    assert list(tmp_path.iterdir()) == [], "else its blocks were not free and could not be dead"


def test_pressure_storm_reclaims_only_when_requested(programs: dict[str, Path]) -> None:
    plain = run(programs["swapstorm"], "--mebibytes", "4", "--threads", "2", "--seconds", "1")
    asked = run(programs["swapstorm"], "--mebibytes", "4", "--threads", "2", "--seconds", "1", "--reclaim-every", "5")
    assert json.loads(plain.stdout)["pages_reclaimed"] == 0
    facts = json.loads(asked.stdout)
    # One pick in five is given up and changed 16 times more; the last picks of two threads are no whole five.
    assert facts["pages_reclaimed"] * (5 + 16) == pytest.approx(facts["pages_dirtied"], rel=0.001, abs=2 * 4)


@pytest.mark.parametrize(
    ("program", "arguments", "status", "sentence"),
    [
        ("mapstorm", ("--file", "/nowhere/x", "--mebibytes", "1"), 1, "mapstorm: cannot open /nowhere/x: "),
        ("mapstorm", ("--file", "x", "--mebibytes", "0"), 4, "--mebibytes must be a whole number from 1 to"),
        ("mapstorm", ("--mebibytes", "1"), 4, "usage: mapstorm"),
        ("swapstorm", ("--mebibytes", "1", "--reclaim-every", "-1"), 4, "--reclaim-every must be a whole number"),
        ("swapstorm", (), 4, "usage: swapstorm"),
    ],
)
def test_storms_bad_input_one_sentence(
    programs: dict[str, Path], program: str, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    done = run(programs[program], *arguments)
    assert done.returncode == status and sentence in done.stderr and len(done.stderr.splitlines()) == 1

"""A sabotaged cell over a lab that only remembers.  Nothing here is a test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_stage import Stage

from harness.model import CacheMode, Cell, Crash, FilesystemKind, Sabotage

RECORDED = Path(__file__).parent / "recordings" / "ext4"
CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, seconds=1)
EXTENTS = (RECORDED / "filefrag-preallocated.txt").read_text()
A, B = "nodea", "nodeb"
#: Pages 24, 25 and 7 of a process are swapped out, one is in memory, the rest was never touched.
SWAPPED = "".join(
    f" {word:016x}\n" for word in (0, 24 << 5 | 1 << 62, 25 << 5 | 1 << 62, 1 << 63 | 99, 7 << 5 | 1 << 62)
)


def cell(sabotage: Sabotage) -> Cell:
    return replace(CELL, sabotage=sabotage, crash=Crash.QEMU if sabotage.after_crash else None)


@pytest.fixture
def staged(tmp_path: Path) -> Callable[[Sabotage], Stage]:
    def made(sabotage: Sabotage) -> Stage:
        stage = Stage.of(tmp_path, cell(sabotage))
        agent = stage.guest.agent
        agent.answers = {"setsid": "4711\n", "pagemap": SWAPPED, "%s %p": f"/modified\n{EXTENTS}", "freed": EXTENTS}
        return stage

    return made


def ran(stage: Stage, what: str, where: str) -> list[int]:
    """When ``where`` ran a command with ``what`` in it, among its commands."""
    runner = {A: stage.lab.a.runner, B: stage.lab.b.runner, "guest": stage.guest.agent}[where]
    return [number for number, argv in enumerate(runner.ran) if what in " ".join(argv)]


def script(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-ec", text, "sh", *arguments], capture_output=True, text=True, check=False)

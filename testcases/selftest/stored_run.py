"""A run on the disk, made up, and ``drbd-harness`` asked about it in a test's own folder.  Nothing here is a test."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from judged_evidence import evidence, observed, oracles
from own_command import run_here

from harness.config.controls import with_controls
from harness.model import CacheMode, Cell, Control, Evidence, Expectation, FilesystemKind, Run, Stack, VerdictKind
from harness.store import Store
from harness.workloads.controls import Planted

GOLDEN = Path(__file__).parent / "golden"
NONE = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.NONE,
    expected=Expectation((VerdictKind.DIVERGED,), "buffers change in flight"),
)
BACK = Cell(
    "pressure",
    filesystem=FilesystemKind.SWAP,
    cache=CacheMode.WRITEBACK,
    expected=Expectation((VerdictKind.CLEAN,), "pages are copied"),
)
CELLS = with_controls((NONE, BACK))


class Ended(BaseException):
    """The process would have become another one."""


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's labs or runs; none can start one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DRBD_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run ``drbd-harness`` in this process: (exit code, standard output, standard error)."""

    return partial(run_here, monkeypatch, capfd)


def found(cell: Cell) -> Evidence:
    """What a good lab finds."""
    good: dict[str, Any] = {}
    if cell.control is Control.PLANTED:
        blocks = {block for extent in Planted.changes(32768, 5, "nodea", "nodeb") for block in extent.blocks()}
        good = {"planted": Planted.changes(32768, 5, "nodea", "nodeb"), **oracles(blocks, blocks)}
    elif cell.control in (Control.IN_FLIGHT, Control.IN_FLIGHT_GUEST) or cell == NONE:
        good = oracles({1, 2}, {1, 2})
    return evidence(cell, observed=observed(cell), **good)


def stored(root: Path = Path("runs"), run_id: str = "run1", **other: dict[str, Any]) -> Store:
    """A run on the disk; ``other`` replaces facts of a cell by its row, and None leaves its evidence out."""
    run = Run(run_id, "quick", "2026-11-23T01:50:03Z", CELLS, Stack("trixie", "6.12-fake", "8.4.11"))
    store = Store.create(root, run)
    for cell in CELLS:
        changed = other.get(cell.row, {}) if cell.control is None else {}
        if changed is not None:
            store.begin(cell).save(replace(found(cell), **changed))
    return store


def golden(name: str) -> dict[str, bytes]:
    """A copy of a stored run in runs/; its files."""
    shutil.copytree(GOLDEN / name, Path("runs") / name)
    return files_of(Path("runs") / name)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def kinds_of(files: dict[str, bytes]) -> Counter[str]:
    """The verdicts kept in the files of a run, of the newest attempt at each cell."""
    newest = {name.split("/")[1]: content for name, content in sorted(files.items()) if name.endswith("verdict.json")}
    return Counter(json.loads(content)["kind"] for content in newest.values())


def handed_over(monkeypatch: pytest.MonkeyPatch, command: Any, *arguments: str) -> list[str]:
    handed: list[list[str]] = []

    def become(path: str, argv: list[str]) -> None:
        assert path == sys.executable
        handed.append(argv)
        raise Ended

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(Ended):
        command(*arguments)
    return handed[0]

"""A machine that answers what a workload asks of it: fio, the storm, the kernel's counters.  Nothing here is a test."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.config.user_work import OPTIONS
from harness.drbd.resource import Resource
from harness.filesystems import FILESYSTEMS
from harness.model import Cell, FilesystemKind, PlantedChange, UserFile
from harness.model.acknowledgement import QEMU_PROBES
from harness.remote.scripted import ScriptedRunner
from harness.workloads import WORKLOADS, workload_of
from harness.workloads.base import Workload, WorkloadTarget

RECORDINGS = Path(__file__).parent / "recordings"
FIO_JSON = (RECORDINGS / "fio" / "write-then-verify.json").read_text()
WRONG_JSON = (RECORDINGS / "fio" / "verify-failed-three-times.txt").read_text()
WRONG_WORDS = (RECORDINGS / "fio" / "verify-failed-three-times.stderr.txt").read_text()
MEMINFO = (
    "MemTotal: 393216 kB\nMemAvailable: 204800 kB\nSwapTotal: 131072 kB\nSwapFree: 102400 kB\nHugePages_Total: 0\n"
)
VMSTAT = "nr_free_pages 812\npswpin 4000\npswpout 9000\n"
STORM = """{"seconds": 8.25, "threads": 8, "pages_dirtied": 123456, "pages_reclaimed": 289, "cuts": 3,
 "pages_truncated": 6100, "pages_checked": 130000, "pages_swapped_in_checked": 4000, "pages_wrong": 0, "note": "x"}\n"""


PROGRAM = {"files_found": 0, "files_left": 0, "files_made": 9, "files_rewritten": 8, "files_deleted": 7,
           "appended_bytes": 900, "truncations": 3, "transactions": 44, "wrong": 0, "seconds": 2.0}  # fmt: skip
# Those of Windows: test_windows_workloads.py; the probes of QEMU: test_flush_workload.py.
COMBINATIONS = [
    (name, kind)
    for name, kinds in WORKLOADS.items()
    for kind in kinds
    if FILESYSTEMS[kind].linux and name not in QEMU_PROBES
]
EXT4, SWAP = FilesystemKind.EXT4, FilesystemKind.SWAP


def is_fio(argv: tuple[str, ...]) -> bool:
    return "fio" in argv


def answers(argv: tuple[str, ...]) -> tuple[int, str, str]:
    if argv[0] == "python3":
        return 0, json.dumps(PROGRAM), ""
    if is_fio(argv):
        return 0, FIO_JSON, ""
    if argv[0] == "cat":
        return 0, MEMINFO if argv[1] == "/proc/meminfo" else VMSTAT, ""
    if argv[0].endswith("storm"):
        return 0, STORM, ""
    return 0, "", ""


class Below:
    """A resource that only remembers what was planted, and when its cache was emptied."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.a, self.b = SimpleNamespace(name="nodea"), SimpleNamespace(name="nodeb")
        self.steps: list[tuple[str, list[PlantedChange]]] = []

    def sync(self) -> None:
        self.steps.append(("sync", []))

    def plant_below(self, node: SimpleNamespace, changes: Iterable[PlantedChange]) -> None:
        self.steps.append((node.name, list(changes)))


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner(answers)


@pytest.fixture
def target(runner: ScriptedRunner) -> WorkloadTarget:
    return WorkloadTarget(runner, "/dev/vdb", cast(Resource, Below(32768)))


def job_name(path: str) -> str:
    """What a job file is of; between its folder and this stands what nobody can know before."""
    found = re.fullmatch(r"/tmp/drbd-harness-[0-9a-f]{16}-(.+)\.fio", path)
    assert found is not None, path
    return found[1]


def jobs(runner: ScriptedRunner, name: str) -> dict[str, dict[str, str]]:
    """The sections of the job file that was written for the workload ``name``."""
    parsed = configparser.RawConfigParser(default_section="none")
    (text,) = {text for path, text in runner.written.items() if path.endswith(".fio") and job_name(path) == name}
    parsed.read_string(text)
    return {section: dict(parsed[section]) for section in parsed.sections()}


def made(workload: str, filesystem: FilesystemKind = FilesystemKind.RAW) -> Workload:
    file = UserFile("mine", "ab" * 32, "[mine]\nrw=write\n") if workload in OPTIONS else None
    return workload_of(Cell(workload, filesystem=filesystem, user_file=file))


def storms(runner: ScriptedRunner) -> list[tuple[str, ...]]:
    """The storms that were run."""
    return [argv for argv in runner.ran if argv[0].endswith("storm")]


def script(argv: tuple[str, ...]) -> str:
    assert argv[:2] == ("sh", "-ec")
    return argv[2]

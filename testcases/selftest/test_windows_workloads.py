"""Workloads in a Windows, by scripted answers of its agent: on NTFS, on a pagefile from boot to boot, or refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from windows_agent import DISK, DISKSPD, PAGED, WindowsAgent, agent_of, cell, target

from harness.config.lab_spec import UserImageSpec
from harness.engine.context import CellContext
from harness.engine.guest_disk import GuestDisk
from harness.errors import DeadlineError, InfrastructureError, RefusedError
from harness.filesystems import FILESYSTEMS, windows_pagefile
from harness.filesystems.windows_ntfs import FOLDER
from harness.model import FilesystemKind
from harness.remote import windows
from harness.remote.windows import WINDOWS
from harness.store import Attempt
from harness.workloads import WORKLOADS, workload_of
from harness.workloads.windows import diskspd_writes


def commands(domain: WindowsAgent) -> list[str]:
    """The storage commands that were run, in order."""
    wanted = (
        r"(Initialize-Disk|New-Partition|Format-Volume|Add-PartitionAccessPath|Remove-PartitionAccessPath|Storm\]"
        r"|IsOffline \$true|-Rxml)"
    )
    return [found for script in domain.ran for found in re.findall(wanted, script)]


@pytest.mark.parametrize(
    ("workload", "steps", "fact"),
    [("truncate", ["Storm]"], ("pages_truncated", 8000)), ("buffered", ["-Rxml"], ("buffered_write_bytes", 12288))],
)
def test_windows_workload_from_the_partition_table_to_offline(
    workload: str, steps: list[str], fact: tuple[str, float]
) -> None:
    domain = WindowsAgent()
    where = target(domain)
    played = workload_of(cell(workload))
    played.prepare(where)
    WINDOWS.sync(where.runner)
    work = played.work(where, 10)
    assert played.quiesce(where) == 0
    assert commands(domain) == [
        "Initialize-Disk", "New-Partition", "Format-Volume", "Add-PartitionAccessPath", *steps,
        "Remove-PartitionAccessPath", "IsOffline $true",
    ]  # fmt: skip
    assert work.facts[fact[0]] == fact[1] and work.read_back_errors == 0
    assert any(f"{FOLDER}\\" in script for script in domain.ran)


def test_windows_pagefile_is_the_only_one_from_one_boot_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows.time, "sleep", lambda _: None)
    domain = WindowsAgent()
    where = target(domain)
    played = workload_of(cell("pressure", FilesystemKind.PAGEFILE))
    played.prepare(where)
    assert (domain.boots, domain.pages_to) == (1, windows_pagefile.FILE)
    setting = next(script for script in domain.ran if "PagingFiles" in script)
    assert r"$a = @('P:\pagefile.sys 76 76')" in setting, "the rest of its 127 MiB is NTFS's own"
    work = played.work(where, 10)
    assert work.facts["pages_swapped_out"] == 15000 and work.facts["pages_dirtied"] == 400000
    assert (work.seconds, work.read_back_errors) == (12.5, 0)
    assert played.quiesce(where) == 0
    assert (domain.boots, domain.pages_to) == (2, "")
    last = [script for script in domain.ran if "Remove-Item" in script or "IsOffline $true" in script]
    assert len(last) == 1 and r"'P:\pagefile.sys'" in last[0], "deleted, and then the disk goes offline"


def test_cell_of_a_pagefile_has_time_for_two_boots(tmp_path: Path) -> None:
    image = UserImageSpec(name="w.qcow2", digest="ab" * 32, windows=True, boot_seconds=500)

    def seconds(kind: FilesystemKind, spec: UserImageSpec) -> float:
        lab = SimpleNamespace(id="lab", guest_spec=SimpleNamespace(image=spec), boot_seconds=0.0)
        attempt = Attempt(cell("no-writes", kind), 1, tmp_path)
        return CellContext(cast(Any, lab), cast(Any, SimpleNamespace(blocks=1)), attempt).deadline.seconds

    plain = seconds(FilesystemKind.NTFS, image)
    assert seconds(FilesystemKind.PAGEFILE, image) == plain + 1000
    assert seconds(FilesystemKind.PAGEFILE, UserImageSpec()) == plain, "in the harness's own guest it is refused"


def test_windows_may_take_as_long_to_boot_again_as_its_image_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_LOOK_SECONDS", 0.0)
    image = UserImageSpec(name="w.qcow2", digest="ab" * 32, windows=True, boot_seconds=10)
    lab = SimpleNamespace(id="lab", guest_spec=SimpleNamespace(image=image), boot_seconds=0.0)
    attempt = Attempt(cell("pressure", FilesystemKind.PAGEFILE), 1, tmp_path)
    context = CellContext(cast(Any, lab), cast(Any, SimpleNamespace(blocks=1)), attempt)
    disk = GuestDisk(context, cast(Any, None), cast(Any, SimpleNamespace(disk_blocks=0)))
    domain = WindowsAgent(lambda script: (0, "1\r\n", "") if "LastBootUpTime" in script else None)
    disk.guest = cast(Any, SimpleNamespace(agent=agent_of(domain)))
    disk.attached = cast(Any, SimpleNamespace(path=DISK))
    part = disk.part
    assert part.boot_seconds == 10
    with pytest.raises(DeadlineError, match="another boot of Windows did not happen within 0 s"):
        FILESYSTEMS[FilesystemKind.PAGEFILE].mount(replace(part, boot_seconds=0.1))


def test_windows_that_pages_to_another_file_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows.time, "sleep", lambda _: None)
    domain = WindowsAgent(
        lambda script: (0, "C:\\pagefile.sys\r\n", "") if "ForEach-Object { $_.Name }" in script else None
    )
    sentence = r"Windows pages to C:\\pagefile\.sys, and was told to page to P:\\pagefile\.sys"
    with pytest.raises(InfrastructureError, match=sentence):
        workload_of(cell("pressure", FilesystemKind.PAGEFILE)).prepare(target(domain))


def test_windows_that_never_boots_again_is_a_deadline_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_LOOK_SECONDS", 0.0)
    domain = WindowsAgent(lambda script: (0, "1\r\n", "") if "LastBootUpTime" in script else None)
    with pytest.raises(DeadlineError, match="another boot of Windows"):
        windows.reboot(agent_of(domain), 0.1)


def test_windows_whose_first_powershell_takes_long_has_all_of_its_time_to_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_LOOK_SECONDS", 0.0)
    domain = WindowsAgent()
    agent = agent_of(domain)
    before, slow = agent.run, [DeadlineError("the end of 'powershell.exe' in guest did not happen within 70 s")]

    def run(argv: list[str], **more: Any) -> Any:
        if slow and domain.boots:
            raise slow.pop()
        return before(argv, **more)

    monkeypatch.setattr(agent, "run", run)
    windows.reboot(agent, 60)
    assert not slow and domain.boots == 1


@pytest.mark.parametrize("printed", ["", "x", PAGED.splitlines()[0], PAGED + PAGED])
def test_windows_storm_that_prints_something_else_is_no_answer(printed: str) -> None:
    domain = WindowsAgent(lambda script: (0, printed, "") if "[PageStorm]" in script else None)
    with pytest.raises(InfrastructureError, match="the storm on guest printed no result"):
        workload_of(cell("pressure", FilesystemKind.PAGEFILE)).work(target(domain), 1)


def test_windows_workloads_are_played_or_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows.time, "sleep", lambda _: None)
    playable = set()
    for name, kinds in WORKLOADS.items():
        for kind in kinds:
            domain = WindowsAgent()
            try:
                workload_of(cell(name, kind)).prepare(target(domain))
                playable.add((name, kind.value))
            except RefusedError as refused:
                assert "runs Windows" in str(refused) and commands(domain) == [], (name, kind)
    files = {(name, "ntfs") for name in ("truncate", "mmap", "buffered", "no-writes")}
    assert playable == files | {("pressure", "pagefile"), ("no-writes", "pagefile")}


def test_windows_without_diskspd_refuses_it() -> None:
    domain = WindowsAgent(lambda script: (0, "", "") if "diskspd.exe" in script else None)
    with pytest.raises(RefusedError, match=r"has no diskspd\.exe"):
        workload_of(cell("buffered")).prepare(target(domain))


@pytest.mark.parametrize("text", ["", "x", "<Results/>", DISKSPD.replace("<WriteCount>2<", "<WriteCount>many<")])
def test_diskspd_other_output_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        diskspd_writes(text)

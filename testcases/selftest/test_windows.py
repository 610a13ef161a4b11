"""Windows in a guest, by scripted answers of its agent: no Windows was at hand."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scripted_libvirt import bounded
from test_filesystems_dos import image, whole

from harness.config.lab_spec import UserImageSpec
from harness.engine.context import CellContext
from harness.engine.guest_disk import GuestDisk
from harness.errors import CommandError, DeadlineError, InfrastructureError, RefusedError
from harness.filesystems import FILESYSTEMS, windows_pagefile
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.view import ReplicaView
from harness.filesystems.windows_ntfs import FOLDER, partition
from harness.guest import user_guest
from harness.guest.leftovers import leftovers
from harness.model import BLOCK_BYTES, BlockOwner, CacheMode, Cell, FilesystemCheck, FilesystemKind, UserFile
from harness.parse.guest_facts import NEEDED
from harness.remote import guest_agent, windows
from harness.remote.guest_agent import GuestAgent
from harness.remote.guest_system import DiskQueue
from harness.remote.local import LocalRunner
from harness.remote.windows import POWERSHELL, WINDOWS, disk_number, powershell, script_of
from harness.store import Attempt
from harness.workloads import WORKLOADS, workload_of
from harness.workloads.windows import diskspd_writes

DISK = r"\\.\PHYSICALDRIVE1"
# As an agent of Windows Server 2022 was reported to answer.
OSINFO = {
    "name": "Microsoft Windows", "kernel-release": "20348", "version": "Microsoft Windows Server 2022",
    "variant": "server", "pretty-name": "Windows Server 2022 Datacenter", "version-id": "2022",
    "variant-id": "server", "kernel-version": "10.0", "machine": "x86_64", "id": "mswindows",
}  # fmt: skip
STORMED = (
    '{"mebibytes": 8, "threads": 2, "seconds": 10.02, "pages_dirtied": 90000, "rounds": 80, "cuts": 4, '
    '"pages_truncated": 8000}'
)
PAGED = (
    '{"mebibytes": 1200, "threads": 8, "seconds": 12.5, "pages_dirtied": 400000, "pages_checked": 500000, '
    '"pages_wrong": 0}\r\n{"pages_swapped_out":15000,"pages_swapped_in":9000}\r\n'
)
DISKSPD = """<Results>
<System><ComputerName>WIN</ComputerName></System>
<TimeSpan><TestTimeSeconds>10.01</TestTimeSeconds><ThreadCount>2</ThreadCount>
<Thread><Id>0</Id><Target><Path>C:\\drbd-harness\\buffered</Path><BytesCount>8192</BytesCount><IOCount>2</IOCount>
<ReadBytes>0</ReadBytes><ReadCount>0</ReadCount><WriteBytes>8192</WriteBytes><WriteCount>2</WriteCount></Target></Thread>
<Thread><Id>1</Id><Target><Path>C:\\drbd-harness\\buffered</Path><BytesCount>4096</BytesCount><IOCount>1</IOCount>
<ReadBytes>0</ReadBytes><ReadCount>0</ReadCount><WriteBytes>4096</WriteBytes><WriteCount>1</WriteCount></Target></Thread>
</TimeSpan></Results>
"""
Answer = tuple[int, str, str]


class WindowsAgent:
    """qemu-ga in a Windows; ``says`` answers a script, or another program's argument vector, by (status, out, err)."""

    def __init__(self, says: Callable[[str], Answer | None] = lambda _: None) -> None:
        self.says = says
        self.ran: list[str] = []
        self.never_ends = ""
        self.boots, self.asleep = 0, 0
        self.setting = self.pages_to = "C:\\pagefile.sys"

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return 1

    def qemuAgentCommand(self, request: str, timeout: int, flags: int) -> str:  # noqa: N802 - libvirt's name
        asked = json.loads(request)
        return json.dumps({"return": self._answer(asked["execute"], asked.get("arguments", {}))})

    def _answer(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "guest-exec":
            assert arguments["path"].endswith(".exe") and "env" not in arguments
            if arguments["path"] == POWERSHELL:
                assert arguments["arg"][-2] == "-EncodedCommand"
                self.ran.append(script_of(arguments["arg"]))
            else:
                self.ran.append(" ".join([arguments["path"], *arguments["arg"]]))
            return {"pid": len(self.ran)}
        if command == "guest-exec-status":
            script = self.ran[arguments["pid"] - 1]
            if self.never_ends and self.never_ends in script:
                return {"exited": False}
            status, out, err = self.says(script) or self._by_itself(script)
            encoded = {name: base64.b64encode(text.encode()).decode() for name, text in (("out", out), ("err", err))}
            ended = {"signal" if status < 0 or status >= 0xC0000000 else "exitcode": status}
            return {"exited": True, **ended, "out-data": encoded["out"], "err-data": encoded["err"]}
        return {
            "guest-ping": {},
            "guest-get-osinfo": OSINFO,
            "guest-info": {"supported_commands": [{"name": one, "enabled": True} for one in NEEDED]},
        }[command]

    def _by_itself(self, script: str) -> Answer:
        if 'SerialNumber)".Trim()' in script:
            return 0, "1\r\n", ""
        if "IsDeviceCacheEnabled" in script:
            return 0, "True\r\n", ""
        if "LastBootUpTime" in script:
            self.asleep -= bool(self.asleep)
            return (0, f"{133_000_000_000 + self.boots}\r\n", "") if not self.asleep else (1, "", "it shuts down")
        if "shutdown.exe /r" in script:
            self.boots, self.asleep, self.pages_to = self.boots + 1, 3, self.setting
        if "PagingFiles" in script:
            self.setting = "P:\\pagefile.sys" if "pagefile.sys" in script else ""
        if "Win32_PageFileUsage | ForEach-Object" in script:
            return 0, f"{self.pages_to}\r\n", ""
        if "NewDriveLetter" in script:
            return 0, "127\r\n", ""
        if "[PageStorm]::Run" in script:
            return 0, PAGED, ""
        if "[Storm]::Run" in script:
            return 0, STORMED + "\r\n", ""
        if "Get-Command diskspd.exe" in script:
            return 0, "C:\\diskspd\\diskspd.exe\r\n", ""
        if "-Rxml" in script:
            return 0, DISKSPD, ""
        return 0, "", ""


def agent_of(domain: WindowsAgent) -> GuestAgent:
    agent = GuestAgent(lambda: bounded(domain))
    agent.system = WINDOWS
    return agent


def target(domain: WindowsAgent) -> WorkloadTarget:
    return WorkloadTarget(agent_of(domain), DISK, cast(Any, SimpleNamespace(blocks=32768)), boot_seconds=900)


def commands(domain: WindowsAgent) -> list[str]:
    """The storage commands that were run, in order."""
    wanted = (
        r"(Initialize-Disk|New-Partition|Format-Volume|Add-PartitionAccessPath|Remove-PartitionAccessPath|Storm\]"
        r"|IsOffline \$true|-Rxml)"
    )
    return [found for script in domain.ran for found in re.findall(wanted, script)]


# --------------------------------------------------------------------------- PowerShell


def test_powershell_arguments_are_literal_text() -> None:
    script = script_of(powershell("Write-Output $a[0]", "it's $home; `x", "two"))
    assert "$a = @('it''s $home; `x', 'two')" in script and script.count("Write-Output $a[0]") == 1
    assert "exit 1" in script and "SilentlyContinue" in script


def test_powershell_typographic_quotes_end_no_argument() -> None:
    assert "$a = @('it\u2019\u2019s \u2018\u2018so\u2019\u2019')" in script_of(
        powershell("", "it\u2019s \u2018so\u2019")
    )


def test_powershell_says_how_it_ended_and_prints_text() -> None:
    argv = powershell("Write-VolumeCache C -ErrorAction SilentlyContinue")
    script = script_of(argv)
    assert script.rstrip().endswith("exit 0"), "else its status is that of a command that failed silently"
    encoding = next(line for line in script.splitlines() if "OutputEncoding" in line)
    assert encoding.startswith("try {") and encoding.endswith("catch { }"), "a service may have no console"
    assert argv[argv.index("-OutputFormat") + 1] == "Text"


def test_powershell_script_longer_than_a_command_line_is_refused() -> None:
    with pytest.raises(InfrastructureError, match="longer than a command line"):
        powershell("#" * 12_000)


def test_disk_number_of_another_name_is_a_value_error() -> None:
    assert disk_number(r"\\.\PhysicalDrive12") == "12"
    with pytest.raises(ValueError):
        disk_number("/dev/vdb")


def test_windows_refuses_a_program_of_linux_with_a_sentence() -> None:
    with pytest.raises(RefusedError, match="it runs Windows, which has no program 'sh'"):
        target(WindowsAgent()).sh("true")


def test_windows_command_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "_ANSWER_SECONDS", 0)
    domain = WindowsAgent()
    domain.never_ends = "Start-Sleep"
    with pytest.raises(DeadlineError):
        agent_of(domain).run(powershell("Start-Sleep 100"), timeout=0.1)
    assert domain.ran[-1] == r"C:\Windows\System32\taskkill.exe /PID 1 /T /F"


def test_windows_script_that_throws_is_a_command_error_with_its_message() -> None:
    domain = WindowsAgent(lambda _: (1, "", "Access is denied.\r\n"))
    with pytest.raises(CommandError, match=r"Access is denied\."):
        agent_of(domain).run(powershell("Get-Disk"))


@pytest.mark.parametrize("told", [0xC0000005, 0xC0000005 - 2**32])
def test_windows_program_that_an_exception_ended_has_it_as_its_status(told: int) -> None:
    agent = agent_of(WindowsAgent(lambda _: (told, "", "")))
    assert agent.run(powershell("Get-Disk"), ok=()).status == 0xC0000005
    with pytest.raises(CommandError, match="ended with status 0xC0000005"):
        agent.run(powershell("Get-Disk"))


# --------------------------------------------------------------------------- the guest


def test_make_ready_windows_has_another_system_and_runs_nothing_of_linux() -> None:
    domain = WindowsAgent()
    agent = GuestAgent(lambda: bounded(domain))
    found = user_guest.make_ready(agent, UserImageSpec(name="w.qcow2", digest="ab" * 32, windows=True))
    assert agent.system is WINDOWS and found.own == ()
    assert str(found.facts) == "Windows 10.0 build 20348 (Windows Server 2022 Datacenter)"


def test_windows_disk_is_found_by_its_serial_and_its_cache_read() -> None:
    agent = agent_of(WindowsAgent())
    assert WINDOWS.locate(agent, "cell-7") == DISK
    assert WINDOWS.queue(agent, DISK) == DiskQueue("write back")
    none = agent_of(WindowsAgent(lambda script: (0, "", "")))
    assert WINDOWS.locate(none, "cell-7") is None and WINDOWS.queue(none, DISK) == DiskQueue()


def test_windows_leftover_is_a_disk_of_an_earlier_cell() -> None:
    left = agent_of(WindowsAgent(lambda _: (0, "left on: the disk 1 of an earlier cell\r\n", "")))
    assert leftovers(left) == "it has the disk 1 of an earlier cell"
    assert leftovers(agent_of(WindowsAgent())) is None


# --------------------------------------------------------------------------- cells


def cell(workload: str, kind: FilesystemKind = FilesystemKind.NTFS) -> Cell:
    file = UserFile("mine", "ab" * 32, "[job]\nrw=write\n") if workload in ("fio-job", "guest-script") else None
    return Cell(workload, filesystem=kind, cache=CacheMode.NONE, seed=3, user_file=file)


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


def test_linux_refuses_the_filesystem_of_windows() -> None:
    where = WorkloadTarget(LocalRunner(), "/dev/null", cast(Any, SimpleNamespace(blocks=32768)))
    with pytest.raises(RefusedError, match="made by Windows"):
        workload_of(cell("truncate")).prepare(where)


@pytest.mark.parametrize("text", ["", "x", "<Results/>", DISKSPD.replace("<WriteCount>2<", "<WriteCount>many<")])
def test_diskspd_other_output_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        diskspd_writes(text)


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (0, FilesystemCheck.CLEAN),
        (2, FilesystemCheck.CLEAN),
        (3, FilesystemCheck.UNCHECKED),
        (1, FilesystemCheck.UNCHECKED),
    ],
)
def test_chkdsk_exit_code_without_a_repair(status: int, found: FilesystemCheck) -> None:
    domain = WindowsAgent(lambda _: (status, "Windows has scanned the file system.\r\n\r\n", ""))
    result = FILESYSTEMS[FilesystemKind.NTFS].check(target(domain))
    assert (result.found, result.message) == (found, "Windows has scanned the file system.")


# --------------------------------------------------------------------------- whose a block is


def mbr(start: int, sectors: int, kind: int = 7) -> bytes:
    entry = bytes([0, 0, 0, 0, kind, 0, 0, 0]) + start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def test_windows_ntfs_owners_are_those_of_the_partition_behind_its_table(tmp_path: Path) -> None:
    inside = bytes(image(FilesystemKind.NTFS_3G))
    expected = whole(FilesystemKind.NTFS_3G)[1]
    path, first = tmp_path / "replica", 256
    head = mbr(first * 8, len(inside) // 512).ljust(first * BLOCK_BYTES, b"\0")
    path.write_bytes(head + inside + bytes(4 * BLOCK_BYTES))
    blocks = path.stat().st_size // BLOCK_BYTES
    owners = FILESYSTEMS[FilesystemKind.NTFS].owners(ReplicaView(LocalRunner(), str(path), blocks), range(blocks))
    assert owners[0].owner is BlockOwner.METADATA and owners[1].owner is BlockOwner.FREE
    assert owners[blocks - 1].detail == "in no partition"
    assert {block: owners[first + block] for block in expected} == dict(expected)


@pytest.mark.parametrize("sector", [b"", bytes(512), mbr(2048, 100, 0x83), mbr(2049, 100)])
def test_windows_partition_that_is_another_is_a_value_error(sector: bytes) -> None:
    with pytest.raises(ValueError):
        partition(sector)

"""The agent of a Windows in a guest, by scripted answers: no Windows was at hand.  Nothing here is a test."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from scripted_libvirt import bounded

from harness.filesystems.base import WorkloadTarget
from harness.model import CacheMode, Cell, FilesystemKind, UserFile
from harness.parse.guest_facts import NEEDED
from harness.remote.guest_agent import GuestAgent
from harness.remote.windows import POWERSHELL, WINDOWS, script_of

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


def cell(workload: str, kind: FilesystemKind = FilesystemKind.NTFS) -> Cell:
    file = UserFile("mine", "ab" * 32, "[job]\nrw=write\n") if workload in ("fio-job", "guest-script") else None
    return Cell(workload, filesystem=kind, cache=CacheMode.NONE, seed=3, user_file=file)

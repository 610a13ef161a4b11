"""Windows in a guest: programs are run by PowerShell, which comes with it; its scripts go through ``guest-exec``."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from harness.errors import CommandError, DeadlineError, InfrastructureError, LostGuestError, RefusedError
from harness.remote.guest_system import DiskQueue, Running
from harness.util.deadline import Deadline

POWERSHELL = r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe"
# CreateProcess takes 32,767 characters.
_MOST_CHARACTERS = 32_000
# Whatever a script throws is its message on standard error, and the status 1.  Progress would come there as XML.  The
# agent is a service: where there is no console, its encoding cannot be set.  Without an exit, PowerShell's status is 1
# also where the last command failed and was told to say nothing.
_FRAME = """$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'
try {{ [Console]::OutputEncoding = [Text.Encoding]::UTF8 }} catch {{ }}
$a = @({arguments})
try {{
{script}
}} catch {{ [Console]::Error.WriteLine($_.Exception.Message); exit 1 }}
exit 0
"""
# PowerShell ends a string in single quotes at the typographic ones too; each is written twice.
_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")
_DRIVE = re.compile(r"\\\\\.\\PHYSICALDRIVE([0-9]+)", re.IGNORECASE)
_LOCATE = 'Get-Disk | Where-Object { "$($_.SerialNumber)".Trim() -eq $a[0] } | ForEach-Object { $_.Number }'
# One that does not say it prints nothing.
_QUEUE = """
$disk = Get-PhysicalDisk | Where-Object { $_.DeviceId -eq $a[0] }
if ($disk) { ($disk | Get-StorageAdvancedProperty).IsDeviceCacheEnabled }
"""
_SYNC = "Get-Volume | Where-Object { $_.DriveType -eq 'Fixed' } | Write-VolumeCache -ErrorAction SilentlyContinue"
_BOOTED = "(Get-CimInstance Win32_OperatingSystem).LastBootUpTime.ToFileTimeUtc()"
_LOOK_SECONDS = 2.0
_LEFT = """
Get-Disk | Where-Object { "$($_.SerialNumber)" -like '*cell-*' } |
    ForEach-Object { "left on: the disk $($_.Number) of an earlier cell" }
"""


def powershell(script: str, *arguments: str) -> list[str]:
    """The argument vector of ``script``, which has ``arguments`` as ``$a``; it ends with status 1 where it throws."""
    quoted = ", ".join("'" + _QUOTES.sub(r"\g<0>\g<0>", one) + "'" for one in arguments)
    text = _FRAME.format(arguments=quoted, script=script.strip())
    encoded = base64.b64encode(text.encode("utf-16-le")).decode()
    argv = [
        POWERSHELL, "-NoLogo", "-NoProfile", "-NonInteractive", "-OutputFormat", "Text", "-ExecutionPolicy", "Bypass",
        "-EncodedCommand", encoded,
    ]  # fmt: skip
    if sum(len(word) + 3 for word in argv) > _MOST_CHARACTERS:
        raise InfrastructureError("a script for Windows is longer than a command line of it may be")
    return argv


def script_of(argv: Sequence[str]) -> str:
    """The script in an argument vector of :func:`powershell`, for a log or a test."""
    return base64.b64decode(argv[-1]).decode("utf-16-le")


def disk_number(disk: str) -> str:
    r"""The number that Windows' commands know the disk ``\\.\PHYSICALDRIVE3`` by; :class:`ValueError`."""
    if (found := _DRIVE.fullmatch(disk)) is None:
        raise ValueError(f"'{disk}' is no disk of Windows")
    return found[1]


class Windows:
    """Windows 8, Server 2012 or later, whose PowerShell has the commands for storage."""

    windows = True

    def command(self, argv: Sequence[str], timeout: float) -> Mapping[str, Any]:
        """As it is; nothing there ends it in time, so :meth:`end` does."""
        if not argv[0].lower().endswith(".exe"):
            raise RefusedError("the guest", f"it runs Windows, which has no program '{argv[0]}'")
        return {"path": argv[0], "arg": list(argv[1:])}

    def end(self, process: int) -> Sequence[str] | None:
        """taskkill(1), with all that the process started."""
        return [r"C:\Windows\System32\taskkill.exe", "/PID", str(process), "/T", "/F"]

    def status(self, answer: Mapping[str, Any]) -> int:
        """As Windows counts it; of a program that an exception ended it is that, ``0xC0000005`` say.

        The agent tells such a one as a signal, and maybe as a negative number, for it has 32 bits.
        """
        return int(answer["signal"] if "signal" in answer else answer["exitcode"]) % 2**32

    def locate(self, runner: Running, serial: str, modules: Sequence[str] = ()) -> str | None:
        """By its serial number, as the driver tells it."""
        numbers = runner.run(powershell(_LOCATE, serial)).stdout.split()
        return rf"\\.\PHYSICALDRIVE{numbers[0]}" if numbers else None

    def queue(self, runner: Running, disk: str) -> DiskQueue:
        """Whether Windows takes its write cache for switched on, in Linux' words."""
        said = runner.run(powershell(_QUEUE, disk_number(disk)), ok=()).stdout.strip().lower()
        return DiskQueue({"true": "write back", "false": "write through"}.get(said))

    def sync(self, runner: Running) -> None:
        """Write-VolumeCache of all fixed volumes; at most two minutes."""
        runner.run(powershell(_SYNC), timeout=120.0)

    def left_on(self, runner: Running, root: str = "") -> Sequence[str]:
        """A disk of an earlier cell; at most a minute."""
        printed = runner.run(powershell(_LEFT)).stdout.splitlines()
        return [line.strip().removeprefix("left on: ") for line in printed if line.startswith("left on: ")]


WINDOWS = Windows()


def reboot(runner: Running, seconds: float) -> None:
    """Boot Windows anew, and wait until its agent answers from another boot than before, for ``seconds`` at most.

    :class:`~harness.errors.DeadlineError` where it does not.
    """
    before = _booted(runner)
    deadline = Deadline.after(seconds, "another boot of Windows")
    # Its answer may not come any more.
    with suppress(LostGuestError):
        runner.run([r"C:\Windows\System32\shutdown.exe", "/r", "/f", "/t", "0"])
    while True:
        time.sleep(min(_LOOK_SECONDS, deadline.left()))
        # While it boots the first PowerShell may take longer than one answer may.
        with suppress(LostGuestError, CommandError, DeadlineError):
            if _booted(runner) not in ("", before):
                return


def _booted(runner: Running) -> str:
    return runner.run(powershell(_BOOTED)).stdout.strip()

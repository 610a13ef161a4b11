"""What workloads do in a guest that runs Windows: by PowerShell, which compiles a program, and by diskspd."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.errors import InfrastructureError, RefusedError
from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.model import Work
from harness.remote.windows import powershell
from harness.workloads.base import numbers
from harness.workloads.python_program import PROGRAMS

_STORM = """
Add-Type -TypeDefinition @'
{source}
'@
[Storm]::Run($a[0], [int]$a[1], [int]$a[2], [int]$a[3], [int]$a[4], [int]$a[5])
"""
# More than there is free, and half of the pagefile; what was paged is counted by Windows, at whatever file.
_PAGED = """
Add-Type -TypeDefinition @'
{source}
'@
$free = (Get-CimInstance Win32_OperatingSystem).FreePhysicalMemory / 1024
$file = (Get-CimInstance Win32_PageFileUsage).AllocatedBaseSize
$before = Get-CimInstance Win32_PerfRawData_PerfOS_Memory
[PageStorm]::Run([int]($free + $file / 2), [int]$a[0], [int]$a[1], [int]$a[2])
$after = Get-CimInstance Win32_PerfRawData_PerfOS_Memory
ConvertTo-Json -Compress @{{
    pages_swapped_out = $after.PagesOutputPersec - $before.PagesOutputPersec
    pages_swapped_in = $after.PagesInputPersec - $before.PagesInputPersec
}}
"""
_FIND = """
$found = Get-Command diskspd.exe -ErrorAction SilentlyContinue
if ($found) { $found.Source }
elseif (Test-Path C:\\diskspd\\diskspd.exe) { 'C:\\diskspd\\diskspd.exe' }
"""
_MAPPED_MIB, _THREADS, _WRITTEN_MIB = 8, 2, 24


def mapped_storm(target: WorkloadTarget, file: str, seconds: int, cut_every_ms: int, seed: int) -> str:
    """Dirty a mapped ``file`` and write it back, as ``mapstorm`` does; the JSON that it prints.

    Blocks for ``seconds`` and at most a minute and a half more; PowerShell compiles the program first.
    """
    script = _STORM.format(source=(PROGRAMS / "Storm.cs").read_text())
    numbers = (_MAPPED_MIB, _THREADS, seconds, cut_every_ms, seed or 1)
    argv = powershell(script, file, *map(str, numbers))
    return target.runner.run(argv, timeout=seconds + 2 * MARGIN_SECONDS).stdout


def paged_storm(target: WorkloadTarget, seconds: int, threads: int, seed: int) -> Work:
    """Dirty more memory than there is, and check each page that is met again.

    Blocks for ``seconds`` and at most six minutes more; PowerShell compiles the program first.
    """
    script = _PAGED.format(source=(PROGRAMS / "PageStorm.cs").read_text())
    argv = powershell(script, str(threads), str(seconds), str(seed or 1))
    done = target.runner.run(argv, timeout=seconds + 4 * MARGIN_SECONDS)
    try:
        storm, paged = (numbers(line) for line in done.stdout.splitlines() if line.strip())
    except ValueError as unreadable:
        raise InfrastructureError(f"the storm on {done.host} printed no result: {unreadable}") from unreadable
    facts = {**storm, **paged}
    return Work(facts.get("seconds", done.seconds), facts, int(facts.get("pages_wrong", 0)))


def require_diskspd(target: WorkloadTarget) -> str:
    """Where it has diskspd; :class:`~harness.errors.RefusedError` where it has none."""
    found = target.runner.run(powershell(_FIND)).stdout.strip()
    if not found:
        what = r"it has no diskspd.exe, neither in its search path nor in C:\diskspd, which this workload needs"
        raise RefusedError(target.runner.host, what)
    return found


def buffered(target: WorkloadTarget, file: str, seconds: int, seed: int) -> Work:
    """Random writes of 4 KiB through Windows' cache, each with other data, by diskspd; nothing is read back."""
    argv = [
        require_diskspd(target), f"-c{_WRITTEN_MIB}M", "-b4K", f"-d{seconds}", "-W0", "-r", "-w100", f"-t{_THREADS}",
        "-Zr", f"-z{seed or 4711}", "-Sb", "-Rxml", file,
    ]  # fmt: skip
    done = target.runner.run(argv, timeout=seconds + MARGIN_SECONDS)
    try:
        ios, written = diskspd_writes(done.stdout)
    except ValueError as unreadable:
        raise InfrastructureError(f"diskspd on {done.host} printed no result: {unreadable}") from unreadable
    notes = ("what diskspd wrote is not read back: it keeps no checksums",)
    return Work(done.seconds, {"buffered_write_ios": ios, "buffered_write_bytes": written}, 0, notes)


def diskspd_writes(xml: str) -> tuple[float, float]:
    """The writes and the bytes written, over all threads, in what ``-Rxml`` printed; :class:`ValueError`."""
    try:
        targets = ElementTree.fromstring(xml.strip().lstrip("\ufeff")).findall("./TimeSpan/Thread/Target")
        totals = [sum(float(one.findtext(name, "")) for one in targets) for name in ("WriteCount", "WriteBytes")]
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"it is not what -Rxml prints: {error}") from None
    if not targets:
        raise ValueError("it names no target")
    return totals[0], totals[1]

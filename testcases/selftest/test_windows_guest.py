"""Windows in a guest, by scripted answers of its agent: PowerShell, how the guest is made ready, its disk."""

from __future__ import annotations

import pytest
from scripted_libvirt import bounded
from windows_agent import DISK, WindowsAgent, agent_of, target

from harness.config.lab_spec import UserImageSpec
from harness.errors import CommandError, DeadlineError, InfrastructureError, RefusedError
from harness.guest import user_guest
from harness.guest.leftovers import leftovers
from harness.remote import guest_agent
from harness.remote.guest_agent import GuestAgent
from harness.remote.guest_system import DiskQueue
from harness.remote.windows import WINDOWS, disk_number, powershell, script_of

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

"""What the evidence has of a crash: the console, alarms, exposure and kernel errors of before it and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from crashing_stage import NODE, Crashing, staged
from fake_story import in_order

from harness.judgement.judge import judge
from harness.model import Crash, ReplicationProfile
from harness.workloads.base import CheckResult, Recovered

__all__ = ["staged"]

DIGEST = "drbd r0/0 drbd0: Digest integrity check FAILED: 64s +4096"


def before_the_crash(stage: Crashing, words: str) -> None:
    """The guest says ``words`` on nodea while it works."""

    def progress() -> None:
        stage.lab.a.console += words

    stage.lab.story.when["canary on /dev/vdb2"] = progress


def test_capture_console_before_the_crash_is_kept(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    before_the_crash(stage, "the guest's words before the crash\n")
    stage.play()
    said = stage.raw("guest-console.txt")
    assert in_order(said.splitlines(), "== the guest's console on nodea", "the guest's words before the crash",
                    "== the guest's console on nodeb", "guest said")  # fmt: skip
    assert "said before" not in said, "that is another cell's"
    assert said.count("the guest's words before the crash") == 1


@pytest.mark.parametrize("crash", Crash)
def test_workload_hears_the_console_until_the_crash_before_it_recovers(
    staged: Callable[..., Crashing], crash: Crash
) -> None:
    stage = staged(replace(NODE, crash=crash))
    stage.workload.recovers = Recovered(True, "", CheckResult(0, "clean"), 2, ("row 3 is wrong",), "all rows")
    found = stage.play()
    assert "guest said" in stage.workload.heard
    assert found.crash_recovery is not None
    assert (found.crash_recovery.findings, found.crash_recovery.looked_at) == (("row 3 is wrong",), "all rows")
    assert "2 time(s): row 3 is wrong" in judge(found).sentence


def test_capture_console_errors_before_the_crash_count(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    before_the_crash(stage, "EXT4-fs error (device vdb1): bad\n")
    found = stage.play()
    assert found.console_errors == ("EXT4-fs error (device vdb1): bad",)


def test_capture_console_of_the_failed_node_is_no_later_guests(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    before_the_crash(stage, "half a li")

    def booted() -> None:
        stage.lab.a.console += "\nwritten while it was down\n"

    stage.lab.story.when["revive nodea"] = booted
    stage.play()
    assert "written while it was down" not in stage.raw("guest-console.txt")


def test_crash_node_notes_injection_and_resync(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    resynced = "6,2,2000,-;drbd r0/0 drbd0: Began resync as SyncTarget (will sync 48 KB [12 bits set]).\n"
    stage.lab.story.when["rejoin nodea"] = lambda: setattr(stage.lab.a.log, "text", resynced)
    found = stage.play()
    assert found.fault_injected and found.crash_recovery and found.crash_recovery.resynced_kib == 48


def test_alarms_before_and_after_the_power_cut_count(
    staged: Callable[..., Crashing],
) -> None:
    stage = staged(replace(NODE, replication=ReplicationProfile(integrity="crc32c")))
    log = stage.lab.a.log
    log.says(f"4,1,1000000,-;{DIGEST}")

    def early() -> None:
        # Done to reach the preconditions: in the cell's log, and none of its alarms.
        del stage.lab.story.when["compare"]
        log.says(f"4,2,1100000,-;{DIGEST}")

    stage.lab.story.when["compare"] = early
    stage.lab.story.when["canary on /dev/vdb2"] = lambda: log.says(f"4,3,1200000,-;{DIGEST}")
    stage.lab.story.when["rejoin nodea"] = lambda: log.says(f"4,1,1000,-;{DIGEST}")
    found = stage.play()
    assert found.alarms is not None and len(found.alarms.failures) == 2, found.alarms
    assert stage.raw("kmsg-nodea-before-power-cut.txt").count(DIGEST) == 2


def test_exposure_power_cut_counts_only_before_it(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.story.when["rejoin nodea"] = lambda: setattr(stage.resource, "sent_kib", 40_000)
    assert stage.play().exposed_blocks == 100, "400 KiB of work"


def test_capture_kernel_errors_before_the_crash_count(staged: Callable[..., Crashing]) -> None:
    stage = staged()
    stage.lab.a.log.text = "4,1,1000,-;BUG: soft lockup - CPU#0\n"
    stage.lab.story.when["revive nodea"] = lambda: setattr(stage.lab.a.log, "text", "6,1,1000,-;booted\n")
    found = stage.play()
    assert "BUG: soft lockup" in stage.raw("kmsg-nodea-before-power-cut.txt")
    assert found.kernel_errors == ("nodea: BUG: soft lockup - CPU#0",)

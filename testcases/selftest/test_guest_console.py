"""The guest's serial console: which lines report an error, and how often."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.guest_console import error_lines

TROUBLE = [
    # What any kernel says.
    "BUG: unable to handle page fault for address: ffffc90000a3f000",
    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "Call Trace:",
    "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
    "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
    "WARNING: CPU: 0 PID: 812 at fs/ext4/inode.c:600 ext4_writepages+0x1f/0x2a0",
    "I/O error, dev vdb, sector 4096 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
    "Buffer I/O error on dev vdb, logical block 3, lost async page write",
    "EXT4-fs warning (device vdb): ext4_end_bio:342: I/O error 10 writing to inode 12 starting block 33280)",
    "EXT4-fs error (device vdb): ext4_lookup:1855: inode #2: comm ls: deleted inode referenced: 12",
    "INFO: task kworker/u4:1:45 blocked for more than 120 seconds.",
    "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [fio:812]",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 6 jiffies s: 113 root: 0x2/.",
    "fio invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
    "Out of memory: Killed process 901 (fio) total-vm:2913276kB, anon-rss:1913276kB",
    # What only a guest has that lives on the disk.
    "EXT4-fs (vdb): Remounting filesystem read-only",
    "JBD2: Detected IO errors while flushing file data on vdb-8",
    "JBD2: Error -5 detected when updating journal superblock for vdb-8.",
    "Aborting journal on device vdb-8.",
    "XFS (vdb): Metadata corruption detected at xfs_agf_read_verify+0xd2/0xf0 [xfs], xfs_agf block 0x1",
    "XFS (vdb): Corruption of in-memory data (0x8) detected at xfs_defer_finish_noroll+0x2f2 (fs/xfs/libxfs/x.c:573).",
    "BTRFS warning (device vdb): csum failed root 5 ino 257 off 0 csum 0x98f94189 expected csum 0x3b5185c4 mirror 1",
    "BTRFS error (device vdb): bad tree block start, mirror 1 want 30408704 have 0",
    "BTRFS: error (device vdb) in btrfs_commit_transaction:2466: errno=-5 IO failure",
    "critical medium error, dev vdb, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
    "critical space allocation error, dev vdb, sector 8 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2",
    "fio[812]: segfault at 7f3c00000008 ip 00007f3c12345678 sp 00007ffc0badf00d error 4 in libc.so.6[7f3c12300000]",
    "traps: fio[901] trap invalid opcode ip:55d0c0ffee00 sp:7ffc0badf00d error:0 in fio[55d0c0f00000+9e000]",
    "Future hung task reports are suppressed, see sysctl kernel.hung_task_warnings",
    "rcu: rcu_preempt kthread starved for 5250 jiffies! g1189 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=0",
    "Out of memory and no killable processes...",
    "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,task=fio,pid=901,uid=0",
    "Read-error on swap-device (253:16:4096)",
    "Write-error on swap-device (253:16:4096)",
    "get_swap_device: Bad swap file entry 3ffffffffffff",
    "_swap_info_get: Bad swap offset entry 0000a5a5",
    "Unable to handle kernel paging request at virtual address ffff000012345678",
]

HARMLESS = [
    "Linux version 6.12.117+deb13-amd64 (debian-kernel@lists.debian.org)",
    "Command line: console=ttyS0 loglevel=4 panic=-1 oops=panic hung_task_panic=1 softlockup_panic=1",
    "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2",
    "Spectre V1 : Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    "MDS: Vulnerable: Clear CPU buffers attempted, no microcode",
    "[Firmware Bug]: TSC doesn't count with P0 frequency!",
    "blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0",
    "EXT4-fs (vdb): mounted filesystem 5e0f r/w with ordered data mode. Quota mode: none.",
    "EXT4-fs (vdb): recovery complete",
    "XFS (vdb): Ending clean mount",
    "BTRFS info (device vdb): using crc32c (crc32c-x86_64) checksum algorithm",
    "Adding 524284k swap on /dev/vdb.  Priority:-2 extents:1 across:524284k",
    "rcu: Hierarchical RCU implementation, stall detection on",
    "random: crng init done",
    "guest login: ",
    "[  OK  ] Reached target multi-user.target - Multi-User System.",
]


@pytest.mark.parametrize("text", TROUBLE)
@pytest.mark.parametrize(
    "printed",
    [
        "{}",
        "[   12.345678] {}\r",
        "[   12.345678][  T815] {}",
        "\x1b[0;1;31m[12345.678901] {}\x1b[0m",
        "guest login: [   12.345678] {}",
        "\x1b]0;root@guest\x07# \r[   12.345678] {}",
    ],
)
def test_error_lines_error_in_any_console_form_found(text: str, printed: str) -> None:
    console = f"Welcome\r\n{printed.format(text)}\r\n[   13.000000] random: crng init done\r\n"
    assert error_lines(console) == (text,)


@pytest.mark.parametrize("text", HARMLESS)
@pytest.mark.parametrize("printed", ["{}", "[    0.000000] {}"])
def test_error_lines_ordinary_boot_messages_none(text: str, printed: str) -> None:
    assert error_lines(f"{printed.format(text)}\r\n") == ()


def test_error_lines_repeated_text_once_with_count() -> None:
    lost = "Buffer I/O error on dev vdb, logical block 3, lost async page write"
    console = "".join(f"[{second:5}.000000] {lost}\r\n" for second in range(4))
    console += "[    5.000000] Call Trace:\r\n[    6.000000] " + lost + "\r\n"
    assert error_lines(console) == (f"{lost} (5 times)", "Call Trace:")


def test_error_lines_other_sector_other_line() -> None:
    texts = [f"I/O error, dev vdb, sector {sector} op 0x1:(WRITE) flags 0x0" for sector in (8, 16)]
    assert error_lines("\n".join(f"[ 1.000000] {text}" for text in texts)) == tuple(texts)


def test_error_lines_two_messages_on_one_line_two() -> None:
    found = error_lines("[    1.000000] Call Trace:[    2.000000][    T1] Oops: 0002 [#1] PREEMPT SMP NOPTI\n")
    assert found == ("Call Trace:", "Oops: 0002 [#1] PREEMPT SMP NOPTI")


def test_error_lines_truncated_escape_sequence_hides_nothing() -> None:
    assert error_lines("\x1b]0;title\r\n[    1.000000] Call Trace:\r\n\x1b[") == ("Call Trace:",)


@given(st.text() | st.lists(st.sampled_from(["\x1b[", "\x1b]", "\x07", "Oops", "[ 1.000000] ", "\r\n"])).map("".join))
def test_error_lines_any_text_no_control_characters(console: str) -> None:
    for text in error_lines(console):
        assert text and text == text.strip() and not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", text)


@given(st.lists(st.tuples(st.floats(0, 99999), st.sampled_from(TROUBLE), st.booleans()), max_size=30))
def test_error_lines_mixed_messages_all_errors_counted(printed_lines: list[tuple[float, str, bool]]) -> None:
    console = "".join(
        f"[{seconds:12.6f}] {text}\r\n" + ("\x1b[1mguest login: \x1b[0m\r\n" if prompt else "")
        for seconds, text, prompt in printed_lines
    )
    counts: dict[str, int] = {}
    for _, text, _ in printed_lines:
        counts[text] = counts.get(text, 0) + 1
    assert error_lines(console) == tuple(f"{text} ({n} times)" if n > 1 else text for text, n in counts.items())

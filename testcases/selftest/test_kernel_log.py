"""The kernel log: lines, markers, online verify, digests, error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Extent, NodeVerify
from harness.parse.kernel_log import (
    KernelLine,
    bears_on_oracles,
    became_standalone,
    digest_failures,
    digest_mismatches,
    error_lines,
    is_digest_error,
    is_error,
    last_verify,
    missing,
    parse_dmesg,
    parse_kmsg,
    record_number,
    resync_kib,
    resyncs_kib,
    since,
    split_brain,
    verify_of,
)

RECORDINGS = Path(__file__).parent / "recordings"
DRBD_9 = RECORDINGS / "drbd-9.3.3-linux-6.12"
VERIFIES = sorted(RECORDINGS.glob("drbd-*/*-verify-*.txt"))


def lines(text: str) -> tuple[KernelLine, ...]:
    """Either format, as the file has it."""
    return parse_dmesg(text) if text.startswith("[") else parse_kmsg(text)


def logged(*texts: str) -> tuple[KernelLine, ...]:
    return tuple(KernelLine(number, float(number), text) for number, text in enumerate(texts, 100))


def verify(prefix: str, *, start: str, blocks: str) -> tuple[KernelLine, ...]:
    return logged(
        f"{prefix}{start}",
        f"{prefix}Out of sync: start=16, size=8 (sectors)",
        f"{prefix}Out of sync: start=800, size=24 (sectors)",
        f"{prefix}Online verify done (total 9 sec; paused 0 sec; 29120 K/sec)",
        f"{prefix}Online verify found {blocks} out of sync!",
    )


# --------------------------------------------------------------------------- lines


def test_parse_kmsg_leaves_out_dictionaries_and_torn_records() -> None:
    text = (
        "6,339,5140900,-;NET: Registered PF_INET protocol family\n"
        " SUBSYSTEM=net\n DEVICE=+net:lo\n"
        "4,340,5140901,c,caller=T12;block drbd0: Resync; done\n"
        "6,341,5140902,-;caf\\xc3\\xa9 back\\x5cslash\\x0asecond line\n"
        "6,342,51409"
    )
    assert parse_kmsg(text) == (
        KernelLine(339, 5.1409, "NET: Registered PF_INET protocol family"),
        KernelLine(340, 5.140901, "block drbd0: Resync; done"),
        KernelLine(341, 5.140902, "café back\\slash\nsecond line"),
    )


def test_record_number_of_a_record_is_its_own_and_of_others_none() -> None:
    assert record_number("6,339,5140900,-;NET: Registered PF_INET protocol family") == 339
    assert record_number(" SUBSYSTEM=net") is None
    assert record_number("6,342,51409") is None


def test_parse_dmesg_with_and_without_caller_reads_the_text() -> None:
    text = "[    0.000000] Linux version\n[  121.895426][  T815] drbd r0: x\n-- cut --\n[1234567.5] y\n"
    assert parse_dmesg(text) == (
        KernelLine(None, 0.0, "Linux version"),
        KernelLine(None, 121.895426, "drbd r0: x"),
        KernelLine(None, 1234567.5, "y"),
    )


@given(st.text())
def test_parse_kmsg_and_dmesg_of_any_text_raise_nothing(text: str) -> None:
    for line in (*parse_kmsg(text), *parse_dmesg(text)):
        assert isinstance(line.seconds, float)


PRINTABLE = st.text(st.characters(codec="utf-8", exclude_characters="\n\\"))


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**12), PRINTABLE)))
def test_parse_kmsg_round_trips(records: list[tuple[int, int, str]]) -> None:
    text = "".join(f"6,{seq},{usec},-;{logged}\n SUBSYSTEM=block\n" for seq, usec, logged in records)
    assert parse_kmsg(text) == tuple(KernelLine(seq, usec / 1e6, logged) for seq, usec, logged in records)


@given(st.binary())
def test_parse_kmsg_escapes_round_trip(raw: bytes) -> None:
    escaped = "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in raw)
    (line,) = parse_kmsg(f"6,1,1,-;{escaped}")
    assert line.text == raw.decode("utf-8", "replace")


def test_missing_counts_lost_records() -> None:
    kept = [KernelLine(number, 0, "") for number in (5, 6, 9, 10)]
    assert missing(kept) == 2
    assert missing([kept[0], kept[3]]) == 4 and missing(kept[1:3]) == 2
    assert missing(kept[:2]) == missing([]) == missing([KernelLine(None, 0, "")]) == 0


# --------------------------------------------------------------------------- markers


def test_since_equal_markers_follows_the_last() -> None:
    log = logged("MARK a", "old", "MARK a", "new", "MARK b", "after")
    assert [line.text for line in since(log, "MARK a")] == ["new", "MARK b", "after"]
    assert since(log, "after") == ()
    assert [line.text for line in since(log[:2], "MARK a")] == ["old"], "also behind the first line"
    assert [line.text for line in since(log[1:4], "MARK a")] == ["new"], "and behind the second"


def test_since_missing_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="marker"):
        since(logged("MARK a", "x", "MARK b"), "MARK x")
    with pytest.raises(ValueError, match=r"^the marker 'MARK x' is not in the 0 lines of the kernel log$"):
        since((), "MARK x")


# --------------------------------------------------------------------------- online verify


@pytest.mark.parametrize("prefix", ["block drbd0: ", "drbd r0/0 drbd0: ", "drbd r0/0 drbd0 nodeb: "])
@pytest.mark.parametrize("start", ["Starting Online Verify from sector 0", "Online Verify start sector: 0"])
@pytest.mark.parametrize("blocks", ["4 4k block", "4 4k blocks"])
def test_verify_of_every_dialect_is_read(prefix: str, start: str, blocks: str) -> None:
    found = verify_of(verify(prefix, start=start, blocks=blocks), "nodea", 0)
    assert found == NodeVerify("nodea", True, True, (Extent(16, 8), Extent(800, 24)), 4)


@pytest.mark.parametrize("path", VERIFIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_verify_of_each_recording_has_all_extents(path: Path) -> None:
    text = path.read_text()
    found = verify_of(lines(text), "node", 0)
    assert found.started and found.finished
    last = re.split("Starting Online Verify from|Online Verify start", text)[-1]
    assert len(found.extents) == last.count("Out of sync: start=")
    assert all(extent.size > 0 for extent in found.extents)
    count = re.findall(r"Online verify found (\d+) 4k block", last)
    assert found.found_blocks == (int(count[-1]) if count else None)


def test_last_verify_of_recorded_9_has_extents_and_count() -> None:
    source = last_verify(lines((DRBD_9 / "dmesg-verify-source.txt").read_text()), 0)
    assert source.extents[:2] == (Extent(0, 16), Extent(24, 56))
    assert (source.from_sector, source.found_blocks, source.skipped_blocks) == (0, 7920, 0)


def test_verify_of_two_is_the_last() -> None:
    first = verify("block drbd0: ", start="Starting Online Verify from sector 0", blocks="9 4k block")
    clean = logged(
        "block drbd0: Starting Online Verify from sector 0",
        "block drbd0: Online verify done (total 9 sec; paused 0 sec; 29120 K/sec)",
    )
    assert verify_of((*first, *clean), "a", 0) == NodeVerify("a", True, True, (), None)
    assert verify_of((*clean, *first), "a", 0).found_blocks == 9


@pytest.mark.parametrize("lost", [0, 3])
def test_verify_of_lost_start_or_end_does_not_borrow_it(lost: int) -> None:
    whole = verify("block drbd0: ", start="Starting Online Verify from sector 0", blocks="4 4k block")
    found = verify_of((*whole, *(line for number, line in enumerate(whole) if number != lost)), "a", 0)
    assert (found.started, found.finished) == (lost != 0, lost != 3)
    assert len(found.extents) == 2


def test_verify_of_which_only_the_end_is_left_does_not_borrow_the_start_before() -> None:
    whole = verify("block drbd0: ", start="Starting Online Verify from sector 0", blocks="4 4k block")
    found = verify_of((*whole, whole[3]), "a", 0)
    assert (found.started, found.finished, found.extents) == (False, True, ())


def test_verify_of_a_part_is_not_started() -> None:
    part = verify("block drbd0: ", start="Starting Online Verify from sector 4096", blocks="4 4k block")
    assert not verify_of(part, "a", 0).started
    assert last_verify(part, 0).from_sector == 4096


def test_verify_of_aborted_is_not_finished() -> None:
    log = logged(
        "drbd r0/0 drbd0 nodeb: Starting Online Verify from sector 0",
        "drbd r0/0 drbd0 nodeb: Online verify aborted (total 3 sec; paused 0 sec; 8 K/sec)",
    )
    assert not verify_of(log, "a", 0).finished
    assert not verify_of(log[:1], "a", 0).finished
    assert last_verify(log, 0).skipped_blocks == 0


def test_last_verify_of_coarse_bitmap_counts_4_kib_blocks() -> None:
    log = logged(
        "drbd r0/0 drbd0 nodeb: Starting Online Verify from sector 0",
        "drbd r0/0 drbd0 nodeb: Online verify done but 2 4k blocks skipped (total 232 sec; paused 0 sec; 45204 K/sec)",
        "drbd r0/0 drbd0 nodeb: Online verify found 3 64k blocks out of sync!",
    )
    found = last_verify(log, 0)
    assert (found.finished, found.skipped_blocks, found.found_blocks) == (True, 2, 48)


def test_verify_of_old_module_with_two_spaces_is_finished() -> None:
    log = logged("block drbd0: Online verify  done (total 1 sec; paused 0 sec; 8 K/sec)")
    assert verify_of(log, "a", 0).finished


def test_verify_of_other_devices_and_programs_is_left_out() -> None:
    log = verify("block drbd10: ", start="Starting Online Verify from sector 0", blocks="4 4k block")
    echo = verify("run: block drbd0: ", start="Starting Online Verify from sector 0", blocks="4 4k block")
    assert verify_of((*log, *echo), "a", 0) == NodeVerify("a", False, False, (), None)
    assert verify_of(log, "a", 10).found_blocks == 4


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**20))))
def test_verify_of_extents_round_trips(pairs: list[tuple[int, int]]) -> None:
    prefix = "drbd r0/0 drbd3 nodeb: "
    log = logged(
        f"{prefix}Starting Online Verify from sector 0",
        *(f"{prefix}Out of sync: start={start}, size={size} (sectors)" for start, size in pairs),
        f"{prefix}Online verify done (total 9 sec; paused 0 sec; 29120 K/sec)",
    )
    assert verify_of(log, "a", 3).extents == tuple(Extent(start, size) for start, size in pairs)


# --------------------------------------------------------------------------- resync, digests, split brain


def test_resync_kib_of_recordings_is_read() -> None:
    copied = lines((DRBD_9 / "repair-invalidate-remote-reset-bitmap-no.txt").read_text())
    empty = parse_dmesg((DRBD_9 / "repair-invalidate-remote.txt").read_text())
    assert resync_kib(copied) == 31680
    assert resync_kib((*copied, *empty)) == 0, "the last one counts"
    assert resync_kib(empty) == 0
    assert resync_kib(copied, 1) is None
    assert resync_kib(copied[:1]) is None
    assert resyncs_kib((*copied, *empty, *copied)) == (31680, 0, 31680)
    assert resyncs_kib(copied, 1) == resyncs_kib(copied[:1]) == ()


def test_digest_mismatches_and_failures_of_recordings_are_read() -> None:
    sender = lines((DRBD_9 / "dmesg-integrity-sender.txt").read_text())
    receiver = lines((DRBD_9 / "dmesg-integrity-receiver.txt").read_text())
    assert digest_mismatches(sender) == (Extent(67584, 128), Extent(1792, 128))
    assert digest_failures(receiver) == (Extent(67584, 128),)
    assert digest_failures(sender) == digest_mismatches(receiver) == ()


def test_split_brain_unresolved_is_one_and_resolved_is_none() -> None:
    assert split_brain(logged("block drbd0: Split-Brain detected but unresolved, dropping connection!"))
    assert not split_brain(logged("block drbd0: Split-Brain detected, 1 primaries, automatically solved."))
    assert split_brain(logged("drbd r0/0 drbd0 nodea: I shall become SyncTarget, but I am primary!"))
    assert bears_on_oracles("drbd r0/0 drbd0 nodea: I shall become SyncTarget, but I am primary!")


def test_became_standalone_in_recorded_9_without_split_brain_is_true() -> None:
    log = parse_dmesg((DRBD_9 / "dmesg-dual-primary-integrity.txt").read_text())
    assert not split_brain(log)
    assert [line.seconds for line in log if became_standalone(line.text)] == [251.458830]
    assert [line.seconds for line in log if is_digest_error(line.text)] == [250.581906, 250.597414, 250.608124]


@pytest.mark.parametrize(
    ("text", "change", "end"),
    [
        ("block drbd3: Digest mismatch, buffer modified by upper layers during write: 8s +4096", True, False),
        ("drbd r0/0 drbd0 nodeb: Digest integrity check FAILED: 8s +4096", True, False),
        ("run: block drbd3: Digest integrity check FAILED: 8s +4096", False, False),
        ("block drbd0: Split-Brain detected but unresolved, dropping connection!", False, True),
        ("drbd r0: conn( Disconnecting -> StandAlone ) ", False, True),
        ("drbd r0 nodeb: conn( Disconnecting -> StandAlone ) [disconnected]", False, True),
        ("block drbd0: peer( Secondary -> Unknown ) conn( Disconnecting -> StandAlone ) ", False, True),
        ("drbd r0: conn( StandAlone -> Unconnected ) ", False, False),
        ("drbd r0: conn( WFConnection -> Disconnecting ) ", False, False),
        ("run: drbd r0: conn( Disconnecting -> StandAlone ) ", False, False),
    ],
)
def test_is_digest_error_and_became_standalone_read_every_dialect(text: str, change: bool, end: bool) -> None:
    assert (is_digest_error(text), became_standalone(text)) == (change, end)


# --------------------------------------------------------------------------- error


@pytest.mark.parametrize(
    "text",
    [
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "kernel BUG at drivers/block/drbd/drbd_main.c:120!",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [drbd_w_r0:812]",
        "WARNING: CPU: 0 PID: 812 at block/blk-core.c:600 submit_bio_noacct+0x1f/0x2a0",
        "WARNING: block/blk-core.c:600 at submit_bio_noacct+0x1f/0x2a0, CPU#0: kworker/812",
        "WARNING: possible circular locking dependency detected",
        "INFO: task drbd_w_r0:812 blocked for more than 120 seconds.",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 6 jiffies s: 113 root: 0x2/.",
        "Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "Call Trace:",
        "general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]",
        "Kernel panic - not syncing: Fatal exception",
        "I/O error, dev vdb, sector 4096 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
        "Buffer I/O error on dev drbd0, logical block 3, lost async page write",
        "block drbd0: Local IO failed in drbd_request_endio. Detaching...",
        "block drbd0: ASSERTION s.conn < C_CONNECTED FAILED in drbd_disconnected",
        "drbd wc: ASSERTION FAILED: connection->current_epoch->list not empty",
        "drbd wc: BAD! BarrierAck #7 received, expected #6!",
        "drbd r0/0 drbd0: Remote failed to answer a P_BARRIER (sent at 4295029643 jif; now=4295050752 jif) within "
        "84436ms > ko-count (7) * timeout (60 * 0.1s)",
        "EXT4-fs error (device drbd0): ext4_lookup:1855: inode #2: comm ls: deleted inode referenced: 12",
        "Out of memory: Killed process 901 (qemu-system-x86) total-vm:2913276kB, anon-rss:1913276kB",
        "Memory cgroup out of memory: Killed process 901 (fio)",
        "fio invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
    ],
)
def test_error_lines_of_an_error_have_it_verbatim(text: str) -> None:
    assert error_lines(logged("block drbd0: fine", text)) == (text,)
    assert is_error(text)


@pytest.mark.parametrize(
    "text",
    [
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2",
        "WARNING: Unprivileged eBPF is enabled with eIBRS on",
        "Kernel command line: console=ttyS0 oops=panic debug ignore_loglevel",
        "ACPI BIOS Error (bug): Could not resolve symbol",
        "[Firmware Bug]: TSC doesn't count with P0 frequency!",
        "PM: DEBUG: hibernation",
        "x86/CPU: BUG_ON_DATA_CORRUPTION is set",
        "blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0",
        "Buffer I/O error on dev sr0, logical block 0, async page read",
        "Memory: 2953004K/3145208K available",
        "rcu: Hierarchical RCU implementation, stall detection on",
        "drbd: initialized. Version: 8.4.11 (api:1/proto:86-101)",
    ],
)
def test_error_lines_of_harmless_lines_are_none(text: str) -> None:
    assert error_lines(logged(text)) == ()
    assert not is_error(text)


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("drbd-*/*.txt")), ids=lambda path: path.name)
def test_error_lines_of_drbds_recordings_are_none(path: Path) -> None:
    assert error_lines(parse_dmesg(path.read_text())) == error_lines(parse_kmsg(path.read_text())) == ()

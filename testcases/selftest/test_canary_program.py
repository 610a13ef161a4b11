"""The canary: the program itself, stopped, killed and given bad input, its disk and its memory changed."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
from canary_process import FIRST, PATIENCE, PIECE, Bird, bird, perch, program
from canary_records import RUN

from harness.model import BLOCK_BYTES
from harness.parse.canary import WRITE_MODES, Ack, Done, Failed, MemoryMismatch, Slot, Tick

__all__ = ["bird", "perch", "program"]


def test_canary_stopped_nothing_lost(bird: Bird) -> None:
    bird.start()
    assert {one.message.write_mode for one in bird.messages() if isinstance(one.message, Ack)} <= set(WRITE_MODES)
    bird.wait(lambda _: bird.newest() > PIECE + 3)
    bird.end(signal.SIGTERM)
    messages = bird.wait(lambda messages: any(isinstance(message, Done) for message in messages))
    found = bird.judged()
    assert found.survived and found.total_lost == found.corrupt == found.memory_wrong == 0
    assert min(found.acknowledged.values()) > PIECE, "the rings went round"
    assert found.memory_checked > 256, "all of it was looked at once more at the end"
    assert any(isinstance(message, Tick) for message in messages) and found.longest_gap_seconds < PATIENCE
    deadline = time.monotonic() + 10
    while bird.pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not bird.pid_file.exists()
    everything = bird.disk.read_bytes()
    outside = everything[: FIRST * BLOCK_BYTES] + everything[(FIRST + 3 * PIECE) * BLOCK_BYTES :]
    assert set(outside) == {0xEE}, "nothing beside the region was written"


def test_canary_each_write_mode_counts_without_gap_at_bounded_rate(bird: Bird) -> None:
    bird.start()
    messages = bird.wait(lambda _: bird.newest() >= 10)
    for write_mode in WRITE_MODES:
        numbers = [
            message.number for message in messages if isinstance(message, Ack) and message.write_mode == write_mode
        ]
        times = [message.at_ms for message in messages if isinstance(message, Ack) and message.write_mode == write_mode]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(times) / (times[-1] - times[0]) * 1000 < 60 and times == sorted(times)


def test_canary_killed_acknowledged_records_present_missing_ones_found(bird: Bird) -> None:
    bird.start()
    bird.wait(lambda _: bird.newest() >= 8)
    # Not while it writes: the copy would have a record of which half is there, or already all that it ever wrote.
    with bird.stopped():
        before, known = bird.disk.read_bytes(), bird.newest()
    bird.wait(lambda _: bird.newest() >= known + 4)
    bird.end(signal.SIGKILL)
    found = bird.judged()
    assert not found.survived and found.total_lost == found.corrupt == 0
    assert min(found.acknowledged.values()) >= known + 4 >= 12
    # The disk of a while ago: what was acknowledged since is lost.
    bird.disk.write_bytes(before)
    found = bird.judged()
    assert found.total_lost > 0 and found.corrupt == 0
    # On a busy machine the rings may have gone round since.
    assert re.fullmatch(r"\w+ record \d+ was acknowledged; its slot (?:is empty|holds record \d+)", found.examples[0])


@pytest.mark.parametrize("offset", [24, 32, 40, 48, 2047, 4095])
def test_canary_check_flipped_bit_wrong(bird: Bird, offset: int) -> None:
    bird.start()
    bird.wait(lambda _: bird.newest() >= 3)
    bird.end(signal.SIGKILL)
    assert all(slot.state == "ok" for slot in bird.found())
    # The newest that was acknowledged: where the ring goes round next, a record may have been under way.
    newest = {write_mode: (number - 1) % PIECE for write_mode, number in bird.judged().acknowledged.items()}
    for write_mode in WRITE_MODES:
        bird.flip(write_mode, newest[write_mode], offset)
    assert [(slot.write_mode, slot.slot) for slot in bird.found() if slot.state == "wrong"] == [
        (write_mode, newest[write_mode]) for write_mode in WRITE_MODES
    ]
    assert bird.judged().corrupt == 3


def test_canary_check_misplaced_record_wrong_other_run_foreign(bird: Bird) -> None:
    bird.start()
    bird.wait(lambda _: bird.newest() >= 3)
    bird.end(signal.SIGKILL)
    data = bytearray(bird.disk.read_bytes())
    one, two = FIRST * BLOCK_BYTES, (FIRST + 1) * BLOCK_BYTES
    data[two : two + BLOCK_BYTES] = data[one : one + BLOCK_BYTES]
    bird.disk.write_bytes(data)
    slots = bird.found()
    # On a busy machine the ring may have gone round.
    number = slots[0].number
    assert number % PIECE == 1
    assert slots[:2] == (Slot("fsync", 0, "ok", number), Slot("fsync", 1, "wrong", number))
    assert {slot.state for slot in bird.found(RUN + 1)} == {"foreign"}
    assert len(bird.found(RUN + 1)) == len(slots)


def test_canary_memory_changed_reported(bird: Bird) -> None:
    bird.start()
    pid = int(bird.pid_file.read_text())
    magic = (0x6D654D79726E6143).to_bytes(8, "little") + RUN.to_bytes(8, "little")
    with contextlib.ExitStack() as stack:
        try:
            memory = stack.enter_context(Path(f"/proc/{pid}/mem").open("r+b", buffering=0))
        except PermissionError:
            pytest.skip("another process's memory may not be written here")
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(message, 16) for message in line.split()[0].split("-"))
            if " rw-p " not in line or end - begin < 2**20 or "[" in line:
                continue
            memory.seek(begin)
            held = memory.read(end - begin)
            places = [at for at in range(0, len(held), BLOCK_BYTES) if held[at : at + 16] == magic]
            for at in places[:200]:
                memory.seek(begin + at + 4095)
                memory.write(bytes([held[at + 4095] ^ 1]))
    bird.end(signal.SIGTERM)
    messages = bird.wait(lambda messages: any(isinstance(message, Done) for message in messages))
    (done,) = [message for message in messages if isinstance(message, Done)]
    forgotten = [message for message in messages if isinstance(message, MemoryMismatch)]
    assert done.wrong > 20 and len(forgotten) == 20, "all are counted and some are shown"
    assert bird.judged().memory_wrong == done.wrong


def test_canary_port_unread_records_go_on(bird: Bird) -> None:
    bird.port.unlink()
    os.mkfifo(bird.port)
    reader = os.open(bird.port, os.O_RDWR)
    try:
        # A pipe that is full from the beginning.
        os.set_blocking(reader, False)
        try:
            while True:
                os.write(reader, b"x" * 4096)
        except BlockingIOError:
            pass
        bird.start()
        deadline = time.monotonic() + PATIENCE
        while min((slot.number for slot in bird.found()), default=0) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        bird.end(signal.SIGKILL)
    finally:
        os.close(reader)


def test_canary_second_start_refused(bird: Bird) -> None:
    bird.start()
    before = bird.newest()
    done = bird.call("run", "--port", bird.port, "--pid-file", bird.pid_file)
    assert done.returncode == 1 and "there is a canary already" in done.stderr
    bird.wait(lambda _: bird.newest() > before + 2)


@pytest.mark.parametrize(
    ("what", "more", "status", "says"),
    [
        ("run", ("--port", "/nonexistent/port"), 1, "canary: open /nonexistent/port: No such file"),
        ("run", ("--port", "/dev/null", "--first-block", "100"), 1, "canary: .*disk has no block 159: it is too small"),
        ("check", ("--first-block", "100"), 1, "canary: read .*disk at block 100: it ends there"),
        ("run", (), 2, "^usage: canary"),
        ("run", ("--port", "/dev/null", "--mebibytes", "0"), 2, "^usage: canary"),
        ("check", ("--blocks", "2"), 2, "^usage: canary"),
        ("check", ("--run", "x"), 2, "^usage: canary"),
        ("check", ("--port", "/dev/null"), 2, "^usage: canary"),
        ("check", ("--loud",), 2, "^usage: canary"),
        ("sing", (), 2, "^usage: canary"),
    ],
)
def test_canary_bad_input_one_sentence(bird: Bird, what: str, more: tuple[str, ...], status: int, says: str) -> None:
    if what == "run" and status == 1:
        more = (*more, "--pid-file", str(bird.pid_file))
    done = bird.call(what, *more)
    assert done.returncode == status and re.search(says, done.stderr), done


def limited(pid: int, blocks: int) -> None:
    """Let nothing be written behind the first ``blocks`` of a file."""
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (blocks * BLOCK_BYTES, most))


def test_canary_region_not_clearable_error_at_start(bird: Bird) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited(os.getpid(), FIRST + 2 * PIECE)
    try:
        done = bird.call("run", "--port", bird.port, "--pid-file", bird.pid_file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.returncode == 1 and re.fullmatch(r"canary: clear .*disk: File too large\n", done.stderr), done


def test_canary_write_mode_fails_error_message_others_go_on(bird: Bird) -> None:
    bird.start()
    bird.wait(lambda _: bird.newest() >= 3)
    limited(int(bird.pid_file.read_text()), FIRST + 2 * PIECE)
    messages = bird.wait(lambda messages: any(isinstance(message, Failed) for message in messages))
    (failed,) = [message for message in messages if isinstance(message, Failed)]
    assert (failed.write_mode, failed.errno, failed.message) == ("direct", 27, "File too large")
    bird.wait(
        lambda messages: max(message.number for message in messages if isinstance(message, Ack)) > failed.number + 5
    )
    bird.end(signal.SIGTERM)
    bird.wait(lambda messages: any(isinstance(message, Done) for message in messages))
    found = bird.judged()
    assert (
        found.acknowledged["direct"]
        == failed.number - 1
        < min(found.acknowledged[write_mode] for write_mode in WRITE_MODES[:2])
    )
    assert found.total_lost == found.corrupt == 0
    assert found.examples == (f"direct record {failed.number} could not be written: File too large",)

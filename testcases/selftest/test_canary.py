"""The canary: what its lines and its records on the disk prove, the controller's side of it, and the program itself."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import recipe
from harness.config.lab_spec import GuestSpec
from harness.errors import CommandError, DeadlineError, InfrastructureError, LostGuestError
from harness.guest import canary as module
from harness.guest.canary import PORT, PROGRAM, CanaryWatch, Region
from harness.model import BLOCK_BYTES, Canary
from harness.parse.canary import (
    EXAMPLES,
    IN_FLIGHT,
    WRITE_MODES,
    Ack,
    Done,
    Failed,
    MemoryMismatch,
    Message,
    Received,
    Slot,
    Tick,
    longest_gap,
    parse_check,
    parse_line,
    received,
    report,
    sealed,
)
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.stream import LineStream

SPEC = GuestSpec()
RUN = 0x1234_5678_9ABC_DEF0
NUMBERS = st.integers(0, 2**64 - 1)
LINES = st.one_of(
    st.builds("ack {} {} {}".format, st.sampled_from(WRITE_MODES), NUMBERS, NUMBERS),
    st.builds("error {} {} {} Input/output error".format, st.sampled_from(WRITE_MODES), NUMBERS, st.integers(1, 133)),
    st.builds("tick {} {} {}".format, NUMBERS, NUMBERS, NUMBERS),
    st.builds("memory {} {} {} checksum-{}".format, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["ok", "wrong"])),
    st.builds("done {} {}".format, NUMBERS, NUMBERS),
)


# --------------------------------------------------------------------------- its lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ack fsync 381 12345", Ack("fsync", 381, 12345)),
        ("error direct 7 5 Input/output error", Failed("direct", 7, 5, "Input/output error")),
        ("tick 200 10 0", Tick(200, 10, 0)),
        ("memory 12 5 4 checksum-ok", MemoryMismatch(12, 5, 4, True)),
        ("memory 12 5 4 checksum-wrong", MemoryMismatch(12, 5, 4, False)),
        ("done 4096 1", Done(4096, 1)),
        ("ack msync 1 2", None),
        ("ack fsync one 2", None),
        ("ack fsync 1", None),
        ("memory 1 2 3 checksum", None),
        ("chirp", None),
    ],
)
def test_parse_line_whole_line_message_or_none(text: str, message: Message | None) -> None:
    assert parse_line(sealed(text, RUN), RUN) == message


@given(LINES, st.integers(0, 2**64 - 1).filter(lambda run: run != RUN))
def test_parse_line_other_run_none(text: str, other: int) -> None:
    assert parse_line(sealed(text, RUN), RUN) is not None
    assert parse_line(sealed(text, other), RUN) is None


@given(st.text(max_size=60))
def test_parse_line_other_text_none(text: str) -> None:
    assert parse_line(text, RUN) is None


@given(st.lists(LINES, min_size=1, max_size=8), st.data())
def test_parse_line_torn_lines_only_messages_that_were_sent(texts: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{sealed(text, RUN)}\n" for text in texts)
    begin = data.draw(st.integers(0, len(stream)))
    end = data.draw(st.integers(begin, len(stream)))
    torn = stream[:begin] + stream[end:]
    sent = {parse_line(sealed(text, RUN), RUN) for text in texts}
    assert {one.message for one in received(((0.0, line) for line in torn.split("\n")), RUN)} <= sent


def test_parse_line_lost_digit_none() -> None:
    line = sealed("ack fsync 3815 12345", RUN)
    assert parse_line(line, RUN) is not None
    assert parse_line(line.replace("3815", "35"), RUN) is None
    assert parse_line(line[:-1], RUN) is None and parse_line(line.rpartition(" ")[0], RUN) is None


def test_parse_check_output_slots() -> None:
    text = "fsync 0 ok 381\ndsync 7 wrong 12\ndirect 9 foreign\n"
    assert parse_check(text, 30) == (
        Slot("fsync", 0, "ok", 381), Slot("dsync", 7, "wrong", 12), Slot("direct", 9, "foreign"),
    )  # fmt: skip
    assert parse_check("", 30) == ()


@pytest.mark.parametrize(
    "line",
    ["fsync 0 ok", "fsync 0 fine 1", "msync 0 ok 1", "fsync 10 ok 11", "fsync -1 ok 1", "fsync 0 foreign 3", "x",
     "fsync a ok 1", "fsync 11 ok 12", "fsync 300 foreign", "fsync 1 wrong x"],
)  # fmt: skip
def test_parse_check_other_line_value_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"^(?:no slot of a canary's region|a canary's region of 3\d blocks has no)"):
        parse_check(f"fsync 1 ok 2\n{line}\n", 31 if "10" in line else 30)


# --------------------------------------------------------------------------- what was lost

SIZE = 8
BLOCKS = 3 * SIZE


def acks(write_mode: str, last: int) -> list[Received]:
    return [Received(number / 50, Ack(write_mode, number, number * 20)) for number in range(1, last + 1)]


def ring(write_mode: str, newest: int, size: int = SIZE) -> dict[int, Slot]:
    """The slots of a ring in which every record up to ``newest`` arrived."""
    return {(n - 1) % size: Slot(write_mode, (n - 1) % size, "ok", n) for n in range(1, newest + 1)}


def judged(slots: dict[int, Slot], messages: Sequence[Received]) -> Canary:
    return report(messages, slots.values(), BLOCKS)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=3, max_size=3), st.booleans())
def test_report_disk_holds_acknowledged_nothing_lost(ends: list[tuple[int, int]], stopped: bool) -> None:
    messages = [one for write_mode, (last, _) in zip(WRITE_MODES, ends, strict=True) for one in acks(write_mode, last)]
    # Records that were written and whose acknowledgement did not finish_in_guest are there beyond what was promised.
    slots = [
        slot
        for write_mode, (last, more) in zip(WRITE_MODES, ends, strict=True)
        for slot in ring(write_mode, last + more).values()
    ]
    messages += [Received(9.0, Done(5, 0))] * stopped
    found = report(messages, slots, BLOCKS)
    assert found.total_lost == found.corrupt == 0 and found.examples == ()
    assert found.survived is stopped
    for write_mode, (last, more) in zip(WRITE_MODES, ends, strict=True):
        assert last <= found.acknowledged[write_mode] <= last + more


@given(st.integers(1, 40), st.data())
def test_report_slots_with_older_records_each_one_lost(last: int, data: st.DataObject) -> None:
    slots = ring("dsync", last)
    gone = data.draw(st.sets(st.sampled_from(sorted(slots)), min_size=1))
    for place in gone:
        older = slots[place].number - SIZE
        if older > 0 and data.draw(st.booleans()):
            slots[place] = Slot("dsync", place, "ok", older)
        else:
            del slots[place]
    found = judged(slots, acks("dsync", last))
    assert found.lost == {"fsync": 0, "dsync": len(gone), "direct": 0} and found.corrupt == 0
    assert found.acknowledged == {"fsync": 0, "dsync": last, "direct": 0}
    assert len(found.examples) == min(EXAMPLES, len(gone))


def test_report_lost_record_example_names_what_is_there() -> None:
    slots = ring("fsync", 11)
    slots[(11 - 1) % SIZE] = Slot("fsync", 2, "ok", 3)
    del slots[(10 - 1) % SIZE]
    slots[(4 - 1) % SIZE] = Slot("fsync", 3, "ok", 12)
    found = report(acks("fsync", 11), slots.values(), BLOCKS)
    assert set(found.examples) == {
        "fsync record 11 was acknowledged; its slot holds record 3",
        "fsync record 10 was acknowledged; its slot is empty",
    }
    assert found.acknowledged["fsync"] == 11, "12 is there, so 11 was acknowledged; of 12 itself nobody knows"


def test_report_record_on_disk_earlier_ones_acknowledged() -> None:
    slots = ring("direct", 20)
    slots[(19 - 1) % SIZE] = Slot("direct", (19 - 1) % SIZE, "ok", 11)
    found = report(acks("direct", 15), slots.values(), BLOCKS)
    assert found.acknowledged["direct"] == 19 and found.lost["direct"] == 1
    assert found.examples == ("direct record 19 was acknowledged; its slot holds record 11",)
    assert report(acks("direct", 15), ring("direct", 18).values(), BLOCKS).total_lost == 0, "19 is promised nowhere"


@pytest.mark.parametrize("state", ["wrong", "foreign"])
def test_report_slot_in_flight_not_judged(state: str) -> None:
    for behind in range(1, IN_FLIGHT + 1):
        place = (20 + behind - 1) % SIZE
        slots = {**ring("fsync", 20), place: Slot("fsync", place, state, 20 + behind)}
        found = judged(slots, acks("fsync", 20))
        assert (found.total_lost, found.corrupt, found.examples) == (0, 0, ())
        # Also when the last acknowledgements did not finish_in_guest: the disk tells how far it had come.
        assert (late := judged(slots, acks("fsync", 17))).total_lost == late.corrupt == 0


@pytest.mark.parametrize("newest", range(17, 25))
def test_report_slot_beyond_what_was_in_flight_corrupt(newest: int) -> None:
    """Each write mode is at most three records behind what is known of it: the fourth slot is nobody's excuse."""
    for behind in range(1, SIZE):
        place = (newest + behind - 1) % SIZE
        slots = {**ring("fsync", newest), place: Slot("fsync", place, "wrong", newest + behind)}
        assert judged(slots, acks("fsync", newest)).corrupt == (behind > 3), behind


@pytest.mark.parametrize("place", range(SIZE))
def test_report_nothing_known_first_records_in_flight(place: int) -> None:
    found = judged({place: Slot("fsync", place, "wrong", place + 1)}, [])
    assert found.corrupt == (place >= 3)
    if found.corrupt:
        assert found.examples == (
            f"slot {place} of fsync was never acknowledged and holds a record with a wrong checksum",
        )


@pytest.mark.parametrize("place", range(SIZE))
@pytest.mark.parametrize("other", WRITE_MODES)
@pytest.mark.parametrize("write_mode", WRITE_MODES)
def test_report_failure_of_another_write_mode_excuses_nothing(write_mode: str, other: str, place: int) -> None:
    messages = [*acks(write_mode, 20), Received(8.0, Failed(other, 9, 5, "Input/output error"))]
    messages.append(Received(9.0, Done(9, 0)))
    slots = {**ring(write_mode, 20), place: Slot(write_mode, place, "wrong", 21)}
    excused = write_mode == other and place in (20 % SIZE, 21 % SIZE, 22 % SIZE)
    assert judged(slots, messages).corrupt == (not excused)


def test_report_of_lines_and_output_as_they_were_read() -> None:
    lines = [sealed(f"ack {mode} {number} {20 * number}", RUN) for mode in WRITE_MODES for number in range(1, 12)]
    lines += [sealed("error direct 12 5 Input/output error", RUN), sealed("done 9 0", RUN)]
    records = {(number - 1) % SIZE: number for number in range(1, 12)}
    text = "".join(f"{mode} {place} ok {number}\n" for mode in WRITE_MODES for place, number in records.items())
    assert "direct 4 ok 5\n" in text
    text = text.replace("fsync 2 ok 11\n", "fsync 2 wrong 11\n").replace("dsync 2 ok 11\n", "dsync 2 foreign\n")
    text = text.replace("direct 3 ok 4\n", "direct 3 wrong 12\n")
    found = report(received([(0.0, line) for line in lines], RUN), parse_check(text, BLOCKS), BLOCKS)
    assert found.acknowledged == dict.fromkeys(WRITE_MODES, 11)
    assert (found.corrupt, found.lost) == (1, {"fsync": 0, "dsync": 1, "direct": 0})
    assert found.survived and "direct record 12 could not be written: Input/output error" in found.examples


def test_report_empty_slot_in_flight_lost() -> None:
    slots = ring("fsync", 20)
    del slots[(21 - 1) % SIZE]
    assert judged(slots, acks("fsync", 20)).examples == ("fsync record 13 was acknowledged; its slot is empty",)


@pytest.mark.parametrize("newest", range(17, 25))
def test_report_wrong_checksum_not_in_flight_corrupt(newest: int) -> None:
    place = (newest - 1) % SIZE
    slots = {**ring("fsync", newest), place: Slot("fsync", place, "wrong", newest)}
    found = judged(slots, acks("fsync", newest))
    assert (found.corrupt, found.total_lost) == (1, 0)
    assert found.examples == (f"fsync record {newest} was acknowledged; the record in its slot has a wrong checksum",)


def test_report_stopped_in_order_nothing_in_flight() -> None:
    place = (21 - 1) % SIZE
    slots = {**ring("fsync", 20), place: Slot("fsync", place, "wrong", 21)}
    done = [Received(9.0, Done(9, 0))]
    assert judged(slots, acks("fsync", 20)).corrupt == 0
    assert judged(slots, [*acks("fsync", 20), *done]).corrupt == 1
    failed = [Received(8.0, Failed("fsync", 21, 5, "Input/output error"))]
    found = judged(slots, [*acks("fsync", 20), *failed, *done])
    assert found.corrupt == 0, "a write that failed leaves what it likes"
    assert found.examples == ("fsync record 21 could not be written: Input/output error",)


def test_report_foreign_slot_lost() -> None:
    slots = {**ring("fsync", 3), 0: Slot("fsync", 0, "foreign"), 7: Slot("fsync", 7, "foreign")}
    found = judged(slots, acks("fsync", 3))
    assert (found.lost["fsync"], found.corrupt) == (1, 0)
    assert found.examples == (
        "fsync record 1 was acknowledged; its slot holds something else",
        "slot 7 of fsync was never acknowledged and holds something else",
    )


def test_report_wrong_checksum_never_acknowledged_corrupt() -> None:
    slots = {**ring("fsync", 2), 7: Slot("fsync", 7, "wrong", 8)}
    found = judged(slots, acks("fsync", 2))
    assert found.corrupt == 1 and "slot 7 of fsync was never acknowledged" in found.examples[0]


def test_report_no_messages_nothing_acknowledged() -> None:
    assert report([], [], BLOCKS) == Canary(
        dict.fromkeys(WRITE_MODES, 0), dict.fromkeys(WRITE_MODES, 0), survived=False
    )
    assert report([], [], BLOCKS, survived=True).survived


def test_report_lines_of_both_nodes_counted_once() -> None:
    messages = [*acks("fsync", 9), *acks("dsync", 9)]
    messages += [Received(1.0, MemoryMismatch(3, 2, 1, True)), Received(1.0, Tick(180, 70, 1))]
    messages += [Received(2.0, Failed("direct", 1, 5, "Input/output error"))]
    slots = [*ring("fsync", 8).values(), *ring("dsync", 9).values()]
    shuffled = [*messages, *messages[5:]]
    random.Random(4711).shuffle(shuffled)
    assert report(shuffled, slots, BLOCKS) == report(messages, slots, BLOCKS)


def test_report_memory_mismatches_larger_count_of_both() -> None:
    ticks = [Received(1.0, Tick(200, 100, 0)), Received(2.0, Tick(400, 200, 1))]
    assert report(ticks, [], BLOCKS).memory_checked == 200 and report(ticks, [], BLOCKS).memory_wrong == 1
    done = [*ticks, Received(3.0, Done(4500, 3))]
    assert (found := report(done, [], BLOCKS)).memory_checked == 4500 and found.memory_wrong == 3
    lines = [Received(1.0, MemoryMismatch(index, 9, 8, index > 0)) for index in range(3)]
    found = report([*ticks, *lines], [], BLOCKS)
    assert found.memory_wrong == 3, "the tick that would have counted them did not come"
    assert found.examples[0] == (
        "record 0 in memory was of generation 9; what is there says 8, its checksum is wrong"
    )  # fmt: skip
    assert found.examples[1].endswith("its checksum is right")


def test_report_examples_bounded_and_of_every_kind() -> None:
    messages = [
        *acks("fsync", 30),
        *acks("dsync", 30),
        *(Received(1.0, MemoryMismatch(i, 9, 8, True)) for i in range(20)),
    ]
    messages += [Received(1.0, Failed("direct", 1, 5, "Input/output error"))]
    wrong = [Slot("dsync", place, "wrong", 1) for place in range(SIZE)]
    examples = report(messages, wrong, BLOCKS).examples
    assert len(examples) == EXAMPLES
    for kind in ("its slot is empty", "wrong checksum", "in memory", "could not be written"):
        assert any(kind in one for one in examples), kind


# --------------------------------------------------------------------------- how long nothing was done


def messages_at(
    times: Sequence[tuple[int, float]], message: Callable[[int], Message] = lambda ms: Tick(ms, 0, 0)
) -> list[Received]:
    return [Received(at, message(ms)) for ms, at in times]


STEPS = st.lists(st.integers(1, 3000), min_size=1, max_size=30)


def clock(steps: list[int]) -> list[int]:
    return [sum(steps[: number + 1]) for number in range(len(steps))]


@given(STEPS, st.floats(0, 10**6))
def test_longest_gap_constant_delay_guest_clock_gap(steps: list[int], late: float) -> None:
    times = clock(steps)
    gap = longest_gap(messages_at([(ms, ms / 1000 + late) for ms in times]))
    assert gap == pytest.approx(max(steps[1:], default=0) / 1000, abs=1e-6)


@given(STEPS, st.integers(1, 29), st.floats(0.001, 100))
def test_longest_gap_paused_guest_counts_in_full(steps: list[int], where: int, pause: float) -> None:
    times = clock(steps)
    if where >= len(times):
        return
    gap = longest_gap(messages_at([(ms, ms / 1000 + (pause if i >= where else 0)) for i, ms in enumerate(times)]))
    assert gap >= pause + steps[where] / 1000 - 1e-6
    assert gap <= pause + max(steps[1:]) / 1000 + 1e-6


@given(st.lists(st.tuples(st.integers(1, 3000), st.floats(0, 50)), min_size=2, max_size=30))
def test_longest_gap_delayed_line_not_counted(lines: list[tuple[int, float]]) -> None:
    times = clock([step for step, _ in lines])
    # Lines come in order, so a late one holds up those behind it; the last one is in time.
    at, heard_at = 0.0, []
    for ms, (_, late) in zip(times[:-1], lines, strict=False):
        at = max(at, ms / 1000 + late)
        heard_at.append((ms, at))
    in_time = [(ms, min(at, times[-1] / 1000)) for ms, at in heard_at] + [(times[-1], times[-1] / 1000)]
    assert longest_gap(messages_at(in_time)) == pytest.approx(max(step for step, _ in lines[1:]) / 1000, abs=1e-6)


def ack(ms: int, write_mode: str = "fsync") -> Message:
    return Ack(write_mode, ms, ms)


def test_longest_gap_stalled_disk_counts_despite_ticks() -> None:
    ticks = messages_at([(ms, ms / 1000) for ms in range(0, 10_001, 200)])
    work = messages_at([(ms, ms / 1000) for ms in [*range(0, 4000, 20), *range(7000, 10_000, 20)]], ack)
    assert longest_gap(ticks) == pytest.approx(0.2)
    assert longest_gap([*ticks, *work]) == pytest.approx(7.0 - 3.98)


def test_longest_gap_endless_stall_until_last_tick() -> None:
    ticks = messages_at([(ms, ms / 1000) for ms in range(0, 10_001, 200)])
    work = messages_at([(ms, ms / 1000) for ms in range(0, 4000, 20)], ack)
    assert longest_gap([*ticks, *work]) == pytest.approx(10.0 - 3.98)
    failed = [Received(4.0, Failed(write_mode, 200, 5, "Input/output error")) for write_mode in WRITE_MODES]
    assert longest_gap([*ticks, *work, *failed]) == pytest.approx(0.2), "they are at their end, not in a gap"
    assert longest_gap([*ticks, *work, *failed[:2]]) == pytest.approx(10.0 - 3.98), "one of them hangs"


def test_longest_gap_of_single_signs_is_never_negative() -> None:
    tick, work = Received(1.0, Tick(1000, 0, 0)), Received(2.0, ack(2000))
    assert longest_gap([tick, work]) == 0.0, "work that went on after the last tick is no stall"
    assert longest_gap([work, Received(5.0, Tick(5000, 0, 0))]) == pytest.approx(3.0)


def test_longest_gap_repeated_line_ignored() -> None:
    messages = messages_at([(ms, ms / 1000) for ms in range(0, 2000, 200)])
    again = [Received(one.at + 60, one.message) for one in messages]
    assert longest_gap([*messages, *again]) == longest_gap([*again, *messages]) == longest_gap(messages)
    assert longest_gap([]) == longest_gap(messages[:1]) == 0.0


# --------------------------------------------------------------------------- the controller's side


class NodeRunner(ScriptedRunner):
    """A node whose streams are fed by the test."""

    def __init__(self, host: str) -> None:
        super().__init__(lambda _: (0, "", ""), host)
        self.streams: list[LineStream] = []

    def stream(self, argv: Sequence[str], name: str) -> LineStream:
        self.ran.append(tuple(argv))
        self.streams.append(LineStream(f"{name} on {self.host}"))
        return self.streams[-1]


@dataclass
class FakeNode:
    name: str
    runner: NodeRunner

    def says(self, *texts: str, run: int = RUN) -> None:
        for text in texts:
            self.runner.streams[-1].append(sealed(text, run))


@pytest.fixture
def nodes() -> list[FakeNode]:
    return [FakeNode(name, NodeRunner(name)) for name in ("nodea", "nodeb")]


@pytest.fixture
def watch(nodes: list[FakeNode]) -> CanaryWatch:
    return CanaryWatch(nodes, Region(1000, BLOCKS), RUN, SPEC)


class GuestRunner(ScriptedRunner):
    """A guest with the port; its canary speaks through ``node`` when it starts and when it is stopped."""

    def __init__(self, node: FakeNode, check: str = "") -> None:
        super().__init__(self._do, "guest")
        self.node = node
        self.check = check
        self.port = "/dev/vport1p2\n"
        self.running = True
        self.silent = False

    def _do(self, argv: tuple[str, ...]) -> Answer:
        if argv[:2] == (PROGRAM, "check"):
            return 0, self.check, ""
        if argv[:2] == (PROGRAM, "run") and not self.silent:
            self.node.says("ack fsync 1 10", "ack dsync 1 11", "ack direct 1 12")
        if argv[0] == "sh" and argv[-1] == PORT:
            return 0, self.port, ""
        if argv[0] == "sh" and argv[-1] == SPEC.canary_pid_file:
            if not self.running:
                return 2, "", f"cat: {SPEC.canary_pid_file}: No such file or directory\nsh: 1: kill: Illegal number: \n"
            if not self.silent:
                self.node.says("tick 400 20 0", "done 4116 0")
        return 0, "", ""


def test_region_at_end_last_blocks_of_device() -> None:
    assert Region.at_end(10_000, 1536) == Region(10_000 - 1536, 1536)
    assert Region.at_end(100, 30) == Region(70, 30)
    with pytest.raises(InfrastructureError, match="a device of 30 blocks has no room for a canary's 30"):
        Region.at_end(30, 30)


def test_canary_watch_start_follows_both_nodes_first(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    for node in nodes:
        assert node.runner.ran[0] == ("truncate", "-s", "0", SPEC.canary_log)
        (followed,) = [argv for argv in node.runner.ran if SPEC.canary_log in argv and argv[0] == "sh"]
        assert "exec tail -n +1 -F" in followed[2]
    (started,) = [argv for argv in guest.ran if argv[:2] == (PROGRAM, "run")]
    options = dict(zip(started[2::2], started[3::2], strict=True))
    assert options == {
        "--device": "/dev/vdb", "--first-block": "1000", "--blocks": str(BLOCKS), "--port": "/dev/vport1p2",
        "--run": str(RUN), "--mebibytes": "16", "--pid-file": SPEC.canary_pid_file,
    }  # fmt: skip


def test_canary_watch_start_no_port_infrastructure_error(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    guest.port = "\n"
    with pytest.raises(InfrastructureError, match=f"no virtio port with the name {PORT}"):
        watch.start(guest, "/dev/vdb")
    assert not any(argv[0] == PROGRAM for argv in guest.ran)


def test_canary_watch_start_no_message_deadline_error(
    watch: CanaryWatch, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_MESSAGE_SECONDS", 0.05)
    guest = GuestRunner(nodes[0])
    guest.silent = True
    watch.follow(nodes[0])
    nodes[0].says("ack fsync 1 10", run=RUN + 1)
    with pytest.raises(DeadlineError, match="the first acknowledgement of the canary"):
        watch.start(guest, "/dev/vdb")


def test_canary_watch_report_combines_both_nodes_and_disk(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0], "fsync 0 ok 1\nfsync 1 ok 2\ndsync 0 ok 1\n")
    watch.start(guest, "/dev/vdb")
    guest.node = nodes[1]
    nodes[1].says("ack fsync 2 30", "ack dsync 2 31", run=RUN)
    watch.stop(guest)
    found = watch.report(guest, "/dev/vdc")
    assert found.acknowledged == {"fsync": 2, "dsync": 2, "direct": 1}
    assert found.lost == {"fsync": 0, "dsync": 1, "direct": 1}
    assert (found.survived, found.memory_checked) == (True, 4116)
    checked = (PROGRAM, "check", "--device", "/dev/vdc", "--first-block", "1000", "--blocks", str(BLOCKS),
               "--run", str(RUN))  # fmt: skip
    assert guest.ran[-1] == checked
    lines = watch.transcript().splitlines()
    assert lines[0] == sealed("ack fsync 1 10", RUN) and lines[-1] == sealed("done 4116 0", RUN) and len(lines) == 7


def test_canary_watch_node_lost_and_back_lines_kept(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0], "fsync 0 ok 1\n")
    watch.start(guest, "/dev/vdb")
    nodes[0].says("ack fsync 2 30")
    nodes[0].runner.streams[0].append(sealed("ack fsync 3 50", RUN)[:-3])
    nodes[0].runner.streams[0].end("the node died")
    watch.follow(nodes[0])
    assert [argv[0] for argv in nodes[0].runner.ran].count("truncate") == 1
    nodes[0].says("ack fsync 1 10")
    found = watch.report(guest, "/dev/vdb")
    assert found.acknowledged["fsync"] == 2 and found.lost["fsync"] == 1 and not found.survived
    assert watch.report(guest, "/dev/vdb", survived=True).survived


def test_canary_watch_report_uses_arrival_times(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    time.sleep(0.5)
    # A guest that was paused: its clock stood still.
    nodes[0].says("ack fsync 2 30", "tick 40 1 0")
    guest.silent = True
    deadline = time.monotonic() + 10
    while len(watch._followed[0].arrivals) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 0.4 < watch.report(guest, "/dev/vdb").longest_gap_seconds < 10


def test_canary_watch_stop_dead_canary_lost_guest(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    guest.running = False
    with pytest.raises(LostGuestError, match="the canary in guest is not running any more"):
        watch.stop(guest)


def test_canary_watch_stop_no_last_message_deadline_error(
    watch: CanaryWatch, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    guest.silent = True
    with pytest.raises(DeadlineError, match="the canary's last message"):
        watch.stop(guest)


def test_canary_watch_report_unreadable_region_infrastructure_error(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    with pytest.raises(InfrastructureError, match="what the canary found on the disk is unreadable"):
        watch.report(GuestRunner(nodes[0], "fsync 99 ok 1\n"), "/dev/vdb")
    broken = ScriptedRunner(lambda _: (1, "", "canary: read /dev/vdb at block 7: Input/output error\n"))
    with pytest.raises(CommandError, match="at block 7"):
        watch.report(broken, "/dev/vdb")


def test_canary_watch_close_ends_followers_dead_node_ignored(
    watch: CanaryWatch, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.follow(nodes[0])
    watch.follow(nodes[1])
    tail_file = nodes[0].runner.ran[-1][-1]
    monkeypatch.setattr(nodes[1].runner, "_answer", lambda _: 1 / 0)
    monkeypatch.setattr(
        nodes[1].runner, "run", lambda *_, **__: (_ for _ in ()).throw(InfrastructureError("nodeb is gone"))
    )
    watch.close()
    assert nodes[0].runner.ran[-1][:2] == ("sh", "-c") and nodes[0].runner.ran[-1][-1] == tail_file
    assert "kill" in nodes[0].runner.ran[-1][2]


def shell(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = ["sh", "-c", script, "sh", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_find_port_script_several_ports_named_one(tmp_path: Path) -> None:
    for port, name in (("vport1p1", "org.qemu.guest_agent.0"), ("vport1p2", PORT), ("vport1p3", f"{PORT}0")):
        (tmp_path / port).mkdir()
        (tmp_path / port / "name").write_text(f"{name}\n")
    (tmp_path / "vport1p0").mkdir()
    script = module._FIND_PORT.replace("/sys/class/virtio-ports", str(tmp_path))
    assert (found := shell(script, PORT)).stdout == "/dev/vport1p2\n" and found.returncode == 0
    assert (found := shell(script, "another")).stdout == "" and found.returncode == 0
    assert shell(script.replace(str(tmp_path), str(tmp_path / "none")), PORT).returncode == 0


def test_follow_script_growing_file_from_start_until_left(tmp_path: Path) -> None:
    acks_file, pid_file = tmp_path / "acks", tmp_path / "pid"
    argv = ["sh", "-c", module._FOLLOW, "sh", str(acks_file), str(pid_file)]
    acks_file.write_text("one\n")
    got: list[str] = []
    came = threading.Event()

    def read(stream: Iterator[str]) -> None:
        for line in stream:
            got.append(line)
            came.set()

    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        reader = threading.Thread(target=read, args=(tail.stdout,), daemon=True)
        reader.start()
        assert came.wait(10)
        with acks_file.open("a") as file:
            file.write("two\n")
        deadline = time.monotonic() + 10
        while len(got) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert shell(module._UNFOLLOW, pid_file).returncode == 0
        assert tail.wait(10) != 0
        reader.join(10)
    assert got == ["one\n", "two\n"] and not pid_file.exists()


# --------------------------------------------------------------------------- the program itself

FIRST, PIECE = 5, 20
PATIENCE = 120.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    lockable, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() and 0 <= lockable < 8 * 2**20:
        pytest.skip("too little memory may be locked here")
    folder = tmp_path_factory.mktemp("program")
    source = recipe.recipes_directory() / "src" / "canary.c"
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(folder / "canary"), str(source)]
    subprocess.run(argv, check=True, timeout=120)
    return folder / "canary"


def has_o_direct(folder: Path) -> bool:
    """Whether a file in ``folder`` can be read around the page cache."""
    if not os.access(folder, os.W_OK):
        return False
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def perch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for disks and ports, in memory where that can be: what a real disk is doing must not matter."""
    candidates = [Path("/dev/shm"), tmp_path_factory.mktemp("perch")]
    usable = [folder for folder in candidates if has_o_direct(folder)]
    if not usable:
        pytest.skip("no folder here has O_DIRECT")
    with tempfile.TemporaryDirectory(dir=usable[0], prefix="drbd-harness-canary-") as folder:
        yield Path(folder)


class Bird:
    """A canary on a file, with a file for its port."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.disk, self.port, self.pid_file = folder / "disk", folder / "port", folder / "pid"
        # Not zero: the region has to be cleared, and only the region.
        self.disk.write_bytes(b"\xee" * (FIRST + 3 * PIECE + 7) * BLOCK_BYTES)
        self.port.touch()

    def call(
        self, what: str, *more: object, run: int = RUN, blocks: int = 3 * PIECE
    ) -> subprocess.CompletedProcess[str]:
        argv = [self.program, what, "--device", self.disk, "--first-block", FIRST, "--blocks", blocks, "--run", run]
        # Its output is read to its end: a canary that kept the pipe open would hang here.
        return subprocess.run(
            [*map(str, argv), *map(str, more)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            # A write behind a limit of its size is to be an error and not its end: Python ignores that signal too.
            restore_signals=False,
        )

    def start(self) -> None:
        done = self.call("run", "--port", self.port, "--pid-file", self.pid_file, "--mebibytes", 1)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def messages(self) -> tuple[Received, ...]:
        return received(((0.0, line) for line in self.port.read_text().split("\n")), RUN)

    def wait(self, enough: Callable[[list[Message]], bool]) -> list[Message]:
        deadline = time.monotonic() + PATIENCE
        while not enough(messages := [one.message for one in self.messages()]):
            assert time.monotonic() < deadline, messages[-5:]
            time.sleep(0.05)
        return messages

    def newest(self) -> int:
        """The record that every write_mode has reached."""
        reached = dict.fromkeys(WRITE_MODES, 0)
        for one in self.messages():
            if isinstance(one.message, Ack):
                reached[one.message.write_mode] = max(reached[one.message.write_mode], one.message.number)
        return min(reached.values())

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """While this lasts it does nothing, and no write of it is under way: a thread stops behind its system call."""
        pid = int(self.pid_file.read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + PATIENCE
            tasks = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
            while {task.read_text().rpartition(")")[2].split()[0] for task in tasks} != {"T"}:
                assert time.monotonic() < deadline, "a stopped canary goes on"
                time.sleep(0.01)
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def end(self, how: signal.Signals) -> None:
        """Send ``how``; after a kill it is really gone, so that what is on the disk stays as it is."""
        pid = int(self.pid_file.read_text())
        process = os.pidfd_open(pid)
        try:
            os.kill(pid, how)
            if how is signal.SIGKILL:
                gone, _, _ = select.select([process], [], [], PATIENCE)
                assert gone, "a killed canary goes on"
        finally:
            os.close(process)

    def found(self, run: int = RUN) -> tuple[Slot, ...]:
        done = self.call("check", run=run)
        assert done.returncode == 0, done.stderr
        return parse_check(done.stdout, 3 * PIECE)

    def judged(self) -> Canary:
        return report(self.messages(), self.found(), 3 * PIECE)

    def flip(self, write_mode: str, slot: int, offset: int) -> None:
        with self.disk.open("r+b") as file:
            at = (FIRST + WRITE_MODES.index(write_mode) * PIECE + slot) * BLOCK_BYTES + offset
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x80]))


@pytest.fixture
def bird(program: Path, perch: Path) -> Iterator[Bird]:
    bird = Bird(program, Path(tempfile.mkdtemp(dir=perch)))
    yield bird
    if bird.pid_file.exists() and bird.pid_file.read_text().strip():
        pid = int(bird.pid_file.read_text())
        # Only what is really this test's, and still there.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/exe").readlink() == bird.program:
                os.kill(pid, signal.SIGKILL)


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

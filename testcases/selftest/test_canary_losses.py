"""The canary: what the records on the disk prove to be lost or corrupt."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from canary_records import BLOCKS, RUN, SIZE, acks, ring
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Canary
from harness.parse.canary import (
    EXAMPLES,
    IN_FLIGHT,
    WRITE_MODES,
    Done,
    Failed,
    MemoryMismatch,
    Received,
    Slot,
    Tick,
    parse_check,
    received,
    report,
    sealed,
)


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

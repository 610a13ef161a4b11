"""A kernel log with thousands of lines a second: bounded, counted, and never without what an oracle reads."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import HELD, evidence
from test_node import Runner

from harness.judgement.judge import judge
from harness.lab.node import KernelLog
from harness.model import VerdictKind
from harness.parse import log_flood
from harness.parse.kernel_log import LEFT_OUT, bears_on_oracles, last_verify, left_out, missing, parse_kmsg
from harness.parse.log_flood import KEPT_OF_A_KIND, LogSift, kind_of, some_of_each_kind
from harness.remote.stream import LineStream

FLOOD = "drbd r0/0 drbd0 nodeb: ASSERTION atomic_read(&device->local_cnt) >= 0 FAILED in put_ldev at sector {}"
EXTENT = "drbd r0/0 drbd0 nodeb: Out of sync: start={}, size=8 (sectors)"
MARKER = "drbd-harness: a cell {} #abc.1"


def record(number: int, text: str) -> str:
    return f"4,{number},{number * 100},-;{text}"


def kept(lines: Iterable[str]) -> list[str]:
    stream = LineStream("kernel log", LogSift())
    for line in lines:
        stream.append(line)
    return stream.since(0)


def test_flood_is_bounded_counted_and_no_hole() -> None:
    began = time.monotonic()
    flood = 200_000
    lines = [record(0, MARKER.format("begins")), *(record(n, FLOOD.format(n)) for n in range(1, flood))]
    found = kept([*lines, record(flood, MARKER.format("ended"))])
    parsed = parse_kmsg("\n".join(found))
    assert len(found) == KEPT_OF_A_KIND + 3, "both markers, and one line that counts"
    assert found[-2] == f"{LEFT_OUT} {flood - 1 - KEPT_OF_A_KIND}, such as: {FLOOD.format(KEPT_OF_A_KIND + 1)}"
    assert (missing(parsed), left_out(parsed)) == (0, flood - 1 - KEPT_OF_A_KIND)
    assert time.monotonic() - began < 60, "ten thousand lines a second are kept up with"


def test_flood_takes_nothing_away_of_a_verify_in_the_middle_of_it() -> None:
    lines = [record(0, "drbd r0/0 drbd0 nodeb: Starting Online Verify from sector 0")]
    lines += [record(n, EXTENT.format(n * 8) if n % 3 == 0 else FLOOD.format(n)) for n in range(1, 30_000)]
    lines.append(record(30_000, "drbd r0/0 drbd0 nodeb: Online verify done (total 5 sec; paused 0 sec; 1000 K/sec)"))
    parsed = parse_kmsg("\n".join(kept(lines)))
    verify = last_verify(parsed, 0)
    assert verify.finished and len(verify.extents) == 9_999 and missing(parsed) == 0
    assert left_out(parsed) == 20_000 - KEPT_OF_A_KIND


def test_more_than_can_be_kept_of_what_an_oracle_reads_is_a_hole_and_no_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_flood, "MOST_LINES", 50)
    lines = [record(n, EXTENT.format(n * 8)) for n in range(100)]
    found = kept([*lines, record(100, MARKER.format("ended"))])
    parsed = parse_kmsg("\n".join(found))
    assert len(found) == 51 and found[-1].endswith(MARKER.format("ended")), "who waits for the marker gets it"
    assert (missing(parsed), left_out(parsed)) == (50, 0)
    assert judge(evidence(log_holes=missing(parsed)), HELD).kind is VerdictKind.INCONCLUSIVE
    assert judge(evidence(log_left_out=50), HELD).kind is VerdictKind.CLEAN


def test_records_that_the_kernel_overwrote_in_a_flood_are_a_hole() -> None:
    numbers = [*range(2000), *range(2500, 4000)]
    lines = [*(record(n, FLOOD.format(n)) for n in numbers), record(4000, MARKER.format("ended"))]
    parsed = parse_kmsg("\n".join(kept(lines)))
    assert missing(parsed) == 500 and left_out(parsed) == 3500 - KEPT_OF_A_KIND


def test_kinds_without_end_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_flood, "_MOST_KINDS", 100)
    words = [chr(ord("g") + n % 20) * (1 + n // 20) for n in range(5000)]
    lines = [record(n, f"somebody says {word}") for n, word in enumerate(words)]
    assert len(kept([*lines, record(5000, MARKER.format("ended"))])) <= 100 + KEPT_OF_A_KIND + 2


def test_dictionary_of_a_record_that_is_left_out_is_left_out_with_it() -> None:
    lines = [one for n in range(KEPT_OF_A_KIND + 5) for one in (record(n, FLOOD.format(n)), " SUBSYSTEM=block")]
    assert len(kept(lines)) == 2 * KEPT_OF_A_KIND


TEXTS = st.sampled_from(
    [FLOOD.format(7), "usb 1-1: reset", EXTENT.format(8), "drbd r0: conn( Connected -> StandAlone )"]
)


@given(st.lists(st.tuples(TEXTS, st.booleans()), max_size=60))
def test_what_is_kept_left_out_and_lost_is_all_there_was(records: list[tuple[str, bool]]) -> None:
    """Each record comes, or the kernel overwrote it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_flood, "KEPT_OF_A_KIND", 3)
        came = [(n, text) for n, (text, arrives) in enumerate(records, 1) if arrives]
        ends = len(records) + 1
        lines = [record(0, MARKER.format("begins")), *(record(*one) for one in came)]
        parsed = parse_kmsg("\n".join(kept([*lines, record(ends, MARKER.format("ended"))])))
    assert missing(parsed) == sum(not arrives for _, arrives in records)
    assert len(parsed) + left_out(parsed) == len(came) + 2
    read = [text for _, text in came if bears_on_oracles(text)]
    assert [line.text for line in parsed if bears_on_oracles(line.text)] == read


# --------------------------------------------------------------------------- a node's log, cell by cell


def node_log() -> KernelLog:
    class Streaming(Runner):
        def stream(self, argv: list[str], name: str, sift: object = None) -> LineStream:
            return LineStream(name, sift)  # type: ignore[arg-type]

    return KernelLog(Streaming())  # type: ignore[arg-type]


def test_kernel_log_begins_anew_with_each_cell() -> None:
    log = node_log()
    for cell in range(5):
        first = cell * 10_000
        log.stream.append(record(first, MARKER.format("begins")))
        cursor = log.stream.cursor()
        log.begin(cursor)
        for n in range(first + 1, first + 9_999):
            log.stream.append(record(n, FLOOD.format(n)))
        log.stream.append(record(first + 9_999, MARKER.format("ended")))
        assert len(log.lines(cursor)) == KEPT_OF_A_KIND + 1, "each cell has its own"
        assert (missing(log.counted(cursor)), left_out(log.counted(cursor))) == (0, 9_998 - KEPT_OF_A_KIND)
        assert len(log.stream.since(0)) <= KEPT_OF_A_KIND + 3, "what the cells before logged takes no memory"


def test_kernel_log_shows_what_was_lost_right_behind_the_marker_of_a_cell() -> None:
    log = node_log()
    log.stream.append(record(10, MARKER.format("begins")))
    cursor = log.stream.cursor()
    log.begin(cursor)
    log.stream.append(record(15, "usb 1-1: reset"))
    assert missing(log.counted(cursor)) == 4 and [line.seq for line in log.lines(cursor)] == [15]


# --------------------------------------------------------------------------- errors among them


def test_some_of_each_kind_are_the_first_and_how_many_more() -> None:
    errors = [FLOOD.format(n) for n in range(100)] + ["kernel BUG at fs/buffer.c:1"]
    found = some_of_each_kind(errors, 3)
    assert found == (*errors[:3], errors[-1], f"97 more like: {errors[0]}")
    assert some_of_each_kind(errors[:3], 3) == tuple(errors[:3]) and some_of_each_kind([]) == ()


def test_kind_of_lines_that_differ_in_numbers_is_one() -> None:
    assert kind_of("at 0xffff8881 sector 12s +4096") == kind_of("at 0x12 sector 998s +512")
    assert kind_of("lost page write") != kind_of("lost async page write")

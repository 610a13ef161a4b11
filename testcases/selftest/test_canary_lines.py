"""The canary: its lines and what its check prints, whole and torn."""

from __future__ import annotations

import pytest
from canary_records import RUN
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.canary import (
    WRITE_MODES,
    Ack,
    Done,
    Failed,
    MemoryMismatch,
    Message,
    Slot,
    Tick,
    parse_check,
    parse_line,
    received,
    sealed,
)

NUMBERS = st.integers(0, 2**64 - 1)
LINES = st.one_of(
    st.builds("ack {} {} {}".format, st.sampled_from(WRITE_MODES), NUMBERS, NUMBERS),
    st.builds("error {} {} {} Input/output error".format, st.sampled_from(WRITE_MODES), NUMBERS, st.integers(1, 133)),
    st.builds("tick {} {} {}".format, NUMBERS, NUMBERS, NUMBERS),
    st.builds("memory {} {} {} checksum-{}".format, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["ok", "wrong"])),
    st.builds("done {} {}".format, NUMBERS, NUMBERS),
)


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

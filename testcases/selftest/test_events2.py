"""events2: lines, and the view folded from them."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import State
from harness.parse.events2 import Event, ResourceView, fold, parse_event, skipped

RECORDINGS = Path(__file__).parent / "recordings"
RECORDED = sorted(RECORDINGS.glob("drbd-*/events2*.txt"))

# What the tool prints for DRBD 8.4: it knows one peer and calls it that.
V84 = """\
exists resource name:r0 role:Secondary suspended:no
exists connection name:r0 peer-node-id:0 conn-name:peer connection:Connecting role:Unknown
exists device name:r0 volume:0 minor:0 disk:Inconsistent
exists peer-device name:r0 peer-node-id:0 conn-name:peer volume:0 replication:Off peer-disk:DUnknown resync-suspended:no
exists -
change connection name:r0 peer-node-id:0 conn-name:peer connection:Connected role:Secondary
change peer-device name:r0 peer-node-id:0 conn-name:peer volume:0 replication:Established peer-disk:Inconsistent
change device name:r0 volume:0 minor:0 disk:UpToDate
change peer-device name:r0 peer-node-id:0 conn-name:peer volume:0 peer-disk:UpToDate
"""
# An older one named its peer by address only.
V84_BY_ADDRESS = V84.replace("peer-node-id:0 conn-name:peer", "local:ipv4:10.0.0.1:7789 peer:ipv4:10.0.0.2:7789")
HEALTHY = State("Connected", "Secondary", "Secondary", "UpToDate", "UpToDate")


def view_of(text: str, view: ResourceView | None = None) -> ResourceView:
    events = [event for line in text.splitlines() if (event := parse_event(line))]
    return reduce(fold, events, view or ResourceView())


def test_parse_event_with_timestamp_and_statistics_has_all_fields() -> None:
    event = parse_event(
        "2026-11-23T01:45:11.544591+00:00 change peer-device name:r0 conn-name:nodeb volume:0 "
        "replication:VerifyS done:0.00 local:ipv4:192.168.77.1:7789 eta:nan\n"
    )
    assert event == Event(
        "change",
        "peer-device",
        {
            "name": "r0",
            "conn-name": "nodeb",
            "volume": "0",
            "replication": "VerifyS",
            "done": "0.00",
            "local": "ipv4:192.168.77.1:7789",
            "eta": "nan",
        },
        "2026-11-23T01:45:11.544591+00:00",
    )


def test_parse_event_without_timestamp_has_none() -> None:
    assert parse_event("exists -") == Event("exists", "-", {}, None)
    assert parse_event(" \n") is None


@pytest.mark.parametrize("text", ["exists", "name:r0 exists", "exists name:r0"])
def test_parse_event_of_other_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="events2"):
        parse_event(text)


@given(st.text(), st.text())
def test_parse_event_of_any_text_raises_only_value_error(a: str, b: str) -> None:
    for text in (a, f"{a} {b}", f"change device {a}"):
        try:
            event = parse_event(text)
        except ValueError:
            continue
        if event:
            fold(ResourceView(), event)


WORD = st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters=":"), min_size=1)


@given(WORD.filter(lambda word: word != "-"), WORD, st.dictionaries(WORD, WORD))
def test_parse_event_round_trips(kind: str, what: str, fields: dict[str, str]) -> None:
    line = " ".join([kind, what, *(f"{name}:{value}" for name, value in fields.items())])
    assert parse_event(line) == Event(kind, what, fields)


@pytest.mark.parametrize("text", [V84, V84_BY_ADDRESS], ids=["by-name", "by-address"])
def test_fold_events_of_8_4_gives_the_state(text: str) -> None:
    start, change = text.split("exists -\n")
    assert view_of(start).state("r0", 0) is None, "the initial state is not complete yet"
    connecting = view_of(start + "exists -\n")
    assert connecting.state("r0", 0) == State("Connecting", "Secondary", "Unknown", "Inconsistent", "DUnknown", "Off")
    assert view_of(change, connecting).state("r0", 0) == HEALTHY
    assert connecting.state("r0", 1) is connecting.state("other", 0) is None


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_fold_recorded_events_ends_healthy(path: Path) -> None:
    view = view_of(path.read_text())
    state = view.state("r0", 0)
    assert view.complete and not view.lossy
    assert state and state.healthy


def test_fold_recorded_events_of_9_passes_through_verify() -> None:
    text = (RECORDINGS / "drbd-9.3.3-linux-6.12" / "events2-first-sync-and-verify.txt").read_text()
    states: list[State | None] = []
    view = ResourceView()
    for line in text.splitlines():
        view = view_of(line, view)
        if not states or states[-1] != view.state("r0", 0):
            states.append(view.state("r0", 0))
    assert states[0] is None
    assert states[1] == State("StandAlone", "Secondary", "Unknown", "Diskless", "DUnknown", "Off")
    assert states[-2:] == [
        State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "VerifyS"),
        State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established"),
    ]
    assert view.field("peer-device", "r0", 0, "out-of-sync") == "31680"
    assert view.field("device", "r0", 0, "minor") == "0"
    assert view.field("device", "r0", 1, "minor") is None


def test_fold_destroy_removes_and_create_starts_over() -> None:
    view = view_of(V84)
    gone = view_of("destroy peer-device name:r0 peer-node-id:0 conn-name:peer volume:0", view)
    assert gone.state("r0", 0) == State("Connected", "Secondary", "Secondary", "UpToDate", "DUnknown", "Off")
    down = view_of("destroy device name:r0 volume:0 minor:0", gone)
    assert down.state("r0", 0) is None
    again = view_of("create device name:r0 volume:0 minor:0", down)
    assert again.state("r0", 0) == State("Connected", "Secondary", "Secondary", "DUnknown", "DUnknown", "Off")
    assert view.state("r0", 0) == HEALTHY, "an older view does not change"


def test_skipped_counts_what_the_tool_says_that_it_lost() -> None:
    assert skipped(V84.splitlines()) == 0
    assert skipped([*V84.splitlines(), "- skipped 3", "", "- skipped 4", "- skipped some"]) == 8


def test_fold_skipped_makes_the_view_lossy() -> None:
    assert parse_event("- skipped 3") == Event("skipped", "-", {"count": "3"})
    assert view_of(V84 + "- skipped 3\n").lossy


def test_fold_unrelated_events_leave_the_view() -> None:
    view = view_of(V84)
    noise = (
        "call helper name:r0 volume:0 helper:out-of-sync\nrename resource name:r0 new_name:r1\nexists path name:r0\n"
    )
    assert view_of(noise + "change thing name:r0 role:Primary\n", view) == view

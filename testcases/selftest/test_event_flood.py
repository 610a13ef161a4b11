"""events2 with thousands of events a second: bounded, counted, and the state is what it would be without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import HELD, evidence
from test_node import Runner

from harness.drbd.events import Events
from harness.judgement.judge import judge
from harness.lab.node import Node
from harness.model import VerdictKind
from harness.parse import event_flood
from harness.parse.alarms import drops, link_history
from harness.parse.event_flood import KEPT_OF_AN_OBJECT, EventSift
from harness.parse.events2 import ResourceView, as_events, fold, parse_event
from harness.remote.stream import LineStream
from harness.util.deadline import Deadline

RECORDINGS = Path(__file__).parent / "recordings"
STREAMS = sorted(RECORDINGS.glob("drbd-*/events2*.txt"))
AT = "2026-11-23T01:44:{:02}.504339+00:00 "
PEER = "name:r0 peer-node-id:1 conn-name:nodeb"
BEGIN = [
    f"{AT.format(1)}exists resource name:r0 role:Primary suspended:no",
    f"{AT.format(1)}exists connection {PEER} connection:Connected role:Secondary",
    f"{AT.format(1)}exists device name:r0 volume:0 minor:0 disk:UpToDate",
    f"{AT.format(1)}exists peer-device {PEER} volume:0 replication:Established peer-disk:UpToDate sent:0",
    f"{AT.format(1)}exists -",
]
SENT = f"{AT.format(2)}change peer-device {PEER} volume:0 replication:Established peer-disk:UpToDate sent:{{}}"
LOST = f"{AT.format(3)}change connection {PEER} connection:NetworkFailure role:Unknown"
BACK = f"{AT.format(4)}change connection {PEER} connection:Connected role:Secondary"


def kept(lines: Sequence[str], sift: EventSift | None = None) -> list[str]:
    stream = LineStream("events2", sift or EventSift())
    for line in lines:
        stream.append(line)
    return stream.since(0)


def folded(lines: Sequence[str]) -> ResourceView:
    view = ResourceView()
    for line in lines:
        event = parse_event(line)
        view = view if event is None else fold(view, event)
    return view


def test_flood_is_bounded_and_counted_and_takes_away_no_change_of_state() -> None:
    sift = EventSift()
    flood = 100_000
    counts = [SENT.format(number) for number in range(flood)]
    found = kept([*BEGIN, *counts[: flood // 2], LOST, BACK, *counts[flood // 2 :]], sift)
    assert len(found) == len(BEGIN) + KEPT_OF_AN_OBJECT + 2
    assert (sift.left_out, sift.lost) == (flood - KEPT_OF_AN_OBJECT, 0)
    assert drops(link_history(found, "r0")) == 1


def test_more_changes_of_state_than_can_be_kept_are_lost_and_no_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_flood, "MOST_LINES", 8)
    sift = EventSift()
    found = kept([*BEGIN, *[LOST, BACK] * 5], sift)
    assert (len(found), sift.lost, sift.left_out) == (8, 7, 0)
    said = judge(evidence(events_lost=("7 events of nodea were more than can be kept",)), HELD)
    assert said.kind is VerdictKind.INCONCLUSIVE and "events are not complete" in said.sentence
    assert judge(evidence(events_left_out=50), HELD).kind is VerdictKind.CLEAN


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
@given(data=st.data())
def test_recorded_streams_with_nothing_but_changes_of_state_have_the_same_history(path: Path, data: Any) -> None:
    lines = path.read_text().splitlines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_flood, "KEPT_OF_AN_OBJECT", data.draw(st.integers(0, 3)))
        found = kept(lines)
    states = [entry.state for entry in link_history(lines, "r0")]
    assert [entry.state for entry in link_history(found, "r0")] == states
    assert len(found) <= len(lines)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_as_events_folds_into_the_same_view(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number in range(0, len(lines), 7):
        view = folded(lines[:number])
        assert folded(as_events(view, "2026-11-23T01:44:51+00:00")).objects == view.objects
        assert folded(as_events(view)).complete == view.complete


# --------------------------------------------------------------------------- over a node


class Followed(Runner):
    """Its events2 is a stream that the test tells."""

    def stream(self, argv: list[str], name: str, sift: Any = None) -> LineStream:
        self.events = LineStream(name, sift)
        return self.events


@pytest.fixture
def followed() -> tuple[Events, LineStream]:
    runner = Followed()
    events = Events(Node("nodea", cast(Any, runner), "repl0", "192.0.2.1", "/dev/vdb", "test:///x"), "r0")
    for line in BEGIN:
        runner.events.append(line)
    return events, runner.events


def test_events_that_were_forgotten_leave_their_state_behind(followed: tuple[Events, LineStream]) -> None:
    events, stream = followed
    stream.append(LOST)
    before = events.cursor()
    events.begin()
    assert stream.since(0) == [] and events.cursor() == before
    deadline = Deadline.after(1, "the state")
    assert events.wait(lambda state: state.connection == "NetworkFailure", "it", deadline) == before
    stream.append(BACK)
    lines, at = events.complete(before)
    assert lines[at:] == [BACK] and folded(lines[:at]).complete
    history = link_history(lines, "r0")
    assert [entry.state.connection for entry in history] == ["NetworkFailure", "Connected"]
    assert events.wait(lambda state: state.healthy, "it", deadline, before) == before + 1


def test_events_begun_anew_count_anew(followed: tuple[Events, LineStream]) -> None:
    events, stream = followed
    for turn in range(2):
        events.begin()
        for number in range(KEPT_OF_AN_OBJECT + 5):
            stream.append(SENT.format(number))
        assert (events.left_out, events.lost) == (5, 0), turn
        assert len(stream.since(0)) == KEPT_OF_AN_OBJECT


def test_events_begun_in_their_initial_state_are_complete_with_the_rest_of_it(
    followed: tuple[Events, LineStream],
) -> None:
    runner = Followed()
    events = Events(Node("nodea", cast(Any, runner), "repl0", "192.0.2.1", "/dev/vdb", "test:///x"), "r0")
    for line in BEGIN[:2]:
        runner.events.append(line)
    events.begin()
    for line in BEGIN[2:]:
        runner.events.append(line)
    lines, _ = events.complete()
    assert folded(lines).objects == folded(BEGIN).objects and folded(lines).complete

"""DRBD's alarms: the history of the link, digests, the way to a split brain, and all of it together."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Alarms, Extent, State
from harness.parse.alarms import LinkState, alarms_of, down_seconds, drops, first_digest_to_split_brain, link_history
from harness.parse.kernel_log import KernelLine, parse_dmesg, parse_kmsg, peer_given_up

RECORDINGS = Path(__file__).parent / "recordings"
DRBD_9 = RECORDINGS / "drbd-9.3.3-linux-6.12"
SENDER = parse_dmesg((DRBD_9 / "dmesg-integrity-sender.txt").read_text())
RECEIVER = parse_dmesg((DRBD_9 / "dmesg-integrity-receiver.txt").read_text())
DUAL = parse_dmesg((DRBD_9 / "dmesg-dual-primary-integrity.txt").read_text())

HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")
BROKEN = State("BrokenPipe", "Primary", "Unknown", "UpToDate", "DUnknown", "Off")
ALONE = replace(BROKEN, connection="StandAlone")
SYNCING = replace(HEALTHY, peer_disk="Inconsistent", replication="SyncSource")
T0 = datetime(2026, 11, 23, 2, 19, tzinfo=UTC)


def recorded(name: str) -> list[str]:
    return (RECORDINGS / name).read_text().splitlines()


def at(seconds: float) -> float:
    return T0.timestamp() + seconds


def told(state: State, seconds: float | None, what: str = "change") -> list[str]:
    """The lines of events2 that tell a whole state; without a time if ``seconds`` is None."""
    when = "" if seconds is None else f"{(T0 + timedelta(seconds=seconds)).isoformat(timespec='microseconds')} "
    peer = "peer-node-id:0 conn-name:peer"
    return [
        f"{when}{what} resource name:r0 role:{state.local_role} suspended:no",
        f"{when}{what} connection name:r0 {peer} connection:{state.connection} role:{state.peer_role}",
        f"{when}{what} device name:r0 volume:0 minor:0 disk:{state.local_disk}",
        f"{when}{what} peer-device name:r0 {peer} volume:0 replication:{state.replication} peer-disk:{state.peer_disk}",
    ]


START = [*told(HEALTHY, -60, "exists"), "2026-11-23T02:18:00+00:00 exists -"]


# --------------------------------------------------------------------------- why the link went


def test_peer_given_up_is_said_in_the_words_of_each_drbd() -> None:
    lost = parse_kmsg((RECORDINGS / "drbd-8.4.11-linux-6.12/kmsg-ping-timeout.txt").read_text())
    assert peer_given_up(lost) == ("PingAck did not arrive in time",)
    for name, said in (
        ("dmesg-quorum-lost.txt", "PingAck did not arrive in time"),
        ("dmesg-two-primaries-apart-wrote.txt", "peer failed to send PingAck in time"),
    ):
        assert peer_given_up(parse_dmesg((DRBD_9 / name).read_text())) == (said,)
    assert peer_given_up(SENDER) == peer_given_up(RECEIVER) == (), "a digest is no silence"
    late = "drbd r0: Remote failed to finish a request within 42000ms > ko-count (7) * timeout (60 * 0.1s)"
    assert peer_given_up([KernelLine(4, 1.0, late)]) == ("Remote failed to finish a request within 42000ms",)


def test_alarms_name_the_node_that_gave_its_peer_up() -> None:
    lost = parse_kmsg((RECORDINGS / "drbd-8.4.11-linux-6.12/kmsg-ping-timeout.txt").read_text())
    found = alarms_of(
        [], lost, START, resource="r0", minor=0, algorithm="", events_from=len(START), watched_seconds=9.0,
        nodes=("nodea", "nodeb"),
    )  # fmt: skip
    assert found.causes == ("nodeb: PingAck did not arrive in time",)


# --------------------------------------------------------------------------- the history of the link


def test_link_history_of_recorded_8_4_has_both_verifies() -> None:
    history = link_history(recorded("drbd-8.4.11-linux-6.12/events2.txt"), "r0")
    assert [entry.state.replication for entry in history[-4:]] == ["VerifyS", "Established"] * 2
    first = datetime(2026, 11, 23, 2, 19, 12, 124677, tzinfo=UTC)
    assert history[0].at == pytest.approx(first.timestamp(), abs=1e-6) and history[0].line == 2
    assert history[0].state == State("StandAlone", "Secondary", "Unknown", "Diskless", "DUnknown", "Off")
    assert history[-1].state.healthy and history[-1].line == 20
    assert drops(history) == 0


def test_link_history_leaves_out_roles_and_counters() -> None:
    lines = recorded("drbd-9.3.3-linux-6.12/events2-first-sync-and-verify.txt")
    history = link_history(lines, "r0")
    promoted = next(number for number, line in enumerate(lines) if "role:Primary" in line)
    counted = next(number for number, line in enumerate(lines) if "done:42.04" in line)
    assert not {promoted, counted} & {entry.line for entry in history}
    assert history[-1].state.local_role == "Primary"


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("drbd-*/events2*.txt")), ids=lambda path: path.parent.name)
def test_link_history_of_each_recording_is_ordered_and_ends_healthy(path: Path) -> None:
    history = link_history(path.read_text().splitlines(), "r0")
    assert history[-1].state.healthy
    assert [entry.at for entry in history] == sorted(entry.at for entry in history)
    assert link_history(path.read_text().splitlines(), "other") == ()


def test_link_history_line_without_time_shows_with_the_next() -> None:
    late = f"{T0.isoformat()} change device name:r0 volume:0 minor:0 read:1"
    history = link_history([*START, *told(BROKEN, None), late], "r0")
    assert [(entry.state, entry.line) for entry in history] == [(HEALTHY, 4), (BROKEN, len(START) + 4)]
    assert link_history([*START, *told(BROKEN, None)], "r0") == history[:1]


def test_link_history_time_without_offset_is_utc() -> None:
    (plain,) = link_history([*told(HEALTHY, None, "exists"), "2026-11-23T02:19:00 exists -"], "r0")
    (zulu,) = link_history([*told(HEALTHY, None, "exists"), "2026-11-23T02:19:00Z exists -"], "r0")
    assert plain.at == zulu.at == T0.timestamp()


def test_link_history_time_is_that_of_its_offset_wherever_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        for moment in ("2026-11-23T02:19:00", "2026-11-23T04:19:00+02:00", "2026-11-22T21:19:00-05:00"):
            (read,) = link_history([*told(HEALTHY, None, "exists"), f"{moment} exists -"], "r0")
            assert read.at == T0.timestamp(), moment
    finally:
        monkeypatch.undo()
        time.tzset()


def test_link_history_with_empty_lines_is_the_same() -> None:
    lines = [*START, *told(BROKEN, 1)]
    spaced = [text for line in lines for text in ("", line)]
    assert [entry.state for entry in link_history(spaced, "r0")] == [entry.state for entry in link_history(lines, "r0")]


def test_link_history_while_resource_is_down_adds_nothing() -> None:
    gone = f"{T0.isoformat()} destroy device name:r0 volume:0 minor:0"
    assert len(link_history([*START, gone], "r0")) == 1


def test_link_history_of_other_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="events2"):
        link_history(["drbdsetup: unknown resource"], "r0")


# --------------------------------------------------------------------------- drops and how long it was down


def entry(seconds: float, state: State) -> LinkState:
    return LinkState(seconds, state, 0)


def test_drops_count_only_leaving_connected() -> None:
    connecting = replace(BROKEN, connection="Connecting")
    flapping = [HEALTHY, BROKEN, connecting, SYNCING, HEALTHY, BROKEN, ALONE]
    assert drops([entry(0, state) for state in flapping]) == 2
    assert drops([entry(0, BROKEN), entry(1, HEALTHY)]) == drops([]) == 0


def test_down_seconds_count_unhealthy_states_until_the_end() -> None:
    history = [entry(10, HEALTHY), entry(12, BROKEN), entry(13.5, SYNCING), entry(15, HEALTHY), entry(19, ALONE)]
    assert down_seconds(history, 21) == pytest.approx(3 + 2)
    assert down_seconds(history, 14) == pytest.approx(2)
    assert down_seconds(history, 5) == down_seconds([], 5) == 0


def test_down_seconds_with_clock_set_back_lose_nothing() -> None:
    assert down_seconds([entry(10, BROKEN), entry(4, HEALTHY), entry(20, ALONE)], 23) == pytest.approx(3)


STATES = st.sampled_from([HEALTHY, BROKEN, SYNCING, ALONE, replace(HEALTHY, replication="VerifyS")])
STEPS = st.lists(st.tuples(st.integers(1, 5), STATES), min_size=1, max_size=12)


def each_second(steps: list[tuple[int, State]]) -> list[State]:
    """The state in each whole second; a step is how long a state lasts."""
    return [state for seconds, state in steps for _ in range(seconds)]


def lines_of(steps: list[tuple[int, State]]) -> list[str]:
    lines: list[str] = []
    now = 0
    for seconds, state in steps:
        lines += told(state, now)
        now += seconds
    return lines


@given(STEPS, st.data())
def test_alarms_of_any_history_equal_a_count_per_second(steps: list[tuple[int, State]], data: st.DataObject) -> None:
    """Against a count second by second; all lines of a state have one time, so what is half told lasts no time."""
    first = data.draw(st.integers(0, len(steps) - 1), "the step the watch begins with")
    skipped = sum(seconds for seconds, _ in steps[:first])
    seconds = each_second(steps)
    watched = data.draw(st.integers(1, len(seconds) - skipped), "how long it watches")
    inside = seconds[skipped : skipped + watched]
    events = [*START, *lines_of(steps)[: 4 * len(steps)]]

    found = alarms_of(
        (), (), events, resource="r0", minor=0, algorithm="", events_from=len(START) + 4 * first,
        watched_seconds=watched, began=at(skipped),
    )  # fmt: skip
    assert found.down_seconds == pytest.approx(sum(not state.healthy for state in inside), abs=1e-4)

    every = [HEALTHY if not first else steps[first - 1][1], *(state for _, state in steps[first:])]
    connected = [state.connection == "Connected" for state in every]
    left = sum(was and not still for was, still in pairwise(connected))
    assert found.drops == left


# --------------------------------------------------------------------------- from a digest to a split brain

MISMATCH = "drbd r0/0 drbd0: Digest mismatch, buffer modified by upper layers during write: 67584s +65536"
FAILED = "block drbd0: Digest integrity check FAILED: 67584s +65536"
SPLIT = "block drbd0: Split-Brain detected but unresolved, dropping connection!"


def logged(*texts: str) -> tuple[KernelLine, ...]:
    return tuple(KernelLine(number, 10.0 * number, text) for number, text in enumerate(texts, 1))


def test_first_digest_to_split_brain_of_recorded_9_is_its_seconds() -> None:
    # Its last digest is not the first, and this side never says split brain.
    assert first_digest_to_split_brain(DUAL) == pytest.approx(251.458830 - 250.581906)
    assert first_digest_to_split_brain(DUAL[1:]) == pytest.approx(251.458830 - 250.597414)


def test_first_digest_to_split_brain_of_reconnect_is_none() -> None:
    assert first_digest_to_split_brain(SENDER) is first_digest_to_split_brain(RECEIVER) is None


@pytest.mark.parametrize("digest", [MISMATCH, FAILED])
@pytest.mark.parametrize(
    "end",
    [
        SPLIT,
        "drbd r0/0 drbd0 nodeb: Split-Brain detected but unresolved, dropping connection!",
        "drbd r0: conn( Disconnecting -> StandAlone ) ",
        "drbd r0 nodeb: conn( Disconnecting -> StandAlone ) [disconnected]",
    ],
)
def test_first_digest_to_split_brain_reads_every_dialect(digest: str, end: str) -> None:
    assert first_digest_to_split_brain(logged("x", digest, MISMATCH, "y", end, SPLIT)) == 30.0


@pytest.mark.parametrize(
    "texts",
    [
        (),
        (MISMATCH,),
        (SPLIT,),
        (SPLIT, MISMATCH),
        (MISMATCH, "drbd r0: conn( StandAlone -> Unconnected ) "),
        (MISMATCH, "block drbd0: Split-Brain detected, 1 primaries, automatically solved. Sync from peer node"),
        (MISMATCH, "note: drbd r0: conn( Disconnecting -> StandAlone ) "),
        ("note: " + MISMATCH, SPLIT),
    ],
)
def test_first_digest_to_split_brain_without_both_is_none(texts: tuple[str, ...]) -> None:
    assert first_digest_to_split_brain(logged(*texts)) is None


# --------------------------------------------------------------------------- all together


def watch(events: list[str], events_from: int, seconds: float, began: float | None = None) -> Alarms:
    return alarms_of(
        SENDER, RECEIVER, events, resource="r0", minor=0, algorithm="crc32c", events_from=events_from,
        watched_seconds=seconds, began=began,
    )  # fmt: skip


def test_alarms_of_recorded_logs_have_all_figures() -> None:
    lost = [*told(BROKEN, 3), *told(SYNCING, 4), *told(HEALTHY, 7)]
    found = watch([*START, *lost], len(START), 10, at(0))
    assert found.down_seconds == pytest.approx(4, abs=1e-5)
    assert replace(found, down_seconds=4) == Alarms(
        algorithm="crc32c",
        mismatches=(Extent(67584, 128), Extent(1792, 128)),
        failures=(Extent(67584, 128),),
        drops=1,
        down_seconds=4,
        watched_seconds=10,
        resynced_kib=65536,
        split_brain=None,
    )


def test_alarms_of_resyncs_count_each_once() -> None:
    def resynced(a: tuple[KernelLine, ...], b: tuple[KernelLine, ...], minor: int = 0) -> int:
        found = alarms_of(
            a, b, START, resource="r0", minor=minor, algorithm="", events_from=5, watched_seconds=1
        )  # fmt: skip
        return found.resynced_kib

    assert resynced(SENDER, RECEIVER) == 65536
    assert resynced((), RECEIVER) == 63232
    assert resynced((*SENDER, *SENDER), RECEIVER) == 2 * 65536
    assert resynced((), ()) == resynced(SENDER, RECEIVER, minor=1) == 0


def test_alarms_of_digests_on_node_b_come_behind() -> None:
    found = alarms_of(
        RECEIVER, SENDER, START, resource="r0", minor=0, algorithm="md5", events_from=5, watched_seconds=1
    )
    assert found.mismatches == (Extent(67584, 128), Extent(1792, 128)) and found.detections == 2
    twice = alarms_of(SENDER, DUAL, START, resource="r0", minor=0, algorithm="", events_from=5, watched_seconds=1)
    assert twice.mismatches[2:] == (Extent(86016, 128), Extent(67584, 128), Extent(78976, 128))


def test_alarms_of_events_before_the_watch_are_none() -> None:
    earlier = [*START, *told(BROKEN, -30), *told(HEALTHY, -20)]
    found = watch(earlier, len(earlier), 10, at(0))
    assert (found.drops, found.down_seconds) == (0, 0)


def test_alarms_of_a_drop_just_before_the_watch_are_none() -> None:
    # Told by one line, so that the state before it was Connected.
    earlier = [*START, told(BROKEN, -30)[1]]
    found = watch(earlier, len(earlier), 10, at(0))
    assert found.drops == 0 and found.down_seconds == pytest.approx(10)


def test_alarms_of_unknown_begin_are_counted_from_the_first_time_that_was_told() -> None:
    untimed = ["", "change device name:r0 volume:0 minor:0 read:1"]
    found = watch([*START, *untimed, *told(HEALTHY, 2), *told(ALONE, 5)], len(START), 10)
    assert found.down_seconds == pytest.approx(7, abs=1e-4), "ten seconds from second 2 on, StandAlone since 5"


def test_alarms_of_drop_in_first_event_count_it() -> None:
    # The lines before say that it was connected; the change itself says only what it became.
    change = told(BROKEN, 2)[1]
    found = watch([*START, change], len(START), 10, at(0))
    assert found.drops == 1 and found.down_seconds == pytest.approx(8, abs=1e-5)


def test_alarms_of_link_down_throughout_count_the_whole_watch() -> None:
    before = [*START, *told(ALONE, -5)]
    assert watch(before, len(before), 10).down_seconds == watch(before, len(before), 10, at(0)).down_seconds == 10


def test_alarms_of_unknown_begin_are_bounded_by_the_watch() -> None:
    assert watch([*START, *told(ALONE, 4)], len(START), 10).down_seconds == pytest.approx(10)
    assert watch([*START, *told(ALONE, 4)], len(START), 10, at(0)).down_seconds == pytest.approx(6)


def test_alarms_of_clock_set_back_are_bounded_by_the_watch() -> None:
    back = [*START, *told(BROKEN, 1), *told(ALONE, -8)]
    assert watch(back, len(START), 10, at(0)).down_seconds == 10

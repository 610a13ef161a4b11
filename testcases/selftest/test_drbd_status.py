"""/proc/drbd of 8.4 and the JSON status of 9."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model import Counters, State
from harness.parse.drbd_status import parse_proc, parse_status_json, parse_version

RECORDINGS = Path(__file__).parent / "recordings"
STATUS = (RECORDINGS / "drbd-9.3.3-linux-6.12" / "status-after-verify.json").read_text()
PROC_84 = sorted(RECORDINGS.glob("drbd-8*/proc-drbd*.txt"))
HEAD = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: FC3433D849E3B88C1E7B55C\n"

IDLE = (
    HEAD
    + """
 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----
    ns:138432 nr:12 dw:138444 dr:131032 al:13 bm:2 lo:1 pe:2 ua:3 ap:4 ep:1 wo:f oos:31680

 2: cs:Unconfigured
10: cs:WFConnection ro:Secondary/Unknown ds:Inconsistent/DUnknown C r-----
    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:65536
"""
)
VERIFYING = (
    HEAD
    + """ 0: cs:VerifyS ro:Primary/Secondary ds:UpToDate/UpToDate C r-----
    ns:8 nr:0 dw:8 dr:52244 al:1 bm:0 lo:0 pe:27 ua:27 ap:0 ep:1 wo:f oos:40
\t[=======>............] verified: 42.0% (76012/131032)K
\tfinish: 0:00:03 speed: 24,312 (24,312) want: 716,800 K/sec
\t 42% sector pos: 110080/262064
"""
)


def test_parse_proc_has_states_and_counters() -> None:
    found = parse_proc(IDLE)
    assert found.version == "8.4.11"
    assert set(found.devices) == {0, 10}, "an unconfigured device is none"
    assert found.devices[0].state == State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established")
    assert found.devices[0].state.healthy
    assert found.devices[0].counters == Counters(138432, 12, 138444, 131032, 31680)
    assert found.devices[0].progress is None
    waiting = found.devices[10]
    assert waiting.connection_state == "WFConnection"
    assert waiting.state == State("Connecting", "Secondary", "Unknown", "Inconsistent", "DUnknown", "Off")
    assert waiting.counters == Counters(0, 0, 0, 0, 65536)


@pytest.mark.parametrize(
    ("cs", "connection", "replication"),
    [
        ("StandAlone", "StandAlone", "Off"),
        ("WFReportParams", "Connected", "Off"),
        ("NetworkFailure", "NetworkFailure", "Off"),
        ("Connected", "Connected", "Established"),
        ("WFBitMapS", "Connected", "WFBitMapS"),
        ("SyncTarget", "Connected", "SyncTarget"),
        ("PausedSyncS", "Connected", "PausedSyncS"),
        ("VerifyT", "Connected", "VerifyT"),
    ],
)
def test_parse_proc_splits_cs_into_connection_and_replication(cs: str, connection: str, replication: str) -> None:
    state = parse_proc(IDLE.replace("cs:Connected", f"cs:{cs}")).devices[0].state
    assert (state.connection, state.replication) == (connection, replication)
    assert state.healthy is (cs == "Connected")


def test_parse_proc_during_verify_has_progress() -> None:
    device = parse_proc(VERIFYING).devices[0]
    assert (device.state.replication, device.progress, device.counters.out_of_sync_kib) == ("VerifyS", 42.0, 40)
    resync = VERIFYING.replace("VerifyS", "SyncSource").replace("verified: 42.0%", "sync'ed:  9.5%")
    assert parse_proc(resync).devices[0].progress == 9.5


def test_parse_version_reads_both_generations() -> None:
    nine = (RECORDINGS / "drbd-9.3.3-linux-6.12" / "proc-drbd.txt").read_text()
    assert parse_version(nine) == parse_proc(nine).version == "9.3.3"
    assert parse_proc(nine).devices == {}
    assert parse_proc(HEAD).devices == {}
    with pytest.raises(ValueError, match="version"):
        parse_proc("cat: /proc/drbd: No such file or directory")


@pytest.mark.parametrize("path", PROC_84, ids=lambda path: path.parent.name)
def test_parse_proc_of_recording_is_healthy(path: Path) -> None:
    found = parse_proc(path.read_text())
    assert found.version.startswith("8.4.")
    assert found.devices[0].state.healthy
    assert f"oos:{found.devices[0].counters.out_of_sync_kib}" in path.read_text()


def test_parse_status_json_of_recording_has_state_and_counters() -> None:
    state, counters = parse_status_json(STATUS, "r0", 0)
    assert state == State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established")
    assert counters == Counters(138432, 0, 138432, 131032, 31680)


def test_parse_status_json_without_peer_is_standalone() -> None:
    found = json.loads(STATUS)
    found[0]["connections"] = []
    state, counters = parse_status_json(json.dumps(found), "r0", 0)
    assert state == State("StandAlone", "Primary", "Unknown", "UpToDate", "DUnknown", "Off")
    assert counters == Counters(0, 0, 138432, 131032, 0)


@pytest.mark.parametrize(
    ("text", "resource", "volume"),
    [(STATUS, "r1", 0), (STATUS, "r0", 1), ("[]", "r0", 0), ("{}", "r0", 0), ("not json", "r0", 0), ("", "r0", 0)],
)
def test_parse_status_json_of_other_text_is_an_error(text: str, resource: str, volume: int) -> None:
    with pytest.raises(ValueError):
        parse_status_json(text, resource, volume)


def test_parse_status_json_with_odd_counter_is_an_error() -> None:
    with pytest.raises(ValueError, match="out-of-sync"):
        parse_status_json(STATUS.replace('"out-of-sync": 31680', '"out-of-sync": "many"'), "r0", 0)


@given(st.text() | st.text().map(lambda text: HEAD + " 0: cs:" + text))
def test_parse_proc_of_any_text_raises_only_value_error(text: str) -> None:
    try:
        parse_proc(text)
    except ValueError:
        assert "version: " not in text or not text.startswith("version: 8")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["name", "role", "devices", "volume", "connections", "peer_devices", "sent"]) | st.text(),
            inner,
        )
    ),
)


@settings(max_examples=50)
@given(JSON)
def test_parse_status_json_of_any_json_raises_only_value_error(value: object) -> None:
    for found in (value, [{"name": "r0", "devices": [{"volume": 0}], "connections": value}]):
        try:
            parse_status_json(json.dumps(found), "r0", 0)
        except ValueError:
            continue


@given(st.lists(st.integers(0, 2**40), min_size=5, max_size=5))
def test_parse_proc_counters_round_trip(numbers: list[int]) -> None:
    ns, nr, dw, dr, oos = numbers
    text = (
        f"{HEAD} 3: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n"
        f"    ns:{ns} nr:{nr} dw:{dw} dr:{dr} al:1 bm:2 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:{oos}\n"
    )
    assert parse_proc(text).devices[3].counters == Counters(*numbers)

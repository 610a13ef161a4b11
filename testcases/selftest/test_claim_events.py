"""What one play shows of a claim, by the event that the claim is about, or why it is set aside."""

from __future__ import annotations

from dataclasses import replace

import pytest
from claimed_plays import DIFFER, FREE, HIT, MISS, READ, SWAP, K, moved, result

from harness.judgement.claim_events import Aside, shown
from harness.model import Alarms, Canary, Extent, Potency, Repair, Result, SplitBrain, State
from harness.model.claim import ClaimEvent

UP = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")


@pytest.mark.parametrize(
    ("event", "play", "expected"),
    [
        ("lost", result(SWAP, MISS), "without a canary's records in the evidence"),
        ("lost", result(SWAP, K.CORRUPT, canary=Canary(lost={"fsync": 2})), True),
        ("lost", result(SWAP, MISS, potency=Potency.WEAK, canary=Canary(lost={"fsync": 0})), False),
        ("reread", moved(readback=FREE), True),
        ("reread-allocated", moved(readback=FREE), False),
        ("reread-allocated", moved(readback=READ), True),
        ("misread", moved(readback=READ), True),
        ("misread", moved(readback=FREE), False),
        ("misread", moved(readback=FREE, canary=Canary(memory_wrong=1, memory_checked=5)), True),
        ("misread", moved(), "without a read-back in the evidence"),
        ("misread", result(SWAP, HIT, readback=READ), ""),
        ("died", moved(canary=Canary(survived=False)), True),
        ("died", result(SWAP, HIT, canary=Canary(survived=False)), ""),
        ("split-at-once", result(SWAP, HIT), "without DRBD's alarms in the evidence"),
        ("split-at-once", result(SWAP, MISS, alarms=Alarms("crc32c")), "in which the digest had nothing to notice"),
        ("split-at-once", result(SWAP, HIT, alarms=Alarms("crc32c", failures=(Extent(0, 8),))), False),
        ("split-at-once", result(SWAP, HIT, alarms=Alarms(split_brain=SplitBrain(0.8, {}, 1, "b", True))), True),
        ("split-at-once", result(SWAP, HIT, alarms=Alarms(split_brain=SplitBrain(11.0, {}, 1, "b", True))), False),
        ("split-at-once",
         result(SWAP, HIT, alarms=Alarms(split_brain=SplitBrain(0.8, {}, 1, "b", True, confirmed=False))), False),
        ("silent", result(SWAP, HIT, after=UP), True),
        ("silent", result(SWAP, HIT, after=replace(UP, peer_disk="Inconsistent")), False),
        ("silent", result(SWAP, HIT, after=replace(UP, connection="StandAlone")), False),
        ("silent", result(SWAP, HIT), "without DRBD's state at the end in the evidence"),
        ("silent", result(SWAP, MISS, after=UP), ""),
        ("silent", result(SWAP, K.INCONCLUSIVE, after=UP), ""),
        ("only-verify", result(SWAP, HIT, after=UP), "without a complete verify in the evidence"),
        ("digest-noticed", result(SWAP, HIT), "without a digest's alarms in the evidence"),
        ("digest-noticed", result(SWAP, HIT, alarms=Alarms("crc32c", mismatches=(Extent(0, 8),))), True),
        ("digest-noticed", result(SWAP, HIT, alarms=Alarms("crc32c", failures=(Extent(0, 8),))), False),
        ("digest-noticed", result(SWAP, HIT, alarms=Alarms("crc32c"), comparison=DIFFER), False),
        ("repaired-by-reconnect", result(SWAP, HIT, repair=Repair("disconnect + connect", 1.0, 0)), True),
        ("repaired-by-reconnect", result(SWAP, HIT, repair=Repair("disconnect + connect", 1.0, 3)), False),
        ("repaired-by-reconnect",
         result(SWAP, HIT, repair=Repair("disconnect + connect, then invalidate-remote", 1.0, 0)), False),
        ("repaired-by-reconnect", result(SWAP, HIT, repair=Repair("invalidate-remote", 1.0, 0)), ""),
        ("slow", result(SWAP, MISS), "without fio's figures in the evidence"),
    ],
)  # fmt: skip
def test_event_of_a_play(event: str, play: Result, expected: bool | str) -> None:
    seen = shown(ClaimEvent(event), play)
    assert (seen if isinstance(seen, bool) else (seen.why)) == expected or (
        isinstance(seen, Aside) and expected and seen.why.startswith(str(expected))
    )


@pytest.mark.parametrize("event", ClaimEvent)
def test_every_event_is_judged_from_any_evidence(event: ClaimEvent) -> None:
    assert isinstance(shown(event, result(SWAP, MISS)), bool | Aside)

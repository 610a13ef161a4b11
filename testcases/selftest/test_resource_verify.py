"""The real Resource finds by a verify what differs, and repairs it, as DRBD 8.4 and 9 printed it."""

from __future__ import annotations

import time

import pytest
from recorded_nodes import RecordedRunner, adopted, events_between, verified
from recorded_resource import GENERATIONS, SOON

from harness.drbd import verify as verify_module
from harness.drbd.resource import Resource
from harness.errors import DeadlineError, LostNodeError
from harness.model import Extent
from harness.render.drbd_conf import ResourceSpec

PLANTED = (Extent(0, 8), Extent(8000, 8), Extent(40024, 56), Extent(262056, 8))


# --------------------------------------------------------------------------- verify


def test_verify_of_8_4_finds_exactly_what_was_planted() -> None:
    resource, on_a, on_b = verified("8.4")
    verify, raw_a, raw_b = resource.verify()
    assert verify.complete and (verify.source.node, verify.target.node) == ("nodea", "nodeb")
    assert verify.source.extents == verify.target.extents == PLANTED
    assert (verify.source.found_blocks, verify.skipped_blocks) == (10, 0)
    assert on_a.drbd() == ["drbdadm -- --start=0 verify r0/0"] and on_b.drbd() == []
    assert "Starting Online Verify from sector 0" in raw_a and "Online Verify start sector: 0" in raw_b


def test_verify_of_9_finds_what_both_logs_have() -> None:
    resource, on_a, _ = verified("9")
    verify, raw_a, _ = resource.verify()
    assert verify.complete and verify.source.found_blocks == 7920
    assert verify.source.extents[:2] == verify.target.extents[:2] == (Extent(0, 16), Extent(24, 56))
    assert on_a.drbd() == ["drbdadm verify --start=0 r0/0"]
    assert "Online verify found 7920 4k blocks out of sync!" in raw_a


def test_verify_reads_only_the_log_behind_its_own_marker() -> None:
    resource, on_a, on_b = verified("8.4")
    earlier = "6,1,1,-;drbd r0/0 drbd0: Out of sync: start=4096, size=8 (sectors)\n"
    on_a.log(earlier)
    on_b.log(earlier)
    verify, raw_a, _ = resource.verify()
    assert verify.source.extents == PLANTED and "start=4096" not in raw_a


def test_verify_that_only_one_node_logged_is_not_borrowed_by_the_other() -> None:
    resource, _, on_b = verified("8.4")
    on_b.log = lambda text: None  # type: ignore[method-assign]
    verify, _, raw_b = resource.verify()
    assert verify.complete and not verify.target.started and verify.target.extents == ()
    assert "Online" not in raw_b


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_that_never_begins_is_deadline_error(generation: str) -> None:
    resource, on_a, _ = verified(generation, SOON)
    resource.blocks = 0  # a device gets time by its size
    on_a.happens = {}
    with pytest.raises(DeadlineError, match="the start of the verify did not happen within 0 s"):
        resource.verify()


def test_verify_that_does_nothing_is_not_waited_for_as_long_as_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "START_SECONDS", 0.05)
    resource, on_a, _ = verified("8.4")
    on_a.happens = {}
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="the start of the verify did not happen within 0 s"):
        resource.verify()
    assert time.monotonic() - began < resource.spec.verify_seconds / 4


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_that_never_ends_is_deadline_error(generation: str) -> None:
    resource, on_a, _ = verified(generation, SOON)
    resource.blocks = 0  # a device gets time by its size
    started = events_between("events2-planted-nodea.txt", "replication:VerifyS", "call helper")[:1]
    on_a.happens = {"--start=0": lambda: on_a.tell(*(line.replace("peer-node-id:0 conn-name:peer", PEER[generation])
                                                     for line in started))}  # fmt: skip
    with pytest.raises(DeadlineError, match="the end of the verify did not happen within 0 s"):
        resource.verify()


def test_verify_when_the_node_is_lost_is_lost_node_error() -> None:
    resource, on_a, _ = verified("8.4")
    on_a.happens = {"verify r0/0": lambda: on_a.events.end("no power")}
    with pytest.raises(LostNodeError, match="events2 ended while waiting for the start of the verify: no power"):
        resource.verify()


# --------------------------------------------------------------------------- repair

PEER = {"8.4": "peer-node-id:0 conn-name:peer", "9": "peer-node-id:1 conn-name:nodeb"}


def _resync(generation: str) -> list[str]:
    """A resync as events2 tells it, on the side of the source.

    Of invalidate-remote only kernel logs were recorded (repair-invalidate-remote-reset-bitmap-no.txt): these are its
    changes of pdsk and repl.
    """
    changes = [("WFBitMapS", "Consistent"), ("WFBitMapS", "Outdated"), ("SyncSource", "Inconsistent"),
               ("Established", "UpToDate")]  # fmt: skip
    return [
        f"change peer-device name:r0 {PEER[generation]} volume:0 replication:{replication} peer-disk:{disk}"
        for replication, disk in changes
    ]


def repairable(generation: str, spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner]:
    """A resource on which each way of a resync works."""
    resource, on_a, _ = adopted(generation, spec)
    if generation == "8.4":
        apart = events_between("events2-planted-nodea.txt", "connection:Disconnecting", "destroy connection")
        again = events_between(
            "events2-planted-nodea.txt", "create connection", "sent:40 out-of-sync:0", behind=apart[-1]
        )
        on_a.happens |= {"drbdadm disconnect": lambda: on_a.tell(*apart), "drbdadm connect": lambda: on_a.tell(*again)}
    on_a.happens["drbdadm invalidate-remote"] = lambda: on_a.tell(*_resync(generation))
    return resource, on_a


@pytest.mark.parametrize(
    ("generation", "method", "commands"),
    [
        ("8.4", "disconnect + connect", ["drbdadm disconnect r0", "drbdadm connect r0"]),
        ("9", "invalidate-remote --reset-bitmap=no", ["drbdadm invalidate-remote --reset-bitmap=no r0"]),
    ],
)
def test_repair_resyncs_what_was_marked(generation: str, method: str, commands: list[str]) -> None:
    resource, on_a = repairable(generation)
    repair = resource.repair(lambda: 0)
    assert (repair.method, repair.differing_after) == (method, 0)
    assert on_a.drbd() == commands


@pytest.mark.parametrize("generation", GENERATIONS)
def test_repair_that_the_comparison_denies_resyncs_everything(generation: str) -> None:
    resource, on_a = repairable(generation)
    left = iter([7920, 3])
    repair = resource.repair(lambda: next(left))
    assert repair.method == f"{resource.dialect.resync_of_marked}, then invalidate-remote"
    assert repair.differing_after == 3, "the comparison has the last say"
    assert on_a.drbd()[-1] == "drbdadm invalidate-remote r0"


@pytest.mark.parametrize(
    ("generation", "silent", "what"),
    [
        ("8.4", "drbdadm disconnect", "StandAlone after disconnect"),
        ("8.4", "drbdadm connect", "UpToDate/UpToDate after a resync"),
        ("9", "drbdadm invalidate-remote", "the start of the resync"),
    ],
)
def test_repair_without_an_event_is_deadline_error(generation: str, silent: str, what: str) -> None:
    resource, on_a = repairable(generation, SOON)
    resource.blocks = 0  # a device gets time by its size
    del on_a.happens[silent]
    with pytest.raises(DeadlineError, match=f"{what} did not happen within 0 s"):
        resource.repair(lambda: pytest.fail("nothing was resynced that could be compared"))


def test_repair_of_9_does_not_take_the_state_before_for_the_end() -> None:
    resource, on_a = repairable("9", SOON)
    resource.blocks = 0  # a device gets time by its size
    counted = f"change peer-device name:r0 {PEER['9']} volume:0 sent:138440"  # nothing has begun yet
    on_a.happens["drbdadm invalidate-remote"] = lambda: on_a.tell(counted, *_resync("9")[:-1])
    with pytest.raises(DeadlineError, match="UpToDate/UpToDate after a resync"):
        resource.repair(lambda: 0)

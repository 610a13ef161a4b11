"""A live migration of which nobody tells how it ended: the guest is left on one node, or on none."""

from __future__ import annotations

import threading
import time

import libvirt
import pytest
from fake_libvirt import LibvirtSaid
from fake_story import in_order
from moving_guest import Stage, stage, under_way

from harness.errors import HungCallError, LostGuestError, LostLibvirtError, LostNodeError
from harness.guest import migration as module
from harness.model import MigrationOutcome

__all__ = ["stage"]

RUNS = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
WAITS = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
BROKEN = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
GONE = None
LOST = LostLibvirtError("libvirt on nodea was lost during migrate3: connection closed due to keepalive timeout")


def left_with(stage: Stage, source: tuple[int, int] | None, target: tuple[int, int] | None) -> None:
    """What the libvirt of each node has of the guest when the migration is given up."""
    for node, domain, state in ((stage.lab.a, stage.guest.here, source), (stage.lab.b, stage.guest.there, target)):
        node.libvirt.domains.pop(stage.guest.spec.name, None)
        if state is not None:
            domain.said_state = state
            stage.guest.on(node, domain)


def destroyed(stage: Stage) -> set[str]:
    return {step.rpartition(" ")[2] for step in stage.steps if step.startswith("destroy on")}


@pytest.mark.parametrize(
    ("source", "target", "ended", "on"),
    [
        (RUNS, GONE, set(), "nodea"),
        (RUNS, WAITS, {"nodeb"}, "nodea"),
        (BROKEN, WAITS, {"nodeb"}, "nodea"),
        (WAITS, GONE, set(), "nodea"),
        (WAITS, WAITS, {"nodeb"}, "nodea"),
        (WAITS, RUNS, {"nodea"}, "nodeb"),
        (GONE, RUNS, set(), "nodeb"),
        (GONE, BROKEN, set(), "nodeb"),
        (RUNS, RUNS, {"nodea", "nodeb"}, None),
        (GONE, WAITS, {"nodeb"}, None),
        (GONE, GONE, set(), None),
    ],
)
def test_migrate_given_up_leaves_the_guest_on_one_node_or_on_none(
    stage: Stage, source: tuple[int, int] | None, target: tuple[int, int] | None, ended: set[str], on: str | None
) -> None:
    stage.domain.error = LOST
    left_with(stage, source, target)
    if on is None:
        with pytest.raises(LostGuestError, match="the guest did not live through it on either node"):
            stage.go()
        on = "nodea"
    else:
        went = stage.go()
        assert went.outcome is (MigrationOutcome.COMPLETED if on == "nodeb" else MigrationOutcome.FAILED)
        assert went.message.startswith("libvirt on nodea was lost during migrate3") and f"on {on}" in went.message
    assert destroyed(stage) == ended and stage.rests_on(on)
    demoted = f"drbdadm {'nodeb' if on == 'nodea' else 'nodea'} secondary"
    for node in ended:
        assert in_order(stage.steps, f"destroy on {node}", demoted), "nobody runs on a node that is demoted"
    assert in_order(stage.steps, "connection to nodea ended", "connection to nodeb ended", demoted)


def test_migrate_given_up_paused_source_goes_on(stage: Stage) -> None:
    stage.domain.error = LOST
    left_with(stage, WAITS, WAITS)
    stage.guest.pauses = ["reason 3"]
    stage.go()
    assert in_order(stage.steps, "destroy on nodeb", "found again", "resume"), "not before the other has ended"


def test_migrate_abort_ignored_both_ends_are_ended(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.abort_ends = False
    left_with(stage, RUNS, WAITS)
    stage.lab.story.when["connection to nodea ended"] = ends.set
    went = stage.go(seconds=0.03)
    assert went.outcome is MigrationOutcome.FAILED
    assert "was told to end and did not" in went.message and "the guest goes on on nodea" in went.message
    assert destroyed(stage) == {"nodeb"} and stage.rests_on("nodea")


def test_migrate_told_to_end_has_as_long_as_the_machine_is_slow(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "50")
    monkeypatch.setattr(module, "RETURN_SECONDS", 0.05)
    ends = under_way(stage)
    stage.domain.abort_ends = False
    later = threading.Timer(4 * module.ABORT_SECONDS, ends.set)
    later.start()
    went = stage.go(seconds=0.03)
    later.join()
    assert went.outcome is MigrationOutcome.ABORTED and not destroyed(stage)


def test_migrate_call_never_returns_ends_the_guest_on_both(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETURN_SECONDS", 0.05)
    ends = under_way(stage)
    stage.domain.abort_ends = False
    left_with(stage, RUNS, WAITS)
    with pytest.raises(LostGuestError, match="did not live through it"):
        stage.go(seconds=0.03)
    assert destroyed(stage) == {"nodea", "nodeb"}, "it may yet go on at either"
    assert in_order(stage.steps, "destroy on nodeb", "drbdadm nodeb secondary")
    ends.set()


@pytest.mark.parametrize("end", ["a", "b"])
def test_migrate_given_up_libvirt_that_hangs_is_done_without(stage: Stage, end: str) -> None:
    stage.domain.error = LOST
    left_with(stage, RUNS, WAITS)
    node = getattr(stage.lab, end)
    node.libvirt.error = HungCallError("libvirt did not answer lookupByName within 60 s")
    if end == "b":
        assert "the guest goes on on nodea" in stage.go().message
    else:
        with pytest.raises(LostGuestError):
            stage.go()
    kills = [argv for argv in node.runner.ran if argv[0] == "sh" and "kill -9" in argv[2]]
    assert [argv[-1] for argv in kills] == [stage.guest.spec.name]


def test_migrate_given_up_node_that_cannot_be_told_is_lost(stage: Stage) -> None:
    stage.domain.error = LOST
    left_with(stage, RUNS, WAITS)
    stage.lab.b.libvirt.error = LostNodeError("nodeb has answered nothing for 30 s")
    stage.lab.b.answers["kill -9"] = (1, "", "no answer")
    with pytest.raises(LostNodeError, match="nodeb could not be told to end the guest"):
        stage.go()


def test_migrate_fails_with_target_connection_lost_both_ends_are_looked_at(stage: Stage) -> None:
    stage.domain.error = LibvirtSaid("internal error: connection closed due to keepalive timeout")
    left_with(stage, RUNS, WAITS)
    stage.lab.b.libvirt.alive = False
    went = stage.go()
    assert went.outcome is MigrationOutcome.FAILED and "the guest goes on on nodea" in went.message
    assert destroyed(stage) == {"nodeb"} and stage.rests_on("nodea")


def test_migrate_target_that_is_silent_is_not_waited_for(stage: Stage) -> None:
    under_way(stage)
    stage.lab.b.runner.silent = "nodeb has answered nothing for 30 s"
    began = time.monotonic()
    went = stage.go(seconds=60)
    assert went.outcome is MigrationOutcome.ABORTED and time.monotonic() - began < 20
    assert stage.steps.count("abort") == 1 and stage.guest.node.name == "nodea"


def test_migrate_arrived_what_the_source_still_has_is_ended(stage: Stage) -> None:
    stage.guest.moved = lambda node, domain: setattr(stage.guest, "node", node)  # type: ignore[method-assign]
    stage.domain.said_state = WAITS
    assert stage.go().outcome is MigrationOutcome.COMPLETED
    assert in_order(stage.steps, "destroy on nodea", "drbdadm nodea secondary"), "it would hold the device open"


def test_migrate_no_job_statistics_completed(stage: Stage) -> None:
    def silent(flags: int = 0) -> dict[str, object]:
        raise LibvirtSaid("cannot acquire state change lock")

    for domain in (stage.domain, stage.guest.there):
        domain.jobStats = silent  # type: ignore[method-assign]
    went = stage.go()
    assert (went.outcome, went.downtime_ms) == (MigrationOutcome.COMPLETED, None)


def test_migrate_failed_guest_looked_up_before_agent_released(stage: Stage) -> None:
    stage.domain.error = LibvirtSaid("Cannot recv data: Connection reset by peer")
    held: list[bool] = []
    stage.lab.story.when["found again"] = lambda: held.append(stage.guest.agent.holding > 0)
    assert stage.go().outcome is MigrationOutcome.FAILED
    assert held == [True]


def test_migrate_failed_guest_not_found_outcome_unchanged(stage: Stage) -> None:
    stage.domain.error = LibvirtSaid("qemu unexpectedly closed the monitor")
    stage.lab.story.broken["found again"] = LostGuestError("the guest is not known to libvirt on nodea any more")
    went = stage.go()
    assert (went.outcome, went.message) == (MigrationOutcome.FAILED, "qemu unexpectedly closed the monitor")
    assert stage.rests_on("nodea") and stage.guest.agent.holding == 0

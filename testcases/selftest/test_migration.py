"""One live migration that arrives, is refused, breaks or is aborted, and what is so afterwards on every one of them."""

from __future__ import annotations

import logging

import libvirt
import pytest
from fake_drbd import MULTIPLE
from fake_libvirt import LibvirtSaid
from fake_story import in_order
from moving_guest import UNDER_WAY, Stage, stage, under_way

from harness.model import MigrationOutcome

__all__ = ["stage"]

UNSAFE = LibvirtSaid(
    "Unsafe migration: Migration may lead to data corruption if disks use cache other than none or directsync",
    libvirt.VIR_ERR_MIGRATE_UNSAFE,
)
TWO = "net-options --allow-two-primaries=yes --ping-timeout=50"
ONE = "net-options --allow-two-primaries=no --ping-timeout=5"


# --------------------------------------------------------------------------- it arrives


def test_migrate_completed_two_primaries_only_meanwhile(stage: Stage) -> None:
    stage.guest.there.completed = {
        "type": 3, "downtime": 34, "memory_iteration": 5, "data_processed": 4096, "memory_total": 1 << 28
    }  # fmt: skip
    went = stage.go()
    assert [step for step in stage.steps if step != "status"] == [
        f"drbdadm nodea {TWO}", f"drbdadm nodeb {TWO}",
        "drbdadm nodeb primary", "migrate nodea to nodeb", "moved to nodeb",
        "drbdadm nodea secondary", "drbdadm nodeb primary",
        f"drbdadm nodea {ONE}", f"drbdadm nodeb {ONE}",
    ]  # fmt: skip
    assert (went.number, went.source, went.target, went.outcome) == (1, "nodea", "nodeb", MigrationOutcome.COMPLETED)
    assert (went.downtime_ms, went.iterations, went.transferred_bytes, went.memory_bytes) == (34, 5, 4096, 1 << 28)
    assert 3 <= went.began < 10 and 0 <= went.seconds <= went.two_primaries_seconds < 10 and went.message == ""
    assert stage.rests_on("nodeb") and stage.guest.domain is stage.guest.there


def test_migrate_there_and_back_source_again(stage: Stage) -> None:
    assert [(stage.go().source, stage.rests_on("nodeb")), (stage.go().source, stage.rests_on("nodea"))] == [
        ("nodea", True), ("nodeb", True)
    ]  # fmt: skip


def test_migrate_agent_held_only_during_call(stage: Stage) -> None:
    stage.go()
    assert stage.domain.held_then == [True] and stage.guest.agent.holding == 0
    back = stage.guest.there
    back.error = LibvirtSaid("Lost connection to destination host")
    stage.go()
    assert back.held_then == [True] and stage.guest.agent.holding == 0, "also when it did not finish_in_guest"


def test_migrate_flags_and_uri_passed_to_libvirt(stage: Stage) -> None:
    stage.go()
    ((destination, parameters, flags),) = stage.domain.asked
    assert (destination, parameters) == ("nodeb", {libvirt.VIR_MIGRATE_PARAM_URI: "tcp://192.0.2.2"})
    assert flags & libvirt.VIR_MIGRATE_LIVE and flags & libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    storage = libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_NON_SHARED_INC
    assert not flags & storage, "a second copy of the disk would overwrite what DRBD has there"


def test_migrate_job_statistics_over_monitor_connection(stage: Stage) -> None:
    asked: list[str] = []

    class Monitor:
        def jobStats(self) -> dict[str, object]:  # noqa: N802 - libvirt's name
            asked.append("stats")
            return dict(UNDER_WAY)

        def abortJob(self) -> None:  # noqa: N802 - libvirt's name
            stage.domain.abortJob()
            asked.append("abort")

    def shared(flags: int = 0) -> dict[str, object]:
        raise AssertionError("two threads over one connection")

    under_way(stage)
    stage.domain.jobStats = shared  # type: ignore[method-assign]
    stage.guest.monitor_domain = Monitor  # type: ignore[method-assign]
    assert stage.go(seconds=0.03).outcome is MigrationOutcome.ABORTED
    assert asked.count("abort") == 1 and asked.count("stats") >= 1


def test_migrate_bandwidth_limit_passed_to_libvirt(stage: Stage) -> None:
    stage.go(bandwidth_mib=1)
    assert stage.domain.asked[0][1][libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == 1


def test_migrate_no_statistics_figures_none(stage: Stage) -> None:
    stage.guest.there.completed = {}
    went = stage.go()
    assert went.outcome is MigrationOutcome.COMPLETED
    assert (went.downtime_ms, went.iterations, went.throttle_percent) == (None, None, None)


def test_migrate_throttle_highest_sample_kept(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.sample["auto_converge_throttle"] = 40
    went = stage.go(on_precopy=ends.set)
    assert (went.outcome, went.throttle_percent) == (MigrationOutcome.COMPLETED, 40)


def test_migration_is_logged_once_with_its_options_and_how_libvirt_ended_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "harness.libvirt")
    stage.go(bandwidth_mib=7)
    stage.guest.domain.error = UNSAFE
    assert stage.go(unsafe=True).outcome is MigrationOutcome.REFUSED
    columns = [message.split("\t") for message in caplog.messages]
    assert [column[1] for column in columns] == ["nodea", "nodeb"]
    assert columns[0][2] == "ok" and columns[0][4] == "migrate3 migrate_uri=tcp://192.0.2.2 bandwidth=7"
    assert columns[1][2] != "ok" and columns[1][4:] == ["migrate3 migrate_uri=tcp://192.0.2.1 unsafe", str(UNSAFE)]


# --------------------------------------------------------------------------- it is refused


def test_migrate_libvirt_refuses_refused_with_message(stage: Stage) -> None:
    stage.domain.error = UNSAFE
    went = stage.go()
    assert went.outcome is MigrationOutcome.REFUSED and "may lead to data corruption" in went.message
    assert stage.rests_on("nodea") and "moved to nodeb" not in stage.steps


@pytest.mark.parametrize("error", [None, UNSAFE])
def test_migrate_unsafe_not_requested_flag_never_passed(stage: Stage, error: BaseException | None) -> None:
    stage.domain.error = error
    stage.go()
    assert len(stage.domain.asked) == 1, "a refusal is not talked over"
    assert not stage.domain.asked[0][2] & libvirt.VIR_MIGRATE_UNSAFE


def test_migrate_unsafe_requested_flag_passed(stage: Stage) -> None:
    stage.go(unsafe=True)
    assert stage.domain.asked[0][2] & libvirt.VIR_MIGRATE_UNSAFE


def test_migrate_drbd_refuses_two_primaries_refused(stage: Stage) -> None:
    stage.resource.refuses[f"nodeb {TWO}"] = ["(-139) two primaries need protocol C"]
    went = stage.go()
    assert went.outcome is MigrationOutcome.REFUSED and "two primaries need protocol C" in went.message
    assert stage.domain.asked == [], "the guest was never told to move"
    assert stage.rests_on("nodea") and went.seconds >= 0


def test_migrate_drbd_refuses_promotion_refused(stage: Stage) -> None:
    stage.resource.refuses["nodeb primary"] = [MULTIPLE]
    went = stage.go()
    assert went.outcome is MigrationOutcome.REFUSED and MULTIPLE in went.message
    assert stage.domain.asked == [] and stage.rests_on("nodea")


# --------------------------------------------------------------------------- the nodes lose each other


def lose_each_other(stage: Stage) -> None:
    stage.resource.links = {"nodea": "Connecting", "nodeb": "StandAlone"}


def test_migrate_refusal_while_disconnected_failed(stage: Stage) -> None:
    lose_each_other(stage)
    stage.resource.refuses[f"nodeb {TWO}"] = ["(162) unknown connection"]
    went = stage.go()
    assert went.outcome is MigrationOutcome.FAILED and "(162) unknown connection" in went.message
    assert "nodea Connecting Primary; nodeb StandAlone Secondary" in went.message


def test_migrate_connection_lost_at_promotion_failed_guest_stays(stage: Stage) -> None:
    stage.lab.story.when["drbdadm nodeb primary"] = lambda: lose_each_other(stage)
    went = stage.go()
    assert went.outcome is MigrationOutcome.FAILED
    assert "not connected when both were to be Primary (nodea Connecting Primary; nodeb StandAlone" in went.message
    assert stage.domain.asked == [], "it would read another's data there"
    assert stage.rests_on("nodea")


# --------------------------------------------------------------------------- it breaks


@pytest.mark.parametrize(
    ("error", "is_under_way"),
    [
        (LibvirtSaid("Lost connection to destination host"), False),
        (LibvirtSaid("operation failed: migration job: unexpectedly failed", libvirt.VIR_ERR_OPERATION_FAILED), True),
        (LibvirtSaid("Unsafe after all", libvirt.VIR_ERR_MIGRATE_UNSAFE), True),
    ],
)
def test_migrate_libvirt_error_failed(stage: Stage, error: BaseException, is_under_way: bool) -> None:
    stage.domain.error = error
    on_precopy = under_way(stage).set if is_under_way else None
    went = stage.go(on_precopy=on_precopy)
    assert (went.outcome, went.message) == (MigrationOutcome.FAILED, str(error))
    assert stage.rests_on("nodea")


def test_migrate_too_long_aborted_guest_stays(stage: Stage) -> None:
    under_way(stage)
    went = stage.go(seconds=0.03)
    assert went.outcome is MigrationOutcome.ABORTED and "canceled by client" in went.message
    assert stage.steps.count("abort") == 1, "told once"
    assert in_order(stage.steps, "migrate nodea to nodeb", "abort", "drbdadm nodeb secondary", "drbdadm nodea primary")
    assert went.iterations == 2, "what was seen under way is kept"
    assert stage.rests_on("nodea")


def test_migrate_abort_not_taken_is_repeated(stage: Stage) -> None:
    under_way(stage)
    abort, refusals = stage.domain.abortJob, [LibvirtSaid("no job is active on the domain")]

    def refuse_once() -> None:
        if refusals:
            raise refusals.pop()
        abort()

    stage.domain.abortJob = refuse_once  # type: ignore[method-assign]
    went = stage.go(seconds=0.03)
    assert went.outcome is MigrationOutcome.ABORTED and not refusals
    assert stage.rests_on("nodea")


def test_migrate_completes_despite_abort_completed(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.abortJob = ends.set  # type: ignore[method-assign]
    assert stage.go(seconds=0.03).outcome is MigrationOutcome.COMPLETED
    assert stage.rests_on("nodeb")

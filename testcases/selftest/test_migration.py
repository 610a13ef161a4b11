"""One live migration: each way it can end, and what is so afterwards on every one of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import cast

import libvirt
import pytest
from fakes import MULTIPLE, FakeDomain, FakeLab, FakeResource, LibvirtSaid, Traveller, in_order

from harness.drbd import roles
from harness.drbd.resource import Resource
from harness.errors import CommandError, HungCallError, LostGuestError, LostLibvirtError, LostNodeError, RefusedError
from harness.guest import migration as module
from harness.guest.domain import Guest
from harness.guest.migration import MigrationRequest, migrate
from harness.lab.node import Node
from harness.model import Migration, MigrationOutcome
from harness.util.deadline import poll

UNSAFE = LibvirtSaid(
    "Unsafe migration: Migration may lead to data corruption if disks use cache other than none or directsync",
    libvirt.VIR_ERR_MIGRATE_UNSAFE,
)
TWO = "net-options --allow-two-primaries=yes --ping-timeout=50"
ONE = "net-options --allow-two-primaries=no --ping-timeout=5"
UNDER_WAY: dict[str, object] = {"type": 2, "memory_iteration": 2, "memory_total": 1 << 28}


class Stage:
    """A guest between two nodes, and a DRBD below it."""

    def __init__(self) -> None:
        self.lab = FakeLab()
        self.resource = FakeResource(self.lab)
        self.guest = Traveller(self.lab)
        self.domain: FakeDomain = self.guest.here

    def go(
        self, seconds: float = 20.0, unsafe: bool = False, bandwidth_mib: int = 0,
        on_precopy: Callable[[], None] | None = None,
    ) -> Migration:  # fmt: skip
        target = self.lab.b if self.guest.node is self.lab.a else self.lab.a
        request = MigrationRequest(1, seconds, unsafe, bandwidth_mib)
        return migrate(
            cast(Guest, self.guest), cast(Resource, self.resource), cast(Node, target), request,
            time.monotonic() - 3, on_precopy,
        )  # fmt: skip

    @property
    def steps(self) -> list[str]:
        return self.lab.story.steps

    def rests_on(self, name: str) -> bool:
        """Whether that node, where the guest is, is the only Primary, and two are not allowed any more."""
        other = "nodea" if name == "nodeb" else "nodeb"
        alone = {"allow-two-primaries": "no", "ping-timeout": "5"}
        forbidden = all(node.net == alone for node in (self.lab.a, self.lab.b))
        return self.guest.node.name == name and forbidden and self.resource.roles == {
            name: "Primary", other: "Secondary"
        }  # fmt: skip


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module, "SAMPLE_SECONDS", 0.005)
    monkeypatch.setattr(module, "ABORT_SECONDS", 0.2)
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    return Stage()


def under_way(stage: Stage) -> threading.Event:
    """The migration goes on, with memory on its way, until the event that is returned."""
    stage.domain.ends = threading.Event()
    stage.domain.sample = dict(UNDER_WAY)
    return stage.domain.ends


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


# --------------------------------------------------------------------------- nobody tells how it ended

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


# --------------------------------------------------------------------------- in the middle of it


def test_migrate_on_precopy_called_once(stage: Stage) -> None:
    ends = under_way(stage)
    calls: list[bool] = []

    def on_precopy() -> None:
        calls.append(stage.guest.agent.holding > 0)
        threading.Timer(0.05, ends.set).start()

    stage.go(on_precopy=on_precopy)
    assert calls == [True]


def test_migrate_on_precopy_not_called_before_memory_moves(stage: Stage) -> None:
    stage.domain.ends = threading.Event()
    stage.domain.sample = {"type": 2, "memory_iteration": 0}
    calls: list[int] = []
    threading.Timer(0.05, stage.domain.ends.set).start()
    assert stage.go(on_precopy=lambda: calls.append(1)).outcome is MigrationOutcome.COMPLETED
    assert calls == []


def test_migrate_target_lost_in_precopy_source_stays_primary(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.error = LibvirtSaid("Lost connection to destination host")

    def lose() -> None:
        stage.lab.power_off(stage.lab.b)
        ends.set()

    went = stage.go(on_precopy=lose)
    assert went.outcome is MigrationOutcome.FAILED, "and no error of its own: nodeb cannot be told to be Secondary"
    assert stage.guest.node is stage.lab.a and stage.resource.roles["nodea"] == "Primary"


@pytest.mark.parametrize(
    "error", [LostNodeError("gone"), CommandError("nodea", ["tc"], 1, "", "no"), KeyboardInterrupt()]
)
def test_migrate_on_precopy_error_raised_single_primary(stage: Stage, error: BaseException) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise error

    with pytest.raises(type(error)):
        stage.go(on_precopy=break_it)
    assert stage.rests_on("nodea") and stage.guest.agent.holding == 0
    ends.set()


def test_migrate_on_precopy_error_migration_aborted(stage: Stage) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise CommandError("nodea", ["tc"], 1, "", "no")

    try:
        with pytest.raises(CommandError):
            stage.go(on_precopy=break_it)
        assert in_order(stage.steps, "abort", "drbdadm nodeb secondary"), (
            "or it may finish_in_guest on a node that is Secondary"
        )
        assert stage.rests_on("nodea")
    finally:
        ends.set()


def test_migrate_on_precopy_refusal_not_taken_for_migrations(stage: Stage) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise RefusedError("DRBD on nodea", "something else")

    try:
        with pytest.raises(RefusedError):
            stage.go(on_precopy=break_it)
        assert "abort" in stage.steps and stage.rests_on("nodea")
    finally:
        ends.set()


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

"""One live migration: each way it can end, and what is so afterwards on every one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import libvirt
import pytest
from fakes import MULTIPLE, FakeDomain, FakeLab, FakeResource, LibvirtSaid, Traveller, in_order

from harness.drbd import roles
from harness.drbd.resource import Resource
from harness.errors import CommandError, LostGuestError, LostNodeError, RefusedError
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
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(module, "ABORT_SECONDS", 0.2)
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    return Stage()


def under_way(stage: Stage) -> threading.Event:
    """The migration goes on, with memory on its way, until the event that is returned."""
    stage.domain.ends = threading.Event()
    stage.domain.sample = dict(UNDER_WAY)
    return stage.domain.ends


# --------------------------------------------------------------------------- it arrives


def test_a_migration_opens_the_roles_moves_and_closes_them(stage: Stage) -> None:
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


def test_it_goes_there_and_back(stage: Stage) -> None:
    assert [(stage.go().source, stage.rests_on("nodeb")), (stage.go().source, stage.rests_on("nodea"))] == [
        ("nodea", True), ("nodeb", True)
    ]  # fmt: skip


def test_the_agent_is_held_during_the_move_and_only_then(stage: Stage) -> None:
    stage.go()
    assert stage.domain.held_then == [True] and stage.guest.agent.holding == 0
    back = stage.guest.there
    back.error = LibvirtSaid("Lost connection to destination host")
    stage.go()
    assert back.held_then == [True] and stage.guest.agent.holding == 0, "also when it did not finish_in_guest"


def test_what_is_asked_of_libvirt(stage: Stage) -> None:
    stage.go()
    ((destination, parameters, flags),) = stage.domain.asked
    assert (destination, parameters) == ("nodeb", {libvirt.VIR_MIGRATE_PARAM_URI: "tcp://192.0.2.2"})
    assert flags & libvirt.VIR_MIGRATE_LIVE and flags & libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    storage = libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_NON_SHARED_INC
    assert not flags & storage, "a second copy of the disk would overwrite what DRBD has there"


def test_who_looks_on_does_so_over_a_connection_of_its_own(stage: Stage) -> None:
    asked: list[str] = []

    class Monitor:
        def jobStats(self) -> dict[str, object]:  # noqa: N802 - libvirt's name
            asked.append("stats")
            return dict(UNDER_WAY)

        def abortJob(self) -> None:  # noqa: N802 - libvirt's name
            asked.append("abort")
            stage.domain.abortJob()

    def shared(flags: int = 0) -> dict[str, object]:
        raise AssertionError("two threads over one connection")

    under_way(stage)
    stage.domain.jobStats = shared  # type: ignore[method-assign]
    stage.guest.monitor_domain = Monitor  # type: ignore[method-assign]
    assert stage.go(seconds=0.03).outcome is MigrationOutcome.ABORTED
    assert asked.count("abort") == 1 and asked.count("stats") > 1


def test_a_limit_on_the_bandwidth_is_handed_on(stage: Stage) -> None:
    stage.go(bandwidth_mib=1)
    assert stage.domain.asked[0][1][libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == 1


def test_figures_that_nobody_has_are_none(stage: Stage) -> None:
    stage.guest.there.completed = {}
    went = stage.go()
    assert went.outcome is MigrationOutcome.COMPLETED
    assert (went.downtime_ms, went.iterations, went.throttle_percent) == (None, None, None)


def test_the_throttle_is_remembered_from_under_way(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.sample["auto_converge_throttle"] = 40
    went = stage.go(on_precopy=ends.set)
    assert (went.outcome, went.throttle_percent) == (MigrationOutcome.COMPLETED, 40)


# --------------------------------------------------------------------------- it is refused


def test_libvirts_refusal_is_an_outcome_with_its_words(stage: Stage) -> None:
    stage.domain.error = UNSAFE
    went = stage.go()
    assert went.outcome is MigrationOutcome.REFUSED and "may lead to data corruption" in went.message
    assert stage.rests_on("nodea") and "moved to nodeb" not in stage.steps


@pytest.mark.parametrize("error", [None, UNSAFE])
def test_the_unsafe_flag_is_never_passed_unless_it_is_asked_for(stage: Stage, error: BaseException | None) -> None:
    stage.domain.error = error
    stage.go()
    assert len(stage.domain.asked) == 1, "a refusal is not talked over"
    assert not stage.domain.asked[0][2] & libvirt.VIR_MIGRATE_UNSAFE


def test_the_unsafe_flag_is_passed_where_it_is_asked_for(stage: Stage) -> None:
    stage.go(unsafe=True)
    assert stage.domain.asked[0][2] & libvirt.VIR_MIGRATE_UNSAFE


def test_drbds_refusal_of_two_primaries_is_one_too(stage: Stage) -> None:
    stage.resource.refuses[f"nodeb {TWO}"] = ["(-139) two primaries need protocol C"]
    went = stage.go()
    assert went.outcome is MigrationOutcome.REFUSED and "two primaries need protocol C" in went.message
    assert stage.domain.asked == [], "the guest was never told to move"
    assert stage.rests_on("nodea") and went.seconds >= 0


def test_drbds_refusal_of_the_second_primary_is_one_too(stage: Stage) -> None:
    stage.resource.refuses["nodeb primary"] = [MULTIPLE]
    went = stage.go()
    assert went.outcome is MigrationOutcome.REFUSED and MULTIPLE in went.message
    assert stage.domain.asked == [] and stage.rests_on("nodea")


# --------------------------------------------------------------------------- the nodes lose each other


def lose_each_other(stage: Stage) -> None:
    stage.resource.links = {"nodea": "Connecting", "nodeb": "StandAlone"}


def test_a_no_of_two_that_lost_each_other_is_no_refusal(stage: Stage) -> None:
    lose_each_other(stage)
    stage.resource.refuses[f"nodeb {TWO}"] = ["(162) unknown connection"]
    went = stage.go()
    assert went.outcome is MigrationOutcome.FAILED and "(162) unknown connection" in went.message
    assert "nodea Connecting Primary; nodeb StandAlone Secondary" in went.message


def test_no_guest_moves_between_two_that_lost_each_other_as_both_became_primary(stage: Stage) -> None:
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
def test_what_breaks_is_no_refusal(stage: Stage, error: BaseException, is_under_way: bool) -> None:
    stage.domain.error = error
    on_precopy = under_way(stage).set if is_under_way else None
    went = stage.go(on_precopy=on_precopy)
    assert (went.outcome, went.message) == (MigrationOutcome.FAILED, str(error))
    assert stage.rests_on("nodea")


def test_one_that_does_not_end_in_its_time_is_told_to_and_the_guest_stays(stage: Stage) -> None:
    under_way(stage)
    went = stage.go(seconds=0.03)
    assert went.outcome is MigrationOutcome.ABORTED and "canceled by client" in went.message
    assert stage.steps.count("abort") == 1, "told once"
    assert in_order(stage.steps, "migrate nodea to nodeb", "abort", "drbdadm nodeb secondary", "drbdadm nodea primary")
    assert went.iterations == 2, "what was seen under way is kept"
    assert stage.rests_on("nodea")


def test_one_that_arrives_although_it_was_told_to_end_arrived(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.abortJob = ends.set  # type: ignore[method-assign]
    assert stage.go(seconds=0.03).outcome is MigrationOutcome.COMPLETED
    assert stage.rests_on("nodeb")


def test_one_that_does_not_even_end_when_told_to_is_left_behind(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.abort_ends = False
    went = stage.go(seconds=0.03)
    assert went.outcome is MigrationOutcome.FAILED and "did not end within" in went.message
    assert stage.resource.roles == {"nodea": "Primary", "nodeb": "Secondary"}
    ends.set()


def test_a_domain_that_says_nothing_of_its_job_is_no_trouble(stage: Stage) -> None:
    def silent(flags: int = 0) -> dict[str, object]:
        raise LibvirtSaid("cannot acquire state change lock")

    for domain in (stage.domain, stage.guest.there):
        domain.jobStats = silent  # type: ignore[method-assign]
    went = stage.go()
    assert (went.outcome, went.downtime_ms) == (MigrationOutcome.COMPLETED, None)


def test_a_guest_that_stayed_is_found_again_before_anybody_asks_its_agent(stage: Stage) -> None:
    stage.domain.error = LibvirtSaid("Cannot recv data: Connection reset by peer")
    held: list[bool] = []
    stage.lab.story.when["found again"] = lambda: held.append(stage.guest.agent.holding > 0)
    assert stage.go().outcome is MigrationOutcome.FAILED
    assert held == [True]


def test_a_guest_that_is_not_found_again_is_no_other_outcome(stage: Stage) -> None:
    stage.domain.error = LibvirtSaid("qemu unexpectedly closed the monitor")
    stage.lab.story.broken["found again"] = LostGuestError("the guest is not known to libvirt on nodea any more")
    went = stage.go()
    assert (went.outcome, went.message) == (MigrationOutcome.FAILED, "qemu unexpectedly closed the monitor")
    assert stage.rests_on("nodea") and stage.guest.agent.holding == 0


# --------------------------------------------------------------------------- in the middle of it


def test_what_is_to_happen_midway_happens_once(stage: Stage) -> None:
    ends = under_way(stage)
    calls: list[bool] = []

    def on_precopy() -> None:
        calls.append(stage.guest.agent.holding > 0)
        threading.Timer(0.05, ends.set).start()

    stage.go(on_precopy=on_precopy)
    assert calls == [True]


def test_nothing_happens_midway_before_memory_is_on_its_way(stage: Stage) -> None:
    stage.domain.ends = threading.Event()
    stage.domain.sample = {"type": 2, "memory_iteration": 0}
    calls: list[int] = []
    threading.Timer(0.05, stage.domain.ends.set).start()
    assert stage.go(on_precopy=lambda: calls.append(1)).outcome is MigrationOutcome.COMPLETED
    assert calls == []


def test_a_target_that_is_lost_midway_leaves_the_source_as_it_was(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.error = LibvirtSaid("Lost connection to destination host")

    def lose() -> None:
        stage.lab.kill(stage.lab.b)
        ends.set()

    went = stage.go(on_precopy=lose)
    assert went.outcome is MigrationOutcome.FAILED, "and no error of its own: nodeb cannot be told to be Secondary"
    assert stage.guest.node is stage.lab.a and stage.resource.roles["nodea"] == "Primary"


@pytest.mark.parametrize(
    "error", [LostNodeError("gone"), CommandError("nodea", ["tc"], 1, "", "no"), KeyboardInterrupt()]
)
def test_an_error_midway_gets_out_and_the_roles_are_closed(stage: Stage, error: BaseException) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise error

    with pytest.raises(type(error)):
        stage.go(on_precopy=break_it)
    assert stage.rests_on("nodea") and stage.guest.agent.holding == 0
    ends.set()


def test_an_error_midway_ends_the_migration(stage: Stage) -> None:
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


def test_a_refusal_midway_is_no_refusal_of_the_migration(stage: Stage) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise RefusedError("DRBD on nodea", "something else")

    try:
        with pytest.raises(RefusedError):
            stage.go(on_precopy=break_it)
        assert "abort" in stage.steps and stage.rests_on("nodea")
    finally:
        ends.set()

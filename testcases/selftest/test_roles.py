"""Who is Primary, how two nodes connect again, and what DRBD's refusals become."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from fake_drbd import HEALTHY, HELD_OPEN, MULTIPLE, FakeResource
from fake_lab import FakeLab, FakeNode
from fake_story import Story

from harness.drbd import roles
from harness.drbd.resource import Resource
from harness.errors import DeadlineError, LostNodeError, RefusedError
from harness.model import ReplicationProfile
from harness.remote.scripted import ScriptedRunner
from harness.util.deadline import Deadline, poll


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeResource:
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    return FakeResource(FakeLab())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is given time is given almost none."""

    class Soon(Deadline):
        @classmethod
        def after(cls, seconds: float, what: str) -> Deadline:
            return Deadline(what, time.monotonic() + 0.02, seconds)

    monkeypatch.setattr(roles, "Deadline", Soon)


def real(fake: FakeResource) -> Resource:
    return cast(Resource, fake)


def node(one: FakeNode) -> Any:
    return one


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds, "the reunion")


def done(fake: FakeResource) -> list[str]:
    """What DRBD was told, each without the word that it is DRBD."""
    return [step.removeprefix("drbdadm ") for step in fake.lab.story.steps if step.startswith("drbdadm ")]


TWO = "net-options --allow-two-primaries=yes --ping-timeout=50"
ONE = "net-options --allow-two-primaries=no --ping-timeout=5"
PLAIN = {"nodea": "Primary", "nodeb": "Secondary"}


# --------------------------------------------------------------------------- what DRBD says no to


def scripted(status: int, stdout: str = "", stderr: str = "") -> tuple[Resource, ScriptedRunner]:
    a, b = FakeNode(Story(), "nodea"), FakeNode(Story(), "nodeb")
    a.answers["drbdadm"] = (status, stdout, stderr)
    resource = Resource.for_nodes(cast(Any, a), cast(Any, b))
    return resource, a.runner


@pytest.mark.parametrize("output", [("", "0: State change failed:\n  (-1) Multiple primaries"), ("0: State change "
                                  "failed: (-1) Multiple primaries\n", " ")])  # fmt: skip
def test_drbdadm_refusal_carries_drbds_message_in_one_line(output: tuple[str, str]) -> None:
    resource, runner = scripted(11, *output)
    with pytest.raises(RefusedError) as caught:
        resource.drbdadm(resource.a, "primary")
    assert runner.ran == [("drbdadm", "primary", "r0")]
    assert (caught.value.who, caught.value.message) == (
        "DRBD on nodea", "drbdadm primary: 0: State change failed: (-1) Multiple primaries"
    )  # fmt: skip


def test_drbdadm_refusal_without_message_has_the_status() -> None:
    resource, _ = scripted(10)
    with pytest.raises(RefusedError, match="DRBD on nodea refused: drbdadm connect --discard-my-data: status 10"):
        resource.drbdadm(resource.a, "connect", "--discard-my-data")


def test_drbdadm_options_stand_between_command_and_resource() -> None:
    resource, runner = scripted(0, "", "a warning that is none of ours")
    resource.drbdadm(resource.a, "net-options", "--allow-two-primaries=yes")
    assert runner.ran == [("drbdadm", "net-options", "--allow-two-primaries=yes", "r0")]


def test_drbdadm_on_lost_node_is_lost_node_error() -> None:
    resource, _ = scripted(0)
    cast(Any, resource.a).alive = False
    with pytest.raises(LostNodeError):
        resource.drbdadm(resource.a, "primary")


# --------------------------------------------------------------------------- one Primary, two Primaries


def test_other_of_each_node_is_its_peer(fake: FakeResource) -> None:
    assert roles.other(real(fake), node(fake.a)).name == "nodeb"
    assert roles.other(real(fake), node(fake.b)).name == "nodea"


def test_allow_two_primaries_before_promote_makes_two(fake: FakeResource) -> None:
    with pytest.raises(RefusedError) as caught:
        roles.promote(real(fake), node(fake.b))
    assert MULTIPLE in caught.value.message
    roles.allow_two_primaries(real(fake), True)
    roles.promote(real(fake), node(fake.b))
    assert set(fake.roles.values()) == {"Primary"}
    assert done(fake)[1:] == [
        f"nodea {TWO}", f"nodeb {TWO}", "nodeb primary"
    ]  # fmt: skip


def test_set_single_primary_demotes_promotes_and_forbids_two(fake: FakeResource) -> None:
    roles.set_single_primary(real(fake), node(fake.b))
    assert done(fake) == [
        "nodea secondary", "nodeb primary",
        f"nodea {ONE}", f"nodeb {ONE}",
    ]  # fmt: skip
    assert fake.roles == {"nodea": "Secondary", "nodeb": "Primary"}


def test_allow_two_primaries_in_a_profile_that_always_does_ends_the_patience_only(fake: FakeResource) -> None:
    fake.replication = ReplicationProfile(allow_two_primaries=True)
    roles.allow_two_primaries(real(fake), False, node(fake.a))
    assert done(fake) == ["nodea net-options --allow-two-primaries=yes --ping-timeout=5"]


def test_set_single_primary_in_two_primaries_profile_keeps_the_permission(fake: FakeResource) -> None:
    fake.replication = ReplicationProfile(two_primaries=True)
    roles.set_single_primary(real(fake), node(fake.a))
    kept = "net-options --allow-two-primaries=yes --ping-timeout=5"
    assert done(fake) == ["nodeb secondary", "nodea primary", f"nodea {kept}", f"nodeb {kept}"]
    fake.replication = None
    roles.set_single_primary(real(fake), node(fake.a))
    assert f"nodea {ONE}" in done(fake), "nobody knows what is allowed"


READER = "State change failed: (-10) State change was refused by peer node"
TRANSIENT = "State change failed: (-18) In transient state, retry after next state change"


def test_promote_while_udev_reads_the_peers_device_waits(fake: FakeResource) -> None:
    fake.refuses["nodea primary"] = [READER, TRANSIENT]
    roles.promote(real(fake), node(fake.a))
    assert done(fake) == ["nodea primary"] * 3 and fake.roles["nodea"] == "Primary"


def test_promote_that_never_may_is_refused_with_what_drbd_said(fake: FakeResource, impatient: None) -> None:
    fake.refuses["nodea primary"] = [READER] * 100_000
    with pytest.raises(RefusedError, match=r"\(-10\) State change was refused by peer node"):
        roles.promote(real(fake), node(fake.a))


def test_demote_in_a_transient_state_waits(fake: FakeResource) -> None:
    fake.refuses["nodea secondary"] = [TRANSIENT]
    roles.demote(real(fake), node(fake.a))
    assert done(fake) == ["nodea secondary"] * 2


def test_demote_while_device_is_open_waits(fake: FakeResource) -> None:
    fake.refuses["nodea secondary"] = [HELD_OPEN, HELD_OPEN, "r0 is opened by qemu (pid 7)"]
    roles.demote(real(fake), node(fake.a))
    assert done(fake) == ["nodea secondary"] * 4 and fake.roles["nodea"] == "Secondary"


def test_demote_device_that_stays_open_is_deadline_error(fake: FakeResource, impatient: None) -> None:
    fake.refuses["nodea secondary"] = [HELD_OPEN] * 100_000
    with pytest.raises(DeadlineError, match="the demotion of nodea did not happen within 30 s"):
        roles.demote(real(fake), node(fake.a))


def test_demote_other_refusal_is_raised_at_once(fake: FakeResource) -> None:
    fake.refuses["nodea secondary"] = ["State change failed: (-2) Need access to UpToDate data"]
    with pytest.raises(RefusedError, match="Need access to UpToDate data"):
        roles.demote(real(fake), node(fake.a))
    assert done(fake) == ["nodea secondary"]


NOT_CURRENT = "Failure: (142) Can only attach to the data we lost last (see kernel log)."


def test_reattach_of_a_primary_that_needs_its_peers_disk_first_is_tried_behind_it(fake: FakeResource) -> None:
    fake.disks = {"nodea": "Diskless", "nodeb": "Diskless"}
    fake.refuses["nodea attach"] = [NOT_CURRENT]
    roles.reattach(real(fake))
    assert done(fake) == ["nodea attach", "nodeb attach", "nodea attach"]
    assert "Diskless" not in fake.disks.values()


def test_reattach_of_a_primary_that_dropped_its_peer_connects_first(fake: FakeResource) -> None:
    """As DRBD 9.3.3 did when its peer's disk failed behind its own: "Need access to UpToDate data", StandAlone."""
    fake.disks = {"nodea": "Diskless", "nodeb": "Diskless"}
    fake.links = {"nodea": "StandAlone", "nodeb": "Connecting"}
    fake.refuses["nodea attach"] = [NOT_CURRENT]
    roles.reattach(real(fake))
    assert done(fake) == ["nodea attach", "nodeb attach", "nodea connect", "nodea attach"]
    assert "Diskless" not in fake.disks.values() and set(fake.links.values()) == {"Connected"}


def test_reattach_that_is_refused_again_is_refused_with_drbds_message(fake: FakeResource) -> None:
    fake.disks = {"nodea": "Diskless", "nodeb": "UpToDate"}
    fake.refuses["nodea attach"] = [NOT_CURRENT] * 2
    with pytest.raises(RefusedError, match="Can only attach to the data"):
        roles.reattach(real(fake))


# --------------------------------------------------------------------------- what both say


def test_states_are_each_nodes_own_view(fake: FakeResource) -> None:
    assert roles.states(real(fake))["nodea"] == HEALTHY
    seen = roles.states(real(fake))["nodeb"]
    assert (seen.local_role, seen.peer_role) == ("Secondary", "Primary")
    fake.lab.power_off(fake.a)
    only = roles.states(real(fake))
    assert list(only) == ["nodeb"] and only["nodeb"].connection == "Connecting"


def test_wait_healthy_or_standalone_waits_until_both_are_healthy(fake: FakeResource) -> None:
    assert roles.wait_healthy_or_standalone(real(fake), soon()) is True
    looks: list[int] = []

    def later() -> None:
        looks.append(1)
        if len(looks) == 9:
            fake.disks["nodeb"] = "UpToDate"

    fake.disks["nodeb"] = "Inconsistent"
    fake.lab.story.when["status"] = later
    assert roles.wait_healthy_or_standalone(real(fake), soon()) is True and len(looks) >= 9


def test_wait_healthy_or_standalone_with_one_standalone_returns_false_at_once(fake: FakeResource) -> None:
    fake.links = {"nodea": "Connecting", "nodeb": "StandAlone"}
    began = time.monotonic()
    assert roles.wait_healthy_or_standalone(real(fake), soon(60)) is False and time.monotonic() - began < 10


def test_wait_healthy_or_standalone_while_connecting_is_deadline_error(fake: FakeResource) -> None:
    fake.links = {"nodea": "Connecting", "nodeb": "Connecting"}
    with pytest.raises(DeadlineError, match="the reunion did not happen"):
        roles.wait_healthy_or_standalone(real(fake), soon(0.02))


# --------------------------------------------------------------------------- together again


@pytest.mark.parametrize("victim", ["nodea", "nodeb"])
def test_reconnect_discarding_discards_only_the_victims_changes(fake: FakeResource, victim: str) -> None:
    fake.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
    fake.roles = {"nodea": "Primary", "nodeb": "Primary"}
    fake.split = True
    loser = fake.a if victim == "nodea" else fake.b
    winner = fake.b if victim == "nodea" else fake.a
    roles.reconnect_discarding(real(fake), node(loser), soon())
    assert done(fake)[-3:] == [
        f"{victim} secondary", f"{victim} connect --discard-my-data", f"{winner.name} connect"
    ], "a Primary discards nothing, so it is demoted first"  # fmt: skip
    assert not any(step.startswith(winner.name) and "discard" in step for step in done(fake))
    assert fake.seen_by(fake.a).healthy and fake.roles[winner.name] == "Primary"


def test_reconnect_discarding_that_is_forgotten_in_the_handshake_is_tried_again(fake: FakeResource) -> None:
    fake.split, fake.links = True, {"nodea": "StandAlone", "nodeb": "StandAlone"}
    tries: list[int] = []

    def connected() -> None:
        tries.append(1)
        fake.split = len(tries) < 3

    fake.lab.story.when["drbdadm nodea connect"] = connected
    roles.reconnect_discarding(real(fake), node(fake.b), soon())
    assert len(tries) == 3 and fake.seen_by(fake.a).healthy


def test_reconnect_discarding_waits_for_the_end_of_a_disconnect(fake: FakeResource) -> None:
    fake.links = {"nodea": "Disconnecting", "nodeb": "StandAlone"}
    fake.refuses = {f"{name} disconnect": ["it is under way"] for name in ("nodea", "nodeb")}
    looks: list[int] = []
    looks_then: list[int] = []

    def later() -> None:
        looks.append(1)
        if len(looks) == 6:
            fake.links["nodea"] = "StandAlone"

    fake.lab.story.when["status"] = later
    fake.lab.story.when["drbdadm nodeb connect --discard-my-data"] = lambda: looks_then.append(len(looks))
    roles.reconnect_discarding(real(fake), node(fake.b), soon())
    assert looks_then and looks_then[0] >= 6, "DRBD 9 refuses it before"
    assert fake.seen_by(fake.a).healthy


def test_reconnect_discarding_when_already_disconnected_connects(fake: FakeResource) -> None:
    fake.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
    fake.refuses = {f"{name} disconnect": ["no such connection"] for name in ("nodea", "nodeb")}
    roles.reconnect_discarding(real(fake), node(fake.b), soon())
    assert fake.seen_by(fake.a).healthy


def test_reconnect_discarding_when_standalone_again_is_deadline_error(fake: FakeResource) -> None:
    fake.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
    fake.split = True
    fake.lab.story.when["drbdadm nodea connect"] = lambda: setattr(fake, "split", True)
    with pytest.raises(
        DeadlineError,
        match=r"nodeb and nodea are StandAlone again: nodea StandAlone Primary UpToDate, nodeb StandAlone Sec",
    ):
        roles.reconnect_discarding(real(fake), node(fake.b), soon())


def test_restore_baseline_of_healthy_changes_nothing(fake: FakeResource) -> None:
    assert roles.restore_baseline(real(fake), soon()) is None
    assert done(fake) == [], "and nothing is touched"


def test_restore_baseline_of_standalone_discards_nodebs_changes(fake: FakeResource) -> None:
    fake.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
    report = roles.restore_baseline(real(fake), soon())
    assert report is not None and report.startswith("found StandAlone Primary UpToDate, StandAlone Secondary UpToDate;")
    assert [step for step in done(fake) if "discard" in step] == ["nodeb connect --discard-my-data"]
    assert fake.seen_by(fake.a) == HEALTHY and fake.roles == PLAIN


def test_restore_baseline_of_split_brain_connects(fake: FakeResource) -> None:
    fake.links, fake.split = {"nodea": "StandAlone", "nodeb": "StandAlone"}, True
    fake.roles = {"nodea": "Secondary", "nodeb": "Primary"}
    assert roles.restore_baseline(real(fake), soon()) is not None
    assert fake.seen_by(fake.a) == HEALTHY and fake.roles == PLAIN


def test_restore_baseline_of_swapped_roles_changes_only_roles(fake: FakeResource) -> None:
    fake.roles = {"nodea": "Secondary", "nodeb": "Primary"}
    assert roles.restore_baseline(real(fake), soon()) is not None
    assert fake.roles == PLAIN
    assert not {step for step in done(fake) if "connect" in step}


def test_restore_baseline_of_diskless_attaches(fake: FakeResource) -> None:
    fake.disks = {"nodea": "Diskless", "nodeb": "Diskless"}
    assert roles.restore_baseline(real(fake), soon()) is not None
    assert done(fake)[:2] == ["nodea attach", "nodeb attach"] and fake.seen_by(fake.a) == HEALTHY


def test_restore_baseline_reports_only_what_was_done(fake: FakeResource) -> None:
    fake.roles = {"nodea": "Secondary", "nodeb": "Primary"}
    report = roles.restore_baseline(real(fake), soon())
    assert report == "found Connected Secondary UpToDate, Connected Primary UpToDate; changed the roles"
    fake.disks = {"nodea": "UpToDate", "nodeb": "Diskless"}
    report = roles.restore_baseline(real(fake), soon())
    assert report is not None and report.endswith("; waited until both were UpToDate")
    fake.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}
    report = roles.restore_baseline(real(fake), soon())
    assert report is not None and report.endswith("; connected again, the changes of nodeb discarded")


def test_restore_baseline_with_lost_node_is_lost_node_error(fake: FakeResource) -> None:
    fake.lab.power_off(fake.b)
    with pytest.raises(LostNodeError):
        roles.restore_baseline(real(fake), soon(0.05))

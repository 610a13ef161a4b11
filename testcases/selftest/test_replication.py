"""The replication profile: what is done to apply it, in which order, and what is read back."""

from __future__ import annotations

from typing import cast

import pytest
from fake_drbd import FakeResource
from fake_lab import FakeLab, FakeNode
from fake_story import in_order

from harness.drbd import replication, roles
from harness.drbd.resource import Resource
from harness.errors import InfrastructureError, RefusedError
from harness.lab.node import Node
from harness.model import Protocol, ReplicationProfile
from harness.util.deadline import Deadline, poll


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeResource:
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    return FakeResource(FakeLab())


def apply(fake: FakeResource, profile: ReplicationProfile) -> None:
    replication.apply(cast(Resource, fake), profile)


def observed(fake: FakeResource, node: FakeNode) -> ReplicationProfile:
    return replication.settings(cast(Resource, fake), cast(Node, node)).replication


def commands(fake: FakeResource) -> list[str]:
    return [step for step in fake.lab.story.steps if step != "status"]


ALL = [
    ReplicationProfile(protocol=Protocol.A),
    ReplicationProfile(protocol=Protocol.B, integrity="sha1"),
    ReplicationProfile(integrity="crc32c"),
    ReplicationProfile(disable_sendpage=True),
    ReplicationProfile(scatter_gather=False),
    ReplicationProfile(two_primaries=True),
    ReplicationProfile(Protocol.C, "crc32c", True, False, True),
]


@pytest.mark.parametrize("replication", ALL, ids=lambda replication: replication.suffix())
def test_apply_each_profile_is_observed_on_both_nodes(fake: FakeResource, replication: ReplicationProfile) -> None:
    apply(fake, replication)
    assert fake.replication == replication
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [replication, replication]
    apply(fake, ReplicationProfile())
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [ReplicationProfile(), ReplicationProfile()]
    assert fake.roles == {"nodea": "Primary", "nodeb": "Secondary"}


def test_apply_profile_in_force_changes_nothing(fake: FakeResource) -> None:
    apply(fake, ReplicationProfile())
    assert commands(fake) == [] and fake.a.runner.ran == []


def test_apply_other_options_configures_both_while_disconnected(fake: FakeResource) -> None:
    apply(fake, ReplicationProfile(integrity="crc32c"))
    net = "{'data-integrity-alg': 'crc32c'}"
    assert commands(fake)[:6] == [
        f"configure nodea: {net}", f"configure nodeb: {net}",
        "drbdadm nodea disconnect", "drbdadm nodeb disconnect", "drbdadm nodea adjust", "drbdadm nodeb adjust",
    ]  # fmt: skip
    assert fake.seen_by(fake.a).healthy


def test_apply_module_parameter_keeps_the_connection(fake: FakeResource) -> None:
    for profile, sendpage in ((ReplicationProfile(disable_sendpage=True), "Y"), (ReplicationProfile(), "N")):
        apply(fake, profile)
        assert (fake.a.sendpage, fake.b.sendpage) == (sendpage, sendpage)
    assert not [step for step in commands(fake) if "disconnect" in step or "configure" in step]


def test_apply_scatter_gather_connects_anew(fake: FakeResource) -> None:
    for profile, gather in ((ReplicationProfile(scatter_gather=False), "off"), (ReplicationProfile(), "on")):
        seen: list[tuple[str, str]] = []

        def look(seen: list[tuple[str, str]] = seen) -> None:
            seen.append((fake.a.gather, fake.b.gather))

        fake.lab.story.when["drbdadm nodea disconnect"] = look
        fake.lab.story.steps.clear()
        apply(fake, profile)
        assert in_order(commands(fake), "drbdadm nodea disconnect", "drbdadm nodeb disconnect", "drbdadm nodea adjust")
        assert seen == [(gather, gather)], "the NIC first"
        assert fake.seen_by(fake.a).healthy


def test_apply_other_profile_keeps_lasting_options(fake: FakeResource) -> None:
    fake.net = (("max-buffers", "8000"),)
    apply(fake, ReplicationProfile(protocol=Protocol.A))
    assert dict(fake.spec.net) == {"max-buffers": "8000", "protocol": "A"}
    apply(fake, ReplicationProfile())
    assert fake.spec.net == fake.net


def test_apply_after_unknown_profile_configures_everything(fake: FakeResource) -> None:
    fake.replication = None
    apply(fake, ReplicationProfile())
    assert in_order(commands(fake), "configure nodea: {}", "drbdadm nodea disconnect", "drbdadm nodea adjust")
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [ReplicationProfile(), ReplicationProfile()]


def test_apply_two_primaries_promotes_both(fake: FakeResource) -> None:
    apply(fake, ReplicationProfile(two_primaries=True))
    assert fake.roles == {"nodea": "Primary", "nodeb": "Primary"}


def test_apply_two_primaries_again_promotes_both_again(fake: FakeResource) -> None:
    replication = ReplicationProfile(two_primaries=True)
    apply(fake, replication)
    # What the end of each cell does.
    roles.set_single_primary(cast(Resource, fake), cast(Node, fake.a))
    apply(fake, replication)
    assert fake.roles == {"nodea": "Primary", "nodeb": "Primary"}


@pytest.mark.parametrize("place", ["nodea", "nodeb"])
def test_apply_missing_parameter_is_refused_with_the_nodes_message(fake: FakeResource, place: str) -> None:
    node = fake.a if place == "nodea" else fake.b
    node.answers["disable_sendpage"] = (1, "", "this DRBD has no parameter disable_sendpage\n")
    with pytest.raises(RefusedError) as caught:
        apply(fake, ReplicationProfile(disable_sendpage=True))
    assert (caught.value.who, caught.value.message) == (place, "this DRBD has no parameter disable_sendpage")
    assert fake.replication is None, "the next cell must not rely on what was done in part"


def test_apply_unknown_digest_is_refused_with_drbds_message(fake: FakeResource) -> None:
    fake.refuses["nodea adjust"] = ["data-integrity-alg: 'crc99' not found in kernel"]
    with pytest.raises(RefusedError) as caught:
        apply(fake, ReplicationProfile(integrity="crc99"))
    assert caught.value.message == "drbdadm adjust: data-integrity-alg: 'crc99' not found in kernel"
    assert fake.replication is None


def test_apply_after_refusal_configures_everything(fake: FakeResource) -> None:
    fake.refuses["nodea adjust"] = ["no"]
    with pytest.raises(RefusedError):
        apply(fake, ReplicationProfile(integrity="crc99"))
    assert roles.restore_baseline(cast(Resource, fake), Deadline.after(5, "the return to the baseline")) is not None
    apply(fake, ReplicationProfile())
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [ReplicationProfile(), ReplicationProfile()]
    assert fake.seen_by(fake.a).healthy and fake.replication == ReplicationProfile()


def test_apply_without_connection_is_refused_with_the_options(fake: FakeResource) -> None:
    fake.split = True
    with pytest.raises(RefusedError, match=r"the nodes did not connect with protocol A$"):
        apply(fake, ReplicationProfile(protocol=Protocol.A))
    assert fake.replication is None


# --------------------------------------------------------------------------- read back


@pytest.mark.parametrize(
    ("changed", "replication"),
    [
        ({"net": {"protocol": "A"}}, ReplicationProfile(protocol=Protocol.A)),
        ({"net": {"data-integrity-alg": '"crc32c"'}}, ReplicationProfile(integrity="crc32c")),
        ({"sendpage": "Y"}, ReplicationProfile(disable_sendpage=True)),
        ({"sendpage": ""}, ReplicationProfile()),
        ({"gather": "off"}, ReplicationProfile(scatter_gather=False)),
        ({"gather": "off [fixed]"}, ReplicationProfile(scatter_gather=False)),
        ({"net": {"allow-two-primaries": "yes"}}, ReplicationProfile(two_primaries=True)),
    ],
)
def test_observed_each_part_is_read_from_its_source(
    fake: FakeResource, changed: dict[str, object], replication: ReplicationProfile
) -> None:
    for name, value in changed.items():
        setattr(fake.b, name, value)
    assert observed(fake, fake.b) == replication
    assert observed(fake, fake.a) == ReplicationProfile(), "each node speaks for itself"
    assert len(fake.b.runner.ran) == 1, "one round trip"


def test_observed_missing_resource_is_infrastructure_error(fake: FakeResource) -> None:
    fake.a.answers["drbdsetup show"] = (10, "== parameter\nN\n== link\n", "r0: No such resource\n")
    with pytest.raises(InfrastructureError, match="how nodea replicates cannot be read back"):
        observed(fake, fake.a)


def test_observed_lost_node_is_infrastructure_error(fake: FakeResource) -> None:
    fake.a.alive = False
    with pytest.raises(InfrastructureError):
        observed(fake, fake.a)


def test_apply_to_a_foreign_resource_file_changes_nothing(fake: FakeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise InfrastructureError("/etc/drbd.d/r0.res was not written by the harness")

    monkeypatch.setattr(fake, "require_own_files", refuse)
    with pytest.raises(InfrastructureError, match="not written by the harness"):
        apply(fake, ReplicationProfile(protocol=Protocol.A))
    assert fake.replication == ReplicationProfile(), "what is in force is still known"
    assert commands(fake) == [] and fake.a.runner.ran == []


def test_apply_scatter_gather_to_a_foreign_resource_file_needs_no_file(
    fake: FakeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "write_configuration", lambda node: pytest.fail("the file is not ours"))
    apply(fake, ReplicationProfile(scatter_gather=False))
    assert fake.replication == ReplicationProfile(scatter_gather=False) and fake.a.gather == "off"

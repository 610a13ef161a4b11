"""How DRBD replicates: what is done to put it so, in which order, and what is read back."""

from __future__ import annotations

from typing import cast

import pytest
from fakes import FakeLab, FakeNode, FakeResource, in_order

from harness.drbd import replication, roles
from harness.drbd.resource import Resource
from harness.errors import InfrastructureError, RefusedError
from harness.lab.node import Node
from harness.model import Arm, Protocol
from harness.util.deadline import Deadline, poll


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeResource:
    monkeypatch.setattr(roles, "poll", lambda check, deadline, every: poll(check, deadline, every=0.001))
    return FakeResource(FakeLab())


def put(fake: FakeResource, arm: Arm) -> None:
    replication.put(cast(Resource, fake), arm)


def observed(fake: FakeResource, node: FakeNode) -> Arm:
    return replication.observed(cast(Resource, fake), cast(Node, node))


def commands(fake: FakeResource) -> list[str]:
    return [step for step in fake.lab.story.steps if step != "status"]


ALL = [
    Arm(protocol=Protocol.A),
    Arm(protocol=Protocol.B, integrity="sha1"),
    Arm(integrity="crc32c"),
    Arm(disable_sendpage=True),
    Arm(scatter_gather=False),
    Arm(two_primaries=True),
    Arm(Protocol.C, "crc32c", True, False, True),
]


@pytest.mark.parametrize("arm", ALL, ids=lambda arm: arm.suffix())
def test_what_is_put_is_read_back_on_both_nodes(fake: FakeResource, arm: Arm) -> None:
    put(fake, arm)
    assert fake.arm == arm
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [arm, arm]
    put(fake, Arm())
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [Arm(), Arm()]
    assert fake.roles == {"nodea": "Primary", "nodeb": "Secondary"}


def test_what_is_so_already_costs_nothing(fake: FakeResource) -> None:
    put(fake, Arm())
    assert commands(fake) == [] and fake.a.runner.ran == []


def test_another_configuration_comes_to_both_while_they_are_apart(fake: FakeResource) -> None:
    put(fake, Arm(integrity="crc32c"))
    net = "{'data-integrity-alg': 'crc32c'}"
    assert commands(fake)[:6] == [
        f"configure nodea: {net}", f"configure nodeb: {net}",
        "adm nodea disconnect", "adm nodeb disconnect", "adm nodea adjust", "adm nodeb adjust",
    ]  # fmt: skip
    assert fake.seen_by(fake.a).healthy


def test_the_parameter_of_the_module_needs_no_new_connection(fake: FakeResource) -> None:
    for arm, sendpage in ((Arm(disable_sendpage=True), "Y"), (Arm(), "N")):
        put(fake, arm)
        assert (fake.a.sendpage, fake.b.sendpage) == (sendpage, sendpage)
    assert not [step for step in commands(fake) if "disconnect" in step or "configure" in step]


def test_a_connection_keeps_what_the_nic_could_do_so_it_is_made_anew(fake: FakeResource) -> None:
    for arm, gather in ((Arm(scatter_gather=False), "off"), (Arm(), "on")):
        seen: list[tuple[str, str]] = []

        def look(seen: list[tuple[str, str]] = seen) -> None:
            seen.append((fake.a.gather, fake.b.gather))

        fake.lab.story.when["adm nodea disconnect"] = look
        fake.lab.story.steps.clear()
        put(fake, arm)
        assert in_order(commands(fake), "adm nodea disconnect", "adm nodeb disconnect", "adm nodea adjust")
        assert seen == [(gather, gather)], "the NIC first"
        assert fake.seen_by(fake.a).healthy


def test_the_options_that_no_arm_takes_away_stay(fake: FakeResource) -> None:
    fake.net = (("max-buffers", "8000"),)
    put(fake, Arm(protocol=Protocol.A))
    assert dict(fake.spec.net) == {"max-buffers": "8000", "protocol": "A"}
    put(fake, Arm())
    assert fake.spec.net == fake.net


def test_what_nobody_knows_is_put_from_the_ground_up(fake: FakeResource) -> None:
    fake.arm = None
    put(fake, Arm())
    assert in_order(commands(fake), "configure nodea: {}", "adm nodea disconnect", "adm nodea adjust")
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [Arm(), Arm()]


def test_two_primaries_are_two(fake: FakeResource) -> None:
    put(fake, Arm(two_primaries=True))
    assert fake.roles == {"nodea": "Primary", "nodeb": "Primary"}


def test_two_primaries_are_two_for_the_next_cell_as_well(fake: FakeResource) -> None:
    arm = Arm(two_primaries=True)
    put(fake, arm)
    # What the end of each cell does.
    roles.only(cast(Resource, fake), cast(Node, fake.a))
    put(fake, arm)
    assert fake.roles == {"nodea": "Primary", "nodeb": "Primary"}


@pytest.mark.parametrize("place", ["nodea", "nodeb"])
def test_a_module_that_cannot_do_it_refuses_with_its_words(fake: FakeResource, place: str) -> None:
    node = fake.a if place == "nodea" else fake.b
    node.answers["disable_sendpage"] = (1, "", "this DRBD has no parameter disable_sendpage\n")
    with pytest.raises(RefusedError) as caught:
        put(fake, Arm(disable_sendpage=True))
    assert (caught.value.who, caught.value.words) == (place, "this DRBD has no parameter disable_sendpage")
    assert fake.arm is None, "the next cell must not believe in what is half done"


def test_a_configuration_that_drbd_does_not_want_refuses_with_its_words(fake: FakeResource) -> None:
    fake.refuses["nodea adjust"] = ["data-integrity-alg: 'crc99' not found in kernel"]
    with pytest.raises(RefusedError) as caught:
        put(fake, Arm(integrity="crc99"))
    assert caught.value.words == "drbdadm adjust: data-integrity-alg: 'crc99' not found in kernel"
    assert fake.arm is None


def test_after_a_refusal_the_next_arm_is_put_from_the_ground_up(fake: FakeResource) -> None:
    fake.refuses["nodea adjust"] = ["no"]
    with pytest.raises(RefusedError):
        put(fake, Arm(integrity="crc99"))
    assert roles.heal(cast(Resource, fake), Deadline.after(5, "the healing")) is not None
    put(fake, Arm())
    assert [observed(fake, node) for node in (fake.a, fake.b)] == [Arm(), Arm()]
    assert fake.seen_by(fake.a).healthy and fake.arm == Arm()


def test_two_that_do_not_agree_on_it_refuse(fake: FakeResource) -> None:
    fake.split = True
    with pytest.raises(RefusedError, match=r"the nodes did not connect with .*'protocol': 'A'"):
        put(fake, Arm(protocol=Protocol.A))
    assert fake.arm is None


# --------------------------------------------------------------------------- read back


@pytest.mark.parametrize(
    ("changed", "arm"),
    [
        ({"net": {"protocol": "A"}}, Arm(protocol=Protocol.A)),
        ({"net": {"data-integrity-alg": '"crc32c"'}}, Arm(integrity="crc32c")),
        ({"sendpage": "Y"}, Arm(disable_sendpage=True)),
        ({"sendpage": ""}, Arm()),
        ({"gather": "off"}, Arm(scatter_gather=False)),
        ({"gather": "off [fixed]"}, Arm(scatter_gather=False)),
        ({"net": {"allow-two-primaries": "yes"}}, Arm(two_primaries=True)),
    ],
)
def test_each_part_is_read_from_where_it_is_in_force(fake: FakeResource, changed: dict[str, object], arm: Arm) -> None:
    for name, value in changed.items():
        setattr(fake.b, name, value)
    assert observed(fake, fake.b) == arm
    assert observed(fake, fake.a) == Arm(), "each node speaks for itself"
    assert len(fake.b.runner.ran) == 1, "one round trip"


def test_a_resource_that_does_not_show_itself_is_an_error_of_the_machinery(fake: FakeResource) -> None:
    fake.a.answers["drbdsetup show"] = (10, "== parameter\nN\n== link\n", "r0: No such resource\n")
    with pytest.raises(InfrastructureError, match="how nodea replicates cannot be read back"):
        observed(fake, fake.a)


def test_a_node_that_is_gone_is_one_too(fake: FakeResource) -> None:
    fake.a.alive = False
    with pytest.raises(InfrastructureError):
        observed(fake, fake.a)

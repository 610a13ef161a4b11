"""The real Resource over nodes that answer with what DRBD 8.4 and 9 printed: dialect, status, events, both nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recorded_nodes import adopted, node
from recorded_resource import GENERATIONS, new

from harness.drbd.dialect import Drbd9, Drbd84, dialect_of
from harness.drbd.resource import both
from harness.errors import CommandError, DeadlineError, InfrastructureError
from harness.lab.node import Node
from harness.model import Counters, State
from harness.render.drbd_conf import ResourceSpec
from harness.util.deadline import Deadline

# --------------------------------------------------------------------------- the dialect


@pytest.mark.parametrize(
    ("version", "dialect"), [("8.4.11", Drbd84), ("8.4.7", Drbd84), ("9.3.3", Drbd9), ("9.2.17", Drbd9)]
)
def test_dialect_of_known_version_is_its_generation(version: str, dialect: type[object]) -> None:
    assert type(dialect_of(version)) is dialect


@pytest.mark.parametrize("version", ["8.3.16", "10.0.0a4", "90.1", "8", ""])
def test_dialect_of_unknown_version_is_infrastructure_error(version: str) -> None:
    with pytest.raises(InfrastructureError, match=r"which the harness does not know: it needs 8\.4 or 9$"):
        dialect_of(version)


@pytest.mark.parametrize(
    ("dialect", "skip", "verify"),
    [
        (Drbd84(), "drbdadm -- --clear-bitmap new-current-uuid r7/0", "drbdadm -- --start=0 verify r7/0"),
        (Drbd9(), "drbdadm new-current-uuid --clear-bitmap r7/0", "drbdadm verify --start=0 r7/0"),
    ],
)
def test_dialect_commands_are_those_of_its_drbdadm(dialect: Drbd84 | Drbd9, skip: str, verify: str) -> None:
    spec = ResourceSpec("r7")
    assert " ".join(dialect.skip_initial_sync(spec)) == skip
    assert " ".join(dialect.start_verify(spec)) == verify, "without a start it would go on where one was aborted"


# --------------------------------------------------------------------------- status


def test_status_of_8_4_is_proc_drbd_of_the_asked_node() -> None:
    resource, on_a, on_b = adopted("8.4")
    healthy = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established")
    assert resource.status() == (healthy, Counters(0, 0, 0, 131032, 40))
    assert resource.status(resource.b)[0] == replace(healthy, local_role="Secondary", peer_role="Primary")
    assert (on_a.ran, on_b.ran) == ([("cat", "/proc/drbd")], [("cat", "/proc/drbd")])


def test_status_of_9_is_its_json() -> None:
    resource, on_a, _ = adopted("9")
    state, counters = resource.status()
    assert state == State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established")
    assert counters == Counters(138432, 0, 138432, 131032, 31680)
    assert on_a.ran == [("drbdsetup", "status", "--json", "--statistics", "r0")]


@pytest.mark.parametrize(
    ("generation", "command", "printed", "message"),
    [
        (
            "8.4",
            "/proc/drbd",
            "version: 8.4.11 (x)\n 0: cs:Unconfigured\n",
            "minor 0 of resource 'r0'",
        ),
        ("8.4", "/proc/drbd", "", "it has no version line"),
        ("9", "drbdsetup status", "[]", "knows no volume 0 of resource 'r0'"),
        ("9", "drbdsetup status", "r0 role:Primary", "Expecting value"),
    ],
)
def test_status_that_cannot_be_read_is_infrastructure_error(
    generation: str, command: str, printed: str, message: str
) -> None:
    resource, on_a, _ = adopted(generation)
    on_a.answers = {command: printed}
    with pytest.raises(InfrastructureError, match=f"the status of DRBD on nodea cannot be read: .*{message}"):
        resource.status()


def test_status_before_create_is_infrastructure_error() -> None:
    resource, on_a, _ = new()
    for early in (resource.status, resource.verify, lambda: resource.events(resource.b)):
        with pytest.raises(InfrastructureError, match="r0 was neither created nor taken over"):
            early()
    assert not [argv for argv in on_a.ran if argv[0].startswith("drbd")]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_raw_status_is_verbatim(generation: str) -> None:
    resource, on_a, _ = adopted(generation)
    status = on_a.answers["/proc/drbd" if generation == "8.4" else "drbdsetup status"]
    assert resource.raw_status(resource.a) == {"status": status, "events2": "\n".join(on_a.before) + "\n"}


# --------------------------------------------------------------------------- events and both


def test_wait_without_a_cursor_takes_the_present_state_and_with_one_does_not() -> None:
    resource, _, _ = adopted("8.4")
    events = resource.events(resource.a)
    soon = Deadline.after(0.02, "it")
    assert events.wait(lambda state: state.healthy, "healthy", soon) == events.cursor()
    with pytest.raises(DeadlineError, match="healthy again did not happen"):
        events.wait(lambda state: state.healthy, "healthy again", soon, events.cursor())


def test_wait_folds_what_was_before_the_cursor_into_the_state() -> None:
    resource, on_a, _ = adopted("8.4")
    events = resource.events(resource.a)
    cursor = events.cursor()
    on_a.tell("change resource name:r0 role:Secondary")
    seen: list[State] = []
    events.wait(lambda state: bool(seen.append(state)) or True, "a change", Deadline.after(5, "it"), cursor)
    assert seen == [State("Connected", "Secondary", "Secondary", "UpToDate", "UpToDate")]


def test_both_returns_what_each_node_did_and_raises_the_first_error() -> None:
    (a, _), (b, _) = node("nodea"), node("nodeb")
    assert both(lambda one: one.name, a, b) == ("nodea", "nodeb")
    done: list[str] = []

    def step(one: Node) -> None:
        if one is a:
            raise CommandError(one.name, ["x"], 1, "", "no")
        done.append(one.name)

    with pytest.raises(CommandError, match="on nodea, 'x' ended with status 1: no"):
        both(step, a, b)
    assert done == ["nodeb"], "the other one is not left half way"

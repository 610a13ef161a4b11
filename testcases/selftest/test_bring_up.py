"""The real nested lab over a scripted libvirt: it comes up, finds free ports, keeps to its lease, and is undone."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from nested_parts import SPEC, STACK
from scripted_lab import fails_with, nothing_is_left, refuses, world
from scripted_libvirt import ScriptedLibvirt, read_only_versions
from test_software_parse import PRINTED

from harness.drbd.resource import Resource
from harness.errors import CommandError, InfrastructureError, StackError
from harness.lab.nested import domains, provider
from harness.lab.nested import record as records
from harness.lab.nested.lab import NestedLab
from harness.lab.nested.lease import holder, lease
from harness.lab.nested.provider import nested_lab
from harness.remote.scripted import Answer

__all__ = ["world"]


# --------------------------------------------------------------------------- it comes up


def test_lab_that_comes_up_has_two_nodes_and_ends_with_its_context(world: ScriptedLibvirt, tmp_path: Path) -> None:
    with nested_lab(SPEC, STACK, tmp_path / "consoles") as lab:
        assert (lab.a.name, lab.b.name, lab.fresh) == ("left", "right", True)
        assert (lab.stack.kernel, lab.stack.drbd, lab.stack.suite) == ("6.12.57", "8.4.11", "bookworm")
        assert len(world.running) == 2 and holder() == str(os.getpid())
    assert nothing_is_left(world)
    assert {path.name for path in (tmp_path / "consoles").glob("*/*")} == {"console-a.log", "console-b.log"}


def test_lab_that_comes_up_is_locked_and_has_the_newest_machine_type_of_its_qemus(
    world: ScriptedLibvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(argv: tuple[str, ...]) -> Answer:
        return (0, PRINTED, "") if "-machine" in argv else read_only_versions(argv)

    monkeypatch.setenv("DRBD_HARNESS_CACHE", str(tmp_path / "cache"))
    world.answers = lambda side: asked
    with nested_lab(SPEC, STACK) as lab:
        assert lab.lock.machine == lab.stack.machine == "pc-q35-10.0"
        assert [(one.name, one.image.digest, one.runs.drbd) for one in lab.lock.nodes] == [
            ("left", "node-digest", "8.4.11"), ("right", "node-digest", "8.4.11"),
        ]  # fmt: skip
        assert lab.lock.guest.digest == "guest-digest" and lab.lock.suite == "bookworm"
    other, said = (
        STACK.model_copy(update={"machine": "pc-q35-99.0"}),
        r"pc-q35-99\.0 is not known to QEMU .* on left and",
    )
    with pytest.raises(StackError, match=said), nested_lab(SPEC, other):
        pytest.fail("there is no lab")
    assert nothing_is_left(world)


def test_lab_to_keep_stays_up_and_is_found(world: ScriptedLibvirt) -> None:
    with nested_lab(SPEC, STACK, keep=True) as lab:
        kept = lab.id
    assert len(world.running) == 2 and holder() is None and world.connections == 0
    with nested_lab(SPEC, STACK) as lab:
        assert (lab.id, lab.fresh) == (kept, False)
    assert len(world.running) == 2 and records.directories() == [records.labs_dir() / kept]


# --------------------------------------------------------------------------- ports, and the lease


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_bring_up_whose_port_was_taken_meanwhile_names_it_and_is_undone(
    world: ScriptedLibvirt, monkeypatch: pytest.MonkeyPatch, kind: str, side: str
) -> None:
    wanted = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    choose, number = domains.free_ports, "ab".index(side)
    with contextlib.ExitStack() as held:
        taken: list[int] = []

        def chosen(of: socket.SocketKind) -> tuple[int, int]:
            ports = choose(of)
            if of is wanted:
                holder = held.enter_context(socket.socket(socket.AF_INET, of))
                holder.bind(("127.0.0.1", ports[number]))
                if of is socket.SOCK_STREAM:
                    holder.listen()
                taken.append(ports[number])
            return ports

        monkeypatch.setattr(domains, "free_ports", chosen)
        with pytest.raises(InfrastructureError) as caught, nested_lab(SPEC, STACK):
            pytest.fail("there is no lab")
    message = str(caught.value)
    assert message.startswith("libvirt did not start drbd-harness-") and f":{taken[-1]}" in message
    assert len(taken) == provider.PORT_TRIES
    assert ("Could not set up host forwarding rule" if kind == "tcp" else "Address already in use") in message
    assert "\n" not in message and world.asked.count("create b") == number * provider.PORT_TRIES
    assert nothing_is_left(world)


@pytest.mark.parametrize("side", ["a", "b"])
def test_bring_up_whose_port_was_taken_once_comes_up_with_another(
    world: ScriptedLibvirt, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    choose, number = domains.free_ports, "ab".index(side)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = [int(holder.getsockname()[1])]

        def chosen(of: socket.SocketKind) -> tuple[int, int]:
            ports = list(choose(of))
            if of is socket.SOCK_STREAM and taken:
                ports[number] = taken.pop()
            return ports[0], ports[1]

        monkeypatch.setattr(domains, "free_ports", chosen)
        with nested_lab(SPEC, STACK) as lab:
            assert len(world.running) == 2 and records.directories() == [records.labs_dir() / lab.id]
    assert nothing_is_left(world)


def test_bring_up_while_another_holds_the_lease_makes_nothing(world: ScriptedLibvirt) -> None:
    with lease("a lab"):
        with pytest.raises(InfrastructureError, match="another harness process"), nested_lab(SPEC, STACK):
            pytest.fail("two at once")
        assert holder() == str(os.getpid()), "it keeps it"
    assert world.asked == [] and nothing_is_left(world)


# --------------------------------------------------------------------------- it fails when it is up


def test_lab_whose_resource_cannot_be_created_is_undone(world: ScriptedLibvirt) -> None:
    refuses("b", "create-md", (20, "", "open(/dev/mapper/drbd-lower) failed: No such file or directory\n"))(
        world, pytest.MonkeyPatch()
    )
    answers = world.answers

    def with_version(side: str) -> Callable[[tuple[str, ...]], Answer]:
        return lambda argv: (0, "version: 8.4.11 (x)\n", "") if "/proc/drbd" in argv[-1] else answers(side)(argv)

    world.answers = with_version

    def use(lab: NestedLab) -> None:
        Resource.for_nodes(lab.a, lab.b, lab.resource_spec).create(skip_initial_sync=lab.fresh)

    with pytest.raises(CommandError) as caught, nested_lab(SPEC, STACK) as lab:
        use(lab)
    assert str(caught.value) == (
        "on right, 'drbdadm create-md --force r0' ended with status 20: "
        "open(/dev/mapper/drbd-lower) failed: No such file or directory"
    )
    assert nothing_is_left(world)


@pytest.mark.parametrize("keep", [False, True], ids=["", "keep"])
@pytest.mark.parametrize("step", ["make_domains", "attach"])
def test_bring_up_that_is_interrupted_is_undone(
    world: ScriptedLibvirt, monkeypatch: pytest.MonkeyPatch, step: str, keep: bool
) -> None:
    monkeypatch.setattr(provider, step, fails_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt), nested_lab(SPEC, STACK, keep=keep):
        pytest.fail("there is no lab")
    assert nothing_is_left(world)


def test_lab_whose_domain_cannot_be_ended_is_undone_but_for_that(world: ScriptedLibvirt) -> None:
    with nested_lab(SPEC, STACK) as lab:
        node = next(domain for domain in world.running.values() if domain.side == "b")
        node.destroy()
        assert lab.b.name == "right"
    assert nothing_is_left(world), "that one node ended by itself keeps nothing else from being undone"

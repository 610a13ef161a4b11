"""The real nested lab over a scripted libvirt: whatever step fails, all that was made before is undone."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest
from fakes import LibvirtSaid
from nested_parts import SPEC, STACK, image
from scripted_libvirt import ScriptedConnection, ScriptedLibvirt, read_only_versions
from test_software_parse import PRINTED

from harness.config.stack_spec import StackSpec
from harness.drbd.resource import Resource
from harness.errors import (
    CommandError,
    DeadlineError,
    HarnessError,
    InfrastructureError,
    LostNodeError,
    StackError,
)
from harness.images import StackDigests, StackImages
from harness.lab import node as nodes
from harness.lab.nested import boot, domains, provider
from harness.lab.nested import lab as labs
from harness.lab.nested import record as records
from harness.lab.nested.accel import Accelerator
from harness.lab.nested.lab import NestedLab
from harness.lab.nested.lease import holder, lease
from harness.lab.nested.libvirt_daemon import URI_OVERRIDE
from harness.lab.nested.provider import nested_lab
from harness.model import ImageLock, Software
from harness.remote.scripted import Answer
from harness.util import paths

URI = "test:///scripted"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedLibvirt]:
    """This machine: images are there, libvirt answers, and two nodes boot at once."""
    for tool in ("qemu-img", "mke2fs", "debugfs"):
        if shutil.which(tool, path=paths.programs()) is None:
            pytest.skip(f"{tool} is not installed")
    made = ScriptedLibvirt()

    def ensure(stack: StackSpec, cache: Path) -> StackImages:
        node = image(tmp_path, "node")
        return StackImages(node, node, image(tmp_path, "guest"))

    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv(URI_OVERRIDE, URI)
    monkeypatch.setattr(libvirt, "open", made.open)
    monkeypatch.setattr(provider, "ensure_stack", ensure)
    digests = StackDigests("node-digest", "node-digest", "guest-digest")
    monkeypatch.setattr(provider, "stack_digests", lambda stack: digests)
    monkeypatch.setattr(provider, "probe", lambda kernel, initrd, cache: Accelerator("tcg", True, "no KVM here", 0.0))
    monkeypatch.setattr(boot, "BOOT_SECONDS", 0.3)
    monkeypatch.setattr(nodes, "CONNECT_SECONDS", 0.6)
    yield made
    made.stop()


def nothing_is_left(world: ScriptedLibvirt) -> bool:
    """No domain, no connection, no folder with keys, and the lease is free."""
    assert world.running == {} and world.connections == 0 and records.directories() == []
    assert holder() is None
    return True


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


# --------------------------------------------------------------------------- it fails at each step

Setup = Callable[[ScriptedLibvirt, pytest.MonkeyPatch], object]


def fails_with(error: BaseException) -> Callable[..., object]:
    def fail(*_args: object, **_options: object) -> object:
        raise error

    return fail


def on_side(side: str, step: Callable[[], object]) -> Callable[[str], object]:
    return lambda asked: step() if asked == side else None


def replaced(where: object, name: str, error: BaseException) -> Setup:
    return lambda world, patch: patch.setattr(where, name, fails_with(error))


def scripted(**script: object) -> Setup:
    def prepare(world: ScriptedLibvirt, patch: pytest.MonkeyPatch) -> None:
        for name, value in script.items():
            setattr(world, name, value)

    return prepare


def prints(side: str, text: bytes) -> Setup:
    return scripted(boots=lambda asked: text if asked == side else boot.READY)


def ends_while_booting(world: ScriptedLibvirt, patch: pytest.MonkeyPatch) -> None:
    def end(side: str) -> bytes:
        if side == "a":
            return boot.READY
        next(domain for domain in world.running.values() if domain.side == side).destroy()
        return b"Loading Linux\n"

    world.boots = end


def refuses(side: str, piece: str, answer: Answer) -> Setup:
    """A node on which the command with ``piece`` fails."""

    def asked(argv: tuple[str, ...]) -> Answer:
        return answer if piece in " ".join(argv) else read_only_versions(argv)

    return scripted(answers=lambda where: asked if where == side else read_only_versions)


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
SAID = LibvirtSaid("internal error: cannot allocate memory\nand a second line")

STEPS: dict[str, tuple[Setup, type[HarnessError], str]] = {
    "libvirt": (
        scripted(opens=fails_with(LibvirtSaid("Failed to connect socket to '/run/libvirt/libvirt-sock'"))),
        InfrastructureError,
        "libvirt does not answer at test:///scripted: Failed to connect socket to '/run/libvirt/libvirt-sock'",
    ),
    "list": (
        replaced(ScriptedConnection, "listAllDomains", LibvirtSaid("Cannot recv data: Connection reset by peer")),
        InfrastructureError,
        "libvirt does not say which domains run: Cannot recv data: Connection reset by peer",
    ),
    "image": (
        replaced(provider, "ensure_stack", InfrastructureError("the node image could not be built")),
        InfrastructureError,
        "the node image could not be built",
    ),
    "accelerator": (
        replaced(provider, "probe", InfrastructureError("QEMU boots nothing here")),
        InfrastructureError,
        "QEMU boots nothing here",
    ),
    "ports": (
        replaced(domains, "free_ports", OSError(errno.EADDRINUSE, "Address already in use")),
        InfrastructureError,
        "a lab could not be made in {state}/labs/{lab}: Address already in use",
    ),
    "disks": (
        replaced(domains, "_make_disks", NO_SPACE),
        InfrastructureError,
        "a lab could not be made in {state}/labs/{lab}: No space left on device",
    ),
    "seed": (
        replaced(domains, "make_seed", CommandError("controller", ["mke2fs"], 1, "", "mke2fs: No space left\n")),
        CommandError,
        "on controller, 'mke2fs' ended with status 1: mke2fs: No space left",
    ),
    "domain a": (
        scripted(starts=on_side("a", fails_with(SAID))),
        InfrastructureError,
        "libvirt did not start drbd-harness-{lab}-a: internal error: cannot allocate memory and a second line",
    ),
    "domain b": (
        scripted(starts=on_side("b", fails_with(SAID))),
        InfrastructureError,
        "libvirt did not start drbd-harness-{lab}-b: internal error: cannot allocate memory and a second line",
    ),
    "boot of a": (
        prints("a", b"Kernel panic - not syncing: VFS: Unable to mount root fs\n"),
        LostNodeError,
        "drbd-harness-{lab}-a failed to boot: Kernel panic - not syncing: VFS: Unable to mount root fs",
    ),
    "boot of b": (
        prints("b", b"DRBD-HARNESS-NODE-FAILED seed: no disk labelled SEED\n"),
        LostNodeError,
        "drbd-harness-{lab}-b failed to boot: DRBD-HARNESS-NODE-FAILED seed: no disk labelled SEED",
    ),
    "boot of b that ends": (
        ends_while_booting,
        LostNodeError,
        "drbd-harness-{lab}-b ended while it was booting: Loading Linux",
    ),
    "boot of b that never ends": (
        prints("b", b"Loading Linux\n"),
        DeadlineError,
        "the boot of the nodes did not happen within 0 s; drbd-harness-{lab}-b: Loading Linux",
    ),
    "record": (
        replaced(records, "write", NO_SPACE),
        InfrastructureError,
        "a lab could not be made in {state}/labs/{lab}: No space left on device",
    ),
    "ssh to a": (scripted(silent="a"), LostNodeError, "no ssh to left at 127.0.0.1:{port}: "),
    "ssh to b": (scripted(silent="b"), LostNodeError, "no ssh to right at 127.0.0.1:{port}: "),
    "ssh to a stranger": (scripted(stranger="b"), LostNodeError, "no ssh to right at 127.0.0.1:{port}: "),
    "console of b": (
        refuses("b", "dmesg --console-level", (1, "", "dmesg: klogctl failed: Operation not permitted\n")),
        CommandError,
        "on right, 'dmesg --console-level 2' ended with status 1: dmesg: klogctl failed: Operation not permitted",
    ),
    "versions": (
        refuses("b", "uname -r", (2, "", "sh: syntax error\n")),
        CommandError,
        "on right, 'sh -c ",
    ),
    "another module than the image's": (
        lambda world, patch: patch.setattr(provider, "lock_of", lambda image: ImageLock(holds=Software(drbd="9.3.3"))),
        StackError,
        "left runs DRBD 8.4.11, where its image holds DRBD 9.3.3",
    ),
    "machine type": (
        replaced(labs, "guest_machine", StackError("the nodes' QEMUs have no machine type in common")),
        StackError,
        "the nodes' QEMUs have no machine type in common",
    ),
}  # fmt: skip


@pytest.mark.parametrize("keep", [False, True], ids=["", "keep"])
@pytest.mark.parametrize("step", list(STEPS))
def test_bring_up_that_fails_at_a_step_undoes_all_before_it(
    world: ScriptedLibvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, keep: bool
) -> None:
    prepare, kind, sentence = STEPS[step]
    prepare(world, monkeypatch)
    monkeypatch.setattr(provider.secrets, "token_hex", lambda count: "1a2b3c")
    with pytest.raises(kind) as caught, nested_lab(SPEC, STACK, tmp_path / "consoles", keep=keep):
        pytest.fail("there is no lab")
    assert nothing_is_left(world)
    message = str(caught.value)
    wanted = sentence.format(state=tmp_path / "state", lab="1a2b3c", port="{port}").split("{port}")
    assert all(piece in message for piece in wanted) and message.startswith(wanted[0]), message
    assert step == "versions" or ("\n" not in message and "Error" not in message), message


@pytest.mark.parametrize("step", ["boot of b", "ssh to b"])
def test_bring_up_that_fails_keeps_the_consoles(
    world: ScriptedLibvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    STEPS[step][0](world, monkeypatch)
    with pytest.raises(LostNodeError), nested_lab(SPEC, STACK, tmp_path / "consoles"):
        pytest.fail("there is no lab")
    assert {path.name for path in (tmp_path / "consoles").glob("*/*")} == {"console-a.log", "console-b.log"}


def test_bring_up_whose_consoles_cannot_be_kept_is_undone_all_the_same(world: ScriptedLibvirt, tmp_path: Path) -> None:
    (tmp_path / "consoles").write_text("no folder")
    with nested_lab(SPEC, STACK, tmp_path / "consoles"):
        pass
    assert nothing_is_left(world)


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

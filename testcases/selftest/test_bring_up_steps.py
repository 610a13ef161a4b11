"""The real nested lab over a scripted libvirt: whatever step fails, all that was made before is undone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_libvirt import LibvirtSaid
from nested_parts import SPEC, STACK
from scripted_lab import Setup, fails_with, nothing_is_left, refuses, scripted, world
from scripted_libvirt import ScriptedConnection, ScriptedLibvirt

from harness.errors import CommandError, DeadlineError, HarnessError, InfrastructureError, LostNodeError, StackError
from harness.lab.nested import boot, domains, provider
from harness.lab.nested import lab as labs
from harness.lab.nested import record as records
from harness.lab.nested.provider import nested_lab
from harness.model import ImageLock, Software

__all__ = ["world"]


def on_side(side: str, step: Callable[[], object]) -> Callable[[str], object]:
    return lambda asked: step() if asked == side else None


def replaced(where: object, name: str, error: BaseException) -> Setup:
    return lambda world, patch: patch.setattr(where, name, fails_with(error))


def prints(side: str, text: bytes) -> Setup:
    return scripted(boots=lambda asked: text if asked == side else boot.READY)


def ends_while_booting(world: ScriptedLibvirt, patch: pytest.MonkeyPatch) -> None:
    def end(side: str) -> bytes:
        if side == "a":
            return boot.READY
        next(domain for domain in world.running.values() if domain.side == side).destroy()
        return b"Loading Linux\n"

    world.boots = end


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

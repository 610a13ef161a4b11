"""This machine with a scripted libvirt for a real nested lab, and steps that fail.  Nothing here is a test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest
from nested_parts import image
from scripted_libvirt import ScriptedLibvirt, read_only_versions

from harness.config.stack_spec import StackSpec
from harness.images import StackDigests, StackImages
from harness.lab import node as nodes
from harness.lab.nested import boot, provider
from harness.lab.nested import record as records
from harness.lab.nested.accel import Accelerator
from harness.lab.nested.lease import holder
from harness.lab.nested.libvirt_daemon import URI_OVERRIDE
from harness.remote.scripted import Answer
from harness.util import paths

URI = "test:///scripted"
Setup = Callable[[ScriptedLibvirt, pytest.MonkeyPatch], object]


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


def fails_with(error: BaseException) -> Callable[..., object]:
    def fail(*_args: object, **_options: object) -> object:
        raise error

    return fail


def scripted(**script: object) -> Setup:
    def prepare(world: ScriptedLibvirt, patch: pytest.MonkeyPatch) -> None:
        for name, value in script.items():
            setattr(world, name, value)

    return prepare


def refuses(side: str, piece: str, answer: Answer) -> Setup:
    """A node on which the command with ``piece`` fails."""

    def asked(argv: tuple[str, ...]) -> Answer:
        return answer if piece in " ".join(argv) else read_only_versions(argv)

    return scripted(answers=lambda where: asked if where == side else read_only_versions)

"""A machine that answers the tools of layers as was recorded, and knows what is open on it; nothing here is a test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.drbd.resource import Resource
from harness.errors import HarnessError, InfrastructureError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.layers import Layer
from harness.filesystems.view import ReplicaView
from harness.remote.base import Completed
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner

RECORDED = Path(__file__).parent / "recordings" / "layers"
SFDISK, PVS, LUKS, MAP, INFO = (
    (RECORDED / name).read_text()
    for name in ("sfdisk.json", "pvs.json", "luks.json", "qemu-img-map.json", "qemu-img-info.json")
)
BLOCKS = 32768
MIB = 2**20


class Machine(ScriptedRunner):
    """A node or a guest that answers as was recorded, and knows what is open on it; ``fails``: which command does."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__(self._told, "nodea")
        self.fails = fails
        self.open: set[str] = set()
        self.stdin: list[str] = []

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        self.stdin.append(stdin or "")
        return super().run(argv, stdin=stdin, timeout=timeout, ok=ok)

    def _told(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        if len(self.ran) == self.fails:
            return 1, "", "it does not work"
        return 0, self._does(argv), ""

    def _does(self, argv: tuple[str, ...]) -> str:
        text = " ".join(argv)
        if argv[0] == "losetup" and "--find" in argv:
            device = f"/dev/loop{len(self.open)}"
            self.open.add(device)
            return f"{device}\n"
        if argv[:2] == ("losetup", "--detach"):
            self.open.remove(argv[2])
        changes = {
            "cryptsetup open": ("mapping", True), "cryptsetup close": ("mapping", False),
            "mount -t": ("mount", True), "|| umount": ("mount", False), "mktemp": ("folder", True),
            "rm -rf": ("folder", False), "dmsetup create": ("mapping", True), "dmsetup remove": ("mapping", False),
            "--activate y": ("mapping", True), "--activate n": ("mapping", False),
        }  # fmt: skip
        for piece, (what, there) in changes.items():
            if piece in text:
                (self.open.add if there else self.open.discard)(what)
        answers = {
            "sfdisk --json": SFDISK, "pvs": PVS, "luksDump": LUKS, "qemu-img info": INFO, "qemu-img map": MAP,
            "mktemp": "/var/tmp/drbd-harness-image.x\n", "stat --format": f"{MIB}\n",
            "partx --raw": "/dev/vdb1\n4096000\n",
            "cryptsetup open": "/dev/mapper/x\n4096000\n", "vgchange": "/dev/mapper/x\n4096000\n",
        }  # fmt: skip
        return next((answer for piece, answer in answers.items() if piece in text), "")


def target(runner: ScriptedRunner | LocalRunner, device: str = "/dev/vdb", blocks: int = BLOCKS) -> WorkloadTarget:
    return WorkloadTarget(runner, device, cast(Resource, SimpleNamespace(blocks=blocks)))


def scripts(machine: Machine) -> list[str]:
    """The programs of each command, in order, without what only looks."""
    wanted = ("sfdisk", "mkswap", "mkfs.ext4", "partx", "dmsetup remove", "luksFormat", "cryptsetup open",
              "cryptsetup close", "pvcreate", "vgchange", "qemu-img create", "qemu-img info", "umount",
              "mount -t")  # fmt: skip
    found = []
    for argv in machine.ran:
        text = " ".join(argv)
        found.append(next((one for one in wanted if one in text), text))
    return found


def places(layer: Layer, blocks: Sequence[int]) -> dict[int, int | str]:
    """Where ``blocks`` are, or whose they are in one string."""
    with layer.inner(ReplicaView(Machine(), "/copy/replica", BLOCKS)) as inner:
        found = inner.places(blocks)
        assert inner.locate(blocks[0]) == found[blocks[0]]
    return {block: one if isinstance(one, int) else f"{one.owner}: {one.detail}" for block, one in found.items()}


def nothing_left_open(layer: Layer, blocks: Sequence[int]) -> None:
    """Each command that looks inside fails once, and whoever looked does in the end: nothing of it stays open."""
    machine = Machine()
    with layer.inner(ReplicaView(machine, "/copy/replica", BLOCKS)) as inner:
        inner.places(blocks)
        assert machine.open, "something has to be undone"
        asked = len(machine.ran)
    assert not machine.open
    for number in range(1, asked + 2):
        machine = Machine(number if number <= asked else 0)
        with pytest.raises(HarnessError), layer.inner(ReplicaView(machine, "/copy/replica", BLOCKS)) as inner:
            inner.places(blocks)
            raise InfrastructureError("whoever looked inside failed")
        assert not machine.open, f"after command {number} failed: {machine.ran[number - 1]}"

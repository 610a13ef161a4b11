"""What an image holds and what two nodes say that they run, to be locked.  Nothing here is a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from fake_lab import FakeNode
from fake_story import Story
from test_software_parse import BUILD

from harness.lab.node import Node
from harness.model import ImageLock, NodeLock, Software, StackLock
from harness.remote.scripted import ScriptedRunner

RUNS = Software(
    kernel="6.12.118+deb13-amd64", kernel_build=BUILD, drbd="8.4.11", drbd_srcversion="637677C4EAFCF5D1D5446B0",
    drbd_protocols="86-101", drbd_utils="9.22.0-1.1", qemu="10.0.13", qemu_path="/usr/bin/qemu-system-x86_64",
    qemu_sha256="d3c1a558ad220e77" + 48 * "0", libvirt="11.3.0",
)  # fmt: skip
#: What can be read of an image.
HOLDS = replace(RUNS, drbd_protocols="", libvirt="", drbd_sha256="5" * 64)
IMAGE = ImageLock("node", "trixie", "7" * 64, "2026-11-29T07:32:16+00:00", "a" * 64, "b" * 64, HOLDS)
NINE = {"drbd": "9.3.3", "drbd_srcversion": "E0634C2B893C65C232A8771", "drbd_protocols": "118-124"}


def lock(**on_b: Any) -> StackLock:
    """Two nodes, of which the second runs, as its image says, something else."""
    image = replace(IMAGE, holds=replace(HOLDS, **{name: on_b[name] for name in on_b if name != "drbd_protocols"}))
    return StackLock(
        "trixie", NodeLock("nodea", IMAGE, RUNS), NodeLock("nodeb", image, replace(RUNS, **on_b)), machine="pc-q35-10.0"
    )


def node(name: str, answers: dict[str, str] | None = None) -> Node:
    """A node that answers a command by the first of the ``answers`` of which the name is in it."""

    def said(argv: tuple[str, ...]) -> tuple[int, str, str]:
        text = " ".join(argv)
        return 0, next((answer for piece, answer in (answers or {}).items() if piece in text), ""), ""

    made = FakeNode(Story(), name)
    made.runner = cast(Any, ScriptedRunner(said, name))
    return cast(Node, cast(Any, made))

"""A nested lab that is up is found again by the same specs, or refused by others; and what one that is found can do."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from nested_parts import SPEC, STACK, TODAY, Controller, bring_up, controller, find, state

from harness.config.lab_spec import GuestSpec, LabSpec
from harness.config.stack_spec import NodeTable, StackSpec
from harness.errors import InfrastructureError
from harness.lab.base import FullLab
from harness.lab.nested import provider
from harness.lab.nested.lab import NestedLab
from harness.lab.nested.record import LabRecord
from harness.lab.node import Node
from harness.model import Stack

__all__ = ["controller", "state"]


# --------------------------------------------------------------------------- being found


@pytest.fixture
def kept(controller: Controller, tmp_path: Path) -> LabRecord:
    """A lab that 'lab up' left."""
    return bring_up(controller, contextlib.ExitStack(), tmp_path / "consoles", keep=True)


def test_find_of_a_lab_that_is_up_with_the_same_specs_is_its_record(kept: LabRecord, controller: Controller) -> None:
    assert find(controller) == kept


@pytest.mark.parametrize(
    ("spec", "stack", "difference"),
    [
        (SPEC.model_copy(update={"device_mib": 64}), STACK, "its device_mib is 32 instead of 64"),
        (SPEC, StackSpec(suite="trixie"), "its suite is bookworm instead of trixie, its guest_suite is trixie"),
        (SPEC.model_copy(update={"guest": GuestSpec(memory_mib=512)}), STACK, "its guest.memory_mib is 256 instead of"),
    ],
)
def test_find_of_a_lab_that_is_up_with_another_spec_is_refused_naming_it(
    kept: LabRecord, controller: Controller, spec: LabSpec, stack: StackSpec, difference: str
) -> None:
    with pytest.raises(InfrastructureError) as caught:
        find(controller, spec, stack)
    message = str(caught.value)
    assert message.startswith(f"the lab that is up is not the one that was asked for: {difference}")
    assert message.endswith("; take it down with 'drbd-harness lab down', or ask for the same")


def test_find_of_a_lab_of_the_same_software_by_another_name_is_its_record(
    kept: LabRecord, controller: Controller
) -> None:
    named = StackSpec(name="mine", suite="bookworm", guest_suite="trixie", node=NodeTable(kernel=("bookworm",)))
    assert find(controller, stack=named) == kept
    with pytest.raises(InfrastructureError, match=r"its b\.qemu is empty instead of trixie"):
        find(controller, stack=StackSpec(suite="bookworm", guest_suite="trixie", b=NodeTable(qemu=("trixie",))))


@pytest.mark.parametrize("role", ["node", "guest"])
def test_find_of_a_lab_of_older_images_is_refused_naming_them(
    kept: LabRecord, controller: Controller, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    changed = replace(TODAY, **dict.fromkeys(("a", "b") if role == "node" else ("guest",), f"{role}-of today"))
    monkeypatch.setattr(provider, "stack_digests", lambda stack: changed)
    with pytest.raises(InfrastructureError) as caught:
        find(controller)
    assert str(caught.value) == (
        f"the lab that is up was made before the recipe of its {role} image changed; "
        "take it down with 'drbd-harness lab down'"
    )


def test_find_of_a_lab_whose_node_ended_is_none(kept: LabRecord, controller: Controller) -> None:
    controller.connection.running.pop()
    assert find(controller) is None


def test_find_of_a_lab_that_a_run_made_for_itself_is_none(controller: Controller, tmp_path: Path) -> None:
    with contextlib.ExitStack() as undo:
        bring_up(controller, undo, tmp_path / "consoles")
        assert find(controller) is None


# --------------------------------------------------------------------------- what it can do


class PowerSwitch:
    """Remembers what was switched."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def off(self, name: str) -> None:
        self.calls.append(f"off {name}")

    def on(self, name: str) -> None:
        self.calls.append(f"on {name}")


class Runner:
    silent = None

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def connect(self, patience: float) -> None:
        self.calls.append("connect")

    def run(self, argv: list[str]) -> None:
        self.calls.append(" ".join(argv))

    def close(self) -> None:
        self.calls.append("close")


def test_power_off_and_on_of_a_node_end_and_renew_its_connections(kept: LabRecord, tmp_path: Path) -> None:
    switch = PowerSwitch()
    nodes = [
        Node(known.name, cast(Any, Runner(switch.calls)), "repl0", known.address, "/dev/vdb", "test:///default")
        for known in kept.nodes
    ]
    lab: FullLab = NestedLab(kept, tmp_path, *nodes, Stack(), cast(Any, switch), fresh=True)
    domain = kept.nodes[1].domain
    lab.power_off(lab.b)
    assert switch.calls == [f"off {domain}", "close"]
    lab.power_on(lab.b)
    assert switch.calls[2:] == [f"on {domain}", "close", "connect", "dmesg --console-level 2"]


def test_lab_of_a_record_offers_its_resource_its_guest_and_its_provenance(kept: LabRecord, tmp_path: Path) -> None:
    nobody = cast(Any, None)
    lab: FullLab = NestedLab(kept, tmp_path, nobody, nobody, Stack(), nobody, fresh=True)
    assert [node.name for node in lab.resource_spec.nodes] == ["left", "right"]
    assert lab.guest_spec == SPEC.guest and lab.provenance() == kept.provenance
    image = lab.guest_image
    assert (image.kernel, image.initrd) == ("/seed/guest/vmlinuz", "/seed/guest/initrd.img")
    assert image.kernel_args == "root=/dev/vda guest-argument"
    assert image.root_device == "/dev/disk/by-id/virtio-guestroot"

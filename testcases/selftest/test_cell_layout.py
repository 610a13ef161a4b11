"""A cell with a layer between DRBD's device and its filesystem: when it is made, opened, closed; after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fake_drbd import BLOCKS, HEALTHY
from fake_guest import FakeWatch
from fake_lab import FakeLab
from fake_stage import Stage
from fake_story import in_order

from harness.drbd.resource import Resource
from harness.engine import cell_layout, cell_steps
from harness.engine.cell_layout import CellLayout
from harness.engine.disturbances import canary_steps
from harness.errors import CommandError, HarnessError, InfrastructureError, RefusedError
from harness.filesystems.base import ReplicaView, WorkloadTarget
from harness.filesystems.layers import Inner, Layer, Place
from harness.filesystems.owned import OwnedBlock
from harness.judgement.judge import judge
from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    ClientKind,
    DiskSource,
    Fault,
    FilesystemKind,
    Layout,
    Observed,
    VerdictKind,
)

GUEST = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, layout=Layout.CRYPT)
NODE = replace(GUEST, layout=Layout.CRYPT_NODE)
HOST = Cell("pressure", filesystem=FilesystemKind.SWAP, client=ClientKind.HOST, layout=Layout.CRYPT)
HEADER = OwnedBlock(BlockOwner.METADATA, "the header")


class ToldLayer(Layer):
    """Tells the story; ``is_open`` is whether it is in use.  Its first 16 blocks are a header."""

    programs = ("cryptsetup",)
    method = "the header"

    def __init__(self, lab: FakeLab, layout: Layout) -> None:
        super().__init__()
        self.layout = layout  # type: ignore[misc]
        self.lab = lab
        self.is_open = False
        self.size = 100

    def make(self, target: WorkloadTarget) -> None:
        self.lab.story(f"layer made on {target.device}")

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        self.is_open = True
        self.lab.story(f"layer opened on {target.device}")
        return WorkloadTarget(target.runner, "/dev/mapper/x", target.resource, self.size)

    def close(self, target: WorkloadTarget) -> None:
        self.lab.story(f"layer closed on {target.device}")
        self.is_open = False

    @contextmanager
    def inner(self, view: ReplicaView) -> Iterator[Inner]:
        self.lab.story("looked into")
        size = self.size if self.on_node else view.blocks - 16
        inside = ReplicaView(view.runner, "/dev/loop0", size)
        behind = OwnedBlock(BlockOwner.FREE, "behind the layer")

        def place(block: int) -> Place:
            return HEADER if block < 16 else behind if block >= 16 + size else block - 16

        yield Inner(inside, lambda blocks: {block: place(block) for block in blocks})
        self.lab.story("looked")


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Cell], tuple[Stage, ToldLayer]]:
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    monkeypatch.setattr(canary_steps, "CanaryWatch", FakeWatch)

    def stage(cell: Cell) -> tuple[Stage, ToldLayer]:
        made: list[ToldLayer] = []
        # The lab comes with the stage, which makes the cell's layout.
        monkeypatch.setattr(cell_layout, "layer_of", lambda cell: made[0] if made else Layer())
        found = Stage.of(tmp_path / f"runs{cell.id}", cell)
        made.append(ToldLayer(found.lab, cell.layout))
        found.run.layout.layer = made[0]
        return found, made[0]

    return stage


def test_layout_in_the_guest_is_made_on_its_disk_and_closed_before_it_goes(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]],
) -> None:
    stage, layer = staged(GUEST)
    assert stage.play().failure is None
    assert in_order(
        stage.steps, "attach", "observe", "layer made on /dev/vdb", "layer opened on /dev/vdb",
        "prepare /dev/mapper/x", "work 10", "quiesce", "digest nodea", "layer closed on /dev/vdb", "detach", "verify",
    )  # fmt: skip
    assert not layer.is_open and stage.guest.sources == [DiskSource("/dev/drbd0")]


def test_layout_on_the_node_is_made_before_the_attach_and_closed_before_all_is_counted(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]],
) -> None:
    stage, layer = staged(NODE)
    assert stage.play().failure is None
    assert in_order(
        stage.steps, "layer made on /dev/drbd0", "layer opened on /dev/drbd0", "attach", "observe", "prepare /dev/vdb",
        "work 10", "quiesce", "detach", "layer closed on /dev/drbd0", "sync", "digest nodea", "verify",
    )  # fmt: skip
    assert stage.steps.count("detach") == 1 and not layer.is_open
    assert stage.guest.sources == [DiskSource("/dev/mapper/x")]


def test_layout_of_a_host_cell_is_on_drbds_device(staged: Callable[[Cell], tuple[Stage, ToldLayer]]) -> None:
    stage, layer = staged(HOST)
    assert stage.play().failure is None
    assert in_order(
        stage.steps, "layer made on /dev/drbd0", "prepare /dev/mapper/x", "work 10", "quiesce",
        "layer closed on /dev/drbd0", "sync", "digest nodea", "verify",
    )  # fmt: skip
    assert not layer.is_open


@pytest.mark.parametrize("cell", [GUEST, NODE, HOST], ids=["guest", "node", "host"])
@pytest.mark.parametrize("step", ["layer made", "layer opened", "attach", "prepare", "work 10", "quiesce", "detach"])
def test_layout_after_a_failure_nothing_of_it_is_open(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]], cell: Cell, step: str
) -> None:
    stage, layer = staged(cell)
    stage.workload.leaves = {3}
    where = {"layer made": " on /dev/drbd0", "layer opened": " on /dev/drbd0", "prepare": " /dev/mapper/x"}
    if cell is GUEST and step.startswith("layer"):
        where[step] = " on /dev/vdb"
    if cell is NODE:
        where["prepare"] = " /dev/vdb"
    stage.lab.story.broken[step + where.get(step, "")] = InfrastructureError("it broke")
    found = stage.play()
    if cell is HOST and step in ("attach", "detach"):
        return
    assert found.failure is not None and "it broke" in found.failure.message
    assert not layer.is_open or not stage.guest.living, "closed, or gone with its guest"
    if cell is not GUEST:
        assert not layer.is_open
    assert stage.run.unreverted is None and stage.resource.state == HEALTHY
    assert in_order(stage.steps, step + where.get(step, ""), "verify"), "the oracles are asked all the same"
    if cell is NODE and "layer closed on /dev/drbd0" in stage.steps and "destroy" in stage.steps:
        assert in_order(stage.steps, "destroy", "layer closed on /dev/drbd0"), "QEMU lets go of it first"


@pytest.mark.parametrize("cell", [NODE, HOST], ids=["node", "host"])
def test_layout_that_cannot_be_closed_on_the_node_costs_the_lab(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]], cell: Cell
) -> None:
    stage, _ = staged(cell)
    stage.lab.story.broken["layer closed on /dev/drbd0"] = CommandError("nodea", ["umount"], 32, "", "target is busy")
    found = stage.play()
    assert found.failure and "target is busy" in found.failure.message
    assert str(stage.run.unreverted).startswith(f"the layout '{cell.layout}' could not be closed on ")
    assert judge(found).kind is VerdictKind.INCONCLUSIVE


def test_layout_whose_tool_is_missing_is_refused(staged: Callable[[Cell], tuple[Stage, ToldLayer]]) -> None:
    stage, _ = staged(GUEST)
    stage.lab.story.broken["layer made on /dev/vdb"] = CommandError("guest", ["sh"], 127, "", "not found")
    stage.guest.agent.answers["for module in"] = "program cryptsetup\n"
    found = stage.play()
    assert found.failure and found.failure.kind == "refused", found.failure
    assert "it has no program 'cryptsetup', which the layout crypt needs" in judge(found).sentence


def test_layout_with_a_canary_forgets_the_partitions_of_an_earlier_table(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]],
) -> None:
    stage, _ = staged(replace(GUEST, fault=Fault.STANDALONE))
    stage.play()
    ran = [" ".join(argv) for argv in stage.guest.agent.ran]
    forgotten = next(at for at, text in enumerate(ran) if "partx --delete" in text)
    assert "divide /dev/vdb" in ran[forgotten + 1] and ran[forgotten].endswith("/dev/vdb"), ran


@pytest.mark.parametrize("cell", [GUEST, NODE], ids=["guest", "node"])
def test_layout_with_a_canary_it_has_the_end_of_the_guests_disk(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]], cell: Cell
) -> None:
    stage, layer = staged(replace(cell, fault=Fault.STANDALONE))
    end = stage.run.context.region.blocks
    layer.size = end + 100
    stage.workload.leaves = {3, 17, 16 + 99, 16 + 100, BLOCKS - 1}
    found = stage.play()
    assert found.failure is None, found.failure
    whole = layer.size if cell is NODE else BLOCKS
    assert f"divide /dev/vdb {(whole - end) * 8} {end * 8}" in stage.steps
    owners = [(one.block, one.detail) for one in found.samples]
    canary = "a record of the canary"
    if cell is NODE:
        # What the layer holds begins at block 16.
        assert owners == [(3, "the header"), (17, "free swap slot"), (115, "free swap slot"), (116, canary),
                          (BLOCKS - 1, "behind the layer")]  # fmt: skip
    else:
        assert owners[-1] == (BLOCKS - 1, canary) and owners[-2] == (116, "free swap slot")


def test_layout_is_opened_again_and_not_made_in_a_guest_after_a_crash() -> None:
    lab = FakeLab()
    layout = CellLayout.__new__(CellLayout)
    layout.layer, layout._below, layout._opened = ToldLayer(lab, Layout.LVM), None, None
    disk = WorkloadTarget(lab.a.runner, "/dev/vdc1", cast(Resource, None), 5)
    assert layout.seen(disk) is disk
    layout.enter_again(disk)
    assert lab.story.steps == ["layer opened on /dev/vdc1"] and layout.seen(disk).device == "/dev/mapper/x"
    layout.gone()
    assert layout.seen(disk) is disk and layout.rescue() is None, "it went with its guest"


def test_layout_owners_are_those_of_what_is_in_it_and_its_own(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]],
) -> None:
    stage, _ = staged(GUEST)
    stage.workload.leaves = {3, 17, 900}
    found = stage.play()
    assert [(one.block, one.owner, one.detail) for one in found.samples] == [
        (3, BlockOwner.METADATA, "the header"), (17, BlockOwner.FREE, "free swap slot"),
        (900, BlockOwner.FREE, "free swap slot"),
    ]  # fmt: skip
    assert found.ownership.method == "the header, and in there after swapoff every slot is free"
    assert in_order(stage.steps, "looked into", "owners", "looked", "repair")


def test_layout_that_cannot_be_looked_into_owners_are_unknown(
    staged: Callable[[Cell], tuple[Stage, ToldLayer]],
) -> None:
    stage, _ = staged(GUEST)
    stage.workload.leaves = {17}
    stage.lab.story.broken["looked into"] = InfrastructureError("no header")
    found = stage.play()
    assert found.failure is None and found.ownership.unknown == 1 and "no header" in found.samples[0].detail


def test_layout_without_a_layer_owners_are_asked_directly() -> None:
    layout = CellLayout.__new__(CellLayout)
    layout.layer = Layer()
    layout.layer.layout = Layout.RAW  # type: ignore[misc]
    view = ReplicaView(FakeLab().a.runner, "/copy", 10)
    assert layout.owners(lambda seen, blocks: {7: HEADER} if seen is view else {})(view, [7]) == {7: HEADER}
    assert layout.method == "" and issubclass(RefusedError, HarnessError)

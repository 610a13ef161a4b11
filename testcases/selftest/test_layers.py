"""Layers between DRBD's device and a filesystem: what tools tell of them, the order of steps, and what is undone."""

from __future__ import annotations

import json

import pytest
from layer_machine import BLOCKS, LUKS, MIB, PVS, SFDISK, Machine, nothing_left_open, places, scripts, target

from harness.errors import InfrastructureError, RefusedError
from harness.filesystems.layers import LAYERS, Layer, layer_of
from harness.filesystems.layers.crypt import Crypt, CryptNode
from harness.filesystems.layers.crypt_qemu import CryptQemu
from harness.filesystems.layers.lvm import Lvm
from harness.filesystems.layers.partitioned import Partitioned
from harness.filesystems.layers.unlayered import Unlayered
from harness.filesystems.view import ReplicaView
from harness.model import Cell, DiskSource, FilesystemKind, Layout
from harness.parse.luks import luks_data_offset
from harness.parse.lvm import VolumeSegment, physical_volume
from harness.parse.partitions import Partition, partition_table

SHARED = "shared by metadata (the partition table) and free (in no partition)"
NO_TEXT = ["", "{}", "[]", "null", '{"report": []}', '{"segments": {}}', '{"partitiontable": {}}', "[{}]", "[null]"]


# --------------------------------------------------------------------------- what the tools print


def test_partition_table_recorded_gpt_is_read() -> None:
    table = partition_table(SFDISK)
    assert table.partitions == (Partition(1, MIB, 94 * MIB), Partition(2, 95 * MIB, 32 * MIB))
    assert (table.first, table.last) == (MIB, (262110 + 1) * 512)


def test_partition_numbers_of_a_device_with_a_digit_have_a_p() -> None:
    table = partition_table(SFDISK.replace("/dev/vdb1", "/dev/nvme0n1p1").replace("/dev/vdb2", "/dev/nvme0n1p2")
                            .replace('"/dev/vdb"', '"/dev/nvme0n1"'))  # fmt: skip
    assert [one.number for one in table.partitions] == [1, 2]


def test_physical_volume_recorded_volume_is_read() -> None:
    assert physical_volume(PVS) == (MIB, (VolumeSegment("data", MIB, 31 * 4 * MIB, 0),))


def test_physical_volume_with_free_extents_they_are_nobodys() -> None:
    told = json.loads(PVS)
    (segment,) = told["report"][0]["pvseg"]
    told["report"][0]["pvseg"] = [
        {**segment, "pvseg_size": "30"},
        {**segment, "pvseg_start": "30", "pvseg_size": "1", "lv_name": "", "segtype": "free"},
    ]  # fmt: skip
    _, segments = physical_volume(json.dumps(told))
    assert [(one.volume, one.start, one.size) for one in segments] == [
        ("data", MIB, 120 * MIB),
        ("", 121 * MIB, 4 * MIB),
    ]


def test_physical_volume_striped_value_error() -> None:
    with pytest.raises(ValueError, match="the volume data is of type striped, not linear"):
        physical_volume(PVS.replace("linear", "striped"))


def test_luks_recorded_header_data_begin_behind_it() -> None:
    assert luks_data_offset(LUKS) == 16 * MIB


@pytest.mark.parametrize("text", NO_TEXT)
def test_layer_tools_other_text_value_error(text: str) -> None:
    for parse in (partition_table, physical_volume, luks_data_offset):
        with pytest.raises(ValueError):
            parse(text)


# --------------------------------------------------------------------------- making, opening, closing


def test_layers_each_layout_has_its_own_and_says_where_it_lies() -> None:
    assert set(LAYERS) == set(Layout)
    for layout, layer in LAYERS.items():
        assert layer.layout is layout and layer_of(Cell("no-writes", layout=layout)).on_node == layout.on_node
    assert [one for one in Layout if one.on_node] == [
        one for one in Layout if one in (Layout.CRYPT_NODE, Layout.CRYPT_QEMU) or "-on-" in one
    ]


@pytest.mark.parametrize(
    ("layer", "made", "device"),
    [
        (Partitioned(FilesystemKind.EXT4), ["sfdisk", "partx", "mkswap", "dmsetup remove", "partx"], "/dev/vdb1"),
        (Partitioned(FilesystemKind.SWAP), ["sfdisk", "partx", "mkfs.ext4", "dmsetup remove", "partx"], "/dev/vdb1"),
        (Lvm(), ["pvcreate", "vgchange"], "/dev/mapper/x"),
        (Crypt(), ["luksFormat", "cryptsetup open"], "/dev/mapper/x"),
        (CryptNode(), ["luksFormat", "cryptsetup open"], "/dev/mapper/x"),
        (CryptQemu(), ["luksFormat"], "/dev/vdb"),
    ],
)  # fmt: skip
def test_layer_make_and_open_in_order(layer: Layer, made: list[str], device: str) -> None:
    machine = Machine()
    layer.make(target(machine))
    opened = layer.open(target(machine))
    assert scripts(machine) == made and opened.device == device and 0 < opened.own_blocks < BLOCKS
    assert machine.ran[0][4] == "/dev/vdb"


def test_layer_disk_is_the_device_that_was_opened() -> None:
    machine = Machine()
    assert Unlayered().disk(target(machine, "/dev/drbd0")) == DiskSource("/dev/drbd0")
    assert CryptNode().disk(target(machine, "/dev/mapper/x")) == DiskSource("/dev/mapper/x")


@pytest.mark.parametrize(
    ("kind", "number", "first"), [(FilesystemKind.EXT4, "1", "94"), (FilesystemKind.SWAP, "2", "32")]
)
def test_partitioned_the_cells_partition_has_the_room(kind: FilesystemKind, number: str, first: str) -> None:
    machine, layer = Machine(), Partitioned(kind)
    layer.make(target(machine))
    assert machine.ran[0][5] == first and machine.ran[1][5] != number, "the other one is made first"
    layer.open(target(machine))
    assert machine.ran[-1][5] == number


def test_partitioned_on_a_small_device_is_one_sentence() -> None:
    with pytest.raises(InfrastructureError, match="a device of 16 MiB has no room for two partitions"):
        Partitioned().make(target(Machine(), blocks=4096))


def test_crypt_qemu_disk_is_the_device_with_its_key_which_no_command_has() -> None:
    machine, layer = Machine(), CryptQemu()
    layer.make(target(machine, "/dev/drbd0"))
    disk = layer.disk(layer.open(target(machine, "/dev/drbd0")))
    assert disk.path == "/dev/drbd0" and disk.luks_key == machine.stdin[0] and len(disk.luks_key) == 64
    assert disk.luks_key not in repr(disk)
    assert not any(disk.luks_key in word for argv in machine.ran for word in argv)


def test_crypt_key_is_never_in_a_command() -> None:
    machine, layer = Machine(), Crypt()
    layer.make(target(machine))
    layer.open(target(machine))
    key = machine.stdin[0]
    assert len(key) == 64 and machine.stdin[1] == key != Crypt()._key
    assert not any(key in word for argv in machine.ran for word in argv)


def test_layer_whose_tool_is_missing_is_refused_with_its_name() -> None:
    machine = Machine()
    machine._does = lambda argv: "program cryptsetup\n"  # type: ignore[method-assign]
    with pytest.raises(RefusedError) as caught:
        Crypt().require(target(machine))
    assert str(caught.value) == "nodea refused: it has no program 'cryptsetup', which the layout crypt needs"


def test_layer_device_mib_grows_with_what_is_inside() -> None:
    for layer in LAYERS.values():
        assert layer.device_mib(300) >= 300 and layer.device_mib(300) > layer.device_mib(16) - 1
    assert Unlayered.device_mib(64) == 64 and Crypt.device_mib(64) == 80


# --------------------------------------------------------------------------- seen through in a copy

INSIDE = [
    Partitioned(FilesystemKind.EXT4),
    Partitioned(FilesystemKind.SWAP),
    Lvm(),
    Crypt(),
    CryptQemu(),
]


@pytest.mark.parametrize("layer", INSIDE, ids=lambda layer: f"{layer.layout}-{layer.filesystem}")
def test_inner_whatever_fails_nothing_is_left_open(layer: Layer) -> None:
    nothing_left_open(layer, range(0, BLOCKS, 97))


def test_inner_partitioned_every_block_has_its_place() -> None:
    asked = [256, 0, 3, 4, 5, 255, 300, 24319, 24320, 24321, 32511, 32512, 32763, 32764, 32767]
    assert places(Partitioned(FilesystemKind.EXT4), asked) == {
        256: 0, 300: 44, 24319: 24063,
        0: "metadata: the partition table", 3: "metadata: the partition table", 4: f"unknown: {SHARED}",
        5: "free: in no partition", 255: "free: in no partition",
        24320: "metadata: on partition 2, which is not the cell's: swap header",
        24321: "free: on partition 2, which is not the cell's: free swap slot",
        32511: "free: on partition 2, which is not the cell's: free swap slot",
        32512: "free: in no partition",
        32763: "unknown: shared by free (in no partition) and metadata (the copy of the partition table at the end)",
        32764: "metadata: the copy of the partition table at the end",
        32767: "metadata: the copy of the partition table at the end",
    }  # fmt: skip


def test_inner_partitioned_swap_cell_sees_the_other_partition() -> None:
    found = places(Partitioned(FilesystemKind.SWAP), [24320, 24321, 256])
    assert (found[24320], found[24321]) == (0, 1)
    assert str(found[256]).startswith("unknown: on partition 1, which is not the cell's: the maps of the filesystem")


def test_inner_lvm_every_block_has_its_place() -> None:
    assert places(Lvm(), [256, 0, 255, 31999, 32000, 32767]) == {
        256: 0, 31999: 31743, 0: "metadata: LVM's metadata", 255: "metadata: LVM's metadata",
        32000: "free: behind the last extent of the physical volume",
        32767: "free: behind the last extent of the physical volume",
    }  # fmt: skip


def test_inner_crypt_every_block_has_its_place() -> None:
    assert places(Crypt(), [4096, 0, 4095, 32767]) == {
        4096: 0, 32767: 28671, 0: "metadata: the LUKS2 header", 4095: "metadata: the LUKS2 header",
    }  # fmt: skip


def test_inner_crypt_qemu_every_block_has_its_place() -> None:
    assert places(CryptQemu(), [512, 0, 511, 32767]) == {
        512: 0, 32767: 32255, 0: "metadata: the LUKS1 header", 511: "metadata: the LUKS1 header",
    }  # fmt: skip


def test_inner_of_unlayered_device_is_itself() -> None:
    view = ReplicaView(Machine(), "/copy/replica", BLOCKS)
    with Unlayered().inner(view) as inner:
        assert inner.view is view and inner.locate(7) == 7

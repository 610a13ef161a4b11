"""Image files on a filesystem on the node: what qemu-img tells of them, the steps, and what is seen through them."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from layer_machine import BLOCKS, INFO, MAP, MIB, Machine, nothing_left_open, places, scripts, target

from harness.filesystems import mounted
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.ext4 import Ext4
from harness.filesystems.layers import Layer
from harness.filesystems.layers import image_file as image_module
from harness.filesystems.layers.image_file import ImageFile, Qcow2OnExt4, Qcow2OnXfs, RawOnExt4, RawOnXfs
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner, DiskSource
from harness.parse.disk_image import ImageExtent, image_extents, qcow2_tables, virtual_size
from harness.remote.local import LocalRunner


def test_image_recorded_map_and_size() -> None:
    assert virtual_size(INFO) == 16 * MIB
    assert image_extents(MAP) == (ImageExtent(MIB, 327680, 262144), ImageExtent(0, 589824, 65536))


@pytest.mark.parametrize("text", ["", "{}", "null", "[{}]", "[null]"])
def test_image_tools_other_text_value_error(text: str) -> None:
    for parse in (virtual_size, image_extents):
        with pytest.raises(ValueError):
            parse(text)


def test_qcow2_tables_all_of_the_header_l1_l2_and_refcounts() -> None:
    cluster = 65536
    data = bytearray(8 * cluster)
    struct.pack_into(">IIQIIQIIQQII", data, 0, 0x514649FB, 3, 0, 0, 16, 16 * MIB, 0, 1, 3 * cluster, cluster, 1, 0)
    struct.pack_into(">Q", data, 3 * cluster, 4 * cluster | 1 << 63)  # L2, in use once
    struct.pack_into(">Q", data, cluster, 2 * cluster)  # a block of refcounts
    found = qcow2_tables(lambda offset, size: bytes(data[offset : offset + size]))
    assert {block // 16 for block in found} == {0, 1, 2, 3, 4} and 3 * 16 + 1 not in found, "the L1 table is one entry"
    for spoilt in (b"QFI", b"\0" * 72, struct.pack(">IIQIIQIIQQII", 0x514649FB, 3, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0)):
        with pytest.raises(ValueError):
            qcow2_tables(lambda offset, size, spoilt=spoilt: spoilt[offset : offset + size])  # type: ignore[misc]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of the recorded qcow2 image, which is not there to be read, and a map of the filesystem below it."""
    monkeypatch.setattr(image_module, "qcow2_tables", lambda read: frozenset(range(80)))

    def owners(self: Ext4, view: ReplicaView, blocks: Sequence[int]) -> Mapping[int, OwnedBlock]:
        image = OwnedBlock(BlockOwner.ALLOCATED, "the image")
        return {
            block: OwnedBlock(BlockOwner.FREE, "free space") if block < 1000
            else OwnedBlock(image.owner, image.detail, "/disk.raw", (block - 1000) * BLOCK_BYTES)
            for block in blocks
        }  # fmt: skip

    monkeypatch.setattr(Ext4, "owners", owners)


def test_image_file_make_and_open_in_order() -> None:
    machine, layer = Machine(), RawOnExt4()
    layer.make(target(machine, "/dev/drbd0"))
    opened = layer.open(target(machine, "/dev/drbd0"))
    assert scripts(machine) == [
        "mkfs.ext4", "mount -t", "qemu-img create", "umount", "mount -t", "qemu-img info",
    ]  # fmt: skip
    assert (opened.device, opened.own_blocks) == ("/mnt/drbd-harness/disk.raw", 4096)
    image = Qcow2OnExt4()
    opened = image.open(target(machine, "/dev/drbd0"))
    assert image.disk(opened) == DiskSource("/mnt/drbd-harness/disk.qcow2", file=True, format="qcow2")


@pytest.mark.parametrize("layer", [RawOnExt4(), Qcow2OnExt4()], ids=lambda layer: layer.layout)
def test_inner_image_file_whatever_fails_nothing_is_left_open(layer: Layer, tables: None) -> None:
    nothing_left_open(layer, range(0, BLOCKS, 97))


def test_inner_image_file_blocks_of_the_file_are_in_it(tables: None) -> None:
    free = "free: ext4 below the image: free space"
    assert places(RawOnExt4(), [1000, 5, 1001]) == {1000: 0, 5: free, 1001: 1}


def test_inner_qcow2_blocks_are_where_its_tables_say(tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qcow2OnExt4, "_name", "disk.raw")
    # From byte 327680 of the file on 64 blocks of the disk from 1 MiB on, from 589824 on 16 from 0 on.
    found = places(Qcow2OnExt4(), [1000 + block for block in (80, 0, 79, 143, 144, 159, 160)])
    assert [found[1000 + block] for block in (80, 143, 144, 159)] == [256, 319, 0, 15]
    assert found[1000] == found[1079] == "metadata: a table of the qcow2 image"
    assert found[1160] == "free: a cluster of the qcow2 image that nothing is in"


# --------------------------------------------------------------------------- the real tools, on loop devices


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRunner:
    """This machine, where it lets us make loop devices; what is mounted is so below ``tmp_path``."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    for program in ("losetup", "mkfs.ext4", "mkfs.xfs", "xfs_db", "qemu-img", "qemu-io", "debugfs"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("only root makes loop devices")
    monkeypatch.setattr(mounted, "MOUNT_POINT", str(tmp_path / "outer"))
    monkeypatch.setattr(image_module, "_COPY_POINT", str(tmp_path / "copy"))
    return LocalRunner()


@pytest.mark.parametrize("kind", [RawOnExt4, Qcow2OnExt4, RawOnXfs, Qcow2OnXfs])
def test_image_file_content_is_found_at_the_place_that_is_told(
    kind: type[ImageFile], runner: LocalRunner, tmp_path: Path
) -> None:
    backing, layer = tmp_path / "backing", kind()
    with written_image(layer, runner, backing) as (below, opened):
        assert opened.own_blocks * BLOCK_BYTES >= 32 * MIB, "as much as was asked for"
    view = ReplicaView(runner, str(backing), below.own_blocks)
    with layer.inner(view) as inner:
        found = inner.places(range(view.blocks))
        there = {place: block for block, place in found.items() if isinstance(place, int)}
        assert inner.view.blocks == opened.own_blocks
        for block, byte in CONTENT.items():
            assert view.read(there[block] * BLOCK_BYTES, BLOCK_BYTES) == byte * BLOCK_BYTES
            assert inner.view.read(block * BLOCK_BYTES, BLOCK_BYTES) == byte * BLOCK_BYTES
        unknown = {block for block, place in found.items()
                   if isinstance(place, OwnedBlock) and place.owner is BlockOwner.UNKNOWN}  # fmt: skip
        assert len(unknown) < view.blocks / 1000
    left = runner.run(["sh", "-c", "losetup --list; cat /proc/mounts"]).stdout
    assert str(tmp_path) not in left


@pytest.mark.parametrize("kind", [RawOnExt4, Qcow2OnExt4, RawOnXfs, Qcow2OnXfs])
def test_image_file_copied_while_settled_its_content_is_found(
    kind: type[ImageFile], runner: LocalRunner, tmp_path: Path
) -> None:
    """The filesystem below the image is in use: what its journal holds alone has to be seen in the copy too."""
    backing, copy, layer = tmp_path / "backing", tmp_path / "copied", kind()
    with written_image(layer, runner, backing) as (below, _), layer.settled(below):
        runner.run(["dd", f"if={below.device}", f"of={copy}", "bs=1M", "conv=sparse", "status=none"])
    view = ReplicaView(runner, str(copy), below.own_blocks)
    with layer.inner(view) as inner:
        there = {place: block for block, place in inner.places(range(view.blocks)).items() if isinstance(place, int)}
        for block, byte in CONTENT.items():
            assert view.read(there[block] * BLOCK_BYTES, BLOCK_BYTES) == byte * BLOCK_BYTES
    left = runner.run(["sh", "-c", "losetup --list; cat /proc/mounts"]).stdout
    assert str(tmp_path) not in left


CONTENT = {1: b"\x41", 100: b"\x42", 8191: b"\x43"}


@contextmanager
def written_image(
    layer: ImageFile, runner: LocalRunner, backing: Path
) -> Iterator[tuple[WorkloadTarget, WorkloadTarget]]:
    """The device with an image that has :data:`CONTENT`, and the image; closed at the end."""
    blocks = layer.device_mib(32) * MIB // BLOCK_BYTES
    with backing.open("wb") as file:
        file.truncate(blocks * BLOCK_BYTES)
    with loop_device(runner, backing) as device:
        below = target(runner, device, blocks)
        try:
            layer.make(below)
            opened = layer.open(below)
            writes = [f"write -P {byte[0]} {block * BLOCK_BYTES} {BLOCK_BYTES}" for block, byte in CONTENT.items()]
            commands = [word for write in writes for word in ("-c", write)]
            runner.run(["qemu-io", "-f", layer.image, *commands, opened.device])
            yield below, opened
        finally:
            layer.close(below)


@contextmanager
def loop_device(runner: LocalRunner, backing: Path) -> Iterator[str]:
    device = runner.run(["losetup", "--find", "--show", str(backing)]).stdout.strip()
    try:
        yield device
    finally:
        runner.run(["losetup", "--detach", device])

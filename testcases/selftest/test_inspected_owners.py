"""Whose blocks are on a disk where it lies: partitions and filesystems in a file, with this machine's own tools."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InfrastructureError
from harness.inspection.machine import InspectedNode
from harness.inspection.owners import owners_on
from harness.inspection.readings import read_again
from harness.model import BLOCK_BYTES, BlockOwner, Extent, blocks_of
from harness.parse.content_kind import HEAD_BYTES, DiskPartition, kind_of, partitions_of
from harness.remote.local import LocalRunner

TOOLS = ("mke2fs", "debugfs", "dumpe2fs", "mkswap", "dd", "base64")
needs_tools = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="a tool is not installed here")
MIB = 2**20


def this_machine(name: str = "alpha") -> InspectedNode:
    """This machine, as one that is inspected."""
    host = SimpleNamespace(name=name, nic="")
    return InspectedNode(cast(Any, host), cast(Any, LocalRunner()), cast(Any, {"python": sys.executable}))


def ran(*argv: str, stdin: str = "") -> str:
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """One on a disk: what is in memory cannot be read past the page cache."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as found:
        yield Path(found)


def ext4_in(image: Path, folder: Path, offset: int = 0, mebibytes: int = 32) -> None:
    """An ext4 with one file of 20 blocks at byte ``offset``."""
    inside = folder / "inside"
    (inside / "srv").mkdir(parents=True)
    (inside / "srv" / "ledger").write_bytes(bytes(range(256)) * 320)
    ran("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", f"offset={offset}", "-d", str(inside), str(image),
        f"{mebibytes}M")  # fmt: skip


def blocks_of_file(image: Path, offset: int) -> list[int]:
    printed = ran("debugfs", "-R", "blocks /srv/ledger", f"{image}?offset={offset}")
    return [int(word) + offset // BLOCK_BYTES for word in printed.split()]


@needs_tools
def test_owners_on_a_whole_disk_names_file_free_space_and_superblock(folder: Path) -> None:
    image = folder / "disk"
    image.write_bytes(b"")
    ext4_in(image, folder)
    mine = blocks_of_file(image, 0)
    before = hashlib.sha256(image.read_bytes()).digest()
    owned, method = owners_on(this_machine(), str(image), 32 * 256, [0, *mine, 8000], running=False)
    assert {owned[block].path for block in mine} == {"/srv/ledger"}
    assert owned[mine[1]].offset == BLOCK_BYTES
    assert (owned[0].owner, owned[8000].owner) == (BlockOwner.METADATA, BlockOwner.FREE)
    assert "dumpe2fs" in method
    assert hashlib.sha256(image.read_bytes()).digest() == before, "nothing is written"


@needs_tools
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_owners_in_a_partition_are_those_of_its_filesystem(folder: Path, label: str) -> None:
    image = folder / "disk"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    with image.open("r+b") as file:
        first, second = (2048, 2048 + 65536 - 1), (33 * 2048, 53 * 2048 - 1)
        dos = table(entry(0x83, 2048, 65536), entry(0x82, 33 * 2048, 20 * 2048))
        file.write(gpt(first, second) if label == "gpt" else dos)
    ext4_in(image, folder, MIB, 32)
    swap = folder / "swap"
    with swap.open("wb") as file:
        file.truncate(20 * MIB)
    ran("mkswap", "-q", str(swap))
    with image.open("r+b") as file:
        file.seek(33 * MIB)
        file.write(swap.read_bytes())
    mine = blocks_of_file(image, MIB)
    first_block, slot, behind = 0, 33 * 256 + 5, 60 * 256
    owned, method = owners_on(this_machine(), str(image), 64 * 256, [first_block, *mine, slot, behind], running=False)
    assert {owned[block].path for block in mine} == {"partition 1:/srv/ledger"}
    assert (owned[first_block].owner, owned[behind].owner) == (BlockOwner.METADATA, BlockOwner.FREE)
    assert (owned[slot].owner, owned[slot].detail) == (BlockOwner.FREE, "partition 2: free swap slot")
    assert "the partition table" in method and "dumpe2fs" in method
    while_running, _ = owners_on(this_machine(), str(image), 64 * 256, [slot], running=True)
    assert while_running[slot].owner is BlockOwner.UNKNOWN


def test_owners_in_a_partition_that_begins_within_a_block_are_unknown(folder: Path) -> None:
    image = folder / "disk"
    image.write_bytes(table(entry(0x83, 63, 8000)).ljust(8 * MIB, b"x"))
    owned, _ = owners_on(this_machine(), str(image), 2048, [100, 1900], running=False)
    assert "does not begin at a block of 4 KiB" in owned[100].detail
    assert owned[1900].owner is BlockOwner.FREE


@needs_tools
def test_owners_on_what_cannot_be_read_are_unknown_with_the_reason(folder: Path) -> None:
    owned, method = owners_on(this_machine(), str(folder / "missing"), 100, [3], running=False)
    assert owned[3].owner is BlockOwner.UNKNOWN and "could not be found out" in owned[3].detail and not method


@pytest.mark.parametrize(
    "at, text, kind",
    [
        (0x438, b"\x53\xef", "ext"),
        (0, b"XFSB", "xfs"),
        (3, b"NTFS    ", "ntfs"),
        (512, b"EFI PART", "partitions"),
        (4086, b"SWAPSPACE2", "swap"),
        (4086, b"S1SUSPEND", "suspended swap"),
        (0x10040, b"_BHRfS_M", "btrfs"),
        (512, b"LABELONE", "lvm"),
        (0, b"\1", ""),
        (0, b"", "zeros"),
    ],
)
def test_kind_of_a_signature_is_what_it_is_of(at: int, text: bytes, kind: str) -> None:
    head = bytearray(HEAD_BYTES)
    head[at : at + len(text)] = text
    assert kind_of(bytes(head)) == kind


@given(st.binary(max_size=5000))
def test_kind_of_anything_ends(head: bytes) -> None:
    kind_of(head)


def entry(kind: int, start: int, size: int) -> bytes:
    return bytes(4) + bytes([kind]) + bytes(3) + struct.pack("<II", start, size)


def table(*entries: bytes) -> bytes:
    return bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def gpt(*runs: tuple[int, int]) -> bytes:
    """The first sectors of a disk with partitions from their first to their last sector."""
    header = b"EFI PART".ljust(72, b"\0") + struct.pack("<QII", 2, 128, 128)
    entries = b"".join((b"type".ljust(32, b"x") + struct.pack("<QQ", *run)).ljust(128, b"\0") for run in runs)
    return table(entry(0xEE, 1, 99)) + header.ljust(512, b"\0") + entries.ljust(128 * 128, b"\0")


def reader(disk: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: disk[offset : offset + size]


def test_partitions_of_a_dos_table_are_those_that_hold_no_others() -> None:
    disk = bytearray(512 * 9000)
    disk[:512] = table(entry(0x83, 2048, 100), entry(0x05, 4096, 4000))
    disk[4096 * 512 : 4097 * 512] = table(entry(0x83, 64, 10), entry(0x05, 1000, 100))
    disk[5096 * 512 : 5097 * 512] = table(entry(0x82, 32, 20))
    assert partitions_of(reader(bytes(disk))) == (
        DiskPartition(1, 2048 * 512, 51200),
        DiskPartition(5, 4160 * 512, 5120),
        DiskPartition(6, 5128 * 512, 10240),
    )


def test_partitions_of_a_gpt_are_its_entries_that_are_in_use() -> None:
    found = partitions_of(reader(gpt((4096, 8191), (2048, 4095))))
    assert found == (DiskPartition(2, 2048 * 512, 2048 * 512), DiskPartition(1, 4096 * 512, 4096 * 512))
    assert kind_of(gpt((2048, 4095))) == "partitions"


def test_partitions_of_a_chain_that_leads_to_itself_end() -> None:
    disk = bytearray(512 * 20)
    disk[:512] = table(entry(0x05, 4, 9))
    disk[4 * 512 : 5 * 512] = table(entry(0x83, 1, 1), entry(0x05, 4, 1))
    disk[8 * 512 : 9 * 512] = table(entry(0x83, 1, 1), entry(0x05, 4, 1))
    assert len(partitions_of(reader(bytes(disk)))) == 128


@given(st.binary(max_size=2000))
def test_partitions_of_anything_are_some_or_refused(disk: bytes) -> None:
    with contextlib.suppress(ValueError):
        partitions_of(reader(disk))


# --------------------------------------------------------------------------- readings


def test_read_again_of_two_disks_finds_what_differs_where_it_does(folder: Path) -> None:
    one, other = folder / "a", folder / "b"
    one.write_bytes(bytes(4096 * 640))
    other.write_bytes(bytes(4096 * 640))
    with other.open("r+b") as file:
        for block in (12, 580):
            file.seek(4096 * block + 4095)
            file.write(b"x")
    marked = [Extent(80, 32), Extent(8, 8), Extent(8 * 100, 8 * 500)]
    found = read_again((this_machine(), str(one)), (this_machine("beta"), str(other)), marked)
    assert blocks_of(found.lasting) == {12, 580}
    assert blocks_of(found.equal) == {1, 10, 11, 13, *range(100, 600)} - {580}
    assert found.changing == () and found.readings == 3


def test_read_again_of_more_blocks_than_an_argument_has_room_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.inspection.readings.PAUSE_SECONDS", 0.0)
    one, other = folder / "a", folder / "b"
    for disk in (one, other):
        with disk.open("wb") as file:
            file.truncate(4096 * 2 * 20_000)
    marked = [Extent(16 * number, 8) for number in range(20_000)]
    found = read_again((this_machine(), str(one)), (this_machine("beta"), str(other)), marked)
    assert len(blocks_of(found.equal)) == 20_000 and not found.not_read


def test_read_again_behind_the_end_of_a_disk_is_one_sentence(folder: Path) -> None:
    disk = folder / "a"
    disk.write_bytes(bytes(4096 * 4))
    with pytest.raises(InfrastructureError, match="block 4 of it is behind its end"):
        read_again((this_machine(), str(disk)), (this_machine("beta"), str(disk)), [Extent(16, 24)])

"""NTFS, FAT and exFAT: whose a block is, on filesystems that a guest made and filled, and what their checkers say.

The images are of 4 to 20 MiB.  Each block of a file begins with ``@PATH@OFFSET@``, so that what is right is
found without any map.  The guest made, truncated, deleted and linked files; in those of NTFS the content of $UpCase is
zeroed.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from harness.drbd.resource import Resource
from harness.errors import CommandError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import OwnedBlock, ReplicaView, WorkloadTarget
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemCheck, FilesystemKind
from harness.parse.fat import fat_layout
from harness.remote.local import LocalRunner
from harness.remote.scripted import Answer, ScriptedRunner

RECORDED = Path(__file__).parent / "recordings" / "dos"
KINDS = (FilesystemKind.NTFS3, FilesystemKind.NTFS_3G, FilesystemKind.VFAT, FilesystemKind.EXFAT)
NTFS = KINDS[:2]
MARK = re.compile(rb"@([^@\n]+)@(\d+)@")

#: The files that are there, by the 4 KiB blocks of them that have a mark.
FILES = {
    "/plain": range(5), "/odd": range(2), "/d/deep": range(3), "/d/e/umlaut-ä": range(2), "/cut": range(3),
    "/sparse": (0, 1, 62, 63), "/frag1": range(6), "/frag2": range(6), "/grown": range(1), "/prealloc": range(2, 3),
    "/many/a-long-name-001": range(1), "/many/a-long-name-003": range(1), "/many/a-long-name-005": range(1),
}  # fmt: skip
SMALL = {"/small": range(1), **{f"/many/a-long-name-{number:03}": range(1) for number in range(7, 40, 2)}}
MORE = {
    FilesystemKind.NTFS3: {"/linked": range(2)},
    FilesystemKind.NTFS_3G: {"/linked": range(2), "/plain:stream": range(3)},
    FilesystemKind.VFAT: SMALL,
    FilesystemKind.EXFAT: SMALL,
}


def image(kind: FilesystemKind) -> bytearray:
    return bytearray(lzma.decompress((RECORDED / f"{kind}.img.xz").read_bytes()))


def owners(kind: FilesystemKind, data: bytes, directory: Path) -> Mapping[int, OwnedBlock]:
    path = directory / "replica"
    path.write_bytes(data)
    blocks = len(data) // BLOCK_BYTES
    return FILESYSTEMS[kind].owners(ReplicaView(LocalRunner(), str(path), blocks), range(blocks))


@functools.cache
def whole(kind: FilesystemKind) -> tuple[bytes, Mapping[int, OwnedBlock]]:
    """The image as it was recorded, and the owners of all its blocks; asked for once."""
    data = bytes(image(kind))
    with tempfile.TemporaryDirectory() as directory:
        return data, owners(kind, data, Path(directory))


def marked(data: bytes) -> Mapping[int, tuple[str, int]]:
    """The blocks that begin with a mark: the file, and the byte of it."""
    found = {}
    for block in range(len(data) // BLOCK_BYTES):
        if mark := MARK.match(data, block * BLOCK_BYTES):
            name = mark[1].decode()
            path, _, stream = name.partition(":")
            found[block] = (f"/{path}:{stream}" if stream else f"/{path}", int(mark[2]))
    return found


def block_of(data: bytes, path: str, number: int = 0) -> int:
    return next(block for block, mark in marked(data).items() if mark == (path, number * BLOCK_BYTES))


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_marked_blocks_have_their_file_and_offset(kind: FilesystemKind) -> None:
    data, found = whole(kind)
    marks = marked(data)
    theirs = {
        block for block in marks if found[block].owner is BlockOwner.ALLOCATED and found[block].offset is not None
    }
    there = {(path, number * BLOCK_BYTES) for path, numbers in {**FILES, **MORE[kind]}.items() for number in numbers}
    assert {marks[block] for block in theirs} == there
    assert all((found[block].path, found[block].offset) == marks[block] for block in theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_blocks_of_deleted_and_truncated_files_are_free(kind: FilesystemKind) -> None:
    data, found = whole(kind)
    deleted = [block for block, (path, _) in marked(data).items() if path == "/deleted"]
    assert len(deleted) == 16
    assert {found[block].owner for block in deleted} == {BlockOwner.FREE}
    behind = [block for block, (path, at) in marked(data).items() if path == "/cut" and at >= 3 * BLOCK_BYTES]
    assert {found[block].owner for block in behind} <= {BlockOwner.FREE}


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_nothing_is_unknown_in_a_whole_filesystem(kind: FilesystemKind) -> None:
    found = whole(kind)[1]
    assert [one for one in found.values() if one.owner is BlockOwner.UNKNOWN] == []
    assert found[0].owner is BlockOwner.METADATA


@pytest.mark.parametrize("kind", (FilesystemKind.NTFS3, FilesystemKind.EXFAT))
def test_dos_owners_clusters_never_written_are_free(kind: FilesystemKind) -> None:
    found = whole(kind)[1].values()
    never = [one for one in found if one.detail.startswith("preallocated for /grown and never written")]
    assert [one.owner for one in never] == [BlockOwner.FREE] * 7


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_metadata_and_journal_have_their_names(kind: FilesystemKind) -> None:
    found = whole(kind)[1].values()
    details = {one.detail for one in found if one.owner is BlockOwner.METADATA}
    journal = [one for one in found if one.owner is BlockOwner.JOURNAL]
    assert any("directory /many" in one for one in details)
    if kind in NTFS:
        assert {one.detail for one in journal} == {"the journal ($LogFile)"} and len(journal) == 256
        assert {"the filesystem's own /$Bitmap", "the copy of the boot sector, behind all clusters"} <= details
    else:
        assert not journal and "the file allocation table" in details


@pytest.mark.parametrize("kind", NTFS)
def test_ntfs_owners_a_small_file_is_named_with_its_record(kind: FilesystemKind) -> None:
    data, found = whole(kind)
    one = found[data.index(b"@small@0@") // BLOCK_BYTES]
    assert one.owner is BlockOwner.METADATA and "/small with its data" in one.detail


@pytest.mark.parametrize("kind", NTFS)
def test_ntfs_owners_a_hard_link_is_named(kind: FilesystemKind) -> None:
    data, found = whole(kind)
    one = found[block_of(data, "/linked", 1)]
    assert one == OwnedBlock(BlockOwner.ALLOCATED, "/linked (also /d/linked2) at byte 4096", "/linked", 4096)


def test_ntfs_owners_a_compressed_file_has_its_clusters_and_no_offsets() -> None:
    found = whole(FilesystemKind.NTFS_3G)[1].values()
    compressed = [one for one in found if one.path == "/comp/c"]
    assert {(one.owner, one.offset) for one in compressed} == {(BlockOwner.ALLOCATED, None)}
    # 256 KiB of text in four units of 64 KiB, each of which became one cluster.
    assert len(compressed) == 4


def bits_of_ntfs(data: bytearray, found: Mapping[int, OwnedBlock], cluster: int) -> int:
    """Clear the bit of ``cluster`` in $Bitmap."""
    (bitmap,) = (block for block, one in found.items() if one.detail == "the filesystem's own /$Bitmap")
    data[bitmap * BLOCK_BYTES + cluster // 8] &= ~(1 << cluster % 8) & 0xFF
    return cluster


def test_ntfs_owners_what_is_free_and_in_a_file_is_unknown(tmp_path: Path) -> None:
    kind = FilesystemKind.NTFS3
    data, found = image(kind), whole(kind)[1]
    block = bits_of_ntfs(data, found, block_of(data, "/plain", 2))
    now = owners(kind, data, tmp_path)
    assert now[block] == OwnedBlock(BlockOwner.UNKNOWN, "free by the bitmap, but claimed by /plain")
    assert {**now, block: found[block]} == found


def record_of(data: bytes, name: str) -> int:
    """Where the record of the master file table with this name in it begins."""
    return next(
        at for at in range(0, len(data), 1024)
        if data[at : at + 4] == b"FILE" and name.encode("utf-16-le") in data[at : at + 1024]
        and data[at + 22] & 3 == 1
    )  # fmt: skip


@pytest.mark.parametrize("kind", NTFS)
def test_ntfs_owners_a_file_with_a_torn_record_is_unknown(kind: FilesystemKind, tmp_path: Path) -> None:
    data = image(kind)
    place = record_of(data, "frag1") + 510
    data[place] ^= 0xFF
    now, marks = owners(kind, data, tmp_path), marked(data)
    hit = [now[block] for block, (path, _) in marks.items() if path == "/frag1"]
    assert hit == [OwnedBlock(BlockOwner.UNKNOWN, "marked in use, but no file that was read has it")] * 6
    assert now[block_of(data, "/frag2")].path == "/frag2"


def test_fat_owners_what_the_table_holds_free_and_a_file_has_is_unknown(tmp_path: Path) -> None:
    kind = FilesystemKind.VFAT
    data = image(kind)
    layout, first = fat_layout(data[:512]), block_of(data, "/odd")
    assert whole(kind)[1][first].path == "/odd"
    entry = layout.tables[0].start + 2 * (2 + (first * BLOCK_BYTES - layout.data) // layout.cluster)
    data[entry : entry + 2] = b"\0\0"
    assert owners(kind, data, tmp_path)[first].owner is BlockOwner.UNKNOWN


def test_exfat_owners_what_nobody_has_but_is_in_use_is_unknown(tmp_path: Path) -> None:
    kind = FilesystemKind.EXFAT
    data, found = image(kind), whole(kind)[1]
    (bitmap,) = (block for block, one in found.items() if one.detail == "the allocation bitmap")
    last = max(block for block, one in found.items() if one.detail == "free space")
    # The bitmap begins with the first cluster, which it occupies itself.
    bit = last - bitmap
    data[bitmap * BLOCK_BYTES + bit // 8] |= 1 << bit % 8
    now = owners(kind, data, tmp_path)
    assert now[last] == OwnedBlock(BlockOwner.UNKNOWN, "marked in use, but no file that was read has it")
    assert {**now, last: found[last]} == found


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_no_such_filesystem_is_an_error(kind: FilesystemKind, tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        owners(kind, bytes(2**20), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_of_half_a_filesystem_raise_or_are_unknown(kind: FilesystemKind, tmp_path: Path) -> None:
    data = image(kind)
    zeroed = bytearray(data)
    zeroed[BLOCK_BYTES : len(data) // 2] = bytes(len(data) // 2 - BLOCK_BYTES)
    marks = marked(data)
    try:
        found = owners(kind, zeroed, tmp_path)
    except (OSError, ValueError):
        return
    for block, (path, at) in marks.items():
        one = found[block]
        assert one.owner is not BlockOwner.ALLOCATED or one.offset is None or (one.path, one.offset) == (path, at)


@pytest.mark.parametrize("kind", KINDS)
def test_dos_owners_a_node_that_cannot_be_asked_is_told(kind: FilesystemKind) -> None:
    view = ReplicaView(ScriptedRunner(lambda argv: (1, "", "no such device")), "/dev/gone", 4096)
    with pytest.raises(CommandError, match="no such device"):
        FILESYSTEMS[kind].owners(view, [1, 2])


def checked(kind: FilesystemKind, status: int, printed: str) -> tuple[FilesystemCheck | None, str]:
    runner = ScriptedRunner(lambda argv: (status, printed, ""))
    result = FILESYSTEMS[kind].check(WorkloadTarget(runner, "/dev/vdb", cast(Resource, None)))
    return result.found, result.message


ACCOUNTED = """ntfsresize v2022.10.3 (libntfs-3g)
Device name        : /dev/vdb
Checking filesystem consistency ...
Accounting clusters ...
"""
MISMATCH = f"""{ACCOUNTED}Cluster accounting failed at 20000 (0x4e20): extra cluster in $Bitmap
Cluster accounting failed at 20001 (0x4e21): extra cluster in $Bitmap
Filesystem check failed! Totally 2 cluster accounting mismatches.
ERROR: NTFS is inconsistent. Run chkdsk /f on Windows then reboot it TWICE!
The usage of the /f parameter is very IMPORTANT! No modification was
and will be made to NTFS by this software until it gets repaired.
"""
TORN = f"""Incomplete multi-sector transfer: magic: 0x454c4946  size: 1024  usa_ofs: 42  usa_count: 2  data: 22616
{ACCOUNTED}"""
ABSENT = """ERROR(2): Failed to check '/dev/nothing' mount state: No such file or directory
Probably /etc/mtab is missing. It's too risky to continue. You might try
an another Linux distro.
"""
IN_USE = "ERROR: Device '/dev/vdb' is mounted read-write. You must 'umount' it first.\n"
EXFAT_ERROR = """exfatprogs version : 1.2.9
ERROR: /plain: cluster 0x52 is marked as free at 0x2030e0. Truncate (y/N)? n
/dev/vdc: corrupted. directories 4, files 110
/dev/vdc: files corrupted 1, files fixed 0
"""


@pytest.mark.parametrize(
    "kind, status, printed, found",
    [
        (FilesystemKind.NTFS3, 0, ACCOUNTED, FilesystemCheck.CLEAN),
        (FilesystemKind.NTFS3, 1, MISMATCH, FilesystemCheck.DAMAGED),
        (FilesystemKind.NTFS_3G, 0, TORN, FilesystemCheck.DAMAGED),
        (FilesystemKind.NTFS_3G, 1, "NTFS signature is missing.\n", FilesystemCheck.DAMAGED),
        (FilesystemKind.NTFS3, 1, ABSENT, FilesystemCheck.UNCHECKED),
        (FilesystemKind.NTFS3, 1, IN_USE, FilesystemCheck.UNCHECKED),
        (FilesystemKind.NTFS3, 127, "sh: ntfsresize: not found\n", FilesystemCheck.UNCHECKED),
        (FilesystemKind.VFAT, 0, "/dev/vdd: 114 files, 980/24541 clusters\n", FilesystemCheck.CLEAN),
        (FilesystemKind.VFAT, 1, "Logical sector size is zero.\n", FilesystemCheck.DAMAGED),
        (FilesystemKind.VFAT, 1, "Read 512 bytes at 0: Input/output error\n", FilesystemCheck.UNCHECKED),
        (FilesystemKind.VFAT, 2, "usage: fsck.fat\n", FilesystemCheck.UNCHECKED),
        (FilesystemKind.VFAT, 6, "open: No such file or directory\n", FilesystemCheck.UNCHECKED),
        (FilesystemKind.EXFAT, 0, "/dev/vde: clean. directories 4, files 31\n", FilesystemCheck.CLEAN),
        (FilesystemKind.EXFAT, 4, EXFAT_ERROR, FilesystemCheck.DAMAGED),
        (FilesystemKind.EXFAT, 8, "failed to open /dev/none. -1\n", FilesystemCheck.UNCHECKED),
        (
            FilesystemKind.EXFAT, 8,
            "Bad fs_name in boot sector, which does not describe a valid exfat filesystem\n", FilesystemCheck.DAMAGED,
        ),
    ],
)  # fmt: skip
def test_dos_check_what_the_checker_says_is_told_as_fsck_would(
    kind: FilesystemKind, status: int, printed: str, found: FilesystemCheck
) -> None:
    assert checked(kind, status, printed)[0] is found


@pytest.mark.parametrize(
    "status, printed, message",
    [
        (1, MISMATCH, "Filesystem check failed! Totally 2 cluster accounting mismatches."),
        (1, IN_USE, "ERROR: Device '/dev/vdb' is mounted read-write. You must 'umount' it first."),
        (
            0,
            f"{ACCOUNTED}Space in use       : 8 MB (7.8%)\nPlease make a test run\n",
            "Space in use       : 8 MB (7.8%)",
        ),
        (124, "", ""),
    ],
)
def test_ntfs_check_the_message_is_the_line_that_says_it(status: int, printed: str, message: str) -> None:
    assert checked(FilesystemKind.NTFS3, status, printed)[1] == message


class Stubbed(LocalRunner):
    """This machine with some programs replaced by shell scripts."""

    def __init__(self, directory: Path, **programs: str) -> None:
        super().__init__()
        self._path = f"{directory}:{os.environ['PATH']}"
        for name, script in programs.items():
            path = directory / name.replace("_", ".")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    def run(self, argv: Any, **arguments: Any) -> Any:
        return super().run(["env", f"PATH={self._path}", *argv], **arguments)


def target(runner: LocalRunner) -> WorkloadTarget:
    return WorkloadTarget(runner, "/dev/vdb", cast(Resource, None))


def test_ntfs_3g_unmount_waits_for_its_process(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1.5"]) as served:
        runner = Stubbed(tmp_path, pidof=f"echo {served.pid}", umount=f"echo $1 > {tmp_path}/unmounted", sync="")
        began = time.monotonic()
        waiter = threading.Thread(target=served.wait)
        waiter.start()
        FILESYSTEMS[FilesystemKind.NTFS_3G].unmount(target(runner))
        waiter.join()
    assert time.monotonic() - began > 1
    assert (tmp_path / "unmounted").read_text() == "/mnt/drbd-harness\n"


@pytest.mark.parametrize("mebibytes, bits", [(20, 16), (256, 16), (300, 32)])
def test_vfat_make_the_size_of_the_device_decides_the_width(mebibytes: int, bits: int, tmp_path: Path) -> None:
    runner = Stubbed(tmp_path, blockdev=f"echo {mebibytes << 20}", mkfs_vfat=f'echo "$@" > {tmp_path}/made')
    FILESYSTEMS[FilesystemKind.VFAT].make(target(runner))
    assert (tmp_path / "made").read_text() == f"-F {bits} -s 8 -S 512 /dev/vdb\n"


@pytest.mark.parametrize(
    "kind, script",
    [
        (FilesystemKind.NTFS3, 'mount -t ntfs3 "$1" "$2"'),
        (FilesystemKind.NTFS_3G, 'mount -t ntfs-3g "$1" "$2"'),
        (FilesystemKind.VFAT, 'mount -t vfat "$1" "$2"'),
        (FilesystemKind.EXFAT, 'mount -t exfat "$1" "$2"'),
    ],
)
def test_dos_mount_by_its_own_driver(kind: FilesystemKind, script: str) -> None:
    answer: Answer = (0, "", "")
    runner = ScriptedRunner(lambda argv: answer)
    FILESYSTEMS[kind].mount(WorkloadTarget(runner, "/dev/vdb", cast(Resource, None)))
    assert script in runner.ran[0][2]

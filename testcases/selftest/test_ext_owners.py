"""Owners of the blocks of real ext filesystems, against what the blocks themselves hold."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import OwnedBlock, ReplicaView, WorkloadTarget
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemCheck, FilesystemKind
from harness.remote.base import Completed
from harness.remote.local import LocalRunner
from harness.util import paths as search_path

PIECE = 1024
MIB = 2**20
FREED, STALE = "freed", "stale"


def content(name: str, pieces: int, first: int = 0) -> bytes:
    """What a file of that name holds: each piece of 1 KiB says whose it is and the how manieth."""
    return b"".join(f"{name}#{number:08}#".encode().ljust(PIECE, b"\xa5") for number in range(first, first + pieces))


class Local(LocalRunner):
    """Finds the tools where Debian keeps them, whoever runs this."""

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        return super().run(["env", f"PATH={search_path.programs()}", *argv], stdin=stdin, timeout=timeout, ok=ok)


def tool(*argv: str, stdin: str | None = None) -> str:
    path = search_path.programs()
    program = shutil.which(argv[0], path=path)
    if program is None:
        pytest.skip(f"{argv[0]} is not installed")
    return subprocess.run([program, *argv[1:]], input=stdin, capture_output=True, text=True, check=True).stdout


def block_of(image: bytes, block: int) -> bytes:
    return image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]


def told_by_content(image: bytes) -> Mapping[int, tuple[str, int]]:
    """The blocks that hold one file's pieces one after the other: its name and the byte that they begin at."""
    found = {}
    for block in range(len(image) // BLOCK_BYTES):
        here = block_of(image, block)
        if here[-1] != 0xA5:
            continue
        pieces = [here[at : at + PIECE] for at in range(0, BLOCK_BYTES, PIECE)]
        if all(piece.endswith(b"\xa5") and b"#" in piece for piece in pieces):
            name, number, _ = pieces[0].decode("latin-1").split("#", 2)
            if b"".join(pieces) == content(name, BLOCK_BYTES // PIECE, int(number)):
                found[block] = name, int(number) * PIECE
    return found


def asked(image: Path, kind: FilesystemKind = FilesystemKind.EXT4) -> Mapping[int, OwnedBlock]:
    blocks = image.stat().st_size // BLOCK_BYTES
    return FILESYSTEMS[kind].owners(ReplicaView(Local(), str(image), blocks), range(blocks))


def agree(image: Path, found: Mapping[int, OwnedBlock]) -> dict[str, int]:
    """Each block whose content says whose it is has that owner; how many blocks of each file there are."""
    counted: dict[str, int] = {}
    for block, (name, offset) in told_by_content(image.read_bytes()).items():
        one = found[block]
        if one.owner in (BlockOwner.JOURNAL, BlockOwner.UNKNOWN):
            assert one.owner is BlockOwner.JOURNAL, f"block {block}: {one.detail}"
            continue
        if name.startswith((FREED, STALE)):
            assert one.owner is BlockOwner.FREE, f"block {block} of {name} is {one}"
        else:
            names = {
                "/stale" if name == "another" else f"/{name}",
                f"/d/{name}",
                f"/d/e/{name}",
                "/other name" if name == "big" else "",
            }
            assert (one.owner, one.offset) == (BlockOwner.ALLOCATED, offset) and one.path in names, f"{block}: {one}"
        counted[name] = counted.get(name, 0) + 1
    return counted


@pytest.fixture(params=["ext4 4096", "ext3 4096", "ext4 1024", "ext3 2048", "ext2 4096"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """64 MiB with a large file of two names, a sparse one, many small ones, and one that was removed."""
    kind, size = request.param.split()
    tree, path = tmp_path / "tree", tmp_path / "image"
    (tree / "d").mkdir(parents=True)
    (tree / "big").write_bytes(content("big", 6 * 1024))
    os.link(tree / "big", tree / "other name")
    (tree / "freed").write_bytes(content(FREED, 2 * 1024))
    for number in range(200):
        (tree / "d" / f"small-{number}").write_bytes(content(f"small-{number}", 4))
    with (tree / "sparse").open("wb") as file:
        file.seek(20 * MIB)
        file.write(content("sparse", 64, 20 * 1024))
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-t", kind, "-b", size, "-d", str(tree), str(path))
    tool("debugfs", "-w", "-R", "rm /freed", str(path))
    (tmp_path / "late").write_bytes(content("late", 16))
    tool("debugfs", "-w", "-f", "-", str(path), stdin=f"mkdir /d/e\nwrite {tmp_path / 'late'} /d/e/late\n")
    return path


def test_ext_owners_of_each_kind_agree_with_what_the_blocks_hold(image: Path) -> None:
    found = asked(image)
    counted = agree(image, found)
    small = [name for name in counted if name.startswith("small-")]
    assert 1500 < counted["big"] <= 1536 and counted["sparse"] in (15, 16) and len(small) > 40
    assert counted[FREED] > 400, "it was removed, and nothing has its blocks"
    owners = {one.owner for one in found.values()}
    assert owners >= {BlockOwner.ALLOCATED, BlockOwner.FREE, BlockOwner.METADATA}
    assert any("directory /d" in one.detail for one in found.values())


def test_ext_owners_shared_by_small_blocks_is_never_one_of_them_alone(image: Path) -> None:
    data = image.read_bytes()
    for block, one in asked(image).items():
        here = block_of(data, block)
        starts = [
            here[at : at + 16].split(b"#")[0] for at in range(0, BLOCK_BYTES, PIECE) if b"#" in here[at : at + 16]
        ]
        live = {start for start in starts if start.startswith((b"small-", b"big", b"sparse", b"late"))}
        if one.owner is BlockOwner.FREE:
            assert not live, f"block {block} holds {live}"
        if one.path:
            assert len(live) == 1, f"block {block} holds {live} and is {one}"


def test_ext_owners_preallocated_is_free_and_inline_data_is_metadata(tmp_path: Path) -> None:
    path, inline = tmp_path / "image", tmp_path / "tiny"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    inline.write_bytes(b"tiny content that fits the inode")
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "inline_data", str(path))
    tool("debugfs", "-w", "-R", f"write {inline} /tiny", str(path))
    held = path.read_bytes().index(inline.read_bytes()) // BLOCK_BYTES
    found = asked(path)
    assert found[held].owner is BlockOwner.METADATA and "inode table" in found[held].detail
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", str(path))
    tool("debugfs", "-w", "-f", "-", str(path), stdin="write /dev/null /pre\nfallocate /pre 3 12\n")
    found = asked(path)
    ahead = sorted(one.offset or 0 for one in found.values() if one.path == "/pre")
    assert ahead == [4096 * number for number in range(3, 13)]
    assert all(one.owner is BlockOwner.FREE for one in found.values() if one.path == "/pre")


# --------------------------------------------------------------------------- written by the kernel


@contextmanager
def mounted(image: Path, *options: str) -> Iterator[Path]:
    """The image mounted by the kernel of this machine; skipped where nobody may."""
    point = image.parent / "mounted"
    point.mkdir(exist_ok=True)
    path = search_path.programs()
    mount, umount = (shutil.which(name, path=path) for name in ("mount", "umount"))
    argv = [mount or "mount", "-o", ",".join(("loop", *options)), str(image), str(point)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount an image")
    try:
        yield point
    finally:
        subprocess.run([umount or "umount", str(point)], check=True)


@pytest.mark.parametrize(
    ("kind", "make", "options"),
    [
        (FilesystemKind.EXT4, "ext4", ()), (FilesystemKind.EXT4_NOBARRIER, "ext4", ("nobarrier",)),
        (FilesystemKind.EXT4_JOURNAL, "ext4", ("data=journal",)), (FilesystemKind.EXT3, "ext3", ()),
    ],
)  # fmt: skip
def test_ext_owners_of_what_the_kernel_wrote(
    kind: FilesystemKind, make: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    path, live = tmp_path / "image", tmp_path / "live"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-t", make, "-b", "4096", str(path))
    with mounted(path, *options) as point:
        (point / "big").write_bytes(content("big", 8 * 1024))
        os.link(point / "big", point / "other name")
        (point / "d").mkdir()
        for number in range(100):
            (point / "d" / f"small-{number}").write_bytes(content(f"small-{number}", 8))
        (point / "freed").write_bytes(content(FREED, 4 * 1024))
        with (point / "stale").open("wb") as file:
            file.write(content(STALE, 4 * 1024))
        os.sync()
        with (point / "stale").open("r+b") as file:
            file.truncate(0)
            file.write(content("another", 4))
        (point / "freed").unlink()
        held = (point / "held").open("wb+")
        held.write(content("freed-held", 64))
        os.sync()
        (point / "held").unlink()
        os.sync()
        shutil.copyfile(path, live)
        held.close()
    found = asked(path, kind)
    counted = agree(path, found)
    assert counted["big"] == 2048 and counted[FREED] > 900
    assert sum(counted.get(f"small-{number}", 0) for number in range(100)) == 200
    assert BlockOwner.UNKNOWN not in {one.owner for one in found.values()}
    # As a guest that was killed leaves it: what stands in the journal may be newer than the maps.
    crashed = asked(live, kind)
    assert {one.owner for one in crashed.values()} == {BlockOwner.UNKNOWN, BlockOwner.METADATA, BlockOwner.JOURNAL}
    assert all(one.owner in (BlockOwner.UNKNOWN, BlockOwner.JOURNAL) for one in map(crashed.get, told_by_content(
        live.read_bytes())) if one)  # fmt: skip


def test_swapfile_blocks_are_slots_of_the_file_and_its_header(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", str(path))
    with mounted(path) as point:
        tool("fallocate", "-l", "8M", str(point / "swapfile"))
        tool("mkswap", str(point / "swapfile"))
    found = asked(path, FilesystemKind.SWAPFILE)
    slots = {block: one for block, one in found.items() if one.path == "/swapfile"}
    assert len(slots) == 2048 and [one.owner for one in slots.values()].count(BlockOwner.FREE) == 2047
    (header,) = (block for block, one in slots.items() if one.owner is BlockOwner.METADATA)
    assert block_of(path.read_bytes(), header)[4086:] == b"SWAPSPACE2", "where mkswap wrote its header"
    assert slots[header].detail == "swap header of /swapfile"
    assert slots[header + 1].detail == "free swap slot, /swapfile at byte 4096"
    assert {one.owner for one in found.values()} >= {BlockOwner.JOURNAL, BlockOwner.FREE}


@pytest.mark.parametrize("kind", [FilesystemKind.EXT4, FilesystemKind.EXT3])
def test_ext_make_and_check_on_an_image(kind: FilesystemKind, tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    tool(f"mkfs.{'ext3' if kind is FilesystemKind.EXT3 else 'ext4'}", "-V")
    target = WorkloadTarget(Local(), str(path), cast(Any, None), 4096)
    FILESYSTEMS[kind].make(target)
    assert FILESYSTEMS[kind].check(target).found is FilesystemCheck.CLEAN
    printed = tool("dumpe2fs", "-h", str(path))
    assert ("extent" in printed) is (kind is FilesystemKind.EXT4) and "has_journal" in printed

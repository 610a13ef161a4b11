"""The comparison by digests on block devices of this machine: loop devices on files of its own.  Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from harness.errors import InfrastructureError
from harness.lab.hardware.compare import DigestComparison
from harness.lab.node import Node
from harness.model import BLOCK_BYTES, blocks_of
from harness.remote.local import LocalRunner

BLOCKS = 1000


class Machine:
    """What a comparison knows of a node."""

    runner = LocalRunner()

    def __init__(self, name: str) -> None:
        self.name = name


class Loops:
    """Loop devices on files in ``folder``, all detached at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[str] = []

    def make(self, name: str, size: int, *options: str) -> tuple[str, Path]:
        file = self.folder / name
        file.write_bytes(bytes(size))
        return self.attach(file, *options), file

    def attach(self, file: Path, *options: str) -> str:
        argv = ["losetup", "--find", "--show", *options, str(file)]
        device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        self.made.append(device)
        return device

    def close(self) -> None:
        for device in reversed(self.made):
            subprocess.run(["losetup", "--detach", device], check=False)


@pytest.fixture
def loops(tmp_path: Path) -> Iterator[Loops]:
    if os.geteuid() or not shutil.which("losetup"):
        pytest.skip("needs root and losetup")
    made = Loops(tmp_path)
    try:
        yield made
    finally:
        made.close()


def compared(a: str, b: str, folder: Path) -> DigestComparison:
    one, other = (cast(Node, Machine(name)) for name in ("alpha", "beta"))
    return DigestComparison(one, other, a, b, str(folder / "lib"))


def direct_write(path: str, block: int, content: bytes) -> None:
    argv = ["dd", f"of={path}", "bs=4096", f"seek={block}", "oflag=direct", "conv=notrunc", "status=none"]
    subprocess.run(argv, input=content, check=True)


def test_what_was_written_directly_is_seen_at_once(loops: Loops) -> None:
    (a, _), (b, _) = (loops.make(name, (BLOCKS + 1) * BLOCK_BYTES + 512) for name in ("a", "b"))
    own = compared(a, b, loops.folder)
    assert own.compare(BLOCKS).differing == ()
    for device, block in ((a, 0), (b, 999), (b, 1000), (a, 255), (b, 256)):
        direct_write(device, block, b"\x01".ljust(BLOCK_BYTES, b"\0"))
    assert blocks_of(own.compare(BLOCKS).differing) == {0, 255, 256, 999}
    (found,) = own.sample([999])
    assert (found.offset, found.differing_bytes, found.b[:2]) == (0, 1, "01")


def test_what_the_page_cache_of_the_device_holds_never_answers(loops: Loops) -> None:
    device, file = loops.make("a", BLOCKS * BLOCK_BYTES, "--direct-io=on")
    other, _ = loops.make("b", BLOCKS * BLOCK_BYTES)

    def buffered() -> bytes:
        with Path(device).open("rb") as opened:
            opened.seek(7 * BLOCK_BYTES)
            return opened.read(BLOCK_BYTES)

    # Kept open, as DRBD keeps its lower device: the last to close it would drop the cache.
    with Path(device).open("rb"):
        assert buffered() == bytes(BLOCK_BYTES)
        # Below the cache of the device, as DRBD writes.
        direct_write(str(file), 7, b"new".ljust(BLOCK_BYTES, b"\0"))
        assert buffered() == bytes(BLOCK_BYTES), "the control: the cache does not know of it"
        own = compared(device, other, loops.folder)
        assert blocks_of(own.compare(BLOCKS).differing) == {7}
        (found,) = own.sample([7])
        assert bytes.fromhex(found.a).startswith(b"new")


def test_what_cannot_be_read_names_the_machine_and_the_block(loops: Loops) -> None:
    a, _ = loops.make("a", BLOCKS * BLOCK_BYTES)
    b, file = loops.make("b", BLOCKS * BLOCK_BYTES, "--direct-io=on")
    own = compared(a, b, loops.folder)
    # A loop device whose file became shorter keeps its size, and gives an error where the file has nothing any more.
    os.truncate(file, 600 * BLOCK_BYTES)
    with pytest.raises(InfrastructureError, match=rf"on beta, {b} cannot be read at block 600: Input/output error"):
        own.compare(BLOCKS)
    assert own.compare(600).differing == ()


def test_device_that_became_smaller_names_the_machine_and_the_block(loops: Loops) -> None:
    a, _ = loops.make("a", BLOCKS * BLOCK_BYTES)
    b, file = loops.make("b", BLOCKS * BLOCK_BYTES)
    own = compared(a, b, loops.folder)
    assert own.compare(BLOCKS).differing == ()
    os.truncate(file, 999 * BLOCK_BYTES)
    subprocess.run(["losetup", "--set-capacity", b], check=True)
    with pytest.raises(InfrastructureError, match=rf"on beta, {b} cannot be read at block 999: it ends there"):
        own.compare(BLOCKS)

"""Two read-backs of a device: the guest program that makes them, its output, and what differs between them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import recipe
from harness.errors import CommandError, InfrastructureError
from harness.guest.readback import PIECE_BLOCKS, PROGRAM, compare_readbacks, read_device
from harness.model import BLOCK_BYTES, Extent, blocks_of
from harness.parse.blockdigest import changed, digests
from harness.remote.scripted import Answer, ScriptedRunner

SOURCE = recipe.recipes_directory() / "src" / "blockdigest.c"


def digest(block: int) -> str:
    return f"{block * 0x9E3779B97F4A7C15 % 2**64:016x}"


# --------------------------------------------------------------------------- what is printed


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_digests_requested_count_in_order(values: list[int]) -> None:
    lines = tuple(f"{value:016x}" for value in values)
    assert digests("".join(f"{line}\n" for line in lines), len(lines)) == lines


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{digest(1)}\n", "2 digests were asked for and 1 lines came"),
        (f"{digest(1)}\n" * 3, "2 digests were asked for and 3 lines came"),
        (f"{digest(1)}\n\n", "line 1 is no digest: ''"),
        (f"{digest(1)}\n{digest(2)[:15]}\n", "line 1 is no digest"),
        (f"{digest(1).upper()}\n{digest(2)}\n", "line 0 is no digest"),
        (f"{digest(1)}\n {digest(2)}\n", "line 1 is no digest"),
    ],
)
def test_digests_damaged_text_value_error(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        digests(text, 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_changed_any_pairs_blocks_that_differ(pairs: list[tuple[int, int]]) -> None:
    before, after = [digest(one) for one, _ in pairs], [digest(other) for _, other in pairs]
    expected = {number for number, (one, other) in enumerate(pairs) if one != other}
    assert changed(before, after) == changed(after, before) == expected


def test_changed_different_lengths_value_error() -> None:
    with pytest.raises(ValueError, match="2 blocks were read before and 1 after"):
        changed([digest(1), digest(2)], [digest(1)])


def test_compare_readbacks_names_nodes_and_extents() -> None:
    before = [digest(block) for block in range(100)]
    after = [*before[:7], "0" * 16, "1" * 16, *before[9:99], "2" * 16]
    found = compare_readbacks(before, after, "nodea", "nodeb", 12.5)
    assert (found.blocks, found.before, found.after, found.seconds) == (100, "nodea", "nodeb", 12.5)
    assert found.differing == (Extent(56, 16), Extent(792, 8)) and found.differing_blocks == 3
    assert compare_readbacks(before, before, "nodea", "nodeb", 1).differing == ()


# --------------------------------------------------------------------------- through a runner


def reader(argv: tuple[str, ...]) -> Answer:
    assert argv[:2] == (PROGRAM, "/dev/vdb")
    first, count = int(argv[2]), int(argv[3])
    return 0, "".join(f"{digest(block)}\n" for block in range(first, first + count)), ""


@pytest.mark.parametrize("blocks", [1, PIECE_BLOCKS - 1, PIECE_BLOCKS, PIECE_BLOCKS + 1, 3 * PIECE_BLOCKS + 5])
def test_read_device_any_size_every_block_once_in_bounded_pieces(blocks: int) -> None:
    runner = ScriptedRunner(reader)
    assert read_device(runner, "/dev/vdb", blocks) == tuple(digest(block) for block in range(blocks))
    counts = [int(argv[3]) for argv in runner.ran]
    assert sum(counts) == blocks and max(counts) <= PIECE_BLOCKS and len(counts) == -(-blocks // PIECE_BLOCKS)


def test_read_device_short_output_infrastructure_error() -> None:
    runner = ScriptedRunner(lambda argv: (0, reader(argv)[1][:-17], ""), "guest")
    with pytest.raises(InfrastructureError, match="/dev/vdb in guest could not be read from block 0 on: 10 digests"):
        read_device(runner, "/dev/vdb", 10)


def test_read_device_unreadable_block_command_error() -> None:
    runner = ScriptedRunner(lambda argv: (1, "", "blockdigest: read /dev/vdb at block 5: Input/output error\n"))
    with pytest.raises(CommandError, match="at block 5: Input/output error"):
        read_device(runner, "/dev/vdb", 10)


# --------------------------------------------------------------------------- the program itself


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    binary = tmp_path_factory.mktemp("program") / "blockdigest"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary, SOURCE], check=True, timeout=120)
    return binary


def ran(program: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, argv)], capture_output=True, text=True, timeout=60, check=False)


def test_blockdigest_changed_blocks_exactly_those_differ(program: Path, tmp_path: Path) -> None:
    # More than one of its reads, and not a whole number of them.
    blocks, first = 300, 3
    data = bytearray(os.urandom((first + blocks) * BLOCK_BYTES))
    path = tmp_path / "disk"
    path.write_bytes(data)
    before = digests(ran(program, path, first, blocks).stdout, blocks)
    assert len(set(before)) == blocks
    # A bit at either end of a block, both top bits of neighbouring words, and a block outside what is read.
    changes = {
        0: [(0, 1)],
        5: [(BLOCK_BYTES - 1, 128)],
        255: [(1023, 128), (1031, 128)],
        256: [(8, 4)],
        299: [(77, 255)],
    }
    for block, bits in changes.items():
        for offset, mask in bits:
            data[(first + block) * BLOCK_BYTES + offset] ^= mask
    data[0] ^= 1
    path.write_bytes(data)
    after = digests(ran(program, path, first, blocks).stdout, blocks)
    assert changed(before, after) == set(changes) == blocks_of(compare_readbacks(before, after, "a", "b", 0).differing)


def test_blockdigest_equal_blocks_equal_digests(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes((b"x" * BLOCK_BYTES + b"y" * BLOCK_BYTES) * 2)
    one, other, again, too = digests(ran(program, path, 0, 4).stdout, 4)
    assert (one, other) == (again, too) and one != other


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (("disk", 0, 3), 1, "blockdigest: read .*disk at block [02]: it ends there"),
        (("disk", 2, 1), 1, "blockdigest: read .*disk at block 2: it ends there"),
        (("nothing", 0, 1), 1, "blockdigest: open .*nothing: No such file"),
        (("disk", 0, 0), 2, "^usage: blockdigest"),
        (("disk", -1, 1), 2, "^usage: blockdigest"),
        (("disk", "1x", 1), 2, "^usage: blockdigest"),
        (("disk", 0), 2, "^usage: blockdigest"),
    ],
)
def test_blockdigest_bad_input_one_sentence(
    program: Path, tmp_path: Path, argv: tuple[object, ...], status: int, says: str
) -> None:
    (tmp_path / "disk").write_bytes(bytes(2 * BLOCK_BYTES))
    done = ran(program, tmp_path / str(argv[0]), *argv[1:])
    assert done.returncode == status and re.search(says, done.stderr), done

"""Two lower devices compared by digests: the real program, on files that two "machines" have, and over ssh."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sshd import Sshd

from harness.errors import InfrastructureError, LostNodeError
from harness.lab.backing_compare import changed_blocks, compare_files, sample_files
from harness.lab.hardware import compare
from harness.lab.hardware.compare import DigestComparison, remove_programs
from harness.lab.nested.keys import SshPort, known_hosts, new_key_pair, write_private
from harness.lab.node import Node
from harness.model import BLOCK_BYTES, Extent, blocks_of
from harness.parse.replica_digests import DIGEST_BYTES, contents, differing, digests
from harness.remote.base import Runner
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.remote.ssh import SshRunner

BLOCKS = 700
RANGE = 300


@dataclass
class Machine:
    """What a comparison knows of a node."""

    name: str
    runner: Runner = field(default_factory=LocalRunner)


def comparison(a: Path, b: Path, folder: Path, runner: Runner | None = None) -> DigestComparison:
    one = Machine("alpha", runner or LocalRunner())
    return DigestComparison(cast(Node, one), cast(Node, Machine("beta")), str(a), str(b), str(folder))


def poke(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for files and programs; several ranges even of a small device."""
    if not shutil.which("gcc") or not Path("/usr/include/xxhash.h").exists():
        pytest.skip("needs gcc and the headers of xxHash")
    folder = tmp_path_factory.mktemp("compare")
    (folder / "probe").write_bytes(bytes(BLOCK_BYTES))
    try:
        os.close(os.open(folder / "probe", os.O_RDONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("no O_DIRECT in the folder for temporary files")
    return folder


@pytest.fixture(autouse=True)
def _several_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_RANGE_BLOCKS", RANGE)


@pytest.fixture
def pair(place: Path) -> Iterator[tuple[Path, Path]]:
    """Two equal devices with runs of equal blocks and others, and what is DRBD's behind BLOCKS; no whole block at the
    end.
    """
    chance = random.Random(7)
    data = bytearray((BLOCKS + 3) * BLOCK_BYTES + 512)
    for block in (*range(2, 40), *range(256, 259), 511, 512, 600):
        data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = chance.randbytes(BLOCK_BYTES)
    a, b = place / "a", place / "b"
    for path in (a, b):
        path.write_bytes(data)
    yield a, b
    for path in (a, b):
        path.unlink()


# --------------------------------------------------------------------------- the same as files on the controller


@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_compare_any_bytes_flipped_on_either_side_as_the_backing_files_say(
    pair: tuple[Path, Path], place: Path, data: st.DataObject
) -> None:
    edges = st.sampled_from([0, 1, BLOCKS * BLOCK_BYTES - 1, RANGE * BLOCK_BYTES - 1, RANGE * BLOCK_BYTES])
    places = data.draw(
        st.dictionaries(st.integers(0, (BLOCKS + 1) * BLOCK_BYTES - 1) | edges, st.booleans(), max_size=9), "flipped"
    )
    before = [path.read_bytes() for path in pair]
    own = comparison(*pair, place)
    was = own.block_digests(cast(Node, Machine("beta")), BLOCKS)
    try:
        for at, on_b in places.items():
            poke(pair[on_b], at, bytes([before[on_b][at] ^ 1 << data.draw(st.integers(0, 7), "bit")]))
        found, files = own.compare(BLOCKS), compare_files(*pair, BLOCKS)
        assert found.differing == files.differing and found.blocks == BLOCKS
        assert blocks_of(found.differing) == {at // BLOCK_BYTES for at in places} - {BLOCKS}
        blocks = sorted(blocks_of(found.differing))
        assert own.sample(blocks) == sample_files(*pair, blocks)
        now = own.block_digests(cast(Node, Machine("beta")), BLOCKS)
        of_b = {at // BLOCK_BYTES for at, on_b in places.items() if on_b} - {BLOCKS}
        assert blocks_of(changed_blocks(was, now)) == of_b
    finally:
        for path, content in zip(pair, before, strict=True):
            path.write_bytes(content)


def test_compare_every_block_another_is_one_extent(pair: tuple[Path, Path], place: Path) -> None:
    pair[1].write_bytes(random.Random(9).randbytes(BLOCKS * BLOCK_BYTES))
    own = comparison(*pair, place)
    found = own.compare(BLOCKS)
    assert found.differing == (Extent(0, BLOCKS * 8),) and "O_DIRECT" in found.where
    row = own.block_digests(cast(Node, Machine("beta")), BLOCKS)
    assert len({row[at : at + 8] for at in range(0, len(row), 8)}) == BLOCKS, "each has a digest of its own"


def test_compare_sides_of_another_size_equal_as_far_as_the_device_goes(pair: tuple[Path, Path], place: Path) -> None:
    with pair[0].open("r+b") as file:
        file.truncate(BLOCKS * BLOCK_BYTES)
    own = comparison(*pair, place)
    assert own.compare(BLOCKS).differing == ()
    with pytest.raises(InfrastructureError, match=rf"on alpha, {pair[0]} cannot be read at block 700: it ends there"):
        own.compare(BLOCKS + 1)


def test_compare_device_that_ends_within_a_block_names_the_machine_and_the_block(
    pair: tuple[Path, Path], place: Path
) -> None:
    with pair[1].open("r+b") as file:
        file.truncate(512 * BLOCK_BYTES + 512)
    with pytest.raises(InfrastructureError, match=rf"on beta, {pair[1]} cannot be read at block 512: it ends there"):
        comparison(*pair, place).compare(BLOCKS)
    with pytest.raises(InfrastructureError, match=r"on beta, .* at block 512: it ends there"):
        comparison(*pair, place).sample([3, 512])


def test_compare_device_that_is_not_there_is_one_sentence(pair: tuple[Path, Path], place: Path) -> None:
    with pytest.raises(InfrastructureError, match="on alpha, /nowhere cannot be opened with O_DIRECT: No such file"):
        comparison(Path("/nowhere"), pair[1], place).compare(BLOCKS)
    assert comparison(*pair, place).sample([]) == ()


# --------------------------------------------------------------------------- the program on the machine


def test_program_is_brought_once_again_where_it_is_damaged_and_taken_back(pair: tuple[Path, Path], place: Path) -> None:
    folder = place / "brought"
    own = comparison(*pair, folder)
    assert own.compare(BLOCKS).differing == ()
    (brought,) = folder.glob("programs/*/*")
    assert brought.parent.name == compare.program()[0] and brought.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    made = brought.stat().st_ino
    assert own.compare(BLOCKS).differing == () and brought.stat().st_ino == made, "it was there"
    # As after a power cut: the name is there, and not all that it had.
    brought.write_bytes(brought.read_bytes()[:4096])
    assert own.compare(BLOCKS).differing == ()
    remove_programs(Machine("alpha"), str(folder))
    assert not list(folder.iterdir())
    remove_programs(Machine("alpha"), str(folder))


def test_program_needs_nothing_of_the_machine(place: Path) -> None:
    binary = place / "program"
    binary.write_bytes(compare.program()[1])
    said = subprocess.run(["readelf", "-lhn", binary], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in said and "DYNAMIC" not in said and "X86-64" in said
    # The oldest kernel that it starts on.
    assert "OS: Linux, ABI: 3.2.0" in said


def test_program_asks_for_reading_alone_and_never_through_the_page_cache() -> None:
    source = (compare.resources.recipes() / "src" / "replicadigest.c").read_text()
    assert source.count("open(path, O_RDONLY | O_DIRECT | O_CLOEXEC)") == 1 == source.count(" open(")
    for word in ("O_RDWR", "O_WRONLY", "O_CREAT", "fopen", "pwrite", "mmap", "ioctl", "creat("):
        assert word not in source


@pytest.mark.parametrize(
    ("status", "out", "err", "sentence"),
    [
        (
            91,
            "aarch64\n",
            "",
            "beta is a machine of the architecture aarch64; its lower device can be read only on x86_64",
        ),
        (
            126,
            "",
            "sh: 4: exec: /var/x: Permission denied",
            "cannot be run on beta: sh: 4: exec: /var/x: Permission denied",
        ),
        (90, "", "", "the program that reads the lower device cannot be run on beta: "),
        (0, "AAAA\n", "", "what beta read from /dev/b is not whole: 700 digests were asked for and 0.1875 came"),
        (0, "*5\n", "", "is not whole: '.5' stands for blocks that were not asked for"),
        (0, "\ufffd\n", "", "is not whole: a line is no Base64"),
    ],
)
def test_machine_that_cannot_answer_is_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, status: int, out: str, err: str, sentence: str
) -> None:
    monkeypatch.setattr(compare, "_RANGE_BLOCKS", BLOCKS)
    bringing = ScriptedRunner(lambda argv: (0, "", "") if "base64" in argv[2] else (status, out, err))
    one = Machine("beta", bringing)
    own = DigestComparison(cast(Node, one), cast(Node, one), "/dev/b", "/dev/b")
    with pytest.raises(InfrastructureError, match=sentence):
        own.compare(BLOCKS)


def test_controller_of_another_architecture_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(InfrastructureError, match="this controller is a machine of the architecture aarch64"):
        compare.program.__wrapped__()


def test_directory_that_somebody_else_owns_gets_no_program(place: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    folder = place / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(InfrastructureError, match=f"cannot be brought to alpha: {folder} is not root's"):
        comparison(place / "probe", place / "probe", folder).sample([0])


# --------------------------------------------------------------------------- over ssh


def test_connection_that_dies_in_the_middle_is_a_lost_node_and_nothing_stays_running(
    pair: tuple[Path, Path], place: Path
) -> None:
    user, host = new_key_pair("user"), new_key_pair("alpha")
    sshd = Sshd(host, user.public)
    write_private(place / "key", user.private)
    (place / "known_hosts").write_text(known_hosts({SshPort("alpha", sshd.port): host.public}))
    runner = SshRunner("127.0.0.1", sshd.port, key=place / "key", known_hosts=place / "known_hosts", name="alpha")
    runner.connect(10)
    try:
        assert comparison(*pair, place / "over-ssh", runner).compare(BLOCKS).differing == ()
        # Nobody writes to it, so it is waited for where it is opened.
        silent = place / "silent"
        os.mkfifo(silent)
        asked = len(sshd.commands)

        def cut() -> None:
            while len(sshd.commands) == asked:
                time.sleep(0.01)
            sshd.close()

        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(LostNodeError, match="alpha"):
            comparison(silent, pair[1], place / "over-ssh", runner).compare(BLOCKS)
        os.close(os.open(silent, os.O_WRONLY))
    finally:
        runner.close()
        sshd.close()


# --------------------------------------------------------------------------- what it prints


ROW = st.lists(st.sampled_from([bytes(16), b"1" * 16, b"2" * 16]), min_size=1, max_size=40)


@given(one=ROW, other=ROW)
def test_differing_any_rows_are_those_that_differ(one: list[bytes], other: list[bytes]) -> None:
    count = min(len(one), len(other))
    rows = b"".join(one[:count]), b"".join(other[:count])
    assert differing(*rows) == [at for at in range(count) if one[at] != other[at]]
    with pytest.raises(ValueError, match="not of the same blocks"):
        differing(rows[0], rows[1] + bytes(16))


def test_differing_of_many_is_counted_from_the_first() -> None:
    row = bytearray(3000 * DIGEST_BYTES)
    row[2500 * DIGEST_BYTES + 15] = row[-1] = 1
    assert differing(bytes(len(row)), bytes(row)) == [2500, 2999]


def test_digests_and_contents_only_what_is_whole() -> None:
    one = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert digests(f"{one}\n*3\n", 4) == bytes(4 * DIGEST_BYTES)
    for wrong in (f"{one}\n*4\n", f"{one}\n*2\n", "*4\n", "", f"{one}\n*0\n", f"{one}\n*3\n{one}\n", f"{one}\n*-1"):
        with pytest.raises(ValueError):
            digests(wrong, 4)
    with pytest.raises(ValueError, match="2 blocks of 4096 bytes"):
        contents(one, 2)


def test_bench_reads_in_turn_with_dd_and_says_what_cannot_be_read(place: Path) -> None:
    script = Path(__file__).parents[2] / "ci" / "lib" / "bench_digests.py"
    (place / "bench").write_bytes(bytes(4 << 20))

    def bench(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, *argv], capture_output=True, text=True, check=False, timeout=60)

    done = bench(str(place / "bench"), "--rounds", "2")
    said = done.stdout.splitlines()
    assert done.returncode in (0, 1) and len(said) == 3 and said[-1].startswith("digests of 4 MiB are read at ")
    assert bench("/nowhere").stderr == "ci/bench-digests: /nowhere cannot be read: No such file or directory\n"
    assert bench(str(place / "probe")).stderr == f"ci/bench-digests: {place}/probe has less than a MiB\n"

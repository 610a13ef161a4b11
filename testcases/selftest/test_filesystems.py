"""Who owns a block, by what each filesystem's own tools say."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.errors import DeadlineError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import OwnedBlock, ReplicaView, summary, unknown
from harness.model import BlockOwner, FilesystemKind, Ownership, extents_of
from harness.remote.base import Completed
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.util import paths as search_path

EXT4 = Path(__file__).parent / "recordings" / "ext4"
DUMPE2FS = (EXT4 / "dumpe2fs.txt").read_text()
STAT = (EXT4 / "stat.txt").read_text()
NAMES = {2: "/", 11: "/lost+found", 13: "/big", 14: "/sub", 15: "/hard", 16: "/sub/two words", 17: "/longsym",
         18: "/pre"}  # fmt: skip


def debugfs(stdin: str) -> str:
    """The recorded filesystem."""
    asked = [int(number) for line in stdin.splitlines() if line.startswith("ncheck") for number in line.split()[1:]]
    if asked:
        return "Inode\tPathname\n" + "".join(f"{inode}\t{NAMES[inode]}\n" for inode in asked)
    return STAT


class Tools(ScriptedRunner):
    """A machine with the recorded filesystem; debugfs answers by what comes on standard input."""

    def __init__(self, dumpe2fs: str = DUMPE2FS, debugfs: Callable[[str], str] = debugfs, status: int = 0) -> None:
        super().__init__(lambda argv: (status, dumpe2fs, "it cannot be opened"))
        self._debugfs = debugfs
        self.inputs: list[str] = []

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        if "debugfs" not in argv:
            return super().run(argv, stdin=stdin, timeout=timeout, ok=ok)
        self.ran.append(tuple(argv))
        self.inputs.append(stdin or "")
        return Completed(self.host, tuple(argv), 0, self._debugfs(stdin or ""), "", 0.0)


def owners(runner: ScriptedRunner | LocalRunner, blocks: Iterable[int], device: str = "/dev/drbd0",
           ) -> Mapping[int, OwnedBlock]:  # fmt: skip
    return FILESYSTEMS[FilesystemKind.EXT4].owners(ReplicaView(runner, device, 8192), blocks)


def owner(block: int, runner: ScriptedRunner) -> BlockOwner:
    return owners(runner, [block])[block].owner


def test_ext4_owners_blocks_of_every_kind_are_told_apart() -> None:
    runner = Tools()
    found = owners(runner, [0, 585, 590, 592, 623, 650, 703, 750, 2000, 4097, 8191, 8192, 650])
    assert found == {
        0: OwnedBlock(BlockOwner.METADATA, "superblock of group 0"),
        585: OwnedBlock(BlockOwner.METADATA, "directory /"),
        590: OwnedBlock(BlockOwner.METADATA, "the filesystem's own inode 7"),
        592: OwnedBlock(BlockOwner.METADATA, "the filesystem's own inode 12"),  # the orphan file
        623: OwnedBlock(BlockOwner.METADATA, "block map or attributes of /big"),
        650: OwnedBlock(BlockOwner.ALLOCATED, "/big at byte 110592", "/big", 110592),
        703: OwnedBlock(BlockOwner.METADATA, "block map or attributes of /sub/two words"),
        750: OwnedBlock(
            BlockOwner.FREE, "preallocated and never written, it reads as zeros: /pre at byte 188416", "/pre", 188416
        ),
        2000: OwnedBlock(BlockOwner.FREE, "free space"),
        4097: OwnedBlock(BlockOwner.JOURNAL, "the journal"),
        8191: OwnedBlock(BlockOwner.FREE, "free space"),
        8192: OwnedBlock(BlockOwner.FREE, "behind the end of the filesystem"),
    }
    tools = [argv[2] for argv in runner.ran]
    assert tools == ["dumpe2fs", "debugfs", "debugfs"] and {argv[-1] for argv in runner.ran} == {"/dev/drbd0"}


def test_ext4_owners_whole_filesystem_nothing_unknown() -> None:
    found = owners(Tools(), range(8192))
    counted = summary(found, "")
    assert (counted.unknown, counted.journal, counted.allocated) == (0, 1024, 68)
    assert owners(Tools(), []) == {}


@pytest.mark.parametrize("printed", ["", "dumpe2fs 1.47.2\n", DUMPE2FS.replace("Block count", "Block number")])
def test_ext4_owners_silent_dumpe2fs_all_unknown(printed: str) -> None:
    found = owners(Tools(printed), [0, 650, 2000, 9000])
    assert {one.owner for one in found.values()} == {BlockOwner.UNKNOWN}
    assert "the maps of the filesystem could not be read" in found[0].detail


def test_ext4_owners_failing_or_endless_tool_all_unknown() -> None:
    assert owner(650, Tools(status=1)) is BlockOwner.UNKNOWN

    def endless(stdin: str) -> str:
        raise DeadlineError("debugfs did not end")

    found = owners(Tools(debugfs=endless), [0, 650])
    assert {one.owner for one in found.values()} == {BlockOwner.UNKNOWN} and "did not end" in found[0].detail


def test_ext4_owners_silent_debugfs_block_in_use_unknown_not_metadata() -> None:
    silent = owners(Tools(debugfs=lambda stdin: ""), [650, 4097, 0, 2000])
    assert silent[650] == silent[4097]
    assert silent[650] == OwnedBlock(BlockOwner.UNKNOWN, "marked in use, but no inode that was read has it")
    assert silent[0].owner is BlockOwner.METADATA and silent[2000].owner is BlockOwner.FREE, "dumpe2fs told those"


def test_ext4_owners_group_missing_from_the_map_unknown() -> None:
    cut = DUMPE2FS[: DUMPE2FS.index("Group 3")]
    found = owners(Tools(cut), [7000, 6145])
    assert {one.owner for one in found.values()} == {BlockOwner.UNKNOWN}


def test_ext4_owners_journal_not_replayed_only_what_does_not_move_is_known() -> None:
    stale = DUMPE2FS.replace("has_journal ", "has_journal needs_recovery ")
    found = owners(Tools(stale), [0, 650, 2000, 4097])
    assert found[650].owner is found[2000].owner is BlockOwner.UNKNOWN and "not replayed" in found[650].detail
    assert (found[0].owner, found[4097].owner) == (BlockOwner.METADATA, BlockOwner.JOURNAL)


def test_ext4_owners_strange_feature_unknown() -> None:
    strange = DUMPE2FS.replace("has_journal ", "has_journal bigalloc ")
    assert "features that the harness does not know: bigalloc" in owners(Tools(strange), [650])[650].detail


def test_ext4_owners_deleted_while_it_was_open_unknown() -> None:
    number = STAT.index("Inode: 13 ")
    deleted = STAT[:number] + STAT[number:].replace("Links: 1", "Links: 0", 1)
    found = owners(Tools(debugfs=lambda stdin: deleted if stdin.startswith("stat") else debugfs(stdin)), [650, 623])
    assert {one.owner for one in found.values()} == {BlockOwner.UNKNOWN}
    assert "inode 13, which was deleted while it was open" in found[650].detail
    held = DUMPE2FS.replace("has_journal ", "has_journal orphan_present ")
    assert owner(650, Tools(held)) is owner(2000, Tools(held)) is BlockOwner.UNKNOWN


def test_ext4_owners_names_swallowed_by_hard_links_are_asked_for_again() -> None:
    def first_only(stdin: str) -> str:
        answer = debugfs(stdin)
        return answer if answer == STAT else "".join(answer.splitlines(keepends=True)[:2])

    found = owners(Tools(debugfs=first_only), [650, 700])
    assert [found[block].path for block in (650, 700)] == ["/big", "/sub/two words"]
    nameless = owners(Tools(debugfs=lambda stdin: STAT if stdin.startswith("stat") else ""), [650])
    assert nameless[650] == OwnedBlock(BlockOwner.ALLOCATED, "inode 13 at byte 110592", "", 110592)


# --------------------------------------------------------------------------- the real tools


def tool(*argv: str, stdin: str | None = None) -> str:
    path = search_path.programs()
    program = shutil.which(argv[0], path=path)
    if program is None:
        pytest.skip(f"{argv[0]} is not installed")
    return subprocess.run([program, *argv[1:]], input=stdin, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 MiB of ext4 with a file of 30,000 blocks and 500 small ones."""
    folder = tmp_path_factory.mktemp("ext4")
    image, tree = folder / "image", folder / "tree"
    (tree / "many").mkdir(parents=True)
    (tree / "large").write_bytes(b"\xa5" * 4096 * 30_000)
    for number in range(500):
        (tree / "many" / str(number)).write_text(f"{number}\n")
    with image.open("wb") as file:
        file.truncate(256 << 20)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", "-d", str(tree), str(image))
    (tree / "large").unlink()
    return image


class Local(LocalRunner):
    """Finds the tools where Debian keeps them, whoever runs this."""

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        return super().run(["env", f"PATH={search_path.programs()}", *argv], stdin=stdin, timeout=timeout, ok=ok)


def test_ext4_owners_thirty_thousand_blocks_take_seconds(filesystem: Path) -> None:
    began = time.monotonic()
    found = owners(Local(), range(65536), str(filesystem))
    assert time.monotonic() - began < 30, "a second on an idle machine"
    counted = summary(found, "")
    assert (counted.allocated, counted.unknown) == (30_500, 0)
    assert counted.journal == 4096 and counted.free > 20_000
    by_name: dict[str, list[int]] = {}
    for block, one in found.items():
        by_name.setdefault(one.path, []).append(block)
    content = filesystem.read_bytes()
    for number in (0, 250, 499):
        (block,) = by_name[f"/many/{number}"]
        assert content[block * 4096 :].startswith(f"{number}\n".encode())
    assert all(content[block * 4096] == 0xA5 for block in by_name["/large"])


def test_ext4_owners_of_no_filesystem_unknown(tmp_path: Path) -> None:
    tool("dumpe2fs", "-V")
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(1 << 20))
    found = owners(Local(), [0, 5], str(empty))
    assert {one.owner for one in found.values()} == {BlockOwner.UNKNOWN}
    assert "dumpe2fs" in found[0].detail


# --------------------------------------------------------------------------- the others


def test_swap_owners_all_free_but_the_header() -> None:
    view = ReplicaView(ScriptedRunner(lambda _: (0, "", "")), "/dev/drbd0", 8192)
    found = FILESYSTEMS[FilesystemKind.SWAP].owners(view, [0, 7])
    assert (found[0].owner, found[7].owner) == (BlockOwner.METADATA, BlockOwner.FREE)


def test_summary_owners_are_counted_and_named_once() -> None:
    allocated, free = OwnedBlock(BlockOwner.ALLOCATED, "a"), OwnedBlock(BlockOwner.FREE, "free")
    found = summary({1: allocated, 2: allocated, 3: free, 4: OwnedBlock(BlockOwner.UNKNOWN, "")}, "asking")
    extents = {allocated.owner: extents_of([1, 2]), free.owner: extents_of([3]), BlockOwner.UNKNOWN: extents_of([4])}
    counted = Ownership(allocated=2, free=1, unknown=1, method="asking", names=("", "a", "free"), extents=extents)
    assert found == counted
    assert summary({}, "asking") == Ownership(method="asking")
    view = ReplicaView(ScriptedRunner(lambda _: (0, "", "")), "/dev/drbd0", 8192)
    assert FILESYSTEMS[FilesystemKind.RAW].owners(view, [4])[4].owner is BlockOwner.ALLOCATED
    assert unknown([4], "why") == {4: OwnedBlock(BlockOwner.UNKNOWN, "why")}

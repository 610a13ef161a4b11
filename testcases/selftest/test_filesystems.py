"""Who owns a block, by what each filesystem's own tools say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast

from harness.drbd.resource import Resource
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import OwnedBlock, WorkloadTarget, summary, unknown
from harness.filesystems.ext4 import MAX_SEARCHED
from harness.model import BlockOwner, FilesystemKind, Ownership
from harness.remote.base import Completed
from harness.remote.scripted import ScriptedRunner


def debugfs(argv: tuple[str, ...], stdin: str) -> str:
    """A small ext4: 10 and 11 are a file's, 12 its journal's, 13 metadata, all others are free."""
    inodes = {10: 14, 11: 14, 12: 8}
    out = []
    for line in stdin.splitlines():
        command, *words = line.split()
        numbers = [int(word) for word in words]
        if command == "icheck":
            out.append("Block\tInode number")
            out += [f"{block}\t{inodes.get(block, '<block not found>')}" for block in numbers]
        elif command == "testb":
            out += [f"Block {block} {'marked in use' if block in (*inodes, 13) else 'not in use'}" for block in numbers]
        elif command == "ncheck":
            out.append("Inode\tPathname")
            out += ["14\t//data/file" for inode in numbers if inode == 14]
    return "\n".join(out) + "\n"


class Debugfs(ScriptedRunner):
    """Answers by what comes on standard input, as debugfs does."""

    def __init__(self, answer: Callable[[tuple[str, ...], str], str]) -> None:
        super().__init__(lambda _: (0, "", ""))
        self._by_input = answer
        self.inputs: list[str] = []

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        self.ran.append(tuple(argv))
        self.inputs.append(stdin or "")
        return Completed(self.host, tuple(argv), 0, self._by_input(tuple(argv), stdin or ""), "", 0.0)


def owners(runner: ScriptedRunner, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    target = WorkloadTarget(runner, "/dev/drbd0", cast(Resource, None))
    return FILESYSTEMS[FilesystemKind.EXT4].owners(target, blocks)


def test_ext4_owners_blocks_of_every_kind_distinguished() -> None:
    runner = Debugfs(debugfs)
    assert owners(runner, [13, 10, 12, 99]) == {
        10: OwnedBlock(BlockOwner.ALLOCATED, "/data/file"),
        12: OwnedBlock(BlockOwner.JOURNAL, "the journal"),
        13: OwnedBlock(BlockOwner.METADATA, "filesystem metadata"),
        99: OwnedBlock(BlockOwner.FREE, "free space"),
    }
    assert set(runner.ran) == {("debugfs", "-f", "-", "/dev/drbd0")}


def test_ext4_owners_no_output_no_block_free() -> None:
    found = owners(Debugfs(lambda argv, stdin: ""), [7])
    assert found[7].owner is not BlockOwner.FREE


def test_ext4_owners_many_blocks_all_answered_in_batches() -> None:
    runner = Debugfs(debugfs)
    blocks = list(range(100, 1350))
    found = owners(runner, blocks)
    assert sorted(found) == blocks and {one.owner for one in found.values()} == {BlockOwner.FREE}
    assert max(len(text.split()) for text in runner.inputs) <= 1001
    assert owners(runner, []) == {}


def test_ext4_owners_beyond_limit_unknown_not_free() -> None:
    runner = Debugfs(debugfs)
    found = owners(runner, range(100, 100 + MAX_SEARCHED + 10))
    counted = summary(found, "ext4")
    assert (counted.allocated, counted.free, counted.unknown) == (0, MAX_SEARCHED, 10)
    assert "not searched" in found[100 + MAX_SEARCHED + 9].detail


def test_summary_owners_counted_and_named_once() -> None:
    live, dead = OwnedBlock(BlockOwner.ALLOCATED, "a"), OwnedBlock(BlockOwner.FREE, "free")
    found = summary({1: live, 2: live, 3: dead, 4: OwnedBlock(BlockOwner.UNKNOWN, "")}, "asking")
    assert found == Ownership(allocated=2, free=1, unknown=1, method="asking", names=("", "a", "free"))
    assert summary({}, "asking") == Ownership(method="asking")
    target = WorkloadTarget(ScriptedRunner(lambda _: (0, "", "")), "/dev/drbd0", cast(Resource, None))
    assert FILESYSTEMS[FilesystemKind.RAW].owners(target, [4])[4].owner is BlockOwner.ALLOCATED
    assert unknown([4], "why") == {4: OwnedBlock(BlockOwner.UNKNOWN, "why")}

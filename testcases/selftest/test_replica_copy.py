"""The read-only copy of a replica that owners of blocks are looked for in."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from fake_stage import Stage

from harness.engine import cell_steps, replica_copy
from harness.engine.context import CellContext
from harness.engine.replica_copy import owners_in_copy
from harness.errors import CommandError, InfrastructureError, LostNodeError, RefusedError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import OwnedBlock, ReplicaView, WorkloadTarget
from harness.judgement.judge import judge
from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    DelayProfile,
    FilesystemKind,
    LabProvenance,
    Observed,
    VerdictKind,
)
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.util.deadline import Deadline
from harness.workloads.controls import Steady

MIB = 2**20
BLOCKS = 768
CELL = Cell("steady", cache=CacheMode.NONE, filesystem=FilesystemKind.EXT4, delays=DelayProfile(20))


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """3 MiB of data with a hole in the middle, and DRBD's metadata behind them."""
    path = tmp_path / "lower"
    with path.open("wb") as file:
        file.write(os.urandom(MIB + 4096))
        file.seek(2 * MIB)
        file.write(os.urandom(MIB) + b"metadata" * 1000)
    return path


class Machine:
    """Node a, which is this machine, and the context of a cell on it."""

    somebodys = False

    def __init__(self, lower: Path) -> None:
        self.name = "nodea"
        self.runner: Any = LocalRunner()
        self.lower = str(lower)
        self.events: list[str] = []
        self.deadline = Deadline.after(60, "the oracles")

    def note(self, *changes: object) -> None:
        """It is nobody's machine but the lab's."""

    @property
    def lab(self) -> Any:
        class Lab:
            a = self

        return Lab

    def log_event(self, what: str) -> None:
        self.events.append(what)

    @property
    def context(self) -> CellContext:
        return cast(CellContext, self)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "copy"
    monkeypatch.setattr(replica_copy, "FOLDER", str(path))
    return path


def everything_free(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
    return {block: OwnedBlock(BlockOwner.FREE, view.path) for block in blocks}


def test_owners_in_copy_holds_the_data_without_what_lies_behind_and_is_gone_after(lower: Path, folder: Path) -> None:
    seen: list[bytes] = []

    def owners(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        copy = Path(view.path)
        seen.append(copy.read_bytes())
        assert copy.stat().st_blocks * 512 < 3 * MIB, "a hole stays a hole"
        assert (copy.parent.stat().st_mode & 0o777, view.blocks) == (0o700, BLOCKS)
        assert view.read(MIB - 100, 8192) == seen[0][MIB - 100 :][:8192]
        return everything_free(view, blocks)

    folder.mkdir()
    (folder / "replica").write_text("left behind by a session that was killed")
    with owners_in_copy(Machine(lower).context, owners, BLOCKS, reads_replica=True) as ask:
        assert ask([1])[1].owner is ask([2])[2].owner is BlockOwner.FREE
    assert seen[0] == lower.read_bytes()[: BLOCKS * 4096] and seen[0] == seen[1]
    assert not folder.exists()


def test_owners_in_copy_of_whom_knows_without_it_nothing_is_copied(lower: Path, folder: Path) -> None:
    with owners_in_copy(Machine(lower).context, everything_free, BLOCKS, reads_replica=False) as ask:
        assert ask([1]) == {1: OwnedBlock(BlockOwner.FREE, str(lower))} and not folder.exists()


def test_owners_in_copy_no_room_all_unknown_with_the_sentence(lower: Path, folder: Path) -> None:
    machine = Machine(lower)
    with owners_in_copy(machine.context, everything_free, 2**40, reads_replica=True) as ask:
        (found,) = ask([7]).values()
    assert found.owner is BlockOwner.UNKNOWN
    assert "the replica of nodea could not be copied" in found.detail and "the disk has room for" in found.detail
    assert "the disk has room for" in machine.events[0] and not folder.exists()


def test_owners_in_copy_on_a_machine_of_somebody_s_leaves_room_for_his_programs(
    lower: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than any disk has beside the copy, which alone has room.
    monkeypatch.setattr(replica_copy, "SPARE_BYTES", 2**60)
    machine = Machine(lower)
    with owners_in_copy(machine.context, everything_free, BLOCKS, reads_replica=True) as ask:
        assert ask([7])[7].owner is BlockOwner.FREE
    machine.somebodys = True
    with owners_in_copy(machine.context, everything_free, BLOCKS, reads_replica=True) as ask:
        assert ask([7])[7].owner is BlockOwner.UNKNOWN
    assert f"with {2**40} MiB left over" in machine.events[-1] and not folder.exists()


@pytest.mark.parametrize("error", [LostNodeError("nodea does not answer"), CommandError("nodea", ["dd"], 1, "", "EIO")])
def test_owners_in_copy_node_lost_or_disk_broken_all_unknown(lower: Path, folder: Path, error: Exception) -> None:
    def broken(argv: tuple[str, ...]) -> tuple[int, str, str]:
        raise error

    machine = Machine(lower)
    machine.runner = ScriptedRunner(broken)
    with owners_in_copy(machine.context, everything_free, BLOCKS, reads_replica=True) as ask:
        (found,) = ask([7]).values()
    assert found.owner is BlockOwner.UNKNOWN and str(error) in found.detail


def test_owners_in_copy_deadline_over_all_unknown(lower: Path, folder: Path) -> None:
    machine = Machine(lower)
    machine.deadline = Deadline.after(-1, "the oracles")
    with owners_in_copy(machine.context, everything_free, BLOCKS, reads_replica=True) as ask:
        assert "did not happen within" in ask([7])[7].detail


@pytest.mark.parametrize("error", [ValueError("strange text"), OSError("no"), InfrastructureError("it broke")])
def test_owners_in_copy_search_that_fails_is_unknown_not_a_failure(lower: Path, folder: Path, error: Exception) -> None:
    def fails(view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        raise error

    with owners_in_copy(Machine(lower).context, fails, BLOCKS, reads_replica=True) as ask:
        assert ask([1, 2]) == dict.fromkeys(
            (1, 2), OwnedBlock(BlockOwner.UNKNOWN, f"it could not be found out: {error}")
        )  # fmt: skip
    with owners_in_copy(Machine(lower).context, lambda *_: {}, BLOCKS, reads_replica=True) as ask:
        assert ask([1]) == {1: OwnedBlock(BlockOwner.UNKNOWN, "nobody tells")}


def test_view_read_clips_at_the_end_and_notices_what_is_short(tmp_path: Path) -> None:
    path = tmp_path / "replica"
    content = os.urandom(100 * 4096)
    path.write_bytes(content)
    view = ReplicaView(LocalRunner(), str(path), 100)
    assert view.read(0, len(content)) == content
    assert (view.read(99 * 4096, 8192), view.read(100 * 4096, 1)) == (content[-4096:], b"")
    assert view.read(250 * 1024, 20_000) == content[250 * 1024 :][:20_000], "over the edge of what is read at once"
    with pytest.raises(ValueError, match="no place"):
        view.read(-1, 4)
    with pytest.raises(InfrastructureError, match=r"cannot be read to its end of 101 blocks$"):
        ReplicaView(LocalRunner(), str(path), 101).read(100 * 4096, 1)
    with pytest.raises(InfrastructureError, match=r"of 1 blocks: .*No such file"):
        ReplicaView(LocalRunner(), str(tmp_path / "nowhere"), 1).read(0, 1)


def test_view_read_twice_is_one_command() -> None:
    runner = ScriptedRunner(lambda _: (0, "AAAA" * 1366, ""))
    view = ReplicaView(runner, "/replica", 1)
    assert view.read(0, 10) == view.read(7, 10) == bytes(10) and len(runner.ran) == 1
    assert dataclasses.replace(view) == view


# --------------------------------------------------------------------------- a whole cell


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stage]:
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    return lambda cell=CELL: Stage.of(tmp_path / "runs", cell)


def test_play_copy_is_made_once_for_all_and_removed(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.filesystem = FILESYSTEMS[FilesystemKind.EXT4]
    stage.workload.leaves = {5, 6}
    found = stage.play()
    ran = [" ".join(argv) for argv in stage.lab.a.runner.ran]
    copied = [number for number, text in enumerate(ran) if f"{replica_copy.FOLDER}/" in text or "conv=sparse" in text]
    assert len(copied) == 1 and "/dev/vdb" in ran[copied[0]] and "/dev/drbd" not in ran[copied[0]]
    assert any(text == f"rm -rf {replica_copy.FOLDER}" for text in ran[copied[0] :])
    assert found.ownership.free == 2 and judge(found).kind is VerdictKind.DIVERGED


def test_play_copy_that_fails_leaves_the_answer_and_the_owners_unknown(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.filesystem = FILESYSTEMS[FilesystemKind.EXT4]
    stage.workload.leaves = {5, 6}
    stage.lab.a.answers["conv=sparse"] = (1, "", "dd: error reading '/dev/vdb': Input/output error")
    found = stage.play()
    assert found.failure is None and found.ownership.unknown == 2 and "Input/output error" in found.samples[0].detail
    assert judge(found).kind is VerdictKind.DIVERGED


# --------------------------------------------------------------------------- what a client lacks


class Bigger(type(FILESYSTEMS[FilesystemKind.EXT4])):  # type: ignore[misc]
    needs_mib = 300
    modules = ("no-such-filesystem",)
    programs = ("sh", "mkfs.no-such")


def local(blocks: int = 32768) -> WorkloadTarget:
    return WorkloadTarget(LocalRunner(), "/dev/null", cast(Any, None), blocks)


def test_require_room_device_too_small_refused_with_both_sizes() -> None:
    with pytest.raises(RefusedError, match="needs a device of 300 MiB, and there are 128 MiB"):
        Bigger().require_room(local())
    Bigger().require_room(local(76_800))
    FILESYSTEMS[FilesystemKind.RAW].require_room(cast(WorkloadTarget, None))


def test_require_missing_module_or_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="its kernel has no no-such-filesystem, which the filesystem ext4 needs"):
        Bigger().require(local())
    monkeypatch.setattr(Bigger, "modules", ("proc", "tmpfs"))
    with pytest.raises(RefusedError, match=r"no program 'mkfs\.no-such', which the filesystem ext4 needs"):
        Bigger().require(local())
    monkeypatch.setattr(Bigger, "programs", ("sh",))
    Bigger().require(local())


def test_prepare_failing_step_is_refused_where_something_is_missing_and_an_error_where_not() -> None:
    said = {"_": "module ntfs9\n"}

    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        if "/proc/filesystems" in argv[2]:
            return 0, said["_"], ""
        return (32, "", "unknown filesystem type") if "mount -t" in argv[2] else (0, "", "")

    target = WorkloadTarget(ScriptedRunner(answer), "/dev/vdb", cast(Any, None), 32768)
    with pytest.raises(RefusedError, match="its kernel has no ntfs9"):
        Steady(FILESYSTEMS[FilesystemKind.EXT4]).prepare(target)
    said["_"] = ""
    with pytest.raises(CommandError, match="unknown filesystem type"):
        Steady(FILESYSTEMS[FilesystemKind.EXT4]).prepare(target)


@pytest.mark.parametrize(
    ("node", "guest", "status", "asked"),
    [("1.47.0-2", "1.47.2-3", 0, False), ("1.47.2-3", "1.47.0-2", 1, True), ("1.47.2-3", "1.47.2-3", 0, True),
     ("", "1.47.2-3", 0, True), ("1.47.0-2", "1.47.2-3", 2, False)],
)  # fmt: skip
def test_play_programs_that_are_older_than_the_guests_are_not_asked(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, node: str, guest: str, status: int, asked: bool
) -> None:
    stage = staged()
    made_of = LabProvenance({}, {"node": {"e2fsprogs": node}, "guest": {"e2fsprogs": guest}})
    monkeypatch.setattr(stage.lab, "provenance", lambda: made_of)
    stage.lab.a.answers["dpkg --compare-versions"] = status, "", ""
    stage.workload.filesystem = FILESYSTEMS[FilesystemKind.EXT4]
    stage.workload.leaves = {5, 6}
    found = stage.play()
    copied = any("conv=sparse" in " ".join(argv) for argv in stage.lab.a.runner.ran)
    assert (copied, found.ownership.free, found.ownership.unknown) == (asked, 2 if asked else 0, 0 if asked else 2)
    assert found.failure is None
    if status == 0 and not asked:
        why = "e2fsprogs 1.47.0-2 of nodea is older than 1.47.2-3 of the guest, which made the filesystem"
        assert found.samples[0].detail == why

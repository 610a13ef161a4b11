"""What is done to the instrument to test it: each sabotage over a lab that only remembers, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import BLOCKS, Stage, in_order
from judged_evidence import HELD, evidence, oracles

from harness.config.matrix import load
from harness.engine.disturbances.choose import disturbance_of
from harness.engine.disturbances.sabotage import after_crash, left_behind, losses, programs
from harness.engine.disturbances.sabotage.after_crash import DamagedAfterCrash
from harness.engine.disturbances.sabotage.disturbance import SabotageDisturbance
from harness.engine.disturbances.sabotage.owner_control import OwnerControl
from harness.engine.disturbances.sabotage.undo import DIRECTORY
from harness.engine.session import _lost
from harness.errors import CommandError, InfrastructureError, LostGuestError, UsageError
from harness.judgement.judge import judge
from harness.judgement.planted_owner import misattributed
from harness.lab.nested.libvirt_daemon import MAIN_DAEMONS, Libvirt, Started
from harness.lab.nested.power import Power
from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    Crash,
    Evidence,
    Expectation,
    Extent,
    Failure,
    FilesystemKind,
    Layout,
    PlantedChange,
    PlantedKind,
    Result,
    Sabotage,
    Sample,
    Verdict,
    VerdictKind,
)
from harness.parse.filefrag import FileExtent, file_extents
from harness.parse.pagemap import swap_slots
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util import paths
from harness.util.deadline import Deadline, poll
from harness.workloads import WORKLOADS

RECORDED = Path(__file__).parent / "recordings" / "ext4"
SHIPPED = Path(__file__).parents[1] / "matrices"
CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, seconds=1)
EXTENTS = (RECORDED / "filefrag-preallocated.txt").read_text()
A, B = "nodea", "nodeb"


def cell(sabotage: Sabotage) -> Cell:
    return replace(CELL, sabotage=sabotage, crash=Crash.QEMU if sabotage.after_crash else None)


@pytest.fixture
def staged(tmp_path: Path) -> Callable[[Sabotage], Stage]:
    def made(sabotage: Sabotage) -> Stage:
        stage = Stage.of(tmp_path, cell(sabotage))
        agent = stage.guest.agent
        agent.answers = {"setsid": "4711\n", "pagemap": SWAPPED, "%s %p": f"/modified\n{EXTENTS}", "freed": EXTENTS}
        return stage

    return made


#: Pages 24, 25 and 7 of a process are swapped out, one is in memory, the rest was never touched.
SWAPPED = "".join(
    f" {word:016x}\n" for word in (0, 24 << 5 | 1 << 62, 25 << 5 | 1 << 62, 1 << 63 | 99, 7 << 5 | 1 << 62)
)


def ran(stage: Stage, what: str, where: str) -> list[int]:
    """When ``where`` ran a command with ``what`` in it, among its commands."""
    runner = {A: stage.lab.a.runner, B: stage.lab.b.runner, "guest": stage.guest.agent}[where]
    return [number for number, argv in enumerate(runner.ran) if what in " ".join(argv)]


# --------------------------------------------------------------------------- what can be asked


@pytest.mark.parametrize("sabotage", Sabotage)
def test_sabotage_names_the_cell_and_chooses_its_disturbance(sabotage: Sabotage) -> None:
    crash = "-crash.qemu" if sabotage.after_crash else ""
    assert cell(sabotage).id == f"none-swap-pressure{crash}-sabotage.{sabotage}"
    plain = OwnerControl if sabotage is Sabotage.FLIP_OWNERS else SabotageDisturbance
    kind = DamagedAfterCrash if sabotage.after_crash else plain
    assert type(disturbance_of(cell(sabotage))) is kind and cell(sabotage).has_canary is sabotage.after_crash


NEEDED = {
    Sabotage.FLIP_FILE: ("ext4", "buffered"), Sabotage.FLIP_FREE: ("ext4", "buffered"),
    Sabotage.FLIP_SWAP_SLOT: ("swap", "pressure"), Sabotage.IDLE_WORKLOAD: ("swap", "pressure"),
    Sabotage.SWAP_LEFT_ON: ("swap", "pressure"), Sabotage.MOUNT_LEFT: ("ext4", "steady"),
    Sabotage.DAMAGE_SUPERBLOCK: ("ext4", "mmap"), Sabotage.DAMAGE_DIRECTORY: ("ext4", "mmap"),
}  # fmt: skip


def written(tmp_path: Path, text: str) -> tuple[Cell, ...]:
    path = tmp_path / "m.toml"
    path.write_text(f'schema = 1\n[[cells]]\ncache = "none"\n{text}')
    return load(str(path), WORKLOADS, tmp_path).cells


@pytest.mark.parametrize("sabotage", Sabotage)
def test_matrix_every_sabotage_can_be_asked(tmp_path: Path, sabotage: Sabotage) -> None:
    filesystem, workload = NEEDED.get(sabotage, ("raw", "steady"))
    keys = f'filesystem = "{filesystem}"\nworkload = "{workload}"\nsabotage = "{sabotage}"\n'
    keys += 'crash = "qemu"\n' if sabotage.after_crash else ""
    (found,) = written(tmp_path, keys)
    assert found.sabotage is sabotage and found.expected is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('workload = "steady"\nsabotage = "flip-file"\n', 'needs filesystem = "ext4", not "raw"'),
        ('workload = "steady"\nsabotage = "idle-workload"\n', 'needs filesystem = "swap", not "raw"'),
        (
            'filesystem = "ext4"\nworkload = "buffered"\nsabotage = "silent-verify"\n',
            'needs filesystem = "raw", not "ext4"',
        ),
        ('workload = "steady"\nlink_delay_ms = 2\nsabotage = "delay-left-a"\n', "goes with neither 'link_delay_ms'"),
        (
            'workload = "steady"\nscatter_gather = false\nsabotage = "scatter-gather-off-b"\n',
            "does not go with scatter_gather = false",
        ),
        (
            'filesystem = "ext4"\nworkload = "mmap"\nsabotage = "damage-superblock"\n',
            "'sabotage' is 'damage-superblock', which needs crash = \"qemu\": it damages what that left",
        ),
        ('workload = "steady"\ncrash = "qemu"\nsabotage = "stopped-guest"\n', "goes with none of 'migrations'"),
        ('workload = "steady"\nmigrations = 1\nsabotage = "stopped-node"\n', "goes with none of 'migrations'"),
        ('workload = "steady"\ncontrol = "steady"\nsabotage = "stopped-node"\n', "goes with none of 'migrations'"),
        ('workload = "steady"\nsabotage = "flip-files"\n', "did you mean 'flip-file'"),
        ('workload = "steady"\nsays = "x"\n', "'verdicts' is missing"),
    ],
)
def test_matrix_sabotage_that_does_not_fit_is_refused(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        written(tmp_path, keys)
    assert message in str(refused.value)


def test_matrix_sabotage_on_the_node_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'sabotage' is given with client = \"host\""):
        path = tmp_path / "m.toml"
        path.write_text(
            'schema = 1\n[[cells]]\nclient = "host"\nworkload = "steady"\nsabotage = "stopped-node"\n'
        )  # fmt: skip
        load(str(path), WORKLOADS, tmp_path)


def test_meta_matrix_has_every_sabotage_and_none_is_clean_but_those_about_the_next_cell() -> None:
    cells = load("meta", WORKLOADS, SHIPPED).cells
    assert sorted(one.sabotage for one in cells if one.sabotage) == sorted({*Sabotage} - {Sabotage.FLIP_OWNERS})
    for one, following in zip(cells, (*cells[1:], None), strict=True):
        assert one.expected is not None, one.id
        if one.sabotage is None:
            assert one.expected.verdicts == (VerdictKind.CLEAN,)
        elif "flip" in one.sabotage:
            assert one.expected.verdicts == (VerdictKind.DIVERGED,)
        elif one.sabotage.after_crash:
            assert one.expected.verdicts == (VerdictKind.CORRUPT,) and one.expected.says
        elif one.sabotage.spares_the_cell:
            behind = (None, Sabotage.KILLED_LIBVIRTD, Sabotage.STOPPED_NODE)
            assert following is not None and following.sabotage in behind
        else:
            assert one.expected.verdicts == (VerdictKind.INCONCLUSIVE,) and one.expected.says


def test_owners_matrix_has_each_filesystem_and_layout_and_demands_the_owners() -> None:
    cells = load("owners", WORKLOADS, SHIPPED).cells
    assert {one.sabotage for one in cells} == {Sabotage.FLIP_OWNERS}
    # What Windows calls NTFS is not made in the harness's own guest.
    assert {one.filesystem for one in cells} == {*FilesystemKind} - {FilesystemKind.NTFS, FilesystemKind.PAGEFILE}
    # QEMU's own encryption needs a disk that a guest begins with.
    assert {one.layout for one in cells} == {*Layout} - {Layout.CRYPT_QEMU}
    expected = {one.filesystem: one.expected.verdicts if one.expected else () for one in cells}
    assert expected.pop(FilesystemKind.F2FS) == (VerdictKind.REFUSED,)
    assert {*expected.values()} == {(VerdictKind.DIVERGED,)}


def test_verdict_meets_only_the_sentence_that_is_expected() -> None:
    expected = Expectation((VerdictKind.INCONCLUSIVE,), "why", "delay")
    assert Verdict(VerdictKind.INCONCLUSIVE, "a delay was on").meets(expected)
    assert not Verdict(VerdictKind.INCONCLUSIVE, "the guest was lost").meets(expected)
    assert Verdict(VerdictKind.INCONCLUSIVE, "a delay was on").answers(expected)
    assert not Verdict(VerdictKind.INCONCLUSIVE, "the guest was lost").answers(expected)
    assert not Verdict(VerdictKind.INCONCLUSIVE, "a delay was on").answers(None)
    assert Verdict(VerdictKind.CLEAN, "").answers(None) and Verdict(VerdictKind.CLEAN, "").answers(expected)


# --------------------------------------------------------------------------- what is left behind, and undone


@pytest.mark.parametrize(
    ("sabotage", "node", "done", "undone"),
    [
        (Sabotage.DELAY_LEFT_A, A, f"netem delay {left_behind.DELAY_MS}ms", "tc qdisc del"),
        (Sabotage.DELAY_LEFT_B, B, f"netem delay {left_behind.DELAY_MS}ms", "tc qdisc del"),
        (Sabotage.SCATTER_GATHER_OFF_A, A, "ethtool -K repl0 sg off", "ethtool -K repl0 sg on"),
        (Sabotage.SCATTER_GATHER_OFF_B, B, "ethtool -K repl0 sg off", "ethtool -K repl0 sg on"),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_leave_behind_is_before_the_readback_and_undone_at_the_end(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, node: str, done: str, undone: str, fails: bool
) -> None:
    stage = staged(sabotage)
    other = B if node == A else A
    when: list[int] = []
    stage.lab.story.when["observe"] = lambda: when.append(len(ran(stage, done, node)))
    if fails:
        stage.workload.ended_by = CommandError("guest", ["x"], 1, "", "it failed")
    found = stage.play()
    assert when == [1] and not ran(stage, done, other) and not ran(stage, undone, other)
    assert ran(stage, done, node)[0] < ran(stage, undone, node)[-1]
    assert (found.failure is not None) is fails and stage.run.unreverted is None
    assert found.event_log[0].startswith("sabotage: ") and node in found.event_log[0]


@pytest.mark.parametrize("sabotage", [Sabotage.SILENT_VERIFY, Sabotage.PARTIAL_VERIFY])
def test_verify_is_covered_after_the_work_and_uncovered_after_the_oracles(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage
) -> None:
    stage = staged(sabotage)
    when: dict[str, tuple[int, int]] = {}
    for step in ("quiesce", "verify"):
        stage.lab.story.when[step] = lambda step=step: when.setdefault(
            step, (len(ran(stage, "mount --bind", A)), len(ran(stage, "umount -l", A)))
        )
    found = stage.play()
    assert when == {"quiesce": (0, 0), "verify": (1, 0)} and len(ran(stage, "umount -l", A)) == 1
    assert in_order(stage.steps, "quiesce", "sync", f"plant_below on {B}", "verify")
    (change,) = found.planted
    assert change.node == B and change.kind is PlantedKind.BYTE and change.owner is None
    assert change.blocks() == range(BLOCKS // 4, BLOCKS // 4 + 1)


def test_cleanup_that_fails_is_the_cells_failure_and_takes_the_lab(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.SCATTER_GATHER_OFF_A)
    stage.lab.a.answers = {"sg on": (1, "", "no such device")}
    found = stage.play()
    assert found.failure and "no such device" in found.failure.message
    assert stage.run.unreverted and stage.run.unreverted.startswith("what the cell injected could not be ended")


def test_cleanup_in_a_guest_that_is_gone_is_no_error(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.IDLE_WORKLOAD)
    stage.workload.ended_by = LostGuestError("it is gone")
    stage.lab.story.when["work 1"] = lambda: setattr(stage.guest, "living", False)
    stage.play()
    assert stage.run.unreverted is None and not ran(stage, "umount -l", "guest")


def test_idle_workload_covers_the_storm_in_the_guest_only_while_it_works(
    staged: Callable[[Sabotage], Stage],
) -> None:
    stage = staged(Sabotage.IDLE_WORKLOAD)
    when: list[int] = []
    stage.lab.story.when["work 1"] = lambda: when.append(len(ran(stage, "mount --bind", "guest")))
    found = stage.play()
    assert when == [1] and len(ran(stage, "umount -l", "guest")) == 1
    assert found.failure is None and not ran(stage, "mount --bind", A)


# --------------------------------------------------------------------------- one byte


@pytest.mark.parametrize(
    ("sabotage", "owner", "detail"),
    [(Sabotage.FLIP_FILE, BlockOwner.ALLOCATED, "/modified"), (Sabotage.FLIP_FREE, BlockOwner.FREE, "")],
)
def test_flip_is_a_written_block_that_the_kernel_named_and_after_everything_was_written(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, owner: BlockOwner, detail: str
) -> None:
    stage = staged(sabotage)
    found = stage.play()
    (change,) = found.planted
    (block,) = change.blocks()
    assert block in {*range(2193, 2257), *range(2545, 2609)}, "not one that is only preallocated"
    assert (change.owner, change.owner_detail, change.node, change.kind) == (owner, detail, B, PlantedKind.BYTE)
    assert in_order(stage.steps, "quiesce", "sync", f"plant_below on {B}", "detach", "verify", "compare")


def test_flip_swap_slot_is_one_in_use_and_before_swapoff(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.FLIP_SWAP_SLOT)
    found = stage.play()
    (change,) = found.planted
    assert [*change.blocks()] == [24] and change.owner is BlockOwner.FREE, "swapoff frees it before anybody looks"
    assert in_order(stage.steps, "work 1", "sync", f"plant_below on {B}", "quiesce")
    (swapped_out,), (let_go,) = ran(stage, "memory.reclaim", "guest"), ran(stage, "umount -l", "guest")
    assert ran(stage, "setsid", "guest")[0] < swapped_out < ran(stage, "pagemap", "guest")[0] < let_go
    assert "kill -9" in stage.guest.agent.ran[let_go][2], "the process that held the memory is ended"


def test_flip_swap_slot_without_a_page_in_swap_is_a_failure(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.FLIP_SWAP_SLOT)
    stage.guest.agent.answers["pagemap"] = f" {1 << 63 | 99:016x}\n"
    found = stage.play()
    assert found.failure and "no page of the process" in found.failure.message and found.planted == ()


def test_flip_of_another_seed_is_another_byte(staged: Callable[[Sabotage], Stage], tmp_path: Path) -> None:
    places = set()
    for seed in range(4):
        stage = Stage.of(tmp_path / str(seed), replace(cell(Sabotage.SILENT_VERIFY), seed=seed))
        (change,) = stage.play().planted
        places.add((change.start, change.byte))
    assert len(places) == 4


def test_file_extents_preallocated_ones_are_told_apart() -> None:
    assert file_extents(EXTENTS) == (
        FileExtent(range(2065, 2193), True),
        FileExtent(range(2193, 2257), False),
        FileExtent(range(2257, 2545), True),
        FileExtent(range(2545, 2609), False),
        FileExtent(range(2609, 2833), True),
    )


def test_file_extents_without_a_place_is_value_error() -> None:
    with pytest.raises(ValueError, match="no extent with a place"):
        file_extents((RECORDED / "filefrag-delayed.txt").read_text())


def test_swap_slots_only_of_pages_that_are_swapped_out() -> None:
    assert swap_slots(SWAPPED) == (7, 24, 25)
    assert swap_slots("") == ()
    with pytest.raises(ValueError, match="invalid literal"):
        swap_slots("od: no such file")


# --------------------------------------------------------------------------- the scripts that cover programs


def covered(
    tmp_path: Path, script: str, program: str, *arguments: str, **values: int | str
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` over a program that prints its arguments."""
    real = tmp_path / program
    real.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    real.chmod(0o755)
    (tmp_path / "script").write_text(script.format(directory=tmp_path, **values))
    argv = ["sh", str(tmp_path / "script"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_silent_verify_leaves_out_the_verify_and_nothing_else(tmp_path: Path) -> None:
    silent = covered(tmp_path, programs.SILENT_VERIFY, "drbdadm", "--", "--start=0", "verify", "r0/0")
    assert (silent.returncode, silent.stdout) == (0, "")
    other = covered(tmp_path, programs.SILENT_VERIFY, "drbdadm", "net-options", "--x=a b", "r0")
    assert (other.returncode, other.stdout) == (7, "net-options|--x=a b|r0|")


def test_partial_verify_begins_elsewhere_in_either_dialect(tmp_path: Path) -> None:
    for given, wanted in (
        (("--", "--start=0", "verify", "r0/0"), "--|--start=4096s|verify|r0/0|"),
        (("verify", "--start=0", "r0/0"), "verify|--start=4096s|r0/0|"),
        (("disconnect", "r0"), "disconnect|r0|"),
    ):
        partial = covered(tmp_path, programs.PARTIAL_VERIFY, "drbdadm", *given, sector=4096)
        assert (partial.returncode, partial.stdout) == (7, wanted)


def test_blind_verify_changes_the_sector_behind_the_verify_and_only_then(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    lower.write_bytes(bytes(200 * 512))
    places = {"sector": programs.BLIND_SECTOR, "lower": str(lower)}
    # Not every filesystem of a test's files takes O_DIRECT.
    script = programs.BLIND_VERIFY.replace(" oflag=direct", "")
    # Where the program itself fails nothing is changed.
    failed = covered(tmp_path, script, "drbdadm", "verify", "r0", **places)
    assert (failed.returncode, failed.stdout) == (7, "verify|r0|")
    (tmp_path / "drbdadm").write_text("#!/bin/sh\nexit 0\n")
    wrapper = ["sh", str(tmp_path / "script")]
    assert subprocess.run([*wrapper, "disconnect", "r0"], check=False).returncode == 0
    assert lower.read_bytes() == bytes(200 * 512)
    assert subprocess.run([*wrapper, "--", "--start=0", "verify", "r0/0"], check=False).returncode == 0
    poll(lambda: any(lower.read_bytes()) or None, Deadline.after(60, "the change"), every=0.1)
    at = programs.BLIND_SECTOR * 512
    changed = lower.read_bytes()
    assert changed[:at] == bytes(at) and changed[at + 512 :] == bytes(len(changed) - at - 512)


def test_blind_verify_is_covered_and_its_sector_planted(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.BLIND_VERIFY)
    found = stage.play()
    assert found.planted == (PlantedChange(programs.BLIND_SECTOR, 1, A),)
    assert len(ran(stage, "mount --bind", A)) == len(ran(stage, "umount -l", A)) == 1


def test_idle_storm_gets_one_mebibyte(tmp_path: Path) -> None:
    idle = covered(tmp_path, programs.IDLE_STORM, "swapstorm", "--mebibytes", "512", "--threads", "8", "--seconds", "4")
    assert idle.stdout == "--mebibytes|1|--threads|8|--seconds|4|"


# --------------------------------------------------------------------------- a stopped machine


def test_stopped_node_stops_in_the_middle_of_the_work(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.STOPPED_NODE)
    stage.workload.ends = threading.Event()
    stage.lab.story.when[f"stop {B}"] = stage.workload.ends.set
    found = stage.play()
    assert in_order(stage.steps, "work 1", f"stop {B}", "verify") or found.failure
    assert f"stop {B}" in stage.steps and found.event_log[0] == "sabotage: the machine of nodeb was stopped"
    assert found.failure is not None, "a node that does not answer is no answer"


def test_stopped_node_work_that_is_over_before_is_a_failure(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.STOPPED_NODE)
    found = stage.play()
    assert found.failure and "over before the sabotage 'stopped-node'" in found.failure.message
    assert f"stop {B}" not in stage.steps


def test_lost_node_of_a_sabotaged_cell_is_its_answer_and_is_not_played_again() -> None:
    failed = replace(evidence(CELL), failure=Failure("lost-node", "detach", "nodeb does not answer"))
    verdict = Verdict(VerdictKind.INCONCLUSIVE, "nodeb does not answer")
    assert _lost(CELL, Result(CELL, verdict, failed))
    asked = cell(Sabotage.STOPPED_NODE)
    assert not _lost(asked, Result(asked, verdict, replace(failed, cell=asked)))


@pytest.mark.parametrize(
    ("sabotage", "step", "says"),
    [
        (Sabotage.STOPPED_GUEST, "kill -STOP", "the guest's QEMU on nodea was stopped"),
        (Sabotage.STOPPED_LIBVIRTD, "systemctl stop", "libvirtd on nodea was stopped"),
        (Sabotage.LOST_EVENTS, "kill -9", "whoever reads DRBD's events on nodea was killed"),
        (Sabotage.LOST_KERNEL_MESSAGES, "/dev/kmsg", "the kernel of nodea printed more than it keeps"),
    ],
)
def test_loss_is_in_the_middle_of_the_work_and_nothing_undoes_it(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, step: str, says: str
) -> None:
    stage = staged(sabotage)
    stage.workload.ends = threading.Event()
    node = stage.lab.a
    done: list[bool] = []

    answer, ends = node.runner._answer, stage.workload.ends

    def answered(argv: tuple[str, ...]) -> Any:
        if step in " ".join(argv):
            done.append(ends.is_set())
            ends.set()
        return answer(argv)

    node.runner._answer = answered
    found = stage.play()
    assert done == [False] and stage.run.unreverted is None
    assert any(event.startswith(f"sabotage: {says}") for event in found.event_log)


def test_killed_libvirt_is_the_labs_business(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.KILLED_LIBVIRTD)
    stage.workload.ends = threading.Event()
    stage.lab.story.when["kill libvirt"] = stage.workload.ends.set
    found = stage.play()
    assert found.failure is None and found.event_log == ("sabotage: the controller's libvirt was killed",)
    assert in_order(stage.steps, "work 1", "kill libvirt", "quiesce", "verify")


@pytest.mark.parametrize("sabotage", [Sabotage.SWAP_LEFT_ON, Sabotage.MOUNT_LEFT])
def test_left_in_the_guest_is_detached_without_quiesce(staged: Callable[[Sabotage], Stage], sabotage: Sabotage) -> None:
    stage = staged(sabotage)
    found = stage.play()
    assert "quiesce" not in stage.steps and in_order(stage.steps, "work 1", "detach", "verify")
    assert found.failure is None and "in the guest whose disk is detached" in found.event_log[0]


def test_full_disk_is_filled_before_the_guest_is_taken_and_emptied_at_the_end(
    staged: Callable[[Sabotage], Stage],
) -> None:
    stage = staged(Sabotage.FULL_DISK)
    when: list[int] = []
    stage.lab.story.when["observe"] = lambda: when.append(len(ran(stage, "fallocate", A)))
    stage.play()
    assert when == [1] and ran(stage, "fallocate", A)[0] < ran(stage, f"rm -rf {DIRECTORY}", A)[-1]


def script(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-ec", text, "sh", *arguments], capture_output=True, text=True, check=False)


def test_kill_ends_whoever_was_started_like_that_and_nobody_else(tmp_path: Path) -> None:
    program = tmp_path / "reader"
    program.write_text("#!/bin/sh\nread -r never\n")
    program.chmod(0o755)
    argv = [str(program), "events"]
    with (
        subprocess.Popen([*argv, "r0"], stdin=subprocess.PIPE) as reader,
        subprocess.Popen([str(program), "status"], stdin=subprocess.PIPE) as other,
    ):
        asked = f"/bin/sh {' '.join(argv)}"
        poll(lambda: str(program) in Path(f"/proc/{reader.pid}/cmdline").read_text() or None,
             Deadline.after(60, "its arguments"), every=0.01)  # fmt: skip
        assert script(losses._KILL, asked).returncode == 0
        assert reader.wait(60) == -9 and other.poll() is None
        nobody = script(losses._KILL, asked)
        assert nobody.returncode == 1 and nobody.stderr.endswith(f"nobody runs {asked}\n")
        other.kill()


def test_damage_of_a_filesystem_is_seen_by_mount_or_by_fsck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ordinary user's search path has no sbin.
    monkeypatch.setenv("PATH", paths.programs())
    image = tmp_path / "ext4"

    def made() -> None:
        with image.open("wb") as file:
            file.truncate(64 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", str(image)], check=True)

    def checked() -> int:
        return subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, check=False).returncode

    made()
    assert checked() == 0
    directory = script(after_crash._DIRECTORY_BLOCK, str(image))
    assert directory.stdout.endswith(", of the directory lost+found,\n") and checked() & 4, "errors are left"
    magic = subprocess.run(["dumpe2fs", "-h", str(image)], capture_output=True, check=False)
    assert magic.returncode == 0, "it is still an ext4 that can be mounted"
    made()
    assert script(after_crash._SUPERBLOCK, str(image)).stdout == "the superblock\n" and checked() != 0
    assert subprocess.run(["dumpe2fs", "-h", str(image)], capture_output=True, check=False).returncode != 0


@contextmanager
def process(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the arguments by which libvirt's QEMUs are known."""
    argv = [sys.executable, "-c", "import time; time.sleep(600)", "-name", f"guest={name},debug-threads=on"]
    with subprocess.Popen(argv) as found:
        try:
            # The kernel shows the arguments a moment after the program was started.
            known = Path(f"/proc/{found.pid}/cmdline")
            poll(lambda: name in known.read_text() or None, Deadline.after(60, "its arguments"), every=0.01)
            yield found
        finally:
            found.kill()


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def nobody() -> LibvirtConnection:
    """libvirt is not told."""
    raise AssertionError("asked libvirt")


def test_power_stop_is_of_that_domain_only_until_it_goes_on(tmp_path: Path) -> None:
    power = Power(nobody, tmp_path, autodestroy=True)
    name = f"drbd-harness-test-{os.getpid()}"
    with process(f"{name}-ab") as other, process(f"{name}-a") as one:
        power.stop(f"{name}-a")
        deadline = Deadline.after(60, "the process to stop or go on")
        poll(lambda: stopped(one.pid) or None, deadline, every=0.01)
        assert not stopped(other.pid)
        power.go_on()
        poll(lambda: not stopped(one.pid) or None, deadline, every=0.01)
        power.stop(f"{name}-a")
        one.kill()
        one.wait()
        power.go_on()


class Domains:
    """A connection that knows the names of some domains."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def listAllDomains(self) -> list[SimpleNamespace]:  # noqa: N802 - libvirt's name
        return [SimpleNamespace(name=lambda name=name: name) for name in self._names]


@pytest.mark.parametrize(
    ("ours", "others", "killed"), [(True, (), True), (True, ("somebody's",), False), (False, (), False)]
)
def test_power_kills_libvirt_only_where_it_is_ours_alone(
    tmp_path: Path, ours: bool, others: tuple[str, ...], killed: bool
) -> None:
    with process("daemon") as daemon:
        started = Started(MAIN_DAEMONS[0], daemon, tmp_path / "log", ("libvirtd",), 0.0)
        libvirt = Libvirt("test:///default", [started] if ours else [])
        power = Power(lambda: Domains("one-a", "one-b", *others), tmp_path, autodestroy=True, daemon=libvirt)
        assert power.kill_libvirt({"one-a", "one-b"}) is killed
        assert (daemon.poll() == -9) is killed


def test_power_stop_of_no_domain_is_infrastructure_error(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="there is no QEMU of drbd-harness-nowhere"):
        Power(nobody, tmp_path, autodestroy=True).stop("drbd-harness-nowhere")


# --------------------------------------------------------------------------- the right owner


def planted(owner: BlockOwner = BlockOwner.ALLOCATED, detail: str = "/modified", block: int = 30) -> PlantedChange:
    return PlantedChange(block * 8 + 3, 1, B, PlantedKind.BYTE, 17, owner, detail)


def diverged(sample: Sample | None, compared: set[int], **changed: Any) -> Evidence:
    facts: dict[str, Any] = {**oracles(compared, compared), "planted": (planted(),), **changed}
    return evidence(CELL, samples=() if sample is None else (sample,), **facts)


RIGHT = Sample(30, 17, 1, "00", "ff", BlockOwner.ALLOCATED, "/modified")


def test_planted_owner_that_was_found_is_diverged() -> None:
    found = diverged(RIGHT, {30})
    assert misattributed(found) is None and judge(found, HELD).kind is VerdictKind.DIVERGED


@pytest.mark.parametrize("owner", [one for one in BlockOwner if one is not BlockOwner.ALLOCATED])
def test_planted_owner_any_other_is_inconclusive_with_what_was_found_beside_it(owner: BlockOwner) -> None:
    verdict = judge(diverged(replace(RIGHT, owner=owner, detail="elsewhere"), {30}), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and f"was taken for {owner} (elsewhere)" in verdict.sentence
    assert verdict.reasons[0].startswith("diverged: 1 blocks differ")


@pytest.mark.parametrize(
    ("sample", "compared", "says"),
    [
        (replace(RIGHT, detail="/other"), {30}, "is of /modified and was taken for /other"),
        (None, {30}, "nobody looked for the owner of block 30"),
        (None, set(), "block 30, which was changed on nodeb below DRBD, was not found"),
        (replace(RIGHT, block=31), {31}, "block 30, which was changed on nodeb below DRBD, was not found"),
    ],
)
def test_planted_owner_missed_is_inconclusive(sample: Sample | None, compared: set[int], says: str) -> None:
    verdict = judge(diverged(sample, compared), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and says in verdict.sentence


def test_planted_owner_unknown_beforehand_is_not_judged() -> None:
    change = replace(planted(), owner=None, owner_detail="")
    assert misattributed(diverged(None, set(), planted=(change,))) is None


def test_samples_of_planted_blocks_come_before_the_limit(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.SILENT_VERIFY)
    stage.workload.leaves = {*range(100, 140), BLOCKS // 4}
    found = stage.play()
    blocks = [one.block for one in found.samples]
    assert BLOCKS // 4 in blocks and blocks == sorted(blocks) and len(blocks) == 16
    assert Extent(BLOCKS // 4 * 8, 8) in found.comparison.differing if found.comparison else False


@pytest.mark.parametrize(
    ("sabotage", "breaks", "where", "undone"),
    [
        (Sabotage.DELAY_LEFT_B, "netem delay", B, "tc qdisc del"),
        (Sabotage.SILENT_VERIFY, "mount --bind", A, "umount -l"),
        (Sabotage.SCATTER_GATHER_OFF_A, "sg off", A, "sg on"),
    ],
)
def test_sabotage_that_fails_half_way_is_undone(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, breaks: str, where: str, undone: str
) -> None:
    stage = staged(sabotage)
    node = stage.lab.a if where == A else stage.lab.b
    node.answers = {breaks: (1, "", "it broke")}
    found = stage.play()
    assert found.failure and "it broke" in found.failure.message
    assert ran(stage, undone, where) and stage.run.unreverted is None

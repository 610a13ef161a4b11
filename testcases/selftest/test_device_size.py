"""The device's size follows the cell: made anew on a part of the lower device, its controls, the order of the cells."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from fake_drbd import FakeResource
from judged_evidence import evidence
from recorded_nodes import adopted
from recorded_resource import creatable, tools
from session_stage import CONTROLS, SWAP, Stage, stage
from test_control_rounds import CELLS, Clock

from harness.drbd import size
from harness.drbd.size import resize, size_mib
from harness.engine import device_size, lab_keeper, session
from harness.engine.cell_steps import CellRun
from harness.engine.control_rounds import ControlRounds
from harness.engine.device_size import device_mib
from harness.errors import DeadlineError, HarnessError, InfrastructureError
from harness.filesystems.base import Filesystem
from harness.guest.domain import Guest
from harness.lab.node import Node
from harness.model import Cell, ClientKind, Control, Evidence, FilesystemKind
from harness.remote.local import LocalRunner
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import ResourceSpec
from harness.report.control_rounds import control_rounds

__all__ = ["stage", "tools"]

GENERATIONS = ["8.4", "9"]
CELL = Cell(workload="no-writes", client=ClientKind.HOST)


class Roomy(Filesystem):
    """A filesystem that needs more than others."""

    kind = FilesystemKind.RAW
    needs_mib = 300


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A cell whose filesystem needs 300 MiB."""
    monkeypatch.setattr(device_size, "FILESYSTEMS", {FilesystemKind.RAW: Roomy(), FilesystemKind.SWAP: Filesystem()})
    return CELL


# --------------------------------------------------------------------------- how large


def test_device_mib_of_a_modest_filesystem_is_the_least(roomy: Cell) -> None:
    modest = replace(roomy, filesystem=FilesystemKind.SWAP)
    assert [device_mib(modest, least, 1536) for least in (128, 96, 16)] == [128, 96, 16]


def test_device_mib_of_a_demanding_filesystem_is_one_of_few_sizes(roomy: Cell) -> None:
    assert device_mib(roomy, 128, 1536) == 320
    assert device_mib(roomy, 300, 1536) == 320, "DRBD's metadata has to find room too"
    assert device_mib(roomy, 400, 1536) == 400, "what the user asked for is enough"
    canary = replace(roomy, client=ClientKind.GUEST, migrations=2)
    assert canary.has_canary and device_mib(canary, 128, 1536) == 320
    assert device_mib(canary, 128, 256 * 20) == 384, "what the canary has is not the filesystem's"


# --------------------------------------------------------------------------- resize


@pytest.mark.parametrize("generation", GENERATIONS)
def test_resize_of_alike_devices_makes_the_resource_anew_without_a_sync(generation: str) -> None:
    resource, on_a, on_b = creatable(generation, ResourceSpec(size_mib=128))
    asked: list[int] = []
    assert resize(resource, 320, lambda blocks: not asked.append(blocks))
    assert asked == [320 * 256], "all that DRBD will have, its metadata too"
    assert on_a.ran[0][4:] == on_b.ran[0][4:] == ("r0", "/dev/vdb", "320", "0+1", "127+1", "319+1")
    assert on_a.drbd()[0] == "drbdadm create-md --force r0" and "new-current-uuid" in on_a.drbd()[2]
    assert size_mib(resource) == 320


@pytest.mark.parametrize("generation", GENERATIONS)
def test_resize_of_devices_that_differ_copies_all(generation: str) -> None:
    resource, on_a, _ = creatable(generation, ResourceSpec(size_mib=320))
    assert not resize(resource, 128, lambda blocks: False)
    assert on_a.drbd()[-1] == "drbdadm primary --force r0"


def test_resize_without_a_mapping_changes_nothing() -> None:
    resource, on_a, on_b = adopted("8.4")
    resource.spec = replace(resource.spec, mapping="")
    with pytest.raises(InfrastructureError, match="r0 has 128 MiB and cannot be made 320 MiB large: its lower device"):
        resize(resource, 320, lambda blocks: True)
    assert on_a.ran == on_b.ran == []


def test_resize_of_foreign_files_changes_nothing() -> None:
    resource, on_a, on_b = adopted("8.4")
    resource.owns_files = False
    with pytest.raises(InfrastructureError, match="was not written by the harness"):
        resize(resource, 320, lambda blocks: True)
    assert on_a.ran == on_b.ran == []


def test_resize_of_an_adopted_resource_begins_with_what_its_table_shows() -> None:
    resource, on_a, _ = adopted("9", ResourceSpec(size_mib=999))
    assert size_mib(resource) == 128
    on_a.answers = {}
    with pytest.raises(InfrastructureError):
        resize(resource, 320, lambda blocks: True)
    assert on_a.ran[0][-3:] == ("0+1", "127+1", "319+1")


def test_clear_script_makes_both_sides_of_old_and_new_metadata_alike(tools: Path) -> None:
    mebibyte = 1 << 20
    (tools / "vdb").write_bytes(b"x" * 8 * mebibyte)
    (tools / "bin" / "drbdsetup").write_text("#!/bin/sh\n")
    # A file on a filesystem without O_DIRECT does as well here.
    (tools / "bin" / "dd").write_text('#!/bin/sh\nfor one; do shift; case $one in oflag=*) ;; *) set -- "$@" "$one";; '
                                      'esac; done\nexec /bin/dd "$@"\n')  # fmt: skip
    (tools / "bin" / "dd").chmod(0o755)
    subprocess.run(["sh", "-c", size._CLEAR, "sh", "r0", str(tools / "vdb"), "1", "0+1", "3+1", "7+1"], check=True)
    held = (tools / "vdb").read_bytes()
    assert [not any(held[at * mebibyte : (at + 1) * mebibyte]) for at in range(8)] == [
        True, False, False, True, False, False, False, True,
    ]  # fmt: skip


def test_clear_script_of_a_resource_that_stays_up_clears_nothing(tools: Path) -> None:
    (tools / "vdb").write_bytes(b"x" * (1 << 20))
    (tools / "bin" / "drbdsetup").write_text("#!/bin/sh\necho 'Device is held open by someone' >&2\nexit 11\n")
    node = Node("nodea", cast(SshRunner, LocalRunner()), "repl0", "x", str(tools / "vdb"), "test:///default")
    with pytest.raises(Exception, match="status 11: Device is held open by someone"):
        node.runner.run(["sh", "-c", size._CLEAR, "sh", "r0", node.lower, "1", "0+1"])
    assert (tools / "vdb").read_bytes() == b"x" * (1 << 20)


def test_clear_script_of_a_lower_device_that_is_too_small_takes_nothing_down(tools: Path) -> None:
    (tools / "vdb").write_bytes(b"x" * (1 << 20))
    done = subprocess.run(
        ["sh", "-c", size._CLEAR, "sh", "r0", str(tools / "vdb"), "2", "0+1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "vdb has 1 MiB, fewer than the 2 MiB that are asked of it" in done.stderr
    assert "drbdsetup" not in (tools / "calls").read_text() and (tools / "vdb").read_bytes() == b"x" * (1 << 20)


# --------------------------------------------------------------------------- controls


def _due(rounds: ControlRounds, blocks: int) -> list[Control | None]:
    found: list[Control | None] = []
    while (due := rounds.due(CELLS, blocks)) is not None:
        rounds.played(replace(evidence(due), device_blocks=blocks))
        found.append(due.control)
    return found


def test_rounds_plant_changes_on_a_device_of_a_size_that_there_never_was() -> None:
    rounds = ControlRounds(Clock())
    everything = [cell.control for cell in CELLS]
    assert _due(rounds, 32768) == everything and _due(rounds, 32768) == []
    rounds.played(evidence(CELL))
    assert _due(rounds, 81920) == [Control.PLANTED] and rounds.occasion == "on a device of another size"
    assert _due(rounds, 81920) == _due(rounds, 32768) == []
    rounds.forget()
    assert _due(rounds, 81920) == everything and _due(rounds, 81920) == [], "all of them were played on that size"


def test_report_names_the_round_on_a_device_of_another_size() -> None:
    planted = next(cell for cell in CELLS if cell.control is Control.PLANTED)
    attempts = [
        replace(evidence(cell), device_blocks=blocks, started_at=f"2026-11-29T01:{minute:02}:00+00:00")
        for minute, (cell, blocks) in enumerate(
            [*((cell, 32768) for cell in CELLS), (CELL, 32768), (planted, 81920), (CELL, 81920), (planted, 81920),
             (CELL, 81920), (planted, 32768)]
        )
    ]  # fmt: skip
    rounds = control_rounds(attempts)
    assert [one.occasion for one in rounds] == ["opening", "on a device of another size", "in between", "closing"]


# --------------------------------------------------------------------------- a session


@dataclass
class Sized:
    """What a session asks of the device: sizes in MiB, and how often anything was copied."""

    sizes: list[int] = field(default_factory=list)
    error: HarnessError | None = None

    def resize(self, resource: FakeResource, mebibytes: int, equal: Callable[[int], bool], bits: str) -> bool:
        """In the place of :func:`harness.drbd.size.resize`."""
        if self.error is not None:
            raise self.error
        assert equal(mebibytes * 256)
        self.sizes.append(mebibytes)
        resource.spec = replace(resource.spec, size_mib=mebibytes, bitmap_block_size=bits)
        resource.blocks = mebibytes * 256
        return True


@pytest.fixture
def sized(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Sized:
    made = Sized()
    monkeypatch.setattr(lab_keeper, "resize", made.resize)
    roomy = {FilesystemKind.RAW: Filesystem(), FilesystemKind.SWAP: Roomy()}
    monkeypatch.setattr(device_size, "FILESYSTEMS", roomy)

    def play(run: CellRun, workload: object, guest: Callable[[], Guest]) -> Evidence:
        found, blocks = stage.play(run, workload, guest), run.context.resource.blocks
        assert found.comparison is not None
        return replace(found, device_blocks=blocks, comparison=replace(found.comparison, blocks=blocks))

    monkeypatch.setattr(session, "play", play)
    return made


def test_session_sizes_the_device_before_the_controls_of_a_cell(stage: Stage, sized: Sized) -> None:
    with stage.session as running:
        running.play(CELL)
        assert sized.sizes == []
        running.play(SWAP)
        running.play(CELL)
        running.play(SWAP)
    assert sized.sizes == [320, 128, 320]
    again = [CELL.id, "host-planted", SWAP.id, CELL.id, SWAP.id]
    assert stage.played == [*CONTROLS, *again, *CONTROLS], "the closing controls take the device as it is"


def test_session_whose_device_cannot_be_sized_has_another_lab(stage: Stage, sized: Sized) -> None:
    sized.error = DeadlineError("the first connection of the resource did not happen within 60 s")
    stage.before_lab = lambda: setattr(sized, "error", sized.error if not stage.labs else None)
    with stage.session as running:
        running.play(SWAP)
    assert len(stage.labs) == 2 and sized.sizes == [320]
    assert stage.played == [*CONTROLS, SWAP.id, *CONTROLS]


def test_session_ends_a_guest_that_may_hold_the_device_before_it_is_sized(stage: Stage, sized: Sized) -> None:
    with stage.session as running:
        running.play(SWAP)
        stage.guests[0].agent.answers["/proc/swaps"] = "left on: swap on /dev/vdb\n"
        stage.labs[0].story.when["compare"] = lambda: stage.labs[0].story(f"guest ended: {stage.guests[0].ended}")
        running.play(CELL)
    steps = stage.labs[0].story.steps
    assert sized.sizes == [320, 128] and steps[-steps[::-1].index("compare") :][0] == "guest ended: True"

"""Sabotages of the instrument: which can be asked, with what, and what the shipped matrices expect of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sabotaged_stage import cell

from harness.config.matrix import load
from harness.engine.disturbances.choose import disturbance_of
from harness.engine.disturbances.sabotage.after_crash import DamagedAfterCrash
from harness.engine.disturbances.sabotage.disturbance import SabotageDisturbance
from harness.engine.disturbances.sabotage.owner_control import OwnerControl
from harness.errors import UsageError
from harness.model import Cell, Expectation, FilesystemKind, Layout, Sabotage, Verdict, VerdictKind
from harness.workloads import WORKLOADS

SHIPPED = Path(__file__).parents[1] / "matrices"


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

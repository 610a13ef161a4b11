"""Two machines whose disks may be one, a volume group that is not sound, the plan of what is made and taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
from recorded_disks import heard, sysfs

from harness.config.inventory import StorageEntry
from harness.config.machine_tools import needed
from harness.errors import ProtectedError
from harness.lab.hardware.guard import MAKING, REMOVING, Step, shared
from harness.lab.hardware.storage import make, plan


def test_disk_that_both_machines_have_is_refused_before_anything_is_written() -> None:
    a, b = heard("free-before-label"), heard("free-before-label")
    with pytest.raises(
        ProtectedError, match="both machines' disks have the WWN 5000c50000000001: they may be one disk"
    ):
        make([a, b])
    assert len(a.commands) == len(b.commands) == 1
    other = heard("free-before-label", sysfs(wwid="naa.5000c50000000002", vpd_serial="OTHER"))
    assert shared((a, a.look()), (other, other.look())) is None
    same_serial = heard("free-before-label", sysfs(wwid="naa.5000c50000000002"))
    assert shared((a, a.look()), (same_serial, same_serial.look())) is None
    nameless = sysfs(wwid="")
    one, two = heard("free-before-label", nameless), heard("free-before-label", nameless)
    assert "may be one disk" in str(shared((one, one.look()), (two, two.look())))


def test_volume_group_that_both_machines_have_is_refused_unless_its_disks_are_others() -> None:
    def disks(wwid: str) -> Callable[[dict[str, Any]], None]:
        def change(look: dict[str, Any]) -> None:
            for one in look["sysfs"].values():
                if one["name"].startswith("sd"):
                    one.update(wwid=wwid)

        return change

    a, b = heard("free-before-make-volume"), heard("free-before-make-volume")
    with pytest.raises(ProtectedError, match="the group theirs has the same UUID on both machines"):
        make([a, b])
    copied = heard("free-before-make-volume", disks("naa.5000c500000000ff"))
    assert shared((a, a.look()), (copied, copied.look())) is None

    def without_names(look: dict[str, Any]) -> None:
        for one in look["sysfs"].values():
            one.update(wwid="", serial="", vpd_serial="")

    nameless = heard("free-before-make-volume", without_names)
    assert shared((a, a.look()), (nameless, nameless.look())) is not None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("wz--n-", "rz--n-", "is read-only"), ("wz--n-", "wzx-n-", "is exported"), ("wz--n-", "wz-pn-", "is partial"),
        ("wz--n-", "wz--nc", "is clustered"), ("wz--n-", "wz--ns", "is shared"),
        ("wz--n-", "w---n-", "cannot be resized"),
        ('"vg_missing_pv_count":"0"', '"vg_missing_pv_count":"1"', "a physical volume of theirs is missing"),
    ],
)  # fmt: skip
def test_volume_group_that_is_not_sound_is_refused(old: str, new: str, reason: str) -> None:
    def change(look: dict[str, Any]) -> None:
        vgs = look["commands"]["vgs"]
        assert old in vgs["out"]
        vgs["out"] = vgs["out"].replace(old, new)

    assert reason in heard("free-before-make-volume", change).against(Step.MAKE_VOLUME)[0]


def test_plan_says_each_step_in_words_and_judges_the_first() -> None:
    one = heard("free-before-label")
    words = [planned.words for planned in plan(one, one.look())]
    assert words[0] == "writes the harness's label to the first MiB of /dev/disk/by-id/wwn-0x5000c50000000001"
    assert len(words) == 3 and not plan(one, one.look(), making=False)
    volume = heard("free-before-make-volume")
    assert [planned.step for planned in plan(volume, volume.look())] == [Step.MAKE_VOLUME, Step.ZERO]


def test_every_kind_of_storage_takes_back_what_it_makes() -> None:
    assert set(MAKING) == set(REMOVING) == set(get_args(StorageEntry.model_fields["kind"].annotation))
    assert all(set(needed("disk")) <= set(needed(kind)) for kind in MAKING)
    used = {step for steps in (*MAKING.values(), *REMOVING.values()) for step in steps}
    # Metadata go with the device that they are on.
    assert used | {Step.METADATA} == set(Step)

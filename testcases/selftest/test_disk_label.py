"""Whose a disk, a mapping, a volume or a file is: the label and the tags, of another lab or of somebody else's."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from recorded_disks import RECORDED, Heard, disk, heard, of_a_disk

from harness.judgement.volume_guard import (
    directory_refusals,
    is_own,
    lab_tag,
    making_refusals,
    owner_tag,
    place_refusals,
    removing_refusals,
)
from harness.lab.hardware.guard import Step
from harness.model.disks import MIB, DirectoryLook, LogicalVolume
from harness.render.disk_label import DiskLabel, disk_label, read_label


@pytest.mark.parametrize(
    ("storage", "lab", "reason"),
    [
        ({}, "other", "it has the label of another lab, 'test'"),
        ({"size_bytes": 2**26 + 1}, "test", "its label was written for another disk (TARGET1, 67108864 bytes)"),
        ({"serial": "CLONE"}, "test", "its label was written for another disk (TARGET1, 67108864 bytes)"),
        ({"size_bytes": 7 * MIB}, "test", "it is too small for a label and a replica"),
    ],
)
def test_label_of_another_lab_or_disk_is_refused(storage: dict[str, Any], lab: str, reason: str) -> None:
    recorded = copy.deepcopy(RECORDED["free-before-map"])
    recorded["storage"].update(storage)
    recorded["lab"] = lab
    assert reason in Heard(recorded).against(Step.MAP)


def test_label_of_somebody_else_s_lab_of_the_same_name_is_refused() -> None:
    label = DiskLabel("test", "ab", 64 * MIB, "TARGET1", "0x5000c50000000001", "bob@shelf")
    data = disk_label(label)
    change = disk(label=data[:4096].rstrip(b"\0").decode(), label_sha256=hashlib.sha256(data).hexdigest())
    one = heard("free-before-map", change)
    one.owner = "alice@desk"
    for step in (Step.MAP, Step.UNLABEL):
        assert one.against(step) == (
            "it has the label of a lab of bob@shelf's that has the same name 'test'; this one is alice@desk's",
        )  # fmt: skip
    one.owner = "bob@shelf"
    assert one.against(Step.MAP) == ()


def test_volume_of_somebody_else_s_lab_of_the_same_name_is_refused() -> None:
    tags = ("drbd-harness", lab_tag("test"))
    volume = LogicalVolume("theirs", "x", "u", "-wi-a-----", MIB, (*tags, owner_tag("bob@shelf")))
    assert is_own(volume, "test", "bob@shelf") and not is_own(volume, "test", "bob@desk")
    assert is_own(replace(volume, tags=tags), "test", "alice") and not is_own(volume, "tes", "bob@shelf")
    look = heard("free-before-make-volume").look()
    for refusals in (making_refusals(replace(look, volumes=(volume,)), "theirs", "x", MIB, "test", "alice"),
                     removing_refusals(replace(look, volumes=(volume,)), "theirs", "x", "test", "alice")):  # fmt: skip
        assert refusals == (
            "the volume theirs/x is of a lab of somebody else's that has the same name 'test'; this one is alice's",
        )  # fmt: skip


def test_file_is_only_touched_where_nobody_else_can_exchange_it() -> None:
    look = DirectoryLook(
        "/srv/a", real="/srv/a", owner=0, mode=0o755, is_directory=True, kind="ext2/ext3", free=2**40,
        above=(("/srv", 0, 0o755), ("/", 0, 0o755)),
    )  # fmt: skip
    assert directory_refusals(look, "x", MIB) == place_refusals(look) == ()
    for above in ((("/srv", 1000, 0o755), ("/", 0, 0o755)), (("/srv", 0, 0o775), ("/", 0, 0o755))):
        found = ("others than root can write to /srv, and so exchange what is below it",)
        assert directory_refusals(replace(look, above=above), "x", MIB) == found
    assert place_refusals(replace(look, above=())) == ("who can write to the directories above it is not known",)
    assert place_refusals(replace(look, mode=0o777)) == ("others than root can write to it",)
    assert place_refusals(replace(look, real="/srv/b")) == (
        "it is no plain directory: a symbolic link is on the way",
    )  # fmt: skip


def test_disk_without_its_label_is_not_mapped_and_one_without_names_is_not_labelled() -> None:
    blank = disk(head="zero", label="")
    assert "the harness's label is not on it any more" in heard("free-before-map", blank).against(Step.MAP)
    one = heard("free-before-label")
    one.storage = one.storage.model_copy(update={"serial": None, "wwn": None})
    assert "the inventory names neither its serial number nor its WWN" in one.against(Step.LABEL)


def test_mapping_of_the_same_name_above_something_else_is_refused() -> None:
    taken = {"name": "dm-9", "dm_name": "drbd-harness-test", "dm_uuid": "theirs"}
    one = heard("free-before-map", lambda look: look["sysfs"].update({"252:9": {**of_a_disk(look), **taken}}))
    assert "there is a mapping drbd-harness-test already, of something else" in one.against(Step.MAP)


def test_label_is_whole_only_with_all_of_its_mib() -> None:
    label = DiskLabel("lab", "ab12", 2**30, "S1", "0x5000c50000000001")
    data = disk_label(label)
    assert (
        len(data) == MIB and read_label(data[:4096].rstrip(b"\0").decode(), hashlib.sha256(data).hexdigest()) == label
    )
    for wrong in (data[:-1] + b"x", data.replace(b"ab12", b"ab13", 1)):
        header = data[:4096].rstrip(b"\0").decode()
        with pytest.raises(ValueError, match="the first MiB holds something else beside it"):
            read_label(header, hashlib.sha256(wrong).hexdigest())
    with pytest.raises(ValueError, match="cannot be read"):
        read_label(data[:200].decode(), "")

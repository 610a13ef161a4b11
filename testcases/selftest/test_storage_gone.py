"""Storage of the harness is said to be gone only where the machine says so, and is used only where there is room."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from recorded_disks import RECORDED, Heard, disk, heard
from test_inventory_command import volume_group

from harness.config.inventory import StorageEntry
from harness.errors import ProtectedError
from harness.lab.hardware.guard import Guard, Machine, Step
from harness.lab.hardware.storage import against, make, plan, remove
from harness.model.disks import MIB
from harness.remote.scripted import ScriptedRunner

Look = dict[str, Any]
POOL = {"lv_name": "pool", "lv_attr": "twi-aotz--", "lv_size": str(1000 * MIB), "metadata_percent": "10"}


def lvs(change: Callable[[list[dict[str, str]]], object]) -> Callable[[Look], None]:
    """A change of what lvs prints."""

    def changed(look: Look) -> None:
        answer = json.loads(look["commands"]["lvs"]["out"])
        change(answer["report"][0]["lv"])
        look["commands"]["lvs"]["out"] = json.dumps(answer)

    return changed


def group(change: Callable[[Look], object], storage: StorageEntry | None = None) -> Heard:
    """A machine with a volume of the harness's in its group ``theirs``, and a change of what it says."""
    recorded = copy.deepcopy(RECORDED["free-before-make-volume"])
    recorded["look"] = volume_group(made=True)
    if storage is not None:
        recorded["storage"] = storage.model_dump()
    change(recorded["look"])
    return Heard(recorded)


def failed(name: str) -> Callable[[Look], None]:
    """The command ``name`` does not answer there."""
    return lambda look: look["commands"][name].update(status=5, out="", err="timed out")


def without_group(look: Look) -> None:
    for name, key in (("vgs", "vg"), ("lvs", "lv"), ("pvs", "pv")):
        look["commands"][name]["out"] = json.dumps({"report": [{key: []}]})


def of(**keys: str) -> Callable[[list[dict[str, str]]], None]:
    """A change of the volume of the harness's."""
    return lambda volumes: next(one for one in volumes if one["lv_name"] == "drbd-harness-test").update(keys)


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        (group(failed("lvs")), "LVM does not say which volumes there are"),
        (group(without_group), "there is no volume group theirs; there is none"),
        (
            group(lvs(of(lv_tags="drbd-harness,drbd-harness.lab=test,drbd-harness.owner=bob:shelf"))),
            "is of a lab of somebody else's that has the same name 'test'",
        ),
        (group(lvs(of(lv_tags=""))), "does not carry the tags of the harness's lab 'test'"),
        (heard("free-before-map", disk(error="No such file or directory")), "No such file or directory"),
        (heard("zfs-volume-of-another-owner"), "is of a lab of somebody else's"),
        (
            heard("zfs-volume-is-there", lambda look: look["zfs"]["pools"].update(out="")),
            "there is no ZFS pool tank; there is none",
        ),
        (heard("zfs-volume-is-there", lambda look: look["zfs"]["pools"].update(status=1, err="hm")), "does not say"),
    ],
)  # fmt: skip
def test_storage_of_which_the_machine_does_not_say_that_it_is_gone_is_kept_in_mind(guard: Heard, reason: str) -> None:
    with pytest.raises(ProtectedError) as caught:
        remove(guard)
    assert reason in str(caught.value) and "nothing was written" in str(caught.value)
    assert all("act" not in json.loads(argv[-1]) for argv in guard.commands if argv[0] == "python3")
    assert [one.refusals != () for one in plan(guard, guard.look(), making=False)] == [True]


def test_storage_that_is_gone_is_said_to_be() -> None:
    for name in ("free-before-make-volume", "free-before-label", "free-before-make-volume-zfs"):
        assert remove(heard(name)) == 0


def directory(**facts: object) -> Guard:
    """A machine with a directory and a file of the harness's in it."""
    look = copy.deepcopy(RECORDED["free-before-make-volume"]["look"])
    look["directories"] = [
        {"path": "/srv/lab", "real": "/srv/lab", "error": "", "uid": 0, "mode": 0o755, "directory": True,
         "kind": "ext2/ext3", "free": 2**33, "files": {}, "above": [["/srv", 0, 0o755], ["/", 0, 0o755]]} | facts
    ]  # fmt: skip
    runner = ScriptedRunner(lambda argv: (0, json.dumps(look), ""))
    return Guard(Machine("foreign", runner), StorageEntry(kind="loop", directory="/srv/lab"), "test", 64 * MIB)


def test_file_whose_directory_cannot_be_looked_at_is_not_gone() -> None:
    assert remove(directory()) == 0
    with pytest.raises(ProtectedError, match="it cannot be looked at: No such file or directory"):
        remove(directory(error="No such file or directory"))


# --------------------------------------------------------------------------- room


@pytest.mark.parametrize(
    ("pool", "own", "reason"),
    [
        ({"data_percent": "95"}, "0", "the thin pool theirs/pool has 50 MiB free and 164 MiB are needed"),
        ({"data_percent": "95"}, "", "the thin pool theirs/pool has 50 MiB free and 164 MiB are needed"),
        ({"data_percent": "20", "metadata_percent": "90"}, "0", "metadata of the thin pool theirs/pool is 90 % full"),
        ({"data_percent": "95"}, "100.00", ""),
        ({"data_percent": "20"}, "0", ""),
    ],
)  # fmt: skip
def test_thin_volume_that_would_fill_somebody_s_pool_is_not_used(pool: dict[str, str], own: str, reason: str) -> None:
    def change(volumes: list[dict[str, str]]) -> None:
        of(lv_attr="Vwi-a-tz--", pool_lv="pool", lv_size=str(64 * MIB), data_percent=own)(volumes)
        volumes.append(volumes[0] | POOL | pool)

    guard = group(lvs(change), StorageEntry(kind="thin", volume_group="theirs", thin_pool="pool"))
    found = against(guard, guard.look())
    assert reason in found[0] if reason else not found
    assert not plan(guard, guard.look()), "it is there"
    if reason:
        with pytest.raises(ProtectedError, match="nothing was written"):
            make([guard, guard])


def test_step_that_is_due_is_said_before_anything_is_noted_of_it() -> None:
    noted: list[Guard] = []
    refused = heard("ext4")
    with pytest.raises(ProtectedError):
        make([heard("free-before-label"), refused], noted.append)
    assert not noted
    assert refused.against(Step.LABEL)

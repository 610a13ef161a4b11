"""Volumes of ZFS: what was recorded, and changes of it; test_disk_guard.py plays what was refused on a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from recorded_disks import RECORDED, heard

from harness.errors import ProtectedError
from harness.lab.hardware.guard import Step, shared
from harness.lab.hardware.provider import rules_of
from harness.lab.hardware.storage import plan
from harness.render.drbd_conf import ResourceSpec

VOLUME = "tank/vms/drbd-harness-test"
Change = Callable[[dict[str, Any]], object]


def _own(look: dict[str, Any]) -> None:
    """The recorded volume of another owner is the harness's."""
    properties = look["zfs"]["properties"]
    assert "somebody@else" in properties["out"]
    properties["out"] = properties["out"].replace("somebody@else", "root@vm")


def _said(key: str, old: str, new: str) -> Change:
    def change(look: dict[str, Any]) -> None:
        assert old in look["zfs"][key]["out"]
        look["zfs"][key]["out"] = look["zfs"][key]["out"].replace(old, new)

    return change


def _failed(key: str, err: str) -> Change:
    return lambda look: look["zfs"].update({key: {"status": None, "out": "", "err": err}})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_said("pools", "ONLINE", "DEGRADED"), "the ZFS pool tank is DEGRADED"),
        (_said("pools", "\toff", "\ton"), "tank/vms is read-only"),
        (_failed("pools", "not installed"), "ZFS does not say which datasets there are (zpool: not installed)"),
        (_failed("properties", "did not end"), "ZFS does not say which datasets there are (zfs: did not end)"),
        (lambda look: look.pop("zfs"), "ZFS does not say which datasets there are (it was not asked)"),
    ],
)
def test_dataset_that_is_not_sound_is_refused(change: Change, reason: str) -> None:
    assert reason in heard("zfs-volume-is-there", change).against(Step.MAKE_VOLUME)


@pytest.mark.parametrize("broken", ["tank\tno number", "tank\t1\tONLINE"])
def test_answer_that_is_not_understood_is_no_fact(broken: str) -> None:
    def change(look: dict[str, Any]) -> None:
        look["zfs"]["pools"]["out"] = broken

    with pytest.raises(ProtectedError, match="the disks of foreign cannot be judged"):
        heard("zfs-volume-is-there", change).look()


def test_own_volume_is_the_lower_device_and_may_go() -> None:
    one = heard("zfs-volume-of-another-owner", _own)
    disks = one.look()
    device = one.lower_device(disks)
    assert device is not None and device.name.startswith("zd") and one.lower(disks) == f"/dev/zvol/{VOLUME}"
    assert one.against(Step.REMOVE_VOLUME) == () and one.is_done(Step.MAKE_VOLUME, disks)
    assert one.models(disks) == ("QEMU HARDDISK",)
    assert [str(step.step) for step in plan(one, disks, making=False)] == ["remove-volume"]
    with pytest.raises(Exception, match="lets nothing be written"):
        one.do(Step.REMOVE_VOLUME)
    # The GUID that was looked at goes with the command.
    guid = next(line.split("\t")[2] for line in _properties("zfs-volume-of-another-owner") if f"{VOLUME}\tguid" in line)
    assert one.commands[-1][-2:] == (VOLUME, guid)


def test_volume_whose_device_the_kernel_calls_otherwise_is_no_lower_device() -> None:
    def change(look: dict[str, Any]) -> None:
        _own(look)
        look["zfs"]["number"] = ""

    one = heard("zfs-volume-of-another-owner", change)
    assert one.lower_device(one.look()) is None and one.own_volume(one.look())


def test_properties_that_a_parent_has_make_no_volume_the_harness_s() -> None:
    inherited = [line for line in _properties("zfs-volume-with-inherited-properties") if "inherited from" in line]
    assert any(line.startswith(f"{VOLUME}\tdrbd-harness:lab\ttest\t") for line in inherited)
    one = heard("zfs-volume-with-inherited-properties")
    assert not one.own_volume(one.look())


def test_making_says_what_is_written_on_it_and_how_large_it_is() -> None:
    one = heard("zfs-tank-vms-32", _said("properties", "readonly\ton", "readonly\toff"))
    assert one.against(Step.MAKE_VOLUME) == ()
    (planned,) = plan(one, one.look())
    assert planned.words == (
        f"makes the volume {VOLUME} of 32 MiB of free room, with the properties drbd-harness:lab and drbd-harness:owner"
    )
    with pytest.raises(Exception, match="lets nothing be written"):
        one.do(Step.MAKE_VOLUME)
    assert one.commands[-1] == (
        "zfs", "create", "-o", "drbd-harness:lab=test", "-o", "drbd-harness:owner=root@vm", "-o", "volmode=dev",
        "-o", "com.sun:auto-snapshot=false", "-V", str(32 << 20), VOLUME,
    )  # fmt: skip


def test_pool_that_two_machines_have_is_refused_unless_its_guid_is_another() -> None:
    name = "zfs-tank-vms-32"
    a, b = heard(name), heard(name)
    assert "the pool tank has the same GUID on both machines" in str(shared((a, a.look()), (b, b.look())))
    guid = next(iter(a.look().zfs.pools)).guid  # type: ignore[union-attr]
    other = heard(name, _said("pools", guid, "7"))
    assert shared((a, a.look()), (other, other.look())) is None


def test_udev_hides_what_a_volume_holds() -> None:
    one = heard("zfs-volume-of-another-owner", _own)
    rules = rules_of(one, ResourceSpec(name="r", minor=100, port=7900, mapping="r-lower", size_mib=64))
    assert f'KERNEL=="zd*", PROGRAM=="zvol_id $devnode", RESULT=="{VOLUME}", GOTO="drbd_harness"' in rules


def _properties(name: str) -> list[str]:
    text: str = RECORDED[name]["look"]["zfs"]["properties"]["out"]
    return text.splitlines()
